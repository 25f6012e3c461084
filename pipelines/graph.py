"""The build as one Beam graph: a linear trunk that every runner can run. Errors are rows, not tags; counts come from receipts, not metrics.

Bytes never cross a shuffle: places in the work list, outcomes, shard tasks and summaries do. Nothing rides on the order of elements, no
bundle hook gives output, and one sink ends the trunk, for some runners lose tags, bundle output, or every branch but the last.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import apache_beam as beam

from ..schemas.errors import CorpusError, MicroturnError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import Outcome, ShardSummary, ShardTask, WorkItem, WorkLine, WorkSlice
from ..schemas.spec import FeatureSpec
from ..transforms.tokens import tokenizer
from .corpus.commit import DATASET, commit, dataset_digest, is_committed, read_dataset, sweep
from .input.worklist import WorkList
from .sessions import receipts
from .sessions.child import ChildCrashed, ChildFault, ChildLost, MediaProcess
from .sessions.toolchain import toolchain, toolchain_digest
from .settle import Verdict, settle
from .shards.gather import assign, write_shard
from .storage.folders import Folder
from .storage.lease import refuse_lost
from .watch import WorkerNote


@dataclass(frozen=True, kw_only=True)
class Build:
    """What every step of the graph is told: folders by their URIs, the specs, and what was committed before.

    Attributes:
        lease: token of the driver's lease on `out` (pipelines/storage/lease.py); "" when nobody else can be at work there.
        base: digest of the dataset.json that this build starts from, "" for none.
        work: the sessions, by places in it.
        num_committed: sessions that the corpus holds windows of.
        next_number: split → number of the next shard.
        tokenizer_path: of the tokenizer.json; "" for an embedded tokenizer.
    """

    out: str
    staging: str
    spec: FeatureSpec
    layout: LayoutSpec
    tokenizer_path: str
    splits: dict[str, float]
    shard_bytes: int
    lease: str
    base: str
    next_number: dict[str, int]
    work: WorkList
    num_committed: int
    rehash: bool
    allow_mixed_toolchain: bool
    silence_s: float


class BuildCorpus(beam.PTransform):
    """Slices of the work list → one verdict: what was written, what was dropped, what is unsettled. All else it gives is on disk."""

    def __init__(self, build: Build) -> None:
        super().__init__()
        self._build = build

    def expand(self, slices):
        return (
            slices
            | "Spread the sessions" >> beam.Reshuffle()
            | "Featurise" >> beam.ParDo(Featurise(self._build))
            | "Bring outcomes together" >> beam.Map(_under_one_key)
            | "Group outcomes" >> beam.GroupByKey()
            | "Assign windows to shards" >> beam.FlatMap(_numbered_shards, self._build)
            | "Spread the shards" >> beam.GroupByKey()  # not Reshuffle: DaskRunner skips it, and one worker would write every shard
            | "Write shards" >> beam.ParDo(WriteShard(self._build))
            | "Bring summaries together" >> beam.Map(_under_one_key)
            | "Group summaries" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_commit, self._build)
        )


class Featurise(beam.DoFn):
    """Slice of the work list -> outcomes. Bad media never raises past here, and neither does a machine's fault: it is an `unsettled` row.

    A class because it owns a process.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._media: MediaProcess | None = None
        self._note: WorkerNote | None = None

    def setup(self) -> None:
        self._media = MediaProcess(self._build.silence_s)
        self._note = WorkerNote(Folder(self._build.staging))

    def teardown(self) -> None:
        if self._media is not None:
            self._media.close()

    def process(self, part: WorkSlice) -> Iterator[Outcome]:
        if self._media is None or self._note is None:  # a runner that skips setup
            self.setup()
        for line in self._build.work.read(Folder(self._build.staging), part):
            outcome = line.settled or self._featurised(line)
            yield replace(outcome, committed=bool(line.committed), refused=line.refused)

    def _featurised(self, line: WorkLine) -> Outcome:
        item = line.item
        if item.toolchain != toolchain_digest():
            if not self._build.allow_mixed_toolchain:
                raise MicroturnError(*_mixed())
            item = item.model_copy(update={"toolchain": toolchain_digest()})  # its receipt says who made it
        outcome = featurise_item(item, line.committed, self._build, self._media, self._note)
        self._note.finished(item, outcome)
        return outcome


