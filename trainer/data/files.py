"""Files of a corpus folder, read whole or by byte range: `pread` where they are local, fsspec elsewhere. Never written."""

import os
from pathlib import Path

import fsspec

MAX_OPEN = 64  # shards kept open by a process


class Files:
    """A folder by its path or URI. Names are relative, with `/`. Every error is an OSError.

    Open files are positioned by nobody (`pread`), so a forked worker may use its parent's.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") or "/"
        self._fs, self._root = fsspec.core.url_to_fs(self.uri)
        protocol = self._fs.protocol
        self._local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        self._open: dict[str, int] = {}

    def __reduce__(self) -> tuple[type["Files"], tuple[str]]:  # what another process needs: descriptors are this one's
        return Files, (self.uri,)

    def path(self, name: str) -> str:
        """The file as an error names it."""
        return f"{self.uri}/{name}"

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        return Path(self._root, name).read_bytes() if self._local else self._from_store(name)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """The `size` bytes from `offset`; fewer when the file ends before."""
        if not self._local:
            return self._from_store(name, start=offset, end=offset + size)
        if name not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            self._open[name] = os.open(Path(self._root, name), os.O_RDONLY)
        pieces = []
        while size and (piece := os.pread(self._open[name], size, offset)):  # one call gives at most 2 GB, and may give less
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def _from_store(self, name: str, **span: int) -> bytes:
        try:
            return self._fs.cat_file(f"{self._root}/{name}", **span)
        except OSError:
            raise
        except Exception as error:  # each client has errors of its own for a store that does not answer
            raise OSError(f"{self.path(name)}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Closes what is open; reading opens it again."""
        while self._open:
            os.close(self._open.popitem()[1])
