"""What is timed of ours: featurising alone, and a whole build, plan to commit.

A build gives every worker a decoder process, which has to start and to import what it needs: no cost of an hour of conversation, and
`start_up` measures it by itself. So one worker decodes here, in the bench's own process, as the peers do; two have theirs, as always.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from ...schemas.errors import MicroturnError
from ...schemas.spec import FeatureSpec
from .. import graph, run
from ..corpus.commit import DATASET, read_dataset
from ..corpus.reader import Corpus
from ..input.options import DEFAULT_SPLITS, splits_of
from ..input.plan import Plan, make_plan
from ..runners import workers
from ..sessions import featurise
from ..sessions.toolchain import toolchain_digest
from ..storage.folders import Folder
from .material import Material

_IMPORTS = (
    "import soxr, microturn.pipelines.sessions.child, microturn.pipelines.sessions.featurise; from microturn.transforms import dmel; "
    "dmel.silence()"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What a build gave: seconds of conversation, and bytes by what they hold."""

    seconds: float
    audio_bytes: int
    picture_bytes: int
    other_bytes: int


def plan_of(material: Material, spec: FeatureSpec) -> Plan:
    """The plan of these recordings."""
    return make_plan(material.sessions, root=str(material.root), spec=spec, toolchain=toolchain_digest(), splits=splits_of(DEFAULT_SPLITS))


def featurise_alone(material: Material, spec: FeatureSpec, staging: Path) -> float:
    """Decodes and featurises every session in this process, into parts and receipts; gives the seconds of conversation."""
    ticks = 0
    for item in plan_of(material, spec).items:
        receipt = featurise.make(item, Folder(str(staging)))
        if not receipt.windows:
            raise MicroturnError(f"{receipt.session_id}: nothing of it was kept ({receipt.ledger[0].message})")
        ticks += receipt.session_ticks
    return ticks * TICK_SAMPLES / SAMPLE_RATE_HZ


class _Here:
    """Stands for a decoder process (pipelines/sessions/child.py MediaProcess), and does its work in this one."""

    def __init__(self, silence_s: float) -> None:
        pass

    def call(self, verb: str, request: dict[str, Any], on_progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        """What the child would answer."""
        assert verb == "featurise", "a build asks for nothing else"
        return featurise.featurise_request(request, on_progress)

    def close(self) -> None:
        """Nothing to end."""


def build(material: Material, spec: FeatureSpec, out: Path, *, num_workers: int = 1, keep_parts: bool = False) -> float:
    """A corpus of every session in `out`: featurised, gathered into shards, committed; gives the seconds of conversation."""
    settings = run.Settings(out=str(out), spec=spec, beam=workers(num_workers), keep_parts=keep_parts)
    with patch.object(graph, "MediaProcess", _Here) if num_workers == 1 else nullcontext():
        verdict = run.run(plan_of(material, spec), settings, toolchain_digest())
    if verdict.blocks:
        raise MicroturnError(f"the build did not commit: {(*verdict.unsettled, *verdict.conflicts)[:1]}")
    return seconds_of(out)


def seconds_of(out: Path) -> float:
    """Seconds of conversation in a corpus, each session once, however many views it has."""
    ticks = {row["session"]: row["session_ticks"] for row in Corpus.open(str(out)).rows()}
    return sum(ticks.values()) * TICK_SAMPLES / SAMPLE_RATE_HZ


def bytes_of(out: Path) -> Built:
    """The bytes of a corpus's members by modality."""
    sums = {"audio": 0, "picture": 0, "other": 0}
    for row in Corpus.open(str(out)).rows():
        for member in row["members"]:
            sums[_modality(member["name"])] += member["size"]
    return Built(seconds=seconds_of(out), audio_bytes=sums["audio"], picture_bytes=sums["picture"], other_bytes=sums["other"])


def uncommit(out: Path) -> None:
    """Takes the commit away and what it names: what is left is a build that died when all parts had their receipts."""
    for name in (DATASET, "shards", "index", "ledger", ".nv-meta"):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    assert read_dataset(Folder(str(out))) is None


def start_up() -> float:
    """Starts an interpreter that imports what a decoder process needs, and nothing more."""
    subprocess.run([sys.executable, "-P", "-c", _IMPORTS], check=True)
    return 0.0


def _modality(member: str) -> str:
    name = member.partition(".")[0]
    return "audio" if name in ("own_pcm", "heard_dmel", "heard_pcm") else "picture" if name == "patches" else "other"
