"""Parts: content-addressed tar segments of featurised windows, in the staging folder. Written once, named by their sha256."""

import hashlib
from pathlib import Path

from ..schemas.receipts import MemberAt
from .storage import Folder
from .tar import TarWriter

PARTS = "parts"


class PartWriter:
    """A part under way: members are appended, `close` names it and tells where they lie.

    Whoever opens one closes or discards it; a process that dies leaves a `.tmp` file and nothing under a part's name.
    """

    def __init__(self, staging: Folder) -> None:
        self._staging = staging
        self._path: Path = staging.scratch()
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed by close() or discard()
        self._tar = TarWriter(self._file)
        self._placed: list[tuple[str, str, int, int, str]] = []

    def add(self, key: str, member: str, payload: bytes) -> None:
        """Appends `<key>.<member>`."""
        offset = self._tar.add(f"{key}.{member}", payload)
        self._placed.append((key, member, offset, len(payload), hashlib.sha256(payload).hexdigest()))

    def close(self) -> dict[str, list[MemberAt]]:
        """Window key → where its members lie. The part now stands under its name; an equal part that stood there is replaced by itself."""
        self._tar.close()
        self._file.close()
        name = f"{PARTS}/{self._tar.sha256.hexdigest()}.tar"
        self._staging.adopt(self._path, name)
        placed: dict[str, list[MemberAt]] = {}
        for key, member, offset, size, digest in self._placed:
            placed.setdefault(key, []).append(MemberAt(name=member, part=name, offset=offset, size=size, sha256=digest))
        return placed

    def discard(self) -> None:
        """Forgets the part."""
        self._file.close()
        self._path.unlink(missing_ok=True)
