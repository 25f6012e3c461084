"""Canonical tars: USTAR, no time, no owner, members sorted, nothing compressed; their bytes follow from names and contents."""

import hashlib
import io
import tarfile

import pytest
from corpora import Raw, build, mono_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.corpus.reader import Corpus, grouped
from microturn.pipelines.storage import tar
from microturn.schemas.errors import CorpusError
from signals import speech

names = st.text("abcdefgh-_.0123456789", min_size=1, max_size=100)
contents = st.lists(st.tuples(names, st.binary(max_size=2000)), max_size=6)


@pytest.mark.parametrize("which", ["shards/*.tar", ".staging/parts/*.tar"])
def test_tars_of_a_corpus_are_canonical(raw, corpus, tmp_path, which):
    folder = corpus
    if "parts" in which:
        folder = tmp_path / "out"
        build(raw.rows[:2], raw.folder, folder, keep_parts=True)
    paths = sorted(folder.glob(which))
    assert len(paths) >= 2
    for path in paths:
        data = path.read_bytes()
        with tarfile.open(path) as file:
            found = list(file)
        assert data[257:265] == b"ustar\x0000" and len(data) % 512 == 0 and data[-1024:] == bytes(1024)
        for info in found:
            owner = (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode, info.linkname, info.type, info.pax_headers)
            assert owner == (0, 0, 0, "", "", 0o644, "", tarfile.REGTYPE, {})
            assert len(info.name.encode()) <= 100 and info.name.isascii() and "/" not in info.name
        members = [info.name.partition(".") for info in found]
        keys = [key for key, _, _ in members]
        for key in set(keys):
            mine = [name for k, _, name in members if k == key]
            assert mine == sorted(mine) and keys.index(key) + len(mine) == len(keys) - keys[::-1].index(key)  # side by side


@settings(deadline=None, max_examples=50)
@given(files=contents)
def test_the_writer_writes_what_pythons_own_writes(files):
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = tar.TarWriter(ours)
    offsets = [writer.add(name, [payload]) for name, payload in files]
    end = writer.position
    writer.close()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, payload in files:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            file.addfile(info, io.BytesIO(payload))
    assert ours.getvalue()[:end] == theirs.getvalue()[:end]
    assert [ours.getvalue()[at : at + len(payload)] for at, (_, payload) in zip(offsets, files, strict=True)] == [p for _, p in files]
    assert [(name, data) for name, _, data in tar.members(io.BytesIO(ours.getvalue()))] == files


def test_a_copy_is_the_same_as_an_addition_and_must_be_whole():
    added, copied = io.BytesIO(), io.BytesIO()
    tar.TarWriter(added).add("a.npy", [b"x" * 1_000_000] * 3)
    running = hashlib.sha256()
    tar.TarWriter(copied).copy("a.npy", 3_000_000, io.BytesIO(b"x" * 3_000_001), running)
    assert added.getvalue() == copied.getvalue() and running.hexdigest() == hashlib.sha256(b"x" * 3_000_000).hexdigest()
    with pytest.raises(EOFError, match="ends 1 bytes early"):
        tar.TarWriter(io.BytesIO()).copy("a.npy", 5, io.BytesIO(b"four"), running)


@settings(deadline=None, max_examples=100)
@given(name=names, size=st.integers(0, tar.MAX_MEMBER_BYTES))
def test_a_header_is_pythons_own_for_every_size(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    assert tar.header(name, size) == info.tobuf(tarfile.USTAR_FORMAT)


def test_a_member_that_ustar_cannot_count_is_refused():
    with pytest.raises(ValueError, match="at most 8589934591"):
        tar.header("a.npy", tar.MAX_MEMBER_BYTES + 1)


@pytest.mark.parametrize("name", ["x" * 101, "é" * 51])
def test_a_name_that_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match="100 bytes"):
        tar.header(name, 0)


def test_a_tar_that_ends_early_is_refused():
    sink = io.BytesIO()
    tar.TarWriter(sink).add("a.npy", [b"x" * 600])
    with pytest.raises(tarfile.TarError):
        list(tar.members(io.BytesIO(sink.getvalue()[:900])))


def test_members_without_a_key_or_twice_are_refused():
    with pytest.raises(CorpusError, match="not <key>"):
        list(grouped(iter([("plain", 0, b"")])))
    with pytest.raises(CorpusError, match="twice"):
        list(grouped(iter([("a.npy", 0, b""), ("a.npy", 0, b"")])))


def test_the_longest_names_fit(tmp_path):
    """A key of 48 + 16 + 7 letters with the longest member."""
    made = Raw(tmp_path / "raw")
    made.sound("a.wav", speech(16_000, 1))
    who = "w" * 16
    made.add(id="i" * 48, streams=[mono_stream(who, "a.wav")])
    build(made.rows, made.folder, tmp_path / "out")
    with tarfile.open(tmp_path / "out/shards/train-000000.tar") as file:
        longest = max(file.getnames(), key=len)
    assert longest.startswith("i" * 48 + "-" + who) and 85 < len(longest) <= 100
    assert len(list(Corpus.open(str(tmp_path / "out")).rows())) == 1
