"""What a person sees of a build: seconds inside a long recording, bytes of shards; and that looking costs little and breaks nothing."""

from pathlib import Path

import pytest
from corpora import Raw, build, plan_of
from microturn.pipelines import build_command, watch
from microturn.pipelines.sessions import child, featurise
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.watch import Standing, Watch, WorkerNote
from microturn.schemas.receipts import Outcome


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds that only pass when told to."""
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def call(tmp_path) -> Raw:
    made = Raw(tmp_path / "raw")
    made.dyad("call", seconds=6.0)
    return made


def standing(folder: Path, total: int = 1000) -> Standing:
    return Watch(total, 8, Folder(str(folder)), lambda _: None)._standing()


def test_a_long_recording_is_told_in_seconds(call, tmp_path, clock):
    item = plan_of(call.rows, call.folder).items[0]
    first, second = WorkerNote(Folder(str(tmp_path))), WorkerNote(Folder(str(tmp_path)))
    first.reached(16_000 * 61)
    second.reached(16_000 * 5)
    assert standing(tmp_path) == Standing(phase="featurising", done=0, total=1000, sessions=0, longest_s=61)
    assert "0 of 8 sessions done, 0:01:01" in build_command._standing(standing(tmp_path), 8)
    first.finished(item)  # within the same second: not written yet
    clock[0] += 2
    first.reached(16_000)
    found = standing(tmp_path, 10**9)
    assert (found.sessions, found.longest_s, found.done) == (1, 5, watch.input_bytes(item))


def test_shards_are_told_in_bytes(tmp_path, clock):
    writer, assigner = WorkerNote(Folder(str(tmp_path))), WorkerNote(Folder(str(tmp_path)))
    assigner.to_write(500)
    for num_bytes in (100, 200):
        clock[0] += 2
        writer.shard(num_bytes)
    writer.shard_finished()
    clock[0] += 2
    writer.shard(50)
    assert standing(tmp_path) == Standing(phase="writing shards", done=250, total=500, sessions=8, longest_s=0)


def test_a_worker_has_one_note_and_writes_it_once_a_second(tmp_path, clock):
    note = WorkerNote(Folder(str(tmp_path)))
    for _ in range(100):
        clock[0] += 0.1
        note.reached(1)
    assert len(list((tmp_path / watch.UNDER_WAY).iterdir())) == 1
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerNote, "_put", lambda self, data: written.append(self._name))
        for _ in range(100):
            clock[0] += 0.1
            note.reached(1)
    assert 9 <= len(written) <= 11


def test_a_note_that_cannot_be_written_or_read_changes_nothing(call, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WorkerNote, "_put", full)
    assert build(call.rows, call.folder, tmp_path / "out").fresh == 1
    (tmp_path / "a" / watch.UNDER_WAY).mkdir(parents=True)
    (tmp_path / "a" / watch.UNDER_WAY / "x.json").write_text("half")
    assert standing(tmp_path / "a").done == 0


def test_what_is_dropped_whole_is_counted_and_so_is_the_conversation(call, tmp_path, clock):
    item = plan_of(call.rows, call.folder).items[0]
    note = WorkerNote(Folder(str(tmp_path)))
    for status in ("done", "rejected", "done"):
        note.reached(16_000 * 10)
        note.finished(item, Outcome(status=status, session=item.key, split=item.split, order=item.order))
    note.reached(16_000 * 4)
    clock[0] += 2
    note.reached(16_000 * 7)
    found = standing(tmp_path)
    assert (found.sessions, found.dropped, found.conversation_s, found.under_way_s) == (3, 1, 37, 7)


def test_the_last_second_of_a_worker_is_not_lost(call, tmp_path, clock, monkeypatch):
    item = plan_of(call.rows, call.folder).items[0]
    put = WorkerNote._put
    monkeypatch.setattr(WorkerNote, "_put", lambda self, data: (put(self, data), clock.append(clock.pop() + 0.2)))  # a slow store
    note, other = WorkerNote(Folder(str(tmp_path))), WorkerNote(Folder(str(tmp_path / "elsewhere")))
    told: list[Standing] = []
    with Watch(1000, 5, Folder(str(tmp_path)), told.append):
        for _ in range(5):
            note.reached(16_000)
            note.finished(item)
            other.reached(1)
        assert Watch(1000, 5, Folder(str(tmp_path)), print)._standing().sessions == 0  # a second is not over
    assert told[-1].spent is not None and (told[-1].spent.featurised, told[-1].spent.conversation_s) == (5, 5)
    note.reached(1)
    assert not (tmp_path / watch.UNDER_WAY).exists()
    other.close()


def test_a_session_that_is_finished_is_told_at_once_where_telling_is_cheap(call, tmp_path, clock):
    note = WorkerNote(Folder(str(tmp_path)))
    for number in range(1, 4):
        note.reached(16_000)
        note.finished(plan_of(call.rows, call.folder).items[0])
        assert standing(tmp_path).sessions == number


def test_a_process_is_paid_once_however_many_notes_it_leaves():
    def note(process, start, stop, media, host="a"):
        return watch._Note(process=process, host=host, cpu_from_s=start, cpu_to_s=stop, media_from_s=media, media_to_s=media + 5)

    spent = watch._spent([note("1", 10, 14, 0), note("1", 13, 20, 1), note("2", 0, 3, 7, "b")], 9.0)
    assert (spent.worker_cpu_s, spent.media_cpu_s, spent.workers, spent.hosts, spent.wall_s) == (13, 11, 2, 2, 9.0)


def test_a_build_tells_what_it_took(call, tmp_path):
    told: list[Standing] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("microturn.pipelines.run._run_graph", lambda *parts: None)
        patch.setattr("microturn.pipelines.run.Watch", lambda total, num, staging, tell: Watch(total, num, staging, told.append))
        with pytest.raises(Exception, match="without a verdict"):
            build(call.rows, call.folder, tmp_path / "nothing", on_beam=True)
    assert told[-1].spent is not None and told[-1].spent.cpu_s == 0  # a runner that did nothing
    before = child.children_cpu_s()
    build(call.rows, call.folder, tmp_path / "out")
    assert child.children_cpu_s() > before


def test_every_phase_of_a_session_is_heard_of(call, tmp_path, monkeypatch):
    """Silence is taken for a hang: hashing and labels are heard of as windows are."""
    monkeypatch.setattr(folders, "HASH_BYTES", 1000)
    told: list[str] = []
    done = featurise.receipts.prove
    monkeypatch.setattr(featurise.receipts, "prove", lambda item, alive: done(item, lambda: (told.append("hash"), alive())[1]))
    featurise.make(plan_of(call.rows, call.folder).items[0], Folder(str(tmp_path / "s")), lambda n: told.append("progress"))
    assert told.count("hash") > 100 and told.count("progress") >= told.count("hash") + 3 * 2 * 2  # windows, and their labels
