"""The build as one Beam graph: a linear trunk that every runner can run. Errors are rows, not tags; counts come from receipts, not metrics.

Bytes never cross a shuffle: work items, outcomes, shard tasks and summaries do. Nothing rides on the order of elements, no bundle hook
gives output, and one sink ends the trunk, for some runners lose tags, bundle output, or every branch but the last.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam

from ..schemas.errors import MicroturnError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import Outcome, ShardSummary, ShardTask, WorkItem
from ..schemas.spec import FeatureSpec
from ..transforms import tokenizer
from . import featurise
from .child import ChildCrashed, ChildFault, ChildLost, MediaProcess
from .commit import commit, read_dataset, sweep
from .gather import assign, read_receipt, write_shard
from .settle import Verdict, settle
from .storage import Folder
from .toolchain import toolchain, toolchain_digest


@dataclass(frozen=True, kw_only=True)
class Build:
    """What every step of the graph is told: folders by their URIs, the specs, and what was committed before.

    Attributes:
        known: session key → source digest of the committed windows; refused: keys of sessions that a committed ledger already rejects.
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
    next_number: dict[str, int]
    known: dict[str, str]
    refused: frozenset[str]
    rehash: bool
    allow_mixed_toolchain: bool
    silence_s: float


class BuildCorpus(beam.PTransform):
    """Work items → one verdict: what was written, what was dropped, what is unsettled. All else it gives is on disk."""

    def __init__(self, build: Build) -> None:
        super().__init__()
        self._build = build

    def expand(self, items):
        return (
            items
            | "Spread the sessions" >> beam.Reshuffle()
            | "Featurise" >> beam.ParDo(Featurise(self._build))
            | "Bring outcomes together" >> beam.Map(_under_one_key)
            | "Group outcomes" >> beam.GroupByKey()
            | "Assign windows to shards" >> beam.FlatMap(_assign, self._build)
            | "Spread the shards" >> beam.Reshuffle()
            | "Write shards" >> beam.Map(_write, self._build)
            | "Bring summaries together" >> beam.Map(_under_one_key)
            | "Group summaries" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_commit, self._build)
        )


class Featurise(beam.DoFn):
    """Work item -> outcome. Bad media never raises past here, and neither does a machine's fault: it is an `unsettled` row.

    A class because it owns a process.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._media: MediaProcess | None = None

    def setup(self) -> None:
        self._media = MediaProcess(self._build.silence_s)

    def teardown(self) -> None:
        if self._media is not None:
            self._media.close()

    def process(self, item: WorkItem | Outcome) -> Iterator[Outcome]:
        if isinstance(item, Outcome):  # the plan has settled it
            yield item
            return
        if item.toolchain != toolchain_digest():
            if not self._build.allow_mixed_toolchain:
                raise MicroturnError(*_mixed())
            item = item.model_copy(update={"toolchain": toolchain_digest()})  # its receipt says who made it
        if self._media is None:  # a runner that skips setup
            self.setup()
        yield featurise_item(item, self._build, self._media)


def featurise_item(item: WorkItem, build: Build, media: MediaProcess) -> Outcome:
    """The item's outcome: from its receipt if the work is done, else by the child."""
    staging, name = Folder(build.staging), item.receipt_name()
    place = {"session": item.key, "split": item.split, "order": item.order}
    try:
        receipt = featurise.settled(item, staging, build.rehash)
        if receipt is not None and (item.key in build.known or featurise.parts_exist(receipt, staging)):
            return featurise.outcome_of(receipt, name)
        if item.key in build.known:  # committed by a build whose staging folder is gone: compare, decode nothing
            return Outcome(status="done", **place, source_digest=featurise.source_now(item))
        request = {"item": item.model_dump(mode="json"), "staging": build.staging, "receipt": name}
        try:
            return Outcome.model_validate(media.call("featurise", request, featurise.progress_file(staging, name)))
        except ChildCrashed as error:
            receipt = featurise.rejection(item, error)
            featurise.write_receipt(staging, name, receipt)
            return featurise.outcome_of(receipt, name)
    except (OSError, ChildLost, ChildFault) as error:
        return Outcome(status="unsettled", **place, message=f"session {item.key}: {error}")


def _mixed() -> tuple[str]:
    import socket

    here = ", ".join(f"{name} {version}" for name, version in toolchain().items())
    return (f"worker {socket.gethostname()} has another toolchain than the driver ({here}); its bytes could differ",)


def _under_one_key(element):
    return 0, element


def _assign(keyed: tuple[int, Iterable[Outcome]], build: Build) -> list[ShardTask | Verdict]:
    verdict, fresh = settle(keyed[1], build.known, build.refused)
    tasks = [] if verdict.blocks else assign(fresh, build.shard_bytes, build.next_number)
    return [*tasks, verdict]


def _write(task: ShardTask | Verdict, build: Build) -> ShardSummary | Verdict:
    if isinstance(task, Verdict):
        return task
    words = tokenizer.load(build.layout, build.tokenizer_path or None)
    return write_shard(task, Folder(build.out), Folder(build.staging), build.layout, words)


def _commit(keyed: tuple[int, Iterable[ShardSummary | Verdict]], build: Build) -> Verdict:
    rows = list(keyed[1])
    verdict = next(row for row in rows if isinstance(row, Verdict))
    summaries = [row for row in rows if isinstance(row, ShardSummary)]
    out, staging = Folder(build.out), Folder(build.staging)
    before = read_dataset(out)
    if not verdict.blocks and (summaries or verdict.rejected or before is None):
        commit(
            out,
            before=before,
            summaries=summaries,
            rejected=[read_receipt(staging, name) for name in verdict.rejected],
            spec=build.spec,
            layout=build.layout,
            toolchain=toolchain(),
            splits=build.splits,
            shard_bytes=build.shard_bytes,
            is_mixed=build.allow_mixed_toolchain,
        )
    elif not verdict.blocks:
        sweep(out, before)
    verdict.write(staging)
    return verdict
