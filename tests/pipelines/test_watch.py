"""What a person sees of a build: seconds inside a long recording, bytes of shards; and that looking costs little and breaks nothing."""

from pathlib import Path

import pytest
from corpora import Raw, build, plan_of
from microturn.pipelines import build_command, watch
from microturn.pipelines.sessions import featurise
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.watch import Standing, Watch, WorkerNote


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
        patch.setattr(Folder, "write", lambda self, name, data: written.append(name))
        for _ in range(100):
            clock[0] += 0.1
            note.reached(1)
    assert 9 <= len(written) <= 11


def test_a_note_that_cannot_be_written_or_read_changes_nothing(call, tmp_path, monkeypatch):
    write = Folder.write

    def full(self, name, data):
        if name.startswith(watch.UNDER_WAY):
            raise OSError(28, "No space left on device")
        write(self, name, data)

    monkeypatch.setattr(Folder, "write", full)
    assert build(call.rows, call.folder, tmp_path / "out").fresh == 1
    (tmp_path / "a" / watch.UNDER_WAY).mkdir(parents=True)
    (tmp_path / "a" / watch.UNDER_WAY / "x.json").write_text("half")
    assert standing(tmp_path / "a").done == 0


def test_every_phase_of_a_session_is_heard_of(call, tmp_path, monkeypatch):
    """Silence is taken for a hang: hashing and labels are heard of as windows are."""
    monkeypatch.setattr(folders, "HASH_BYTES", 1000)
    told: list[str] = []
    done = featurise.receipts.prove
    monkeypatch.setattr(featurise.receipts, "prove", lambda item, alive: done(item, lambda: (told.append("hash"), alive())[1]))
    featurise.make(plan_of(call.rows, call.folder).items[0], Folder(str(tmp_path / "s")), lambda n: told.append("progress"))
    assert told.count("hash") > 100 and told.count("progress") >= told.count("hash") + 3 * 2 * 2  # windows, and their labels
