"""Where the input of a corpus went, counted from its ledger: kept, dropped and why, with places to look at.

In: a committed corpus. Out: sums by unit, and by reason with the first examples. Reads the ledger file by file; memory holds one file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..pipelines.corpus import Corpus
from ..schemas.tables import LedgerRow, open_sums

MAX_EXAMPLES = 3
UNITS = ("sample", "picture", "word", "event")
_SUMS = ("declared", "decoded", "kept", "dropped", "inserted")

Row = Mapping[str, Any]


@dataclass(slots=True)
class Reason:
    """Everything that the ledger has under one entry and reason.

    Attributes:
        rows: how many ledger rows; units: what they sum to; examples: the first rows by (session, stream, place).
    """

    rows: int = 0
    units: int = 0
    examples: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class Whereabouts:
    """Sums over the ledger.

    Attributes:
        by_unit: unit → declared, decoded, kept, dropped, inserted, missing, and the number of streams.
        reasons: (entry, reason, stage, unit) → what fell under it, most units first.
        faults: a sentence for every stream whose sums do not close; none in a sound corpus.
    """

    by_unit: dict[str, Counter[str]] = field(default_factory=lambda: {unit: Counter() for unit in UNITS})
    reasons: dict[tuple[str, str, str, str], Reason] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def whereabouts(corpus: Corpus) -> Whereabouts:
    """The sums over all ledger rows of the corpus, of shards and of sessions that gave no window."""
    found = Whereabouts()
    for part in [*corpus.shards, *corpus.dataset["rejected"]]:
        rows = corpus.ledger(part["name"])
        found.faults += open_sums([LedgerRow(**row) for row in rows])
        for row in sorted(rows, key=_place):
            _book(found, row)
    for reason in found.reasons.values():
        reason.examples = sorted(reason.examples, key=_place)[:MAX_EXAMPLES]
    found.reasons = dict(sorted(found.reasons.items(), key=lambda item: (item[0][0], -item[1].units, item[0])))
    return found


def _book(found: Whereabouts, row: Row) -> None:
    unit, entry = row["unit"], row["entry"]
    if entry == "stream":
        found.by_unit[unit].update({name: row[name] for name in _SUMS} | {"streams": 1})
        return
    match entry:
        case "missing":
            units = row["stop"] - row["start"]
            found.by_unit[unit]["missing"] += units
        case "inserted":
            units = row["inserted"]
        case "unused":
            units = row["declared"]
        case _:
            units = row["dropped"]
    reason = found.reasons.setdefault((entry, row["reason"], row["stage"], unit), Reason())
    reason.rows += 1
    reason.units += units
    if len(reason.examples) < MAX_EXAMPLES or _place(row) < _place(reason.examples[-1]):
        reason.examples = sorted([*reason.examples, row], key=_place)[:MAX_EXAMPLES]


def _place(row: Row) -> tuple[Any, ...]:
    return row["session"], row["stream"], row["start"], row["message"]
