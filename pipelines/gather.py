"""From receipts to shards: which windows a shard takes (`assign`), and its writing with index and ledger (`write_shard`).

Heavy members are copied as byte ranges, tokens are made by the layout. A shard's bytes depend on its windows alone, so writing it twice
changes nothing.
"""

import contextlib
import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..schemas.clock import SAMPLE_RATE_HZ
from ..schemas.errors import CorpusError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import Outcome, Receipt, ShardSegment, ShardSummary, ShardTask
from ..schemas.record import window_digest
from ..schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, LedgerRow, rows_digest
from ..transforms.tokenizer import Tokenizer
from .describe import DESCRIBED, describe
from .lay import LaidWindow, lay_out
from .storage import Folder
from .tar import TarWriter

RECEIPTS = "receipts"


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


def read_receipt(staging: Folder, name: str) -> Receipt:
    """A receipt of the staging folder. Raises CorpusError when it is not one."""
    try:
        return Receipt.model_validate_json(staging.read(f"{RECEIPTS}/{name}"))
    except ValueError as error:
        raise CorpusError(f"{RECEIPTS}/{name}: not a receipt ({error})", hint="delete it: its session is featurised again") from None


def write_shard(task: ShardTask, out: Folder, staging: Folder, layout: LayoutSpec, tokenizer: Tokenizer) -> ShardSummary:
    """The shard's tar, Energon's offsets beside it, its index and its ledger, each written whole; gives what dataset.json says of it."""
    index: list[dict[str, Any]] = []
    ledger: list[LedgerRow] = []
    offsets: list[int] = []
    with out.create(f"shards/{task.name}.tar") as file, contextlib.ExitStack() as open_parts:
        tar = TarWriter(file)
        parts = _Parts(staging, open_parts)
        for segment in task.segments:
            receipt = read_receipt(staging, segment.receipt)
            if segment.start == 0:
                ledger += receipt.ledger
            for window in lay_out(receipt, segment.start, segment.stop, staging, layout, tokenizer):
                offsets.append(tar.position)
                index.append(_index_row(task, receipt, window, tar, parts))
        offsets.append(tar.position)
        tar.close()
    out.write(f"shards/{task.name}.tar.idx", struct.pack(f"<{len(offsets)}Q", *offsets))
    ledger_rows = [row.model_dump() for row in ledger]
    write_table(out, f"index/{task.name}.parquet", index, INDEX_SCHEMA)
    write_table(out, f"ledger/{task.name}.parquet", ledger_rows, LEDGER_SCHEMA)
    decoded, dropped = audio_totals(ledger)
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
        audio_decoded=decoded,
        audio_dropped=dropped,
        ledger_rows=len(ledger),
    )


def read_table(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, from its bytes: a reader on a Python file would free it from a thread of its own, at exit too."""
    return pq.read_table(pa.BufferReader(folder.read(name)), columns=list(columns) if columns else None, pre_buffer=False)


def write_table(out: Folder, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """A Parquet file of these rows."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    out.write(name, sink.getvalue())


def audio_totals(rows: Iterable[LedgerRow]) -> tuple[int, int]:
    """(decoded, dropped) of audio, brought to 16 kHz. Padding that an encoder added is not the recording's, so it counts in neither."""
    decoded = dropped = 0
    for row in rows:
        if row.unit != "sample" or not row.rate_hz:
            continue
        if row.entry == "stream":
            decoded += row.decoded * SAMPLE_RATE_HZ // row.rate_hz
        elif row.entry == "missing":
            lost = row.stop - row.start
            decoded += lost * SAMPLE_RATE_HZ // row.rate_hz
            dropped += lost * SAMPLE_RATE_HZ // row.rate_hz
        elif row.entry == "dropped":
            if row.reason == "codec_padding":
                decoded -= row.dropped * SAMPLE_RATE_HZ // row.rate_hz
            else:
                dropped += row.dropped * SAMPLE_RATE_HZ // row.rate_hz
    return decoded, dropped


class _Parts:
    """Parts open for reading; the last one used stays open, for windows lie in them one after another."""

    def __init__(self, staging: Folder, stack: contextlib.ExitStack) -> None:
        self._staging, self._stack, self._open = staging, stack, {}

    def at(self, part: str, offset: int) -> BinaryIO:
        if part not in self._open:
            if len(self._open) >= 8:
                self._open.pop(next(iter(self._open))).close()
            self._open[part] = self._stack.enter_context(self._staging.open(part))
        self._open[part].seek(offset)
        return self._open[part]


def _index_row(task: ShardTask, receipt: Receipt, window: LaidWindow, tar: TarWriter, parts: _Parts) -> dict[str, Any]:
    """Writes the window and gives its row."""
    start = tar.position
    members = []
    for name, at in window.members.items():
        if isinstance(at, bytes):
            offset, size = tar.add(f"{window.key}.{name}", at), len(at)
        else:
            offset, size = tar.copy(f"{window.key}.{name}", at.size, parts.at(at.part, at.offset)), at.size
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
