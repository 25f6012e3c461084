"""A shard under way: its tar, and the rows of its index and its ledger, which appear under their names when it is whole.

What is put into it decides every byte: writing it twice changes nothing.
"""

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from ...schemas.receipts import MemberAt, ShardSummary
from ...schemas.record import window_digest
from ...schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, LedgerRow, rows_digest
from ..sessions.drops import drops
from ..storage.folders import Folder
from ..storage.parts import PartReader
from ..storage.tables import write_table
from ..storage.tar import TarWriter


class ShardWriter:
    """Takes windows and ledger rows in the order in which they shall lie.

    Attributes:
        tar: the tar under way; its `position` is the number of bytes so far.
    """

    def __init__(self, name: str, split: str, file: BinaryIO) -> None:
        self.tar = TarWriter(file)
        self._name, self._split = name, split
        self._index: list[dict[str, Any]] = []
        self._ledger: list[LedgerRow] = []
        self._num_sessions = 0

    def begin_session(self, ledger: Iterable[LedgerRow]) -> None:
        """A session begins in this shard: its account stands in this shard's ledger."""
        self._num_sessions += 1
        self._ledger += ledger

    def account(self, ledger: Iterable[LedgerRow]) -> None:
        """Ledger rows that belong to where a view ends."""
        self._ledger += ledger

    def add(
        self, key: str, members: Mapping[str, bytes | MemberAt], sha256: Mapping[str, str], parts: PartReader, described: Mapping[str, Any]
    ) -> None:
        """Appends a window: payloads as they are, byte ranges through `parts`, which refuses one that is not what its `sha256` says.

        `described` is what the index says of the window besides where it lies.
        """
        start = self.tar.position
        placed = []
        for name, at in members.items():
            if isinstance(at, bytes):
                offset, size = self.tar.add(f"{key}.{name}", [at]), len(at)
            else:
                offset, size = parts.copy(at, f"{key}.{name}", self.tar), at.size
            placed.append({"name": name, "offset": offset, "size": size, "sha256": sha256[name]})
        self._index.append(
            {
                "key": key,
                "split": self._split,
                "shard": self._name,
                "offset": start,
                "size": self.tar.position - start,
                "members": placed,
                "digest": window_digest(dict(sha256)),
                **described,
            }
        )

    def write_tables(self, out: Folder) -> ShardSummary:
        """Energon's offsets, the index and the ledger, each written whole; gives what dataset.json says of the shard."""
        offsets = [*(row["offset"] for row in self._index), self._index[-1]["offset"] + self._index[-1]["size"]]
        out.write(f"shards/{self._name}.tar.idx", struct.pack(f"<{len(offsets)}Q", *offsets))
        ledger_rows = [row.model_dump() for row in self._ledger]
        write_table(out, f"index/{self._name}.parquet", self._index, INDEX_SCHEMA)
        write_table(out, f"ledger/{self._name}.parquet", ledger_rows, LEDGER_SCHEMA)
        return ShardSummary(
            name=self._name,
            split=self._split,
            size_bytes=self.tar.position,
            sha256=self.tar.sha256.hexdigest(),
            index_digest=rows_digest(self._index),
            ledger_digest=rows_digest(ledger_rows),
            num_windows=len(self._index),
            num_sessions=self._num_sessions,
            num_ticks=sum(row["num_ticks"] for row in self._index),
            num_tokens=sum(row["num_tokens"] for row in self._index),
            num_pairs=sum(row["num_pairs"] for row in self._index),
            ledger_rows=len(self._ledger),
            drops=drops(self._ledger),
        )


@contextlib.contextmanager
def shard(out: Folder, name: str, split: str, may_name: Callable[[], None] = lambda: None) -> Iterator[ShardWriter]:
    """A shard to fill; its tar appears under its name when the block ends, and not at all when it raises. `write_tables` comes after.

    `may_name` raises when nothing may be put under a name any more.
    """
    with out.create(f"shards/{name}.tar") as file:
        writer = ShardWriter(name, split, file)
        yield writer
        writer.tar.close()
        may_name()
