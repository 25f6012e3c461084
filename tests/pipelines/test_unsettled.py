"""What the machine could not do is nobody's fault of content: no receipt, no row, nothing committed, and the rerun tries again."""

import os
from pathlib import Path

import pytest
from corpora import Raw, build, ledger, mono_stream, plan_of, tree
from microturn.pipelines import graph
from microturn.pipelines.sessions import featurise
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import DiskFull, Folder


@pytest.fixture
def call(tmp_path) -> Raw:
    made = Raw(tmp_path / "raw")
    made.dyad("call", seconds=2.0, rate_hz=44_100)
    return made


def test_a_file_that_cannot_be_read_is_unsettled(call, tmp_path, monkeypatch):
    call.dyad("evil", seconds=1.0, seed=9)
    path = call.folder / "dyad-9.wav"
    stat = os.stat

    def denied(at, **more):  # root may read everything, so the filesystem says it instead
        if str(at) == str(path):
            raise PermissionError(13, "Permission denied", str(at))
        return stat(at, **more)

    monkeypatch.setattr(folders.os, "stat", denied)
    verdict = build(call.rows, call.folder, tmp_path / "out")
    assert verdict.blocks and len(verdict.unsettled) == 1 and "evil" in verdict.unsettled[0]
    assert not (tmp_path / "out/dataset.json").exists()
    assert str(tmp_path) not in verdict.unsettled[0]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_dropped_for_it_is_the_inputs_fault(call, tmp_path, kind):
    call.add(id="evil", streams=[mono_stream("p", "evil.wav")])
    path = call.folder / "evil.wav"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    verdict = build(call.rows, call.folder, tmp_path / "out")
    assert (verdict.fresh, len(verdict.rejected), verdict.blocks) == (1, 1, False)
    assert [row["reason"] for row in ledger(tmp_path / "out") if row["entry"] == "session"] == ["not_a_file"]
    assert build(call.rows, call.folder, tmp_path / "out").known == 2


class FailsOn:
    """A decoder process that finds a failing disk whenever it is asked for one session."""

    def __init__(self, session: str, media) -> None:
        self._session, self._media = session, media

    def call(self, verb, request, on_progress=lambda _: None):
        if request["item"]["session"]["id"] == self._session:
            raise OSError(5, "Input/output error")
        return self._media.call(verb, request, on_progress)

    def close(self) -> None:
        """Nothing: it is lent."""


def test_the_rerun_settles_what_was_unsettled(call, tmp_path, monkeypatch, lent, featurised):
    call.dyad("evil", seconds=1.0, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(graph, "MediaProcess", lambda silence_s: FailsOn("evil", lent))
        assert build(call.rows, call.folder, tmp_path / "out").blocks
    featurised.clear()
    assert build(call.rows, call.folder, tmp_path / "out").fresh == 2 and featurised == ["evil"]
    build(call.rows, call.folder, tmp_path / "straight")
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


class FailingDisk:
    """A file that fails when it is read at or beyond a place."""

    def __init__(self, path: Path, at: int) -> None:
        self._file, self._at = path.open("rb"), at

    def read(self, size: int = -1) -> bytes:
        if self._file.tell() + max(size, 1) > self._at:
            raise OSError(5, "Input/output error")
        return self._file.read(size)

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_failing_disk_is_never_taken_for_a_short_recording(call, tmp_path, monkeypatch, share, ending):
    call.dyad("flac", seconds=8.0, ending="flac", seed=4, rate_hz=48_000)
    call.dyad("wav", seconds=8.0, ending="wav", seed=5, rate_hz=48_000)
    item = next(i for i in plan_of(call.rows, call.folder).items if i.key == ending)
    size = item.files[0].size_bytes
    monkeypatch.setattr(folders, "open_source", lambda root, path: FailingDisk(Path(root) / path, int(size * share)))
    with pytest.raises(OSError, match="Input/output"):
        featurise.make(item, Folder(str(tmp_path / "staging")))
    assert not Folder(str(tmp_path / "staging")).names("receipts")


def test_a_file_that_changes_while_it_is_read_is_unsettled(call, tmp_path, monkeypatch):
    item = plan_of(call.rows, call.folder).items[0]
    os.utime(call.folder / "dyad-0.wav", (1, 1))
    with pytest.raises(OSError, match="changed"):
        featurise.make(item, Folder(str(tmp_path / "staging")))


def test_a_full_disk_is_unsettled(call, tmp_path, monkeypatch):
    item = plan_of(call.rows, call.folder).items[0]
    monkeypatch.setattr(Folder, "adopt", lambda self, path, name: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        featurise.make(item, Folder(str(tmp_path / "staging")))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the device that is always full")
def test_a_full_disk_is_named_with_what_to_do_and_nothing_is_left_there(call, tmp_path, monkeypatch):
    """The system's own word for it names no folder: of OUT, the staging folder and the temporary one, which is full?"""
    staging, item = Folder(str(tmp_path / "staging")), plan_of(call.rows, call.folder).items[0]

    def full(self: Folder) -> Path:
        path = tmp_path / ".under-way.tmp"
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(Folder, "scratch", full)
    for write in (lambda: staging.write("name", b"x"), lambda: featurise.make(item, staging)):
        with pytest.raises(DiskFull, match="No space left on device; make room there, or take another folder, and run") as error:
            write()
        assert error.value.filename == staging.uri and error.value.errno == 28
        assert not [path for path in tmp_path.rglob("*.tmp") if path.is_symlink()]
