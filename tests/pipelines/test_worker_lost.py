"""A worker killed with -9 in the middle of a part, or its decoder process: the build, or its rerun, gives the bytes of an undisturbed one.

Runners have worker processes of their own here: two of a dask.distributed cluster, two of DirectRunner's multi_processing. The driver is a
process of its own, as a person would start it. What had a receipt when the worker died is not done again.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import Raw, build, faults, tree

DRIVER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpora import build
if __name__ == "__main__":
    rows, raw, out = json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]), Path(sys.argv[4])
    def go(beam):
        verdict = build(rows, raw, out, shard_bytes=300_000, on_beam=True, beam=beam)
        sys.exit(4 if verdict.blocks else 0)
    if sys.argv[5] == "dask":
        from distributed import LocalCluster
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            go(["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"])
    from microturn.pipelines.runners import workers
    go(workers(2))
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    """Six calls, each some parts of work."""
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(6):
        made.dyad(f"call-{number}", seconds=15 + number % 3, seed=number % 3, file=f"call-{number % 3}", rate_hz=8_000)
    return made


@pytest.fixture(scope="module")
def undisturbed(calls, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(calls.rows, calls.folder, out, shard_bytes=300_000)
    return out


def receipts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / ".staging/receipts").glob("*.json")}


def below(pid: int) -> dict[int, str]:
    """pid → command of all that a process has started, and what that has started."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in task.read_text().split():
                found[int(child)] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found |= below(int(child))
    return found


def is_decoder(command: str) -> bool:
    return "microturn.pipelines.sessions.child" in command


def in_the_middle(out: Path, driver: "subprocess.Popen[bytes]", num_receipts: int) -> None:
    """Waits until so many receipts are there, a decoder is at work and a part is under way: the driver writes files of its own before."""

    def begun() -> bool:
        return any((out / ".staging").glob(".*.tmp")) and any(map(is_decoder, below(driver.pid).values()))

    while len(receipts(out)) < num_receipts or not begun():
        assert driver.poll() is None, "it was done before anything could be killed"
        time.sleep(0.005)


def victim(driver: int, which: str) -> int:
    """A decoder process, or a worker that has one: that is one at work."""
    started = below(driver)
    decoders = [pid for pid, command in started.items() if is_decoder(command)]
    workers = [pid for pid in started if any(decoder in below(pid) for decoder in decoders) and not is_decoder(started[pid])]
    innermost = [pid for pid in workers if not any(other in below(pid) for other in workers)]
    return (decoders if which == "decoder" else innermost)[0]


def wait_for_the_end_of(pids: set[int]) -> None:
    """What a build has started does not outlive it for long: a decoder finishes its session at most."""
    until = time.monotonic() + 60
    while left := {pid for pid in pids if (status := Path(f"/proc/{pid}/stat")).exists() and status.read_text().split()[2] != "Z"}:
        assert time.monotonic() < until, f"still there: {left}"
        time.sleep(0.1)


def lose_one(calls: Raw, out: Path, runner: str, which: str, num_receipts: int) -> tuple[int, dict[str, int], str]:
    """(exit code, receipts when it was killed, what was said) of a build that has lost a process."""
    rows = out.parent / "rows.json"
    rows.write_text(json.dumps(calls.rows))
    tests = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", DRIVER, tests, str(rows), str(calls.folder), str(out), runner]
    with (out.parent / "said").open("wb") as said, subprocess.Popen(command, stderr=said, start_new_session=True) as driver:
        try:
            in_the_middle(out, driver, num_receipts)
            done = receipts(out)
            started = set(below(driver.pid))
            os.kill(victim(driver.pid, which), signal.SIGKILL)
            code = driver.wait(timeout=240)
            wait_for_the_end_of(started)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
    return code, done, (out.parent / "said").read_text()


CASES = [
    ("processes", "worker", 2, 1),
    *(pytest.param("processes", "worker", number, 1, marks=pytest.mark.nightly) for number in (0, 3)),
    *(pytest.param("processes", "decoder", number, 0, marks=pytest.mark.nightly) for number in (0, 3)),
    *(pytest.param("dask", "worker", number, 0, marks=pytest.mark.nightly) for number in (0, 1, 2, 3)),
    *(pytest.param("dask", "decoder", number, 0, marks=pytest.mark.nightly) for number in (1, 3)),
]


@pytest.mark.parametrize(("runner", "which", "num_receipts", "ends"), CASES)
def test_a_worker_lost_in_mid_part_costs_its_part_and_nothing_else(calls, undisturbed, tmp_path, runner, which, num_receipts, ends):
    """Dask gives the work to another worker, and the build ends as if nothing had been; local processes give up, and the rerun goes on."""
    if runner == "dask":
        pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    out = tmp_path / "out"
    code, done, said = lose_one(calls, out, runner, which, num_receipts)
    assert code == ends, said[-3000:]
    if code:
        assert not (out / "dataset.json").exists() and "the runner gave up" in said
        build(calls.rows, calls.folder, out, shard_bytes=300_000)
    assert len(done) >= num_receipts and done.items() <= receipts(out).items()
    assert tree(out) == tree(undisturbed) and faults(out) == []
    assert not list(out.rglob("*.tmp"))
