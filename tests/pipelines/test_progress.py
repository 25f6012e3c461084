"""How fast, how much is left, and the file that says so: always whole, never going back, with the end that the build had."""

import contextlib
import json
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from corpora import ONE_SPLIT, SMALL, Raw, plan_of
from hypothesis import given
from hypothesis import strategies as st
from microturn.pipelines import progress, run, watch
from microturn.pipelines.progress import Pace, Progress, ProgressFile
from microturn.pipelines.sessions.toolchain import toolchain_digest
from microturn.pipelines.watch import Standing
from microturn.schemas.errors import MicroturnError

PHASES = ("featurising", "writing shards", "done")


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that only pass when told to."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def standing(done: int, conversation_s: float = 0.0, phase="featurising", **more) -> Standing:
    return Standing(phase=phase, done=done, total=1000, sessions=done // 100, longest_s=0, conversation_s=conversation_s, **more)


def test_rates_are_what_was_done_in_the_time_that_passed(clock):
    pace = Pace(10)
    assert pace.at(standing(0)).eta_s == -1
    clock[0] += 10
    now = pace.at(standing(200, 3600.0))
    assert (now.real_time_rate, now.bytes_per_s, now.eta_s) == (360, 20, 40)
    clock[0] += 1000
    assert pace.at(standing(200, 3600.0)).bytes_per_s == 0  # the last two minutes alone count
    clock[0] += 5
    assert pace.at(standing(0, 3600.0, "writing shards")).bytes_per_s == 0  # bytes of shards are none of input
    clock[0] += 5
    assert pace.at(standing(500, 3600.0, "writing shards")).eta_s == 5


def test_an_estimate_tells_what_is_left_inside_a_long_session(clock):
    pace = Pace(1, conversation_s=36_000)
    pace.at(standing(0))
    clock[0] += 10
    now = pace.at(standing(0, 3600.0, under_way_s=3600.0))
    assert (now.bytes_per_s, now.eta_s) == (0, 90)  # no file is finished, and yet it is known


def test_sessions_that_the_plan_dropped_count_from_the_start():
    now = Pace(5, settled=3).at(standing(100, dropped=1))
    assert (now.sessions_done, now.sessions_total, now.sessions_dropped) == (4, 8, 4)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=2, max_size=20))
def test_nothing_that_was_done_is_taken_back(steps):
    pace, seen = Pace(10), []
    for done, dropped in steps:
        seen.append(pace.at(Standing(phase="featurising", done=0, total=1, sessions=done, longest_s=0, dropped=dropped)))
    for a, b in pairwise(seen):
        assert a.sessions_done <= b.sessions_done and a.sessions_dropped <= b.sessions_dropped and a.started == b.started


def test_the_file_is_replaced_once_a_second_and_at_every_phase(tmp_path, clock, monkeypatch):
    file, written = ProgressFile(str(tmp_path / "p.json")), []
    monkeypatch.setattr(progress.Folder, "write", lambda self, name, data: written.append(json.loads(data)))
    pace = Pace(10)
    for done in range(100):
        clock[0] += 0.1
        file.write(pace.at(standing(done)))
    assert 9 <= len(written) <= 11
    file.write(pace.at(standing(0, phase="writing shards")))
    file.end("done", dropped=2)
    assert [one["phase"] for one in written[-2:]] == ["writing shards", "done"] and written[-1]["sessions_dropped"] == 2


def test_a_file_that_cannot_be_written_is_told_and_breaks_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    file = ProgressFile(str(tmp_path / "file" / "p.json"))
    file.write(Pace(1).at(standing(1)))
    file.end("done")
    assert "p.json" in file.fault or "file" in file.fault


def test_a_build_that_was_refused_leaves_the_file_of_another_alone(tmp_path):
    ProgressFile(str(tmp_path / "p.json")).end("failed")
    assert not (tmp_path / "p.json").exists()


class Reader(threading.Thread):
    """Reads the file again and again, until told to stop."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.seen, self.over = path, [], threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(FileNotFoundError):
                self.seen.append(Progress.model_validate_json(self.path.read_bytes()))
            time.sleep(0.002)

    def wait_for(self, num_sessions: int) -> None:
        """Until so many sessions have been read of as done; half a minute at most."""
        until = time.monotonic() + 30
        while time.monotonic() < until and not (self.seen and self.seen[-1].sessions_done >= num_sessions):
            time.sleep(0.002)


@pytest.fixture
def calls(tmp_path) -> Raw:
    made = Raw(tmp_path / "raw")
    for number in range(6):
        made.dyad(f"call-{number}", seconds=2.0, seed=number)
    made.bytes("broken.wav", b"not a recording" * 50)
    made.add(id="broken", streams=[{"id": "a", "path": "broken.wav", "kind": "audio", "participant": "p0"}])
    return made


def test_whoever_reads_the_file_while_a_build_runs_sees_it_whole_and_going_forward(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    monkeypatch.setattr(watch, "EVERY_S", 0.0)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    file, pace, reader = ProgressFile(str(tmp_path / "out" / "p.json")), Pace(7), Reader(tmp_path / "out" / "p.json")
    wanted = run.Settings(out=str(tmp_path / "out"), spec=SMALL, splits=ONE_SPLIT)
    finished, count = watch.WorkerNote.finished, iter(range(1, 8))
    monkeypatch.setattr(watch.WorkerNote, "finished", lambda *given: (finished(*given), reader.wait_for(next(count))))
    reader.start()
    verdict = run.run(plan_of(calls.rows, calls.folder), wanted, toolchain_digest(), lambda now: file.write(pace.at(now)))
    file.end("done", len(verdict.rejected))
    reader.over.set()
    reader.join()
    seen = [*reader.seen, Progress.model_validate_json((tmp_path / "out" / "p.json").read_bytes())]
    assert {one.sessions_done for one in seen} == set(range(8))
    for a, b in pairwise(seen):
        assert PHASES.index(a.phase) <= PHASES.index(b.phase) and a.updated <= b.updated
        assert a.sessions_done <= b.sessions_done <= b.sessions_total == 7 and a.sessions_dropped <= b.sessions_dropped
        assert a.phase != b.phase or a.done_bytes <= b.done_bytes <= b.total_bytes
    end = seen[-1]
    assert (end.phase, end.sessions_done, end.sessions_dropped, end.eta_s) == ("done", 7, 1, 0)
    assert end.done_bytes == end.total_bytes and end.conversation_s == pytest.approx(12, abs=0.5)


def test_a_build_that_fails_says_so_in_the_file(calls, tmp_path, monkeypatch):
    from click.testing import CliRunner
    from microturn import cli

    def give_up(plan, settings, toolchain, on_progress, tell):
        on_progress(standing(100))
        raise MicroturnError("the runner gave up")

    monkeypatch.setattr(run, "run", give_up)
    calls.manifest()
    path = tmp_path / "at" / "p.json"
    ended = CliRunner().invoke(cli.microturn, ["build", str(calls.folder), str(tmp_path / "out"), "--progress-file", str(path)])
    assert isinstance(ended.exception, MicroturnError)
    assert json.loads(path.read_text())["phase"] == "failed"
