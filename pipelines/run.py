"""A build from beginning to end: plan, the graph on a runner, and what came of it. The driver's side; no click, no printing.

What is done is told by callbacks, so that a terminal, a notebook and a test watch the same run.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from ..schemas.errors import CorpusError, InputError, MicroturnError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import WorkSlice
from ..schemas.spec import FeatureSpec
from ..transforms.tokens import tokenizer
from . import runners
from .corpus import rejected
from .corpus.commit import dataset_digest, next_numbers, read_dataset
from .corpus.withdrawn import SPEAKER, are_withdrawn
from .graph import Build, BuildCorpus
from .input.options import DEFAULT_SPLITS, SHARD_BYTES, splits_of
from .input.plan import Plan
from .input.worklist import MAX_SLICES, WORK, WorkList
from .reshard.purge import clean, sessions_with_receipts
from .settle import VERDICT, Verdict
from .storage import folders
from .storage.folders import Folder
from .storage.lease import Lease
from .storage.parts import PARTS
from .storage.tables import read_table
from .watch import Standing, Watch, input_bytes
from .wording.counted import counted
from .wording.shares import shares_of, splits_told

STAGING = ".staging"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to build: everything but the input.

    Attributes:
        staging: URI for parts and receipts; "" keeps them in the corpus, under `.staging`.
        keep_parts: leave the parts after the commit.
        silence_s: seconds without progress after which a decoder process is taken for hung.
        beam: options for Beam's runner, as on its own command line.
    """

    out: str
    staging: str = ""
    spec: FeatureSpec = field(default_factory=FeatureSpec)
    layout: LayoutSpec = field(default_factory=LayoutSpec)
    tokenizer_path: str = ""
    splits: Mapping[str, float] = field(default_factory=lambda: splits_of(DEFAULT_SPLITS))
    shard_bytes: int = SHARD_BYTES
    keep_parts: bool = False
    rehash: bool = False
    allow_mixed_toolchain: bool = False
    silence_s: float = 600.0
    beam: Sequence[str] = ()

    @property
    def staging_folder(self) -> Folder:
        """Where parts and receipts lie."""
        return Folder(self.staging or f"{self.out.rstrip('/')}/{STAGING}")


