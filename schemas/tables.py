"""The tables of a corpus: where every input sample went (ledger), where every window lies (index).

The ledger closes: for every stream `decoded = kept + dropped`, exactly, in source units (PCM samples at the stream's own rate,
decoded pictures, words, events). FORMAT.md section 7.
"""

from collections.abc import Iterable
from typing import Any, Literal

import pyarrow as pa

from .strict import Strict, canonical_json, sha256_hex

FREE_TEXT = ("file", "message")  # in no digest: where the input lies, and libav's sentences, which change between builds


class LedgerRow(Strict):
    """One line of the ledger.

    Attributes:
        session: session key; `session_id` is the manifest's.
        entry: `stream`: the totals of one stream; `dropped`: one reason of its `dropped`; `inserted`: gap fill; `missing`: declared by the
            container and not held; `unused`: a stream nothing was taken from; `unsaid`: kept as labels, and not among a view's tokens, for
            its tail may be no longer; `session`: a whole session dropped before it was decoded.
        stream: id in the manifest. Accounts that are no stream of it begin with `#`: `#transcript-<n>`, `#events`,
            `#file-<n>-<kind><index>` (a stream that the row does not name, in the n-th of its files), `#view-<view>-<queue>` of `unsaid`.
        file: path of the input relative to the input's root; the bare name when it lies outside.
        unit: what the counts count.
        reason, stage, message: stable name, where in the house, and a sentence for people.
        start, stop: half-open span in source units, 0 and 0 when it has none.
    """

    session: str
    session_id: str
    entry: Literal["stream", "dropped", "inserted", "missing", "unused", "unsaid", "session"]
    stream: str = ""
    file: str = ""
    unit: Literal["sample", "picture", "word", "event", "session"] = "session"
    reason: str = ""
    stage: str = ""
    message: str = ""
    start: int = 0
    stop: int = 0
    rate_hz: int = 0
    declared: int = 0
    decoded: int = 0
    kept: int = 0
    dropped: int = 0
    inserted: int = 0


_ARROW: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64()}
LEDGER_SCHEMA = pa.schema(
    [pa.field(name, _ARROW.get(field.annotation, pa.string()), nullable=False) for name, field in LedgerRow.model_fields.items()]
)

_MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("sha256", pa.string())])
INDEX_SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("key", pa.string()),  # <session>-<view>-<tick7>
            ("session", pa.string()),
            ("session_id", pa.string()),
            ("view", pa.string()),
            ("split", pa.string()),
            ("shard", pa.string()),
            ("offset", pa.int64()),  # bytes from the shard's start to the window's first tar header
            ("size", pa.int64()),  # bytes up to the next window's first header
            ("members", pa.list_(_MEMBER)),  # offset and size of each payload
            ("digest", pa.string()),  # sha256(members)
            ("source_digest", pa.string()),  # of the session's row and the sha256 of its files
            ("first_tick", pa.int32()),
            ("num_ticks", pa.int32()),
            ("session_ticks", pa.int32()),
            ("num_tokens", pa.int32()),
            ("num_pairs", pa.int32()),
            ("num_patches", pa.int32()),
            ("heard_valid_samples", pa.int64()),
            ("own_valid_samples", pa.int64()),
            ("own_active_ticks", pa.int32()),
            ("heard_active_ticks", pa.int32()),
            ("overlap_ticks", pa.int32()),
            ("num_words", pa.int32()),
            ("num_own_words", pa.int32()),
            ("max_lag_ticks", pa.int32()),
            ("events", pa.map_(pa.string(), pa.int32())),  # kind → count
            ("language", pa.string()),
            ("source", pa.string()),
            ("license", pa.string()),
            ("consent", pa.string()),
            ("speaker", pa.string()),
        )
    ]
)


def rows_digest(rows: Iterable[dict[str, Any]]) -> str:
    """sha256 over the rows' canonical JSON, a line each, sorted, free text left out: equal for equal tables whatever wrote the Parquet."""
    lines = sorted(canonical_json({key: value for key, value in row.items() if key not in FREE_TEXT}) for row in rows)
    return sha256_hex("".join(line + "\n" for line in lines))


_Place = tuple[str, str, str, str]  # session, stream, file, unit


def open_sums(rows: Iterable[LedgerRow]) -> list[str]:
    """A sentence for each stream of these rows whose sums do not close; none when the ledger closes."""
    totals: dict[_Place, LedgerRow] = {}
    dropped: dict[_Place, int] = {}
    inserted: dict[_Place, int] = {}
    faults = []
    for row in rows:
        place: _Place = (row.session, row.stream, row.file, row.unit)  # a stream may bear the name of a transcript's account
        if row.entry == "stream":
            if place in totals:
                faults.append(f"session {row.session}, stream {row.stream}: two totals")
            totals[place] = row
        elif row.entry == "dropped":
            dropped[place] = dropped.get(place, 0) + row.dropped
        elif row.entry == "inserted":
            inserted[place] = inserted.get(place, 0) + row.inserted
    for place in sorted(totals.keys() | dropped.keys() | inserted.keys()):
        total, name = totals.get(place), f"session {place[0]}, stream {place[1]}"
        if total is None:
            faults.append(f"{name}: rows without a total")
        elif min(total.declared, total.decoded, total.kept, total.dropped, total.inserted) < 0:
            faults.append(f"{name}: a count below 0")
        elif total.decoded != total.kept + total.dropped:
            faults.append(f"{name}: decoded {total.decoded} != kept {total.kept} + dropped {total.dropped}")
        elif total.dropped != dropped.get(place, 0):
            faults.append(f"{name}: dropped {total.dropped}, but its rows say {dropped.get(place, 0)}")
        elif total.inserted != inserted.get(place, 0):
            faults.append(f"{name}: inserted {total.inserted}, but its rows say {inserted.get(place, 0)}")
    return faults
