"""A part gives back what was put into it, or nothing, and says so."""

import io

import pytest
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.parts import PartReader, PartWriter
from microturn.pipelines.storage.tar import TarWriter


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(str(tmp_path))


def written(folder: Folder, *payloads: bytes):
    """Where the payloads lie in a part, each as two runs."""
    writer = PartWriter(folder)
    for number, payload in enumerate(payloads):
        writer.add("key", f"m{number}", [payload[:3], memoryview(payload)[3:]])
    return writer.close()["key"]


def test_a_parts_name_follows_from_what_its_members_are(folder):
    one, again, other = (written(folder, *payloads)[0].part for payloads in ((b"abcd", b"ef"), (b"abcd", b"ef"), (b"abc", b"def")))
    assert one == again != other


@pytest.mark.parametrize("by", ["xxh3", "sha256"])
@pytest.mark.parametrize("how", ["one bit", "cut"])
def test_a_copy_of_what_has_changed_is_refused_and_the_part_removed(folder, tmp_path, by, how):
    at = written(folder, b"x" * 5_000, b"y" * 4_000)[1].model_copy(update={} if by == "xxh3" else {"xxh3": ""})
    with PartReader(folder) as parts:
        sink = io.BytesIO()
        offset = parts.copy(at, "name", TarWriter(sink))
        assert sink.getvalue()[offset : offset + at.size] == parts.read(at) == b"y" * 4_000
    path = tmp_path / at.part
    data = bytearray(path.read_bytes())
    data[at.offset + 7] ^= 1
    path.write_bytes(data if how == "one bit" else data[: at.offset + 2_000])
    for use in (lambda parts: parts.copy(at, "name", TarWriter(io.BytesIO())), lambda parts: parts.read(at)):
        path.write_bytes(data if how == "one bit" else data[: at.offset + 2_000])
        with PartReader(folder) as parts, pytest.raises(OSError, match="has changed since it was written"):
            use(parts)
        assert not path.exists()
