"""The folder of a run: what it is, where it was made, what came of every step.

    config.json         the whole TrainSpec of the newest start             environment.jsonl   a row per start: versions, machine, numerics
    corpus.json         digests, layout and feature spec of the corpora     metrics.jsonl       a row per step
    checkpoints/        see checkpoint.py                                   tensorboard/        the same curves

All ranks may look; only rank 0 writes.
"""

import json
import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ... import __version__, kernels
from ...schemas.errors import InputError, MicroturnError
from ..data import Mixture, OpenCorpus
from . import files, ranks
from .spec import TrainSpec

PACKAGES = ("torch", "numpy", "scipy", "safetensors", "triton")


class RunFolder:
    """See the module."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def corpus(self) -> Path:
        return self.path / "corpus.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def started_with(self) -> dict[str, Any] | None:
        """The config of the newest start; None in a folder that no run was started in. Raises InputError where something else lies."""
        if self.config.exists():
            return files.read_json(self.config)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise InputError(f"{self.path}: holds something, but no config.json of a run", hint="name a new folder for the run")
        return None

    def open_corpora(self, spec: TrainSpec) -> list[OpenCorpus]:
        """The corpora, open. Raises InputError naming both digests where one is not that of the run."""
        known = files.read_json(self.corpus)["corpora"] if self.corpus.exists() else None
        if known is not None and len(known) != len(spec.corpora):
            raise InputError(f"{self.path}: the run was started with {len(known)} corpora, here are {len(spec.corpora)}")
        return [
            OpenCorpus.open(corpus.path, split=spec.data.split, started_with=None if known is None else known[number]["identity"])
            for number, corpus in enumerate(spec.corpora)
        ]

    def write_start(self, spec: TrainSpec, mixture: Mixture) -> None:
        """Nothing; config, corpora and environment of this start are written."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.corpus.exists():
            files.write_json(self.corpus, corpora_row(spec, mixture))
        files.write_json(self.config, spec.model_dump(mode="json"))

    def write_environment(self, step: int) -> str:
        """Appends this start, at `step`. A sentence if numbers are made otherwise here than at the start before, else ""."""
        row = {"step": step} | environment()
        before = [json.loads(line) for line in _whole_lines(self.environment)]
        with self.environment.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if before and before[-1]["numerics"]["digest"] != row["numerics"]["digest"]:
            return (
                f"numerics fingerprint {row['numerics']['digest'][:12]}, the start before had {before[-1]['numerics']['digest'][:12]}: "
                "the run goes on, but not bit for bit as it would have there"
            )
        return ""

    def rows(self) -> list[dict[str, Any]]:
        """The metrics so far."""
        return [json.loads(line) for line in _whole_lines(self.metrics)]

    def cut_metrics(self, step: int) -> None:
        """Nothing; rows of later steps are gone, which the run will write again. Raises MicroturnError where an earlier one is missing."""
        kept = [line for line in _whole_lines(self.metrics) if json.loads(line)["step"] <= step]
        steps = [json.loads(line)["step"] for line in kept]
        if steps != list(range(1, step + 1)):
            raise MicroturnError(
                f"{self.metrics}: rows of {len(steps)} steps, the checkpoint is of step {step}", hint="bring the file back, or remove it"
            )
        files.write(self.metrics, "".join(line + "\n" for line in kept).encode())


def corpora_row(spec: TrainSpec, mixture: Mixture) -> dict[str, Any]:
    """What a run keeps of its corpora: enough to know them again, and to hear and speak without them."""
    return {
        "order": mixture.digest,
        "corpora": [
            {"name": Path(corpus.name).name, "split": corpus.split, "weight": given.weight, "identity": corpus.identity}
            for corpus, given in zip(mixture.corpora, spec.corpora, strict=True)
        ],
        "layout": mixture.layout.model_dump(mode="json"),
        "spec": mixture.corpora[0].spec.model_dump(mode="json"),
    }


def environment() -> dict[str, Any]:
    """Versions, machine and numerics of this process. Takes a second."""
    return {
        "microturn": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "ranks": ranks.world(),
        "host": socket.gethostname(),
        "numerics": kernels.fingerprint(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The commit of the checkout that this runs from, with + if it is changed; "" outside of one."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=here, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return described.stdout.strip() if described.returncode == 0 else ""


def _whole_lines(path: Path) -> Iterator[str]:
    """The lines that were written to their end: the last may be torn by a kill."""
    if path.exists():
        yield from (line for line in path.read_text(encoding="utf-8").split("\n")[:-1] if line)
