"""The steps of a reshard: look into a shard, write a shard. Plain functions, which a test calls without Beam.

A shard is written from byte ranges, every one of them hashed on its way. Costs two sha256 of each byte, one that compares it with the index
and one of the new tar; another layout reads labels and activity as well, and the media only of windows with a tail.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from ...schemas import keys
from ...schemas.errors import CorpusError
from ...schemas.receipts import ShardSummary
from ...schemas.strict import sha256_hex
from ...schemas.tables import INDEX_SCHEMA
from ...transforms.tokens import tokenizer
from ..sessions import receipts
from ..shards.gather import put
from ..shards.lay import lay_out
from ..shards.writer import ShardWriter, shard
from ..storage.folders import Folder
from ..storage.lease import refuse_lost
from .sources import Held, ShardReader
from .tasks import Fault, Piece, Purge, Rewrite, SessionAt, ShardAt, Told
from .windows import IndexRow, featurised, receipt_of, session_receipt, unsaid_of, window_receipt

DONE = "reshard"  # under the staging folder: a file for each shard that is finished
_PLACE = ("key", "split", "shard", "offset", "size", "members", "digest")  # of an index row: what copying may change, and what it proves
_DESCRIBED = tuple(name for name in INDEX_SCHEMA.names if name not in _PLACE)

Tell = Callable[[int], None]


def look(at: ShardAt, told: Told) -> Iterator[Piece | Fault]:
    """What lies of each session in a shard. Reads the index and every window's meta."""
    held = Held.open(told.sources[at.source])
    try:
        with ShardReader(held.corpus.folder) as reader:
            for session, rows in groupby(held.index(at.name), key=lambda row: row["session"]):
                if session not in told.drop:
                    yield _piece(at, session, list(rows), held, reader, told)
    except CorpusError as error:
        yield Fault(str(error), error.hint)


def _piece(at: ShardAt, session: str, rows: list[IndexRow], held: Held, reader: ShardReader, told: Told) -> Piece:
    sizes: list[int] = []
    meta: dict[str, Any] = {}
    for window in featurised(rows):
        receipt, meta = window_receipt(window[0], reader)
        sizes.append(receipt.tar_bytes())
        reader.forget()
    split = rows[0]["split"]
    if told.splits is not None:
        first, before = meta["session_id"], held.corpus.dataset["splits"]
        if not told.move_given and split != keys.split_of(first, meta["group"], before):
            text = f"session {session} is in {split}, where its manifest put it and --split did not"
            raise CorpusError(text, hint="--move-given divides such sessions too; or build again with other splits in the manifest")
        split = keys.split_of(first, meta["group"], told.splits)
    return Piece(at, session, keys.session_order(rows[0]["session_id"]), split, tuple(sizes))


def write(task: Rewrite | Purge, told: Told, tell: Tell = lambda _: None) -> ShardSummary | Fault:
    """The summary of the shard, which is written unless an interrupted run of the same plan has done it; or what is damaged."""
    out, staging = Folder(told.out), Folder(told.staging)
    done = f"{DONE}/{sha256_hex(told.plan + task.identity())}.json"
    if staging.exists(done):
        summary = ShardSummary.model_validate_json(staging.read(done))
        name = f"shards/{summary.name}.tar"
        if out.exists(name) and out.size(name) == summary.size_bytes:
            tell(summary.size_bytes)
            return summary
    try:
        summary = _purge(task, told, out, tell) if isinstance(task, Purge) else _rewrite(task, told, out, tell)
    except CorpusError as error:
        return Fault(str(error), error.hint)
    refuse_lost(out, told.lease)
    staging.write(done, summary.model_dump_json().encode())
    return summary


def _rewrite(rewrite: Rewrite, told: Told, out: Folder, tell: Tell) -> ShardSummary:
    task = rewrite.task
    readers = {number: ShardReader(Held.open(source).corpus.folder) for number, source in enumerate(told.sources)}
    try:
        with shard(out, task.name, task.split, lambda: refuse_lost(out, told.lease)) as under_way:
            for segment in task.segments:
                at = rewrite.sessions[segment.receipt]
                reader = readers[at.source]
                _session(segment.receipt, segment.start, segment.stop, at, reader, told, under_way, tell)
                reader.forget()
        return under_way.write_tables(out)
    finally:
        for reader in readers.values():
            reader.close()


def _session(
    session: str, start: int, stop: int, at: SessionAt, reader: ShardReader, told: Told, under_way: ShardWriter, tell: Tell
) -> None:
    """Puts windows [start, stop) of a session into a shard, and its account where it begins."""
    held = Held.open(told.sources[at.source])
    rows, ledger = held.of_session(session, at.shards)
    if start == 0:
        under_way.begin_session([row for row in ledger if row.entry != "unsaid"])
        if (found := receipt_of(held, session, rows[0]["source_digest"])) is not None:  # a later build need not hash its files again
            receipts.write(Folder(told.staging), *found)
    if told.layout is not None:
        receipt = session_receipt(held, session, rows, reader)
        words = tokenizer.load(told.layout, told.tokenizer_path or None)
        for laid in lay_out(receipt, start, stop, reader, told.layout, words):
            put(laid, reader, under_way)
            tell(under_way.tar.position)
        return
    windows = list(featurised(rows))
    for number in range(start, stop):
        for row in windows[number]:
            _copy(row, reader, under_way)
            tell(under_way.tar.position)
        view = windows[number][0]["view"]
        if number + 1 == len(windows) or windows[number + 1][0]["view"] != view:
            under_way.account(unsaid_of(ledger, view))


def _purge(task: Purge, told: Told, out: Folder, tell: Tell) -> ShardSummary:
    held = Held.open(told.sources[0])
    ledger = [row for row in held.ledger(task.old) if row.session not in told.drop]
    with (
        ShardReader(held.corpus.folder) as reader,
        shard(out, task.name, task.split, lambda: refuse_lost(out, told.lease)) as under_way,
    ):
        under_way.account(ledger)
        for session, rows in groupby(held.index(task.old), key=lambda row: row["session"]):
            if session in told.drop:
                continue
            if session != task.goes_on:
                under_way.begin_session(())
            for row in rows:
                _copy(row, reader, under_way)
                tell(under_way.tar.position)
            reader.forget()
    return under_way.write_tables(out)


def _copy(row: IndexRow, reader: ShardReader, under_way: ShardWriter) -> None:
    """Appends a window as it lies in its shard."""
    at = reader.locate(row)
    under_way.add(row["key"], at, {name: member.sha256 for name, member in at.items()}, reader, {name: row[name] for name in _DESCRIBED})
