"""Kill -9 at moments nobody chose: the driver with all it started, or the decoder process alone; again and again.

Lives are cheap: each is forked from one process that has imported everything, and builds as tests/corpora.py does. A forked life has a
decoder process of its own. Moments come from a seed, so that a failure can be had again, as far as a loaded machine lets it.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import Raw, build, faults, tree

MOTHER = """
import json, os, sys, time, traceback
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpora import build
rows, raw, out = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]), Path(sys.argv[4])
for line in sys.stdin:
    life = os.fork()
    if not life:
        os.setsid()
        try:
            verdict = build(rows, raw, out, shard_bytes=100_000)
            os._exit(7 if verdict.blocks else 0)
        except BaseException:
            traceback.print_exc()
            os._exit(9)
    print(life, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(5):
        made.dyad(f"call-{number}", seconds=3 + number % 3, seed=number, rate_hz=8_000)
    return made


@pytest.fixture(scope="module")
def undisturbed(calls, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(calls.rows, calls.folder, out, shard_bytes=100_000)
    return out


def children(pid: int) -> list[int]:
    """Processes that this one has started, from /proc."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill_at(chance: random.Random, life: int, longest_s: float) -> None:
    """Waits for a moment of this life; kills it with all it has started, or one of its children."""
    time.sleep(chance.uniform(0, longest_s))
    grown = children(life)
    if grown and chance.random() < 0.4:
        os.kill(chance.choice(grown), signal.SIGKILL)
    else:
        os.killpg(life, signal.SIGKILL)


def lived(calls: Raw, out: Path, seed: int, deaths: int, longest_s: float) -> int:
    """Lives of one build until it has been tried so often, then one undisturbed; gives how many were cut short."""
    rows = calls.folder / "rows.json"
    rows.write_text(json.dumps(calls.rows))
    tests = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", MOTHER, tests, str(rows), str(calls.folder), str(out)]
    chance, cut = random.Random(seed), 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as mother:
        assert mother.stdin is not None and mother.stdout is not None
        for number in range(deaths + 1):
            mother.stdin.write("live\n")
            mother.stdin.flush()
            life = int(mother.stdout.readline())
            if number < deaths:
                with contextlib.suppress(ProcessLookupError):  # it was done
                    kill_at(chance, life, longest_s)
            code = int(mother.stdout.readline())
            assert code in (0, 7, -signal.SIGKILL), code  # done, unsettled, killed; never an error of its own
            cut += code != 0
        assert code == 0
        mother.stdin.close()
    return cut


@pytest.mark.parametrize(("seed", "deaths"), [(1, 12), *(pytest.param(seed, 60, marks=pytest.mark.nightly) for seed in range(2, 6))])
def test_a_build_killed_at_random_moments_gets_there(calls, undisturbed, tmp_path, seed, deaths):
    """Half-done work is never taken for done, and nothing half-done is ever committed."""
    for attempt in range(4):  # on a fast machine lives end before they are killed: they are given less time then
        out = tmp_path / f"out-{attempt}"
        if lived(calls, out, seed, deaths, 0.5 / 2**attempt) >= deaths // 3:
            break
    else:
        pytest.fail("hardly a life was cut short")
    assert tree(out) == tree(undisturbed) and faults(out) == []
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp") or path.name in (".building", "verdict.json", "under-way")]
