"""From receipts to shards: which windows a shard takes (`assign`), and its writing with index and ledger (`write_shard`).

Heavy members are copied as byte ranges, tokens are made by the layout. A shard's bytes depend on its windows alone, so writing it twice
changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping

from ...schemas.layout import LayoutSpec
from ...schemas.receipts import Outcome, ShardSegment, ShardSummary, ShardTask
from ...transforms.tokens.tokenizer import Tokenizer
from ..sessions import receipts
from ..storage.folders import Folder
from ..storage.parts import PartReader
from .describe import DESCRIBED, describe
from .lay import LaidWindow, lay_out
from .writer import ShardWriter, shard


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
    with PartReader(staging) as parts, shard(out, task.name, task.split, may_name) as under_way:
        for segment in task.segments:
            receipt = receipts.read(staging, segment.receipt)
            if segment.start == 0:
                under_way.begin_session(receipt.ledger)
            for window in lay_out(receipt, segment.start, segment.stop, parts, layout, tokenizer):
                put(window, parts, under_way)
                tell(under_way.tar.position)
    return under_way.write_tables(out)


def put(window: LaidWindow, parts: PartReader, under_way: ShardWriter) -> None:
    """Appends a window that has its tokens to a shard."""
    described = describe(num_tokens=window.num_tokens, **{name: window.light[name] for name in DESCRIBED})
    under_way.add(window.key, window.members, window.sha256, parts, described)
    under_way.account(window.unsaid)