def run(
    plan: Plan,
    settings: Settings,
    toolchain: str,
    on_progress: Callable[[Standing], None] = lambda standing: None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Verdict:
    """Runs the graph over the plan; gives the verdict. `on_progress` is called now and then, `tell` with what a person should read.

    Raises:
        Busy: another build is at work in the corpus or in the staging folder.
        CorpusError: the folder holds a corpus of another spec, layout, toolchain or splits, or one that changed meanwhile.
        InputError: nothing to build, no such tokenizer, an option that the runner does not know.
        MicroturnError: the runner gave up; what has a receipt is kept.
    """
    if not plan.items and not plan.rejected:
        raise InputError("no session to build")
    tokenizer.load(settings.layout, settings.tokenizer_path or None)  # a worker would miss it only when all is decoded
    runner, options = runners.make(settings.beam, num_elements=min(len(plan.items) + len(plan.rejected), MAX_SLICES))
    out, staging = Folder(settings.out), settings.staging_folder
    with contextlib.ExitStack() as leases:
        lease = leases.enter_context(Lease(out, tell))
        if not folders.within(staging.uri, out.uri):
            leases.enter_context(Lease(staging, tell))
        for folder in (out, staging):
            folder.delete_unfinished()  # of builds that were killed: they may be what fills the disk
        _finish_purge(out, staging, tell)
        plan = without_withdrawn(plan, out, tell)
        build, slices = _prepared(plan, out, staging, settings, toolchain, lease.token)
        watch = Watch(sum(map(input_bytes, plan.items)), len(plan.items), staging, on_progress)
        with watch, runners.in_words("run the same build again: what has a receipt is kept"):
            _run_graph(slices, build, runner, options)
        if not staging.exists(VERDICT):
            raise MicroturnError(
                "the runner ended without a verdict", hint="its workers must write to the same staging folder as the driver"
            )
        verdict = Verdict.take(staging)
        for folder in (out, staging):
            folder.delete_unfinished()
        staging.delete(WORK)
        if not verdict.blocks and not settings.keep_parts:
            staging.delete(PARTS)
    return verdict


def _finish_purge(out: Folder, staging: Folder, tell: Callable[[str], None]) -> None:
    """Nothing is left of sessions whose purge was killed behind its commit."""
    dataset = read_dataset(out)
    left = are_withdrawn(sorted(sessions_with_receipts(staging)), dataset) if dataset and dataset.get("withdrawn") else []
    if left:
        tell(f"{counted(len(left), 'withdrawn session')} had left something in {staging.uri}: it is deleted now")
        clean(out, staging, dataset, set(left))


def without_withdrawn(plan: Plan, out: Folder, tell: Callable[[str], None]) -> Plan:
    """The plan less the sessions that this corpus was told to drop, and those of people whom it was: nothing of them is looked at, and
    nothing written. Raises InputError when there is no other."""
    sessions = [*(item.key for item in plan.items), *(receipt.session for receipt in plan.rejected)]
    dataset = read_dataset(out)
    gone = set(are_withdrawn(sessions, dataset))
    gone |= {item.key for item in plan.items if are_withdrawn((SPEAKER + person.speaker for person in item.session.participants), dataset)}
    if not gone:
        return plan
    if len(gone) == len(set(sessions)):
        raise InputError(f"every session of the input was withdrawn from {out.uri}", hint="`microturn reshard --drop` did it; it is final")
    tell(f"{counted(len(gone), 'session')} of the input left out: withdrawn from {out.uri}")
    items = tuple(item for item in plan.items if item.key not in gone)
    return replace(plan, items=items, rejected=tuple(receipt for receipt in plan.rejected if receipt.session not in gone))


def _prepared(plan: Plan, out: Folder, staging: Folder, settings: Settings, toolchain: str, lease: str) -> tuple[Build, list[WorkSlice]]:
    """What the graph is told, and what it is given. Raises CorpusError for a corpus that cannot grow by this."""
    base = dataset_digest(out)
    before = read_dataset(out)
    refuse_other(before, settings, toolchain)
    _refuse_damaged(out, before)
    committed = committed_in(out, before)
    staging.delete(VERDICT)  # of a build that died
    work = WorkList(settings.spec)
    slices = work.write(plan, committed, rejected.reasons(out, before["rejected"] if before else ()), staging)
    build = Build(
        out=folders.absolute(settings.out),
        staging=folders.absolute(staging.uri),
        spec=settings.spec,
        layout=settings.layout,
        tokenizer_path=settings.tokenizer_path and os.path.abspath(settings.tokenizer_path),
        splits=dict(settings.splits),
        shard_bytes=settings.shard_bytes,
        lease=lease,
        base=base,
        next_number=next_numbers(before["shards"] if before else ()),
        work=work,
        num_committed=len(committed),
        rehash=settings.rehash,
        allow_mixed_toolchain=settings.allow_mixed_toolchain,
        silence_s=settings.silence_s,
    )
    return build, slices


def _run_graph(slices: list[WorkSlice], build: Build, runner: Any, options: PipelineOptions) -> None:
    pipeline = beam.Pipeline(runner=runner, options=options)
    _ = pipeline | "Places in the work list" >> beam.Create(slices, reshuffle=False) | "Build" >> BuildCorpus(build)
    pipeline.run().wait_until_finish()


def refuse_other(before: Mapping[str, Any] | None, settings: Settings, toolchain: str) -> None:
    """A corpus grows only by what could have been in it from the start."""
    if before is None:
        return
    digests = before["digests"]
    hint = "build into another folder"
    for name, digest in (("spec", settings.spec.digest()), ("layout_spec", settings.layout.digest())):
        if digests[name] != digest:
            raise CorpusError(f"{settings.out} holds a corpus of another {name}: {digests[name][:12]}, asked for {digest[:12]}", hint=hint)
    if shares_of(before["splits"]) != shares_of(settings.splits):
        given = splits_told(before["splits"])
        raise CorpusError(
            f"{settings.out} was split otherwise, {given}: a group of recordings could fall apart", hint=f"--split {given}, or {hint}"
        )
    if digests["toolchain"] != toolchain and not settings.allow_mixed_toolchain:
        raise CorpusError(
            f"{settings.out} was built by another toolchain: {before['toolchain']}",
            hint=f"{hint}, install those versions, or pass --allow-mixed-toolchain",
        )


def _refuse_damaged(out: Folder, before: Mapping[str, Any] | None) -> None:
    """A corpus whose shards are not all there, at their size, is not built upon."""
    for shard in before["shards"] if before else ():
        name = f"shards/{shard['name']}.tar"
        found = out.size(name) if out.exists(name) else -1
        if found != shard["size_bytes"]:
            state = f"has {counted(found, 'byte')}, not {shard['size_bytes']}" if found >= 0 else "is not there"
            hint = "bring it back, or delete dataset.json and build again: everything is made anew, with the same bytes"
            raise CorpusError(f"{out.uri}: {name} {state}", hint=hint)


def committed_in(out: Folder, before: Mapping[str, Any] | None) -> dict[str, str]:
    """Session key → source digest of what is committed."""
    known: dict[str, str] = {}
    for shard in before["shards"] if before else ():
        table = read_table(out, f"index/{shard['name']}.parquet", ["session", "source_digest"])
        known.update(zip(table["session"].to_pylist(), table["source_digest"].to_pylist(), strict=True))
    return known
