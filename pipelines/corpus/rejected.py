"""Sessions that gave no window, in ledger files of their own: `ledger/rejected-<n6>.parquet`. What has been mended since leaves them.

A file that a committed dataset.json names is never changed: rows that stay move to a new one.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...schemas.receipts import Receipt
from ...schemas.tables import LEDGER_SCHEMA, LedgerRow, rows_digest
from ..sessions.drops import drops, num_dropped_whole
from ..storage.folders import Folder
from ..storage.tables import read_table, write_table

Part = Mapping[str, Any]  # what dataset.json says of such a file


def reasons(out: Folder, parts: Sequence[Part]) -> dict[str, tuple[str, ...]]:
    """Session key → why it was dropped whole, sorted: a session may stand in a manifest several times."""
    found: dict[str, set[str]] = {}
    for part in parts:
        table = read_table(out, f"ledger/{part['name']}.parquet", ["session", "entry", "reason"])
        for row in table.to_pylist():
            if row["entry"] == "session":
                found.setdefault(row["session"], set()).add(row["reason"])
    return {session: tuple(sorted(why)) for session, why in found.items()}


def write(out: Folder, parts: Sequence[Part], receipts: Sequence[Receipt], superseded: Collection[str]) -> list[Part]:
    """What dataset.json says of all these files: `parts`, which were there, less the rows of the superseded sessions, and a new one with
    the rows of these receipts."""
    kept: list[Part] = []
    rows: list[LedgerRow] = []
    for part in parts:
        old = read_table(out, f"ledger/{part['name']}.parquet").to_pylist() if superseded else []
        if any(row["session"] in superseded for row in old):
            rows += [LedgerRow(**row) for row in old if row["session"] not in superseded]
        else:
            kept.append(part)
    for receipt in sorted(receipts, key=lambda r: (r.order, r.source_digest)):
        rows += receipt.ledger
    numbers = [int(part["name"].rpartition("-")[2]) for part in parts]
    return [*kept, *write_rows(out, rows, max(numbers, default=-1) + 1)]


def write_rows(out: Folder, rows: Sequence[LedgerRow], number: int) -> list[Part]:
    """What dataset.json says of a new file with these rows; nothing is written, and nothing said, of none."""
    if not rows:
        return []
    name = f"rejected-{number:06d}"
    dumped = [row.model_dump() for row in rows]
    write_table(out, f"ledger/{name}.parquet", dumped, LEDGER_SCHEMA)
    return [
        {
            "name": name,
            "ledger_digest": rows_digest(dumped),
            "ledger_rows": len(rows),
            "num_sessions": num_dropped_whole(rows),
            "drops": drops(rows).model_dump(),
        }
    ]


def stand(out: Folder, parts: Sequence[Part], receipts: Sequence[Receipt], superseded: Collection[str]) -> bool:
    """Whether `write` with these receipts has been done already: a runner may run its last step twice."""
    found = reasons(out, parts)
    wanted: dict[str, set[str]] = {session: set() for session in superseded}
    for receipt in receipts:
        wanted.setdefault(receipt.session, set()).update(row.reason for row in receipt.ledger if row.entry == "session")
    return all(set(found.get(session, ())) == why for session, why in wanted.items())
