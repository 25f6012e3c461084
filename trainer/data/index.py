"""The compact index: where every window of a split lies and how many tokens it holds. About 70 bytes a window, nothing else is kept.

In: index/<shard>.parquet of the shards that dataset.json lists. Out: arrays. A million windows are 70 MB; with a cache they are one file
that loads in a fraction of a second, however many shards there are.

Letters: W windows, in the order in which they lie in the shards; V views (of one session each).
"""

import io
import os
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...schemas.errors import CorpusError
from ...schemas.strict import canonical_json, sha256_hex
from .files import Files

_COLUMNS = ["session", "view", "digest", "offset", "size", "first_tick", "num_ticks", "num_tokens", "num_pairs", "num_patches"]
_READERS = 8  # threads that read Parquet files: an object store answers each in tens of milliseconds


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class WindowIndex:
    """Windows by their number, 0 … W - 1.

    Attributes:
        shards: names of the shards.
        view_names: names of views that occur.
        window_ticks: ticks of every window but a view's last.
        shard_W, offset_W, size_W: which shard (place in `shards`), bytes [offset, offset + size) of it.
        first_tick_W, ticks_W: tick of the session at which the window starts, and how many it has.
        tokens_W, picture_tokens_W: its tokens, and how many of them are pictures'.
        digest_W: uint8 [W, 32], sha256(members).
        session_W, view_W: number of the session, place in `view_names`.
    """

    shards: tuple[str, ...]
    view_names: tuple[str, ...]
    window_ticks: int
    shard_W: NDArray[np.uint32]
    offset_W: NDArray[np.uint64]
    size_W: NDArray[np.uint32]
    first_tick_W: NDArray[np.uint32]
    ticks_W: NDArray[np.uint32]
    tokens_W: NDArray[np.uint32]
    picture_tokens_W: NDArray[np.uint32]
    digest_W: NDArray[np.uint8]
    session_W: NDArray[np.uint32]
    view_W: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.offset_W)

    @classmethod
    def open(cls, files: Files, shards: Sequence[Mapping[str, Any]], window_ticks: int, *, cache: Path | None = None) -> "WindowIndex":
        """The index of these shards (rows of dataset.json). Raises CorpusError when a table is not the one that was committed."""
        kept = None
        if cache is not None:
            identity = canonical_json([1, window_ticks, [[shard["name"], shard["index_digest"]] for shard in shards]])
            kept = Path(cache) / f"windows-{sha256_hex(identity)[:24]}.npz"
            if kept.exists():
                return cls.load(kept)
        with ThreadPoolExecutor(_READERS) as pool:
            index = _joined(list(pool.map(lambda shard: _read(files, shard), shards)), [shard["name"] for shard in shards], window_ticks)
        if kept is not None:
            index.save(kept)
        return index

    @classmethod
    def load(cls, path: Path) -> "WindowIndex":
        """What `save` wrote. Raises CorpusError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values: dict[str, Any] = {field.name: arrays[field.name] for field in fields(cls)}
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CorpusError(f"{path}: not a saved index ({error})", hint="delete it: it is made again from the corpus") from None
        names = {name: tuple(values[name].tolist()) for name in ("shards", "view_names")}
        return cls(**values | names | {"window_ticks": int(values["window_ticks"])})

    def save(self, path: Path) -> None:
        """One file of all arrays; it appears under its name whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            with open(scratch, "wb") as file:
                np.savez(file, allow_pickle=False, **{field.name: np.asarray(getattr(self, field.name)) for field in fields(self)})
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)

    def where(self, window: int) -> str:
        """The window's place for an error: shard and offset."""
        return f"{self.shards[self.shard_W[window]]}.tar, byte {self.offset_W[window]}"


def window_key_at(files: Files, shard: str, offset: int) -> str:
    """The key of the window at this offset of a shard, from its Parquet: the index keeps no keys, only a damaged window needs one."""
    table = pq.read_table(io.BytesIO(files.read(f"index/{shard}.parquet")), columns=["key", "offset"])
    return dict(zip(table["offset"].to_pylist(), table["key"].to_pylist(), strict=True))[offset]


def _read(files: Files, shard: Mapping[str, Any]) -> Any:
    """The columns of a shard's table that the index is made from."""
    where = files.path(f"index/{shard['name']}.parquet")
    try:
        table = pq.read_table(io.BytesIO(files.read(f"index/{shard['name']}.parquet")), columns=_COLUMNS)
    except (ValueError, KeyError) as error:  # what pyarrow raises for bytes that are no Parquet, or columns that are missing
        raise CorpusError(f"{where}: not an index ({error})") from None
    for name, column in (("num_windows", None), ("num_tokens", "num_tokens"), ("num_ticks", "num_ticks")):
        found = sum(table[column].to_pylist()) if column else table.num_rows
        if found != shard[name]:
            raise CorpusError(f"{where}: {name} {found}, dataset.json says {shard[name]}", hint="`microturn verify` tells more")
    return table


def _joined(tables: Sequence[Any], names: Sequence[str], window_ticks: int) -> WindowIndex:
    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.concatenate([table[name].to_numpy() for table in tables] or [np.zeros(0)]).astype(dtype)

    def numbered(name: str) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
        """The column as places in its distinct values, in order of first appearance; a session may cross the edge of a shard."""
        places: dict[str, int] = {}
        parts = []
        for table in tables:
            encoded = table[name].combine_chunks().dictionary_encode()
            own = np.array([places.setdefault(value, len(places)) for value in encoded.dictionary.to_pylist()], np.uint32)
            parts.append(own[encoded.indices.to_numpy()])
        return np.concatenate(parts), tuple(places)

    digests = "".join(digest for table in tables for digest in table["digest"].to_pylist())
    session_W, _ = numbered("session")
    view_W, view_names = numbered("view")
    return WindowIndex(
        shards=tuple(names),
        view_names=view_names,
        window_ticks=window_ticks,
        shard_W=np.repeat(np.arange(len(tables), dtype=np.uint32), [table.num_rows for table in tables]),
        offset_W=column("offset", np.uint64),
        size_W=column("size", np.uint32),
        first_tick_W=column("first_tick", np.uint32),
        ticks_W=column("num_ticks", np.uint32),
        tokens_W=column("num_tokens", np.uint32),
        picture_tokens_W=column("num_pairs", np.uint32) + column("num_patches", np.uint32),
        digest_W=np.frombuffer(bytes.fromhex(digests), np.uint8).reshape(-1, 32),
        session_W=session_W,
        view_W=view_W,
    )
