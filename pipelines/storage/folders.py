"""Folders, local or in an object store, through fsspec: read, read a range, list, and write so that a name never holds half a file.

Local files are written beside their name, fsynced and renamed; an object store gets one PUT or one multipart completion at the final name.
fsspec rather than Beam's filesystems: it has ranged reads and the same stores that Dask, pandas and Hugging Face users already configure.
Its clients try again by themselves what a store fails now and then; what they give up comes out of here as an OSError, whatever it was, for
it is the machine's fault and never the content's.
"""

import contextlib
import errno
import hashlib
import io
import os
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from ...schemas.errors import InputError, MediaError
from ...schemas.receipts import FileIdentity

HASH_BYTES = 16 << 20
STORE_BUFFER_BYTES = 1 << 16


class NotAFileError(MediaError):
    """What an input path names is there and is no file: a folder, a pipe, a device. That is the input's fault, not the machine's."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: a folder, a pipe or a device", reason="not_a_file", hint="name the recording itself")


class DiskFull(OSError):
    """No room is left in a folder. The sentence names the folder, which the system's does not, and says what to do."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder by its URI. Names are relative, with `/`. Every error is an OSError."""

    uri: str

    @property
    def local(self) -> Path | None:
        """The path of a local folder, None for a remote one."""
        fs, path = _filesystem(self.uri)
        return Path(path) if "file" in _protocols(fs) else None

    def _at(self, name: str):
        fs, path = _filesystem(self.uri)
        return fs, f"{path.rstrip('/')}/{name}" if name else path

    def open(self, name: str) -> BinaryIO:
        """The file, open for reading, with random access."""
        fs, path = self._at(name)
        return open(path, "rb") if "file" in _protocols(fs) else _open_store(fs, path)

    def read(self, name: str) -> bytes:
        """All bytes of a file, as they were at one moment: opened and then read, a store's file may have been put anew between the two."""
        return _read(*self._at(name))

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`. Raises OSError when the file ends before."""
        with self.open(name) as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{name}: wanted {size} bytes at {offset}, got {len(data)}")
        return data

    def scratch(self) -> Path:
        """A new path for a file under way: beside its future name in a local folder, in the temporary folder for a remote one."""
        folder = self.local
        if folder is None:
            return Path(tempfile.gettempdir()) / f"{uuid.uuid4().hex}.tmp"
        with full_disk_named(self.uri):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / f".{uuid.uuid4().hex}.tmp"

    def adopt(self, path: Path, name: str) -> None:
        """Moves a finished scratch file to its name: fsync and rename here, one PUT or multipart completion in a store."""
        fs, target = self._at(name)
        if "file" not in _protocols(fs):
            with _as_os_error(target):
                fs.put_file(str(path), target)
            path.unlink()
            return
        with full_disk_named(self.uri):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(path, target)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to write; it appears under its name, whole, when the block ends, and not at all when the block raises."""
        path = self.scratch()
        try:
            with full_disk_named(str(path.parent) if self.local is None else self.uri), open(path, "wb") as file:
                yield file
            self.adopt(path, name)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def write(self, name: str, data: bytes) -> None:
        """The file with these bytes, whole or not at all."""
        with self.create(name) as file:
            file.write(data)

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name. A store that does not answer is an error, not a no."""
        fs, path = self._at(name)
        return _info(fs, path) is not None

    def size(self, name: str) -> int:
        """Bytes of a file."""
        fs, path = self._at(name)
        with _as_os_error(path):
            return fs.size(path)

    def names(self, prefix: str = "") -> list[str]:
        """Names of all files below `prefix`, sorted; none when there is no such folder. Unfinished local files are left out."""
        fs, path = self._at(prefix)
        base = self._at("")[1].rstrip("/")
        try:
            with _as_os_error(path):
                found = fs.find(path)
        except FileNotFoundError:
            return []
        return sorted(name[len(base) + 1 :] for name in found if not name.endswith(".tmp"))

    def delete(self, name: str) -> None:
        """Removes a file or a whole folder; nothing happens when it is not there."""
        fs, path = self._at(name)
        with contextlib.suppress(FileNotFoundError), _as_os_error(path):
            fs.rm(path, recursive=True)

    def write_new(self, name: str, data: bytes) -> bool:
        """Writes the file unless there is one of this name; says whether it did. Whole and exclusive where the store has conditional puts
        (S3, GCS, Azure, local disks); elsewhere the look before the write leaves a gap of milliseconds."""
        fs, path = self._at(name)
        if _info(fs, path) is not None:
            return False
        try:
            with _as_os_error(path):
                fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "precondition" not in str(error).lower():  # S3 has no errno for a put that lost
                raise
            return False
        return True

    def delete_unfinished(self) -> None:
        """Removes what writers left that died. Call it when no writer of this folder is at work; a store keeps no such files."""
        for path in self.local.glob(".*.tmp") if self.local else ():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_named(place: str) -> Iterator[None]:
    """Raises DiskFull, with this place, for an OSError of a disk or a quota that is full."""
    try:
        yield
    except OSError as error:
        if isinstance(error, DiskFull) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        told = f"{os.strerror(error.errno)}; make room there, or take another folder, and run the same command again"
        raise DiskFull(error.errno, told, place) from error


def absolute(uri: str) -> str:
    """The same place for a process that stands in another folder: a local path from the root, a URI as it is."""
    fs, path = _filesystem(uri)
    return path if "file" in _protocols(fs) else uri


def locate(root: str, path: str) -> str:
    """The path or URI of a file that a manifest under `root` names: absolute paths and URIs stand, the rest starts at `root`."""
    return path if "://" in path or os.path.isabs(path) else f"{root.rstrip('/')}/{path}"


def is_folder(uri: str) -> bool:
    """Whether there is a folder of this name. Raises InputError when there is nothing."""
    fs, path = _filesystem(uri)
    info = _info(fs, path)
    if info is None:
        raise InputError(f"{uri}: no such file or folder")
    return os.path.isdir(path) if "file" in _protocols(fs) else info["type"] == "directory"


def read_input(uri: str) -> bytes:
    """All bytes of a file."""
    return _read(*_filesystem(uri))


def parent(uri: str) -> str:
    """The folder that a file lies in."""
    head, slash, _ = uri.rpartition("/")
    return head or slash or "."


def within(inner: str, outer: str) -> bool:
    """Whether the first place is the second, or lies below it, links followed."""
    a, b = (_place(uri) for uri in (inner, outer))
    return a == b or a.startswith(f"{b.rstrip('/')}/")


def _place(uri: str) -> str:
    """One name for a place, whichever way it is written: a local path without links and dots, a store's URI without a slash at its end."""
    fs, path = _filesystem(uri)
    return os.path.realpath(path) if "file" in _protocols(fs) else fs.unstrip_protocol(path).rstrip("/")


def open_source(root: str, path: str) -> BinaryIO:
    """An input file, open for reading. Raises NotAFileError for what is none: a pipe would keep us waiting for ever."""
    fs, at = _filesystem(locate(root, path))
    if "file" not in _protocols(fs):
        return _open_store(fs, at)
    _refuse_no_file(path, os.stat(at))
    return open(at, "rb")


def sha256_of(file: BinaryIO, alive: Callable[[], None] = lambda: None) -> str:
    """The sha256 of what is left of a file. `alive` is called now and then: hashing an hour of film takes a while."""
    running = hashlib.sha256()
    while data := file.read(HASH_BYTES):
        running.update(data)
        alive()
    return running.hexdigest()


def _refuse_no_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(path)


def identify(root: str, path: str) -> FileIdentity:
    """Size and stamp of an input file: mtime in ns, or the object store's etag. Raises FileNotFoundError, NotAFileError."""
    fs, at = _filesystem(locate(root, path))
    if "file" in _protocols(fs):
        status = os.stat(at)
        _refuse_no_file(path, status)
        return FileIdentity(path=path, size_bytes=status.st_size, stamp=str(status.st_mtime_ns))
    with _as_os_error(at):
        info = fs.info(at)
    if info["type"] == "directory":
        raise NotAFileError(path)
    stamp = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("mtime") or ""
    return FileIdentity(path=path, size_bytes=info["size"], stamp=str(stamp))


def _filesystem(uri: str):
    """(filesystem, path in it). Raises InputError for a store that nothing here can reach."""
    try:
        return fsspec.core.url_to_fs(uri, use_listings_cache=False)  # a listing of before would hide what other workers have written
    except ImportError as error:
        raise InputError(f"{uri}: {error}", hint="what reads this store is a package of its own") from None
    except ValueError as error:
        raise InputError(f"{uri}: {error}") from None


def _protocols(fs) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _read(fs, path: str) -> bytes:
    if "file" in _protocols(fs):
        return Path(path).read_bytes()
    with _as_os_error(path):
        return fs.cat_file(path)


def _info(fs, path: str) -> dict[str, Any] | None:
    """What a store says of a file or folder, None when there is none; of a local one it is only said that it is there."""
    try:
        with _as_os_error(path):
            if "file" not in _protocols(fs):
                return fs.info(path)
            os.stat(path)
            return {}
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextlib.contextmanager
def _as_os_error(path: str) -> Iterator[None]:
    """A store's client raises what it likes; whoever calls us knows the machine's faults by OSError."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


def _open_store(fs, path: str) -> BinaryIO:
    """A file of a store, open for reading, with random access where the store has ranged reads."""
    return io.BufferedReader(_StoreFile(fs, path), STORE_BUFFER_BYTES)


class _StoreFile(io.RawIOBase):
    """What a store's client gives, with its errors as OSErrors."""

    def __init__(self, fs, path: str) -> None:
        self._path = self.name = path
        with _as_os_error(path):
            self._file = fs.open(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def readinto(self, buffer) -> int:
        with _as_os_error(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        with _as_os_error(self._path):
            return self._file.read()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _as_os_error(self._path):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
