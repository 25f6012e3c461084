"""Four figures of a build beside its cost: bytes by modality, the time of a resume, how far sound lies from its picture, two workers."""

import json
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...schemas.manifest import Session
from ...schemas.spec import FeatureSpec
from . import ours
from .alignment import clap_errors
from .clock import timed
from .material import Material, write_wav

__all__ = ["clap_errors", "resume", "sizes", "two_workers"]

RESUME_SECONDS, RESUME_RATE_HZ = 4, 16_000
_BUSY = (
    "import sys, json; from pathlib import Path; from microturn.pipelines.bench import floor; "
    "root, paths = json.loads(sys.argv[1]); print('ready', flush=True); sys.stdin.readline(); floor.sound(Path(root), paths)"
)


def sizes(held: Material, spec: FeatureSpec, out: Path) -> dict[str, Any]:
    """Bytes of the members of a corpus for an hour of conversation, all views together, by modality."""
    ours.build(held, spec, out)
    built = ours.bytes_of(out)
    shutil.rmtree(out)
    hours = built.seconds / 3600
    named = {"audio": built.audio_bytes, "pictures": built.picture_bytes, "labels": built.other_bytes}
    return {f"{name}_bytes_per_hour": size / hours for name, size in named.items()}


def resume(num_sessions: int, spec: FeatureSpec, scratch: Path) -> dict[str, Any]:
    """Seconds that a rerun takes: of a finished corpus, and of one whose parts are all receipted and nothing committed."""
    held = _many(num_sessions, scratch / "raw")
    out = scratch / "corpus"
    ours.build(held, spec, out, keep_parts=True)
    finished = timed(lambda: ours.build(held, spec, out, keep_parts=True))
    ours.uncommit(out)
    receipted = timed(lambda: ours.build(held, spec, out, keep_parts=True))
    shutil.rmtree(scratch)
    found: dict[str, Any] = {"sessions": num_sessions}
    for name, run in (("finished", finished), ("receipted", receipted)):
        found |= {f"{name}_cpu_s": run.cpu_s, f"{name}_wall_s": run.wall_s}
    return found


def two_workers(held: Material, spec: FeatureSpec, work: Path, repeats: int) -> dict[str, float]:
    """How many times as fast two workers build, by the clock, and two busy processes decode: what the machine has for a second one."""
    walls: dict[int, list[float]] = {1: [], 2: []}
    ceilings = []
    for _ in range(repeats):
        one, two = _busy(held, 1), _busy(held, 2)
        ceilings.append(2 * one / two)
        for count in walls:
            shutil.rmtree(work, ignore_errors=True)
            walls[count].append(timed(partial(ours.build, held, spec, work, num_workers=count)).wall_s)
    shutil.rmtree(work)
    one, two = (sorted(times)[len(times) // 2] for times in walls.values())
    return {"speed_up": one / two, "ceiling": sorted(ceilings)[len(ceilings) // 2], "one_wall_s": one, "two_wall_s": two}


def _busy(held: Material, count: int) -> float:
    """Seconds by the clock in which so many processes each decode everything, from when all are ready."""
    request = json.dumps([str(held.root), list(held.paths)])
    command = [sys.executable, "-P", "-c", _BUSY, request]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for child in running:
        child.stdout.readline()
    started = time.perf_counter()
    for child in running:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in running:
        child.wait()
        child.stdin.close()
        child.stdout.close()
    return time.perf_counter() - started


def _many(num_sessions: int, root: Path) -> Material:
    """So many short stereo recordings, which differ in one sample."""
    root.mkdir(parents=True)
    noise = np.rint(np.random.default_rng(0).normal(0, 500, (RESUME_SECONDS * RESUME_RATE_HZ, 2))).astype("<i2")
    sessions = []
    for number in range(num_sessions):
        noise[0] = number // 1000, number % 1000
        write_wav(root / f"{number:06d}.wav", RESUME_RATE_HZ, noise)
        streams = [
            {"id": who, "path": f"{number:06d}.wav", "kind": "audio", "channel": channel, "participant": who}
            for channel, who in enumerate(("assistant", "user"))
        ]
        people = [{"id": who, "role": who} for who in ("assistant", "user")]
        sessions.append(Session.parse({"id": f"s-{number:06d}", "streams": streams, "participants": people}, where="bench"))
    seconds = float(num_sessions * RESUME_SECONDS)
    return Material(codec="wav", root=root, sessions=tuple(sessions), paths=(), seconds=seconds, size_bytes=0)
