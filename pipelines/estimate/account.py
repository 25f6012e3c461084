"""What a build has given and taken, beside what was expected of it: one file in the staging folder, which the report shows.

What it gave is counted from the index of the shards that it added, so it is the same on every runner. Times are of this run and this
machine; they stand here alone, never in a receipt or in anything that a digest is over.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...schemas.strict import Strict
from ..sessions import receipts
from ..sessions.drops import DUPLICATE_KEPT
from ..storage.folders import Folder
from .figures import Estimate, Figures, Spent, by_modality

ACCOUNT = ".staging/spent.json"  # of OUT, wherever parts and receipts lie
_COLUMNS = ("session", "session_ticks", "num_ticks", "members.list.element.name", "members.list.element.size")


class Account(Strict):
    """The last build that changed a corpus.

    Attributes:
        content: the corpus's content digest after it.
        estimate: what was expected, None when the build was given no estimate; same_plan: it was made of these sessions and files.
    """

    version: int = 1
    content: str
    actual: Figures
    spent: Spent
    estimate: Estimate | None = None
    same_plan: bool = False

    def write(self, out: Folder) -> None:
        """Puts it where `read` finds it."""
        out.write(ACCOUNT, self.model_dump_json(indent=1).encode())


def read(out: Folder, content: str) -> Account | None:
    """The account of the build that gave the corpus this content; None where there is none, or only of another build."""
    try:
        account = Account.model_validate_json(out.read(ACCOUNT))
    except (OSError, ValueError):
        return None
    return account if account.content == content else None


def actual(out: Folder, before: Mapping[str, Any] | None, after: Mapping[str, Any], dropped: Mapping[str, int], cpu_s: float) -> Figures:
    """What the build between these two dataset.json added. `dropped`: reason → sessions that it dropped whole."""
    stood = {shard["name"] for shard in before["shards"]} if before else set()
    shards = [shard for shard in after["shards"] if shard["name"] not in stood]
    members: Counter[str] = Counter()
    lengths: dict[str, int] = {}
    view_ticks = 0
    for shard in shards:
        with out.open(f"index/{shard['name']}.parquet") as file:
            table = pq.ParquetFile(file).read(columns=list(_COLUMNS))
        view_ticks += pc.sum(table["num_ticks"]).as_py() or 0
        lengths.update(zip(table["session"].to_pylist(), table["session_ticks"].to_pylist(), strict=True))
        flat = table["members"].combine_chunks().flatten()
        sums = table.from_arrays([flat.field("name"), flat.field("size")], ["name", "size"]).group_by("name").aggregate([("size", "sum")])
        members.update(dict(zip(sums["name"].to_pylist(), sums["size_sum"].to_pylist(), strict=True)))
    return Figures(
        sessions=len(lengths),
        rejected=dict(sorted(dropped.items())),
        session_ticks=sum(lengths.values()),
        view_ticks=view_ticks,
        windows=sum(shard["num_windows"] for shard in shards),
        shards=dict(sorted(Counter(shard["split"] for shard in shards).items())),
        bytes=by_modality(members, sum(shard["size_bytes"] for shard in shards)),
        cpu_s=cpu_s,
    )


def reasons(staging: Folder, names: Iterable[str]) -> Counter[str]:
    """Reason → sessions dropped whole, of these receipts; one that only repeats a session that is kept is none."""
    found: Counter[str] = Counter()
    for name in names:
        reason = next(row.reason for row in receipts.read(staging, name).ledger if row.entry == "session")
        found[reason] += reason != DUPLICATE_KEPT
    return +found
