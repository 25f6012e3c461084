"""From receipts to shards: which windows a shard takes (`assign`), and its writing with index and ledger (`write_shard`).

Heavy members are copied as byte ranges, tokens are made by the layout. A shard's bytes depend on its windows alone, so writing it twice
changes nothing.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...schemas.layout import LayoutSpec
from ...schemas.receipts import Outcome, Receipt, ShardSegment, ShardSummary, ShardTask
from ...schemas.record import window_digest
from ...schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, LedgerRow, rows_digest
from ...transforms.tokens.tokenizer import Tokenizer
from ..sessions import receipts
from ..sessions.drops import drops
from ..storage.folders import Folder
from ..storage.parts import PartReader
from ..storage.tables import write_table
from ..storage.tar import TarWriter
from .describe import DESCRIBED, describe
from .lay import LaidWindow, lay_out


def assign(outcomes: Iterable[Outcome], shard_bytes: int, next_number: Mapping[str, int]) -> list[ShardTask]:
    """The shards to write. Sessions in the order (split, sha256(id)) fill them window by window; one closes at the first window past
    `shard_bytes`. Numbering of a split starts at `next_number`, 0 by default."""
    tasks: list[ShardTask] = []
    numbers = dict(next_number)
    segments: list[ShardSegment] = []
    filled, split = 0, ""

    def close() -> None:
        nonlocal segments, filled
        if segments:
            number = numbers.get(split, 0)
            numbers[split] = number + 1
            tasks.append(ShardTask(name=f"{split}-{number:06d}", split=split, segments=tuple(segments)))
        segments, filled = [], 0

    for outcome in sorted((o for o in outcomes if o.status == "done"), key=lambda o: (o.split, o.order, o.session)):
        if outcome.split != split:
            close()
            split = outcome.split
        start = 0
        for number, size in enumerate(outcome.window_bytes):
            filled += size
            if filled > shard_bytes:
                segments.append(ShardSegment(receipt=outcome.receipt, start=start, stop=number + 1))
                close()
                start = number + 1
        if start < len(outcome.window_bytes):
            segments.append(ShardSegment(receipt=outcome.receipt, start=start, stop=len(outcome.window_bytes)))
    close()
    return tasks


def write_shard(
    task: ShardTask,
    out: Folder,
    staging: Folder,
    layout: LayoutSpec,
    tokenizer: Tokenizer,
    tell: Callable[[int], None] = lambda _: None,
    may_name: Callable[[], None] = lambda: None,
) -> ShardSummary:
    """The shard's tar, Energon's offsets beside it, its index and its ledger, each written whole; gives what dataset.json says of it.

    `tell` is told the shard's bytes so far; `may_name` raises when nothing may be put under a name any more.
    """
    index: list[dict[str, Any]] = []
    ledger: list[LedgerRow] = []
    offsets: list[int] = []
    with out.create(f"shards/{task.name}.tar") as file, PartReader(staging) as parts:
        tar = TarWriter(file)
        for segment in task.segments:
            receipt = receipts.read(staging, segment.receipt)
            if segment.start == 0:
                ledger += receipt.ledger
            for window in lay_out(receipt, segment.start, segment.stop, parts, layout, tokenizer):
                offsets.append(tar.position)
                index.append(_index_row(task, receipt, window, tar, parts))
                ledger += window.unsaid
                tell(tar.position)
        offsets.append(tar.position)
        tar.close()
        may_name()
    out.write(f"shards/{task.name}.tar.idx", struct.pack(f"<{len(offsets)}Q", *offsets))
    ledger_rows = [row.model_dump() for row in ledger]
    write_table(out, f"index/{task.name}.parquet", index, INDEX_SCHEMA)
    write_table(out, f"ledger/{task.name}.parquet", ledger_rows, LEDGER_SCHEMA)
    return ShardSummary(
        name=task.name,
        split=task.split,
        size_bytes=tar.position,
        sha256=tar.sha256.hexdigest(),
        index_digest=rows_digest(index),
        ledger_digest=rows_digest(ledger_rows),
        num_windows=len(index),
        num_sessions=sum(segment.start == 0 for segment in task.segments),
        num_ticks=sum(row["num_ticks"] for row in index),
        num_tokens=sum(row["num_tokens"] for row in index),
        num_pairs=sum(row["num_pairs"] for row in index),
        ledger_rows=len(ledger),
        drops=drops(ledger),
    )


def _index_row(task: ShardTask, receipt: Receipt, window: LaidWindow, tar: TarWriter, parts: PartReader) -> dict[str, Any]:
    """Writes the window and gives its row."""
    start = tar.position
    members = []
    for name, at in window.members.items():
        if isinstance(at, bytes):
            offset, size = tar.add(f"{window.key}.{name}", at), len(at)
        else:
            offset, size = parts.copy(at, f"{window.key}.{name}", tar), at.size
        members.append({"name": name, "offset": offset, "size": size, "sha256": window.sha256[name]})
    return {
        "key": window.key,
        "split": task.split,
        "shard": task.name,
        "offset": start,
        "size": tar.position - start,
        "members": members,
        "digest": window_digest(window.sha256),
        **describe(num_tokens=window.num_tokens, **{name: window.light[name] for name in DESCRIBED}),
    }
