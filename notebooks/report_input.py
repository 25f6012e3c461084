"""The section of the report that says where the input went: sums in source units, and every reason with places to look at."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..schemas.clock import SAMPLE_RATE_HZ, clock_text
from . import page
from .figures import number, numbered
from .page import Html, tag
from .whereabouts import Whereabouts


def input_section(went: Whereabouts) -> Html:
    sums = [
        (unit, *(number(count[name]) for name in ("streams", "declared", "decoded", "kept", "dropped", "inserted", "missing")))
        for unit, count in went.by_unit.items()
        if count["streams"]
    ]
    reasons = [
        (
            entry,
            tag("b", reason),
            stage,
            number(what.rows),
            numbered(what.units, unit),
            _examples(what.examples),
        )
        for (entry, reason, stage, unit), what in went.reasons.items()
    ]
    return page.section(
        "Where the input went",
        tag("p", "In the units of the source, once per stream: decoded = kept + dropped. ", closing(went)),
        page.table(("unit", "streams#", "declared#", "decoded#", "kept#", "dropped#", "inserted#", "missing#"), sums),
        *(tag("p", fault, css="bad") for fault in went.faults[:20]),
        page.table(("entry", "reason", "stage", "rows#", "sum#", "the first places"), reasons) if reasons else Html(),
        tag("p", "Pictures dropped as “between” were decoded and not chosen by any tick's deadline.", css="soft"),
    )


def _examples(rows: Sequence[Mapping[str, Any]]) -> Html:
    shown = []
    for row in rows:
        span = f"{row['unit']}s {row['start']}–{row['stop']}" if row["stop"] else ""
        at = f" ({clock_text(row['start'] * SAMPLE_RATE_HZ // row['rate_hz'])})" if span and row["rate_hz"] else ""
        place = ", ".join(filter(None, (row["file"] or row["session_id"], row["stream"], span + at)))
        shown.append(page.join(tag("code", place), Html("<br>"), row["message"]))
    return Html("<br>".join(shown))


def closing(went: Whereabouts) -> Html:
    if went.faults:
        return tag("span", f"The ledger has {numbered(len(went.faults), 'open sum')}.", css="bad")
    return page.text("Every sum of the ledger closes.")
