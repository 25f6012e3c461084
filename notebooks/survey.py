"""What a corpus holds, counted from its index and ledger alone: no shard is opened, so it is quick on any size.

In: a committed corpus. Out: sums over windows, each view counted by itself, and over sessions, each counted once whatever its views; and
where the input went, by reason. Reads the tables file by file and keeps only sums: memory does not grow with the corpus, but for one number
per window and a word count per session-minute.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipelines.corpus import Corpus
from ..schemas.tables import LedgerRow, open_sums

RIGHTS = ("language", "license", "consent", "source")
MAX_EXAMPLES = 3
_SUMS = ("num_ticks", "num_tokens", "num_pairs", "num_patches", "own_active_ticks", "heard_active_ticks", "overlap_ticks", "num_own_words")
_COLUMNS = ("session", "view", "split", "first_tick", "session_ticks", "num_words", "max_lag_ticks", "events", *RIGHTS, *_SUMS)
_UNITS = ("sample", "picture", "word", "event")


@dataclass(slots=True)
class Windows:
    """Sums over the index.

    Attributes:
        totals: column of _SUMS → sum over all windows of all views; by_split: the same, and `windows`, for each split.
        num_windows, num_views, num_sessions: counts; session_ticks: sum over sessions, each once.
        num_words, events: over sessions, each once: words, and kind → count.
        tokens_per_tick: tenths of a token a tick → windows; lags: the most ticks of text lag in a window → windows.
        rights: column of RIGHTS → value → ticks of all views.
        member_bytes: member name → bytes of all payloads; tar_bytes: of the shards, headers and padding included.
    """

    num_windows: int = 0
    num_views: int = 0
    num_sessions: int = 0
    session_ticks: int = 0
    num_words: int = 0
    tar_bytes: int = 0
    totals: Counter[str] = field(default_factory=Counter)
    by_split: dict[str, Counter[str]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    tokens_per_tick: Counter[int] = field(default_factory=Counter)
    lags: Counter[int] = field(default_factory=Counter)
    rights: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in RIGHTS})
    member_bytes: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Reason:
    """Everything that was dropped, missing, inserted or unused for one reason.

    Attributes:
        rows: ledger rows; units: of the unit's kind; examples: the first rows by (session, stream, place).
    """

    rows: int = 0
    units: int = 0
    examples: list[Mapping[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Ledger:
    """Where the input went.

    Attributes:
        by_unit: unit → declared, decoded, kept, dropped, inserted, missing, streams.
        reasons: (entry, reason, stage, unit) → what fell under it.
        faults: a sentence for every stream whose sums do not close; none in a sound corpus.
    """

    by_unit: dict[str, Counter[str]] = field(default_factory=lambda: {unit: Counter() for unit in _UNITS})
    reasons: dict[tuple[str, str, str, str], Reason] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def windows(corpus: Corpus) -> Windows:
    """The sums over all index rows."""
    found = Windows()
    views: set[tuple[str, str]] = set()
    sessions: dict[str, int] = {}
    minutes: dict[tuple[str, int], int] = {}  # (session, first tick) → words: a view's windows begin where every other's do
    for shard in corpus.shards:
        found.tar_bytes += shard["size_bytes"]
        table = read_index(corpus, shard["name"], _COLUMNS)
        for row in _rows(table):
            _add(found, row)
            views.add((row["session"], row["view"]))
            sessions[row["session"]] = row["session_ticks"]
            place = (row["session"], row["first_tick"])
            if place not in minutes:
                found.events.update(dict(row["events"]))
            minutes[place] = max(minutes.get(place, 0), row["num_words"])
        members = read_index(corpus, shard["name"], ("members.list.element.name", "members.list.element.size"))["members"]
        flat = members.combine_chunks().flatten()
        by_name = pa.table({"name": flat.field("name"), "size": flat.field("size")}).group_by("name").aggregate([("size", "sum")])
        found.member_bytes.update(dict(zip(by_name["name"].to_pylist(), by_name["size_sum"].to_pylist(), strict=True)))
    found.num_views, found.num_sessions = len(views), len(sessions)
    found.session_ticks, found.num_words = sum(sessions.values()), sum(minutes.values())
    return found


def ledger(corpus: Corpus) -> Ledger:
    """The sums over all ledger rows, with examples."""
    found = Ledger()
    for name in [part["name"] for part in [*corpus.shards, *corpus.dataset["rejected"]]]:
        rows = corpus.ledger(name)
        found.faults += open_sums([LedgerRow(**row) for row in rows])
        for row in rows:
            _book(found, row)
    for reason in found.reasons.values():
        reason.examples.sort(key=_place)
        del reason.examples[MAX_EXAMPLES:]
    return found


def read_index(corpus: Corpus, shard: str, columns: Sequence[str]) -> pa.Table:
    """These columns of a shard's index."""
    with corpus.folder.open(f"index/{shard}.parquet") as file:
        return pq.read_table(file, columns=list(columns))


def keys(corpus: Corpus) -> Iterator[str]:
    """Every window key, shard by shard."""
    for shard in corpus.shards:
        yield from read_index(corpus, shard["name"], ("key",))["key"].to_pylist()


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _add(found: Windows, row: Mapping[str, Any]) -> None:
    sums = {name: row[name] for name in _SUMS}
    found.num_windows += 1
    found.totals.update(sums)
    found.by_split.setdefault(row["split"], Counter()).update(sums | {"windows": 1})
    found.tokens_per_tick[row["num_tokens"] * 10 // row["num_ticks"]] += 1
    found.lags[row["max_lag_ticks"]] += 1
    for name in RIGHTS:
        found.rights[name][row[name]] += row["num_ticks"]


def _book(found: Ledger, row: Mapping[str, Any]) -> None:
    unit, entry = row["unit"], row["entry"]
    units = {"dropped": row["dropped"], "session": row["dropped"], "inserted": row["inserted"], "missing": row["stop"] - row["start"]}
    if entry == "stream":
        sums = {name: row[name] for name in ("declared", "decoded", "kept", "dropped", "inserted")}
        found.by_unit[unit].update(sums | {"streams": 1})
        return
    if entry == "missing":
        found.by_unit[unit]["missing"] += units[entry]
    reason = found.reasons.setdefault((entry, row["reason"], row["stage"], unit), Reason())
    reason.rows += 1
    reason.units += units.get(entry, row["declared"])
    reason.examples.append(row)
    if len(reason.examples) > 100 * MAX_EXAMPLES:
        reason.examples.sort(key=_place)
        del reason.examples[MAX_EXAMPLES:]


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["session"], row["stream"], row["start"], row["message"]