class WriteShard(beam.DoFn):
    """(number, shard tasks) -> summaries; the verdict passes. A class, for its note tells how far all its shards are."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._note: WorkerNote | None = None

    def process(self, numbered: tuple[int, Iterable[ShardTask | Verdict]]) -> Iterator[ShardSummary | Verdict]:
        if self._note is None:
            self._note = WorkerNote(Folder(self._build.staging))
        for task in numbered[1]:
            yield _write(task, self._build, self._note)


def featurise_item(item: WorkItem, committed: str, build: Build, media: MediaProcess, note: WorkerNote) -> Outcome:
    """The item's outcome: from its receipt if the work is done, else by the child.

    `committed`: source digest of the windows that the corpus holds of the session, "" for none.
    """
    staging, name = Folder(build.staging), item.receipt_name()
    outcome = Outcome(status="unsettled", session=item.key, split=item.split, order=item.order)
    try:
        receipt = receipts.settled(item, staging, build.rehash)
        if committed:  # compare, decode nothing; the staging folder of the build that committed it may be gone
            if committed == (receipt.source_digest if receipt is not None else receipts.source_now(item)):
                return replace(outcome, status="known", receipt=name)
            told = f"session {item.key}: the corpus was built from other content of it ({receipts.files_told(item)}, or its row)"
            return replace(outcome, status="conflict", receipt=name, message=told)
        if receipt is not None and receipts.parts_stand(receipt, staging):
            return receipts.outcome_of(receipt, name)
        request = {"item": item.model_dump(mode="json"), "staging": build.staging, "receipt": name}
        try:
            return Outcome(**media.call("featurise", request, note.reached))
        except (ChildCrashed, ChildFault) as error:
            receipt = receipts.rejection(item, error)
            receipts.write(staging, name, receipt)
            return receipts.outcome_of(receipt, name)
    except (OSError, ChildLost) as error:
        return replace(outcome, message=receipts.sentence(item, f"session {item.key}: {error}"))


def _mixed() -> tuple[str]:
    import socket

    here = ", ".join(f"{name} {version}" for name, version in toolchain().items())
    return (f"worker {socket.gethostname()} has another toolchain than the driver ({here}); its bytes could differ",)


def _under_one_key(element):
    return 0, element


def _assign(keyed: tuple[int, Iterable[Outcome]], build: Build) -> list[ShardTask | Verdict]:
    verdict, fresh = settle(keyed[1], build.num_committed)
    if verdict.blocks:
        return [verdict]
    WorkerNote(Folder(build.staging)).to_write(sum(size for outcome in fresh for size in outcome.window_bytes))
    return [*assign(fresh, build.shard_bytes, build.next_number), verdict]


def _numbered_shards(keyed: tuple[int, Iterable[Outcome]], build: Build) -> Iterator[tuple[int, ShardTask | Verdict]]:
    """Numbers as keys: the hash of a text is another one in each process."""
    yield from enumerate(_assign(keyed, build))


def _write(task: ShardTask | Verdict, build: Build, note: WorkerNote | None = None) -> ShardSummary | Verdict:
    if isinstance(task, Verdict):
        return task
    out, staging = Folder(build.out), Folder(build.staging)
    note = note or WorkerNote(staging)
    words = tokenizer.load(build.layout, build.tokenizer_path or None)
    summary = write_shard(task, out, staging, build.layout, words, note.shard, lambda: refuse_lost(out, build.lease))
    note.shard_finished()
    return summary


def _commit(keyed: tuple[int, Iterable[ShardSummary | Verdict]], build: Build) -> Verdict:
    rows = list(keyed[1])
    verdict = next(row for row in rows if isinstance(row, Verdict))
    if not verdict.blocks:
        _commit_changes(verdict, [row for row in rows if isinstance(row, ShardSummary)], build)
    verdict.write(Folder(build.staging))
    return verdict


def _commit_changes(verdict: Verdict, summaries: list[ShardSummary], build: Build) -> None:
    """Writes dataset.json if there is anything new, and only over the one that this build started from."""
    out, staging = Folder(build.out), Folder(build.staging)
    refuse_lost(out, build.lease)
    before = read_dataset(out)
    dropped = [receipts.read(staging, name) for name in verdict.rejected]
    if dataset_digest(out) != build.base:
        if is_committed(out, before, summaries, dropped, verdict.superseded):
            return
        hint = "run the same command again: it goes on from what is there now"
        raise CorpusError(f"{DATASET} has changed while this build was at work", hint=hint)
    if before is not None and not summaries and not verdict.changes:
        sweep(out, before)
        return
    commit(
        out,
        before=before,
        summaries=summaries,
        receipts=dropped,
        superseded=verdict.superseded,
        spec=build.spec,
        layout=build.layout,
        toolchain=toolchain(),
        splits=build.splits,
        shard_bytes=build.shard_bytes,
        is_mixed=build.allow_mixed_toolchain,
    )
