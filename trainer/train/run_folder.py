"""The folder of a run: what it is, where it was made, what came of every step.

    config.json         the whole TrainSpec of the newest start             environment.jsonl   a row per start: versions, machine, numerics
    corpus.json         digests, layout and feature spec of the corpora     metrics.jsonl       a row per step
    checkpoints/        see checkpoint.py                                   tensorboard/        the same curves
    .training           who trains it: see alone.py

All ranks may look; only rank 0 writes.
"""

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ... import __version__, kernels
from ...schemas.errors import InputError, MicroturnError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import FeatureSpec
from ...schemas.strict import Strict
from ..data import Mixture, OpenCorpus
from . import files, ranks
from .alone import LOCK
from .spec import TrainSpec

PACKAGES = ("torch", "numpy", "scipy", "safetensors", "triton")
BEFORE_CONFIG = {LOCK, ".config.json.part", "config.json"}  # what a start that was killed at once leaves; or rank 0 makes as we look


class KnownCorpus(Strict):
    """A corpus as a run knows it: the last part of its path, what was read of it, its share, and its digests."""

    name: str
    split: str
    weight: float
    identity: dict[str, str]


class Known(Strict):
    """corpus.json: enough to know the corpora again, and to hear and speak without them.

    Attributes:
        order: digest of all that the order of the data depends on.
        layout, spec: of all the corpora.
    """

    order: str
    corpora: tuple[KnownCorpus, ...]
    layout: LayoutSpec
    spec: FeatureSpec


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
        if self.path.exists() and (not self.path.is_dir() or any(item.name not in BEFORE_CONFIG for item in self.path.iterdir())):
            raise InputError(f"{self.path}: holds something, but no config.json of a run", hint="name a new folder for the run")
        return None

    def known(self) -> Known | None:
        """What the run keeps of its corpora; None before its first start. Raises MicroturnError where corpus.json is not what we wrote."""
        return Known.parse(files.read_json(self.corpus), where=str(self.corpus)) if self.corpus.exists() else None

    def open_corpora(self, spec: TrainSpec) -> list[OpenCorpus]:
        """The corpora, open. Raises InputError naming both digests where one is not that of the run."""
        known = self.known()
        if known is not None and len(known.corpora) != len(spec.corpora):
            raise InputError(f"{self.path}: the run was started with {len(known.corpora)} corpora, here are {len(spec.corpora)}")
        return [
            OpenCorpus.open(corpus.path, split=spec.data.split, started_with=None if known is None else known.corpora[number].identity)
            for number, corpus in enumerate(spec.corpora)
        ]

    def write_start(self, spec: TrainSpec, mixture: Mixture) -> None:
        """Nothing; config, corpora and environment of this start are written."""
        files.write_json(self.config, spec.model_dump(mode="json"))  # first: what has no config.json is not known for a run
        if not self.corpus.exists():
            files.write_json(self.corpus, known_of(spec, mixture).model_dump(mode="json"))

    def numerics(self) -> str:
        """The fingerprint of the newest start; "" where none is kept."""
        starts = files.read_rows(self.environment)
        numerics = starts[-1].get("numerics") if starts else None
        return str(numerics.get("digest", "")) if isinstance(numerics, dict) else ""

    def write_environment(self, step: int, device: torch.device) -> str:
        """Appends this start, at `step`. A sentence if numbers are made otherwise here than at the start before, else ""."""
        before, row = self.numerics(), {"step": step} | environment(device)
        files.write_rows(self.environment, [*files.read_rows(self.environment), row])
        now = row["numerics"]["digest"]
        if before and before != now:
            return (
                f"numerics fingerprint {now[:12]}, the start before had {before[:12]}: "
                "the run goes on, but not bit for bit as it would have there"
            )
        return ""

    def rows(self) -> list[dict[str, Any]]:
        """The metrics so far. Raises MicroturnError naming the row that is none."""
        rows = files.read_rows(self.metrics)
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get("step"), int):
                raise MicroturnError(f"{self.metrics}, row {number}: says no step", hint="take it out; the run goes on without it")
        return rows

    def cut_metrics(self, step: int) -> str:
        """Rows of later steps are gone, which the run will write again. A sentence if an earlier one is missing, else "".

        The rows are for people; nothing that the run does depends on them.
        """
        kept = {row["step"]: row for row in self.rows() if 1 <= row["step"] <= step}
        files.write_rows(self.metrics, (row for _, row in sorted(kept.items())))
        if len(kept) < step:
            return f"{self.metrics}: rows of {len(kept)} steps, the checkpoint is of step {step}: the run goes on, its curves have a gap"
        return ""


def known_of(spec: TrainSpec, mixture: Mixture) -> Known:
    """What a run keeps of its corpora."""
    corpora = tuple(
        KnownCorpus(name=Path(corpus.name).name, split=corpus.split, weight=given.weight, identity=corpus.identity)
        for corpus, given in zip(mixture.corpora, spec.corpora, strict=True)
    )
    return Known(order=mixture.digest, corpora=corpora, layout=mixture.layout, spec=mixture.corpora[0].spec)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and numerics of this process on this device. Takes a second."""
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
        "numerics": kernels.fingerprint(device),
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
