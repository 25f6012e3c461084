"""A name never holds half a file: locally by a temporary file, fsync and rename; in a store by one PUT at the final name."""

import os
import stat
import uuid

import pytest
from corpora import build, tree
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import Folder
from microturn.schemas.errors import InputError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> Folder:
    return Folder(str(tmp_path / "f") if request.param == "local" else f"memory://{uuid.uuid4().hex}/f")


def test_what_is_written_is_read_whole_or_in_part(folder):
    folder.write("a/b.bin", b"0123456789")
    assert folder.read("a/b.bin") == b"0123456789" and folder.read_range("a/b.bin", 3, 4) == b"3456"
    assert folder.size("a/b.bin") == 10 and folder.exists("a/b.bin") and not folder.exists("a/c")
    with pytest.raises(OSError, match="wanted 4 bytes at 8, got 2"):
        folder.read_range("a/b.bin", 8, 4)


def test_names_are_sorted_relative_and_whole(folder):
    for name in ("b", "a/c", "a/b", "aa"):
        folder.write(name, b"x")
    assert folder.names() == ["a/b", "a/c", "aa", "b"] and folder.names("a") == ["a/b", "a/c"] and folder.names("none") == []
    folder.delete("a")
    folder.delete("none")
    assert folder.names() == ["aa", "b"]


def test_a_writer_that_fails_leaves_what_was_there(folder):
    folder.write("name", b"before")
    with pytest.raises(RuntimeError), folder.create("name") as file:
        file.write(b"half of what")
        raise RuntimeError
    assert folder.read("name") == b"before" and folder.names() == ["name"]
    assert not folder.local or os.listdir(folder.local) == ["name"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(folders.os, "fsync", lambda fd: (done.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(folders.os, "replace", lambda a, b: (done.append("rename"), replace(a, b))[1])
    Folder(str(tmp_path)).write("name", b"x")
    assert done == ["fsync", "rename"] and (tmp_path / "name").read_bytes() == b"x"


def test_unfinished_files_are_no_names_and_can_be_swept(tmp_path):
    folder = Folder(str(tmp_path))
    folder.write("a/whole", b"x")
    path = folder.scratch()
    path.write_bytes(b"half")
    assert folder.names() == ["a/whole"] and path.parent == tmp_path
    folder.delete_unfinished()
    assert not path.exists() and folder.names() == ["a/whole"]


def test_files_may_be_read_by_others(tmp_path):
    """A corpus is made for many readers, and a temporary file is not."""
    umask = os.umask(0o022)
    try:
        Folder(str(tmp_path)).write("name", b"x")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o644


def test_a_relative_place_stays_where_it_was_meant(tmp_path, monkeypatch):
    """Workers may stand in other folders than the driver."""
    monkeypatch.chdir(tmp_path)
    assert folders.absolute("out") == str(tmp_path / "out") and folders.absolute("/x/out") == "/x/out"
    assert folders.absolute("memory://x/out") == "memory://x/out"


def test_a_place_that_is_none_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        folders.is_folder(str(tmp_path / "none"))
    with pytest.raises(InputError, match="nosuchstore"):
        Folder("nosuchstore://x").names()


def test_a_corpus_may_be_built_into_a_store_and_read_from_it(raw, corpus, tmp_path):
    """Parts stay local, for the decoder process is another one and a memory store is not shared; the corpus itself is in the store."""
    out = f"memory://{uuid.uuid4().hex}/out"
    build(raw.rows, raw.folder, out, staging=str(tmp_path / "staging"), shard_bytes=300_000)
    found = Corpus.open(out)
    assert verify(found).faults == []
    assert {name: Folder(out).read(name) for name in Folder(out).names()} == tree(corpus)


def test_a_manifest_may_lie_in_a_store():
    folders.fsspec.filesystem("memory").pipe_file("/b/manifest.jsonl", b"{}")
    assert not folders.is_folder("memory://b/manifest.jsonl") and folders.is_folder("memory://b")
    assert folders.read_input("memory://b/manifest.jsonl") == b"{}" and folders.parent("memory://b/manifest.jsonl") == "memory://b"
