"""Ctrl-C at a terminal: every process of a build is told at once; the person reads one sentence and how to go on, from the driver alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import Raw, faults


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    """Sixteen calls of three recordings: work for some seconds."""
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(16):
        made.dyad(f"call-{number:02}", seconds=20 + number % 3, seed=number % 3, file=f"call-{number % 3}", rate_hz=8_000)
    made.manifest()
    return made


def command(raw: Raw, out: Path, workers: int) -> list[str]:
    return [sys.executable, "-P", "-m", "microturn", "build", str(raw.folder), str(out), "--workers", str(workers)]


def interrupted(raw: Raw, out: Path, workers: int, num_receipts: int) -> tuple[int, str]:
    """(exit code, what it said) of a build whose whole process group is interrupted when so many sessions are done and another is begun."""
    with subprocess.Popen(command(raw, out, workers), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as driver:
        try:
            while len(list(out.glob(".staging/receipts/*.json"))) < num_receipts or not any((out / ".staging").glob(".*.tmp")):
                assert driver.poll() is None, "it was done before it could be interrupted"
                time.sleep(0.005)
            os.killpg(driver.pid, signal.SIGINT)
            said = driver.communicate(timeout=60)[1].decode()
        except BaseException:
            os.killpg(driver.pid, signal.SIGKILL)
            raise
    return driver.returncode, said


@pytest.mark.parametrize(
    ("workers", "num_receipts"), [(2, 1), *(pytest.param(n, count, marks=pytest.mark.nightly) for n, count in ((1, 1), (2, 0), (2, 4)))]
)
def test_whoever_interrupts_a_build_reads_one_sentence_and_how_to_go_on(calls, tmp_path, workers, num_receipts):
    code, said = interrupted(calls, tmp_path / "out", workers, num_receipts)
    last = said.splitlines()[-1]
    assert code == 130 and last == "interrupted: finished recordings are kept; run the same command again to go on", said
    for remark in ("Traceback", "KeyboardInterrupt", "RpcError", "apitools", "INFO:", "ERROR"):
        assert remark not in said, said
    again = subprocess.run(command(calls, tmp_path / "out", workers), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0 and faults(tmp_path / "out") == [], again.stderr
