"""Tars whose bytes depend on nothing but names and contents: USTAR, mtime, uid and gid 0, no user names, no compression."""

import hashlib
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from ...schemas.pieces import Runs, num_bytes

BLOCK = 512
END = bytes(2 * BLOCK)
COPY_BYTES = 1 << 20


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's payload. Raises ValueError for a name that USTAR cannot hold in its name field."""
    if len(name.encode()) > 100:
        raise ValueError(f"{name!r} has more than 100 bytes")
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


class TarWriter:
    """Appends members to a file and keeps count.

    Attributes:
        position: bytes written so far.
        sha256: their running hash; of a tar that is known by its members' digests, of nothing.
    """

    def __init__(self, file: BinaryIO, *, is_hashed: bool = True) -> None:
        self._file = file
        self._is_hashed = is_hashed
        self.position = 0
        self.sha256 = hashlib.sha256()

    def add(self, name: str, runs: Runs) -> int:
        """Writes a member whose payload is these runs of bytes; gives the offset of its payload."""
        self._write(header(name, num_bytes(runs)))
        offset = self.position
        for run in runs:
            self._write(run)
        self._pad()
        return offset

    def copy(self, name: str, size: int, source: BinaryIO) -> tuple[int, str]:
        """Writes a member whose payload is the next `size` bytes of `source`; gives its offset and its sha256. Raises EOFError if they are
        not there."""
        self._write(header(name, size))
        offset, left = self.position, size
        running = hashlib.sha256()
        while left:
            data = source.read(min(left, COPY_BYTES))
            if not data:
                raise EOFError(f"{name}: the source ends {left} bytes early")
            self._write(data)
            running.update(data)
            left -= len(data)
        self._pad()
        return offset, running.hexdigest()

    def close(self) -> None:
        """Writes the two zero blocks that end a tar. The file stays open."""
        self._write(END)

    def _pad(self) -> None:
        self._write(bytes(-self.position % BLOCK))

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        if self._is_hashed:
            self.sha256.update(data)
        self.position += len(data)


def members(file: BinaryIO) -> Iterator[tuple[str, int, bytes]]:
    """(name, payload offset, payload) of each member in order. Raises tarfile.TarError, also for a tar that ends early."""
    with tarfile.open(fileobj=file, mode="r:", format=tarfile.USTAR_FORMAT) as tar:
        for info in tar:
            payload = tar.extractfile(info).read()
            if len(payload) != info.size:
                raise tarfile.ReadError(f"{info.name}: {len(payload)} bytes of {info.size}")
            yield info.name, info.offset_data, payload
