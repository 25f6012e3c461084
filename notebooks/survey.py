"""What a corpus holds, counted from its index alone: no shard is opened, so it is quick on any size.

In: a committed corpus. Out: sums over windows, where each view counts, and over sessions, where each counts once whatever its views. The
light columns of the whole index are in memory at once: about 200 bytes a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..pipelines.corpus import Corpus
from ..schemas.tables import INDEX_SCHEMA

RIGHTS = ("language", "license", "consent", "source")
SUMS = ("num_ticks", "num_tokens", "num_pairs", "num_patches", "own_active_ticks", "heard_active_ticks", "overlap_ticks", "num_own_words")
_COLUMNS = ("session", "view", "split", "first_tick", "session_ticks", "num_words", "max_lag_ticks", "events", *RIGHTS, *SUMS)

Counts = dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Sums over the index.

    Attributes:
        totals: column of SUMS → sum over all windows of all views; by_split: the same for each split, with `windows` and `sessions`.
        session_ticks: sum over sessions, each once; num_words and events (kind → count) likewise.
        tokens_per_tick: tenths of a token a tick → windows; lags: most ticks of text lag in a window → windows.
        rights: column of RIGHTS → value → ticks of all views, most first.
        member_bytes: member name → bytes of all payloads; tar_bytes: of the shards, headers and padding included.
    """

    num_windows: int
    num_views: int
    num_sessions: int
    session_ticks: int
    num_words: int
    totals: Counts
    by_split: dict[str, Counts]
    events: Counts
    tokens_per_tick: dict[int, int]
    lags: dict[int, int]
    rights: dict[str, Counts]
    member_bytes: Counts
    tar_bytes: int


def survey(corpus: Corpus) -> Windows:
    """The sums over all windows of the corpus."""
    table = read_index(corpus, _COLUMNS)
    sessions = table.group_by("session").aggregate([("session_ticks", "max")])
    once = _each_once(table)  # a view's windows begin where those of every other view do, and hold the same words and events
    split_sessions = table.group_by("split").aggregate([("session", "count_distinct")])
    by_split: dict[str, Counts] = {name: {} for name in sorted(table["split"].unique().to_pylist())}
    for column in SUMS:
        for name, total in _sums(table, "split", column).items():
            by_split[name][column] = total
    for name, windows in _counts(table["split"]).items():
        by_split[name]["windows"] = windows
    for name, count in zip(split_sessions["split"].to_pylist(), split_sessions["session_count_distinct"].to_pylist(), strict=True):
        by_split[name]["sessions"] = count
    tenths = pc.divide(pc.multiply(table["num_tokens"].cast("int64"), 10), table["num_ticks"].cast("int64"))
    return Windows(
        num_windows=table.num_rows,
        num_views=table.group_by(["session", "view"]).aggregate([]).num_rows,
        num_sessions=sessions.num_rows,
        session_ticks=_total(sessions["session_ticks_max"]),
        num_words=_total(once["num_words"]),
        totals={column: _total(table[column]) for column in SUMS},
        by_split=by_split,
        events=_event_counts(once["events"]),
        tokens_per_tick=_counts(tenths),
        lags=_counts(table["max_lag_ticks"]),
        rights={name: dict(sorted(_sums(table, name, "num_ticks").items(), key=lambda item: (-item[1], item[0]))) for name in RIGHTS},
        member_bytes=_member_bytes(corpus),
        tar_bytes=sum(shard["size_bytes"] for shard in corpus.shards),
    )


def read_index(corpus: Corpus, columns: Sequence[str], shards: Sequence[str] | None = None) -> pa.Table:
    """These columns of the index of these shards, or of all, in their order."""
    tables = []
    for name in [shard["name"] for shard in corpus.shards] if shards is None else shards:
        with corpus.folder.open(f"index/{name}.parquet") as file:
            tables.append(pq.ParquetFile(file).read(columns=list(columns)))
    return pa.concat_tables(tables) if tables else pa.schema([INDEX_SCHEMA.field(name) for name in columns]).empty_table()


def _each_once(table: pa.Table) -> pa.Table:
    """One row for each (session, first tick), the first of them."""
    numbered = table.select(["session", "first_tick"]).append_column("row", pa.array(range(table.num_rows), pa.int64()))
    firsts = numbered.group_by(["session", "first_tick"]).aggregate([("row", "min")])["row_min"]
    return table.select(["num_words", "events"]).take(firsts)


def _event_counts(events: pa.ChunkedArray) -> Counts:
    found: Counts = {}
    for chunk in events.chunks:
        table = pa.table({"kind": chunk.keys, "count": chunk.items})
        for kind, count in _sums(table, "kind", "count").items():
            found[kind] = found.get(kind, 0) + count
    return dict(sorted(found.items()))


def _member_bytes(corpus: Corpus) -> Counts:
    found: Counts = {}
    for shard in corpus.shards:
        members = read_index(corpus, ("members.list.element.name", "members.list.element.size"), [shard["name"]])["members"]
        flat = members.combine_chunks().flatten()
        for name, size in _sums(pa.table({"name": flat.field("name"), "size": flat.field("size")}), "name", "size").items():
            found[name] = found.get(name, 0) + size
    return dict(sorted(found.items()))


def _sums(table: pa.Table, key: str, column: str) -> Counts:
    """Value of `key` → sum of `column`, sorted by value."""
    sums = table.group_by(key).aggregate([(column, "sum")])
    return dict(sorted(zip(sums[key].to_pylist(), sums[f"{column}_sum"].to_pylist(), strict=True)))


def _counts(column: pa.ChunkedArray) -> dict:
    """Value → how often, sorted by value."""
    counts = pc.value_counts(column).to_pylist()
    return dict(sorted((count["values"], count["counts"]) for count in counts))


def _total(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0
