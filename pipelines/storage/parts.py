"""Parts: content-addressed tar segments of featurised windows, in the staging folder. Written once, named by their members' digests.

Whoever reads a member compares its sha256 with the receipt's; whoever only copies it, its xxh3, in a tenth of the time: a corpus is known
by sha256, this is about disks. A part that has changed is removed: the next build makes it again.
"""

import contextlib
import hashlib
from pathlib import Path
from typing import BinaryIO, NoReturn

import xxhash

from ...schemas.pieces import Runs, num_bytes
from ...schemas.receipts import MemberAt, Receipt
from ...schemas.strict import sha256_hex
from .folders import Folder, full_disk_named
from .tar import BLOCK, END, Running, TarWriter

PARTS = "parts"
MAX_OPEN = 8
LIGHT_MEMBERS = (  # they lie in a part of their own, written at the session's end: all that tokens are made from
    "activity.npy", "events.json", "heard_valid.npy", "meta.json", "own_valid.npy", "picture_pts.npy", "picture_tick.npy", "words.json",
)  # fmt: skip


def part_bytes(receipt: Receipt, part: str) -> int:
    """How long a part is: to the end of its last member, and the end of a tar."""
    ends = [member.offset + member.size for window in receipt.windows for member in window.members if member.part == part]
    return -(-max(ends) // BLOCK) * BLOCK + len(END)


class PartReader:
    """Parts open for reading; the last ones used stay open, for windows lie in them one after another. Close it, or use it as a context."""

    def __init__(self, staging: Folder) -> None:
        self._staging = staging
        self._open: dict[str, BinaryIO] = {}

    def read(self, at: MemberAt) -> bytes:
        """A member's payload. Raises OSError when it is not what its receipt says."""
        file = self._at(at)
        data = file.read(at.size)
        if hashlib.sha256(data).hexdigest() != at.sha256:
            self._refuse(at)
        return data

    def copy(self, at: MemberAt, name: str, tar: TarWriter) -> int:
        """Copies a member under this name; gives the offset of its payload. Raises OSError when it is not what its receipt says."""
        running: Running = xxhash.xxh3_64() if at.xxh3 else hashlib.sha256()
        try:
            offset = tar.copy(name, at.size, self._at(at), running)
        except EOFError:
            self._refuse(at)
        if running.hexdigest() != (at.xxh3 or at.sha256):
            self._refuse(at)
        return offset

    def close(self) -> None:
        """Closes every part."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> "PartReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _at(self, at: MemberAt) -> BinaryIO:
        if at.part not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[at.part] = self._staging.open(at.part)
        self._open[at.part].seek(at.offset)
        return self._open[at.part]

    def _refuse(self, at: MemberAt) -> NoReturn:
        """A member is not what its receipt says."""
        with contextlib.suppress(OSError):
            self._staging.delete(at.part)
        raise OSError(
            f"{at.part}: {at.name} at {at.offset} has changed since it was written; the part is removed, the next build makes it again"
        )


class PartWriter:
    """A part under way: members are appended, `close` names it and tells where they lie.

    Whoever opens one closes or discards it; a process that dies leaves a `.tmp` file and nothing under a part's name.
    """

    def __init__(self, staging: Folder) -> None:
        self._staging = staging
        self._path: Path = staging.scratch()
        self._place = str(self._path.parent) if staging.local is None else staging.uri
        with full_disk_named(self._place):
            self._file = open(self._path, "wb")  # noqa: SIM115 - closed by close() or discard()
        self._tar = TarWriter(self._file, is_hashed=False)
        self._placed: list[tuple[str, MemberAt]] = []

    def add(self, key: str, member: str, runs: Runs) -> None:
        """Appends `<key>.<member>`, whose bytes are these runs."""
        sha256, quick = hashlib.sha256(), xxhash.xxh3_64()
        for run in runs:
            sha256.update(run)
            quick.update(run)
        with full_disk_named(self._place):
            offset = self._tar.add(f"{key}.{member}", runs)
        at = MemberAt(name=member, part="", offset=offset, size=num_bytes(runs), sha256=sha256.hexdigest(), xxh3=quick.hexdigest())
        self._placed.append((key, at))

    def close(self) -> dict[str, list[MemberAt]]:
        """Window key → where its members lie. The part now stands under its name; an equal part that stood there is replaced by itself.

        Its bytes follow from the names, lengths and digests of its members, and so does its name: no second hash over everything.
        """
        with full_disk_named(self._place):
            self._tar.close()
            self._file.close()
        told = "".join(f"{key}.{at.name} {at.size} {at.sha256}\n" for key, at in self._placed)
        name = f"{PARTS}/{sha256_hex(told)}.tar"
        self._staging.adopt(self._path, name)
        placed: dict[str, list[MemberAt]] = {}
        for key, at in self._placed:
            placed.setdefault(key, []).append(at.model_copy(update={"part": name}))
        return placed

    def discard(self) -> None:
        """Forgets the part."""
        with contextlib.suppress(OSError):  # on a full disk closing fails for what is still to be written
            self._file.close()
        self._path.unlink(missing_ok=True)
