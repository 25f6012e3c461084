"""A build from beginning to end: plan, the graph on a runner, and what came of it. The driver's side; no click, no printing.

What is done is told by callbacks, so that a terminal, a notebook and a test watch the same run.
"""

import math
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from ..schemas.errors import CorpusError, InputError, MicroturnError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import Outcome, WorkItem
from ..schemas.spec import FeatureSpec
from ..transforms import tokenizer
from . import featurise, runners, storage
from .commit import read_dataset
from .gather import RECEIPTS, read_table
from .graph import Build, BuildCorpus
from .parts import PARTS
from .plan import NOT_THERE, Plan
from .settle import VERDICT, Verdict
from .storage import Folder

STAGING = ".staging"
PLAN = "plan.jsonl"
DEFAULT_SPLITS = {"train": 0.98, "val": 0.01, "test": 0.01}
SHARD_BYTES = 512 << 20
SPLIT = r"[a-z0-9_]{1,16}"  # as in a manifest


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to build: everything but the input.

    Attributes:
        staging: URI for plan, parts and receipts; "" keeps them in the corpus, under `.staging`.
        keep_parts: leave the parts after the commit.
        silence_s: seconds without progress after which a decoder process is taken for hung.
        beam: options for Beam's runner, as on its own command line.
    """

    out: str
    staging: str = ""
    spec: FeatureSpec = field(default_factory=FeatureSpec)
    layout: LayoutSpec = field(default_factory=LayoutSpec)
    tokenizer_path: str = ""
    splits: Mapping[str, float] = field(default_factory=lambda: DEFAULT_SPLITS)
    shard_bytes: int = SHARD_BYTES
    keep_parts: bool = False
    rehash: bool = False
    allow_mixed_toolchain: bool = False
    silence_s: float = 600.0
    beam: Sequence[str] = ()

    @property
    def staging_folder(self) -> Folder:
        """Where plan, parts and receipts lie."""
        return Folder(self.staging or f"{self.out.rstrip('/')}/{STAGING}")


def run(plan: Plan, settings: Settings, toolchain: str, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Verdict:
    """Runs the graph over the plan; gives the verdict. `on_progress(done, total)` is called now and then, in bytes of input.

    Raises:
        CorpusError: the folder holds a corpus of another spec, layout or toolchain.
        InputError: nothing to build, no such tokenizer, an option that the runner does not know.
        MicroturnError: the runner gave up; what has a receipt is kept.
    """
    if not plan.items and not plan.rejected:
        raise InputError("no session to build")
    tokenizer.load(settings.layout, settings.tokenizer_path or None)  # a worker would miss it only when all is decoded
    runner, options = runners.make(settings.beam, num_elements=len(plan.items) + len(plan.rejected))
    out, staging = Folder(settings.out), settings.staging_folder
    before = read_dataset(out)
    _refuse_other(before, settings, toolchain)
    _refuse_damaged(out, before)
    known, refused = _committed(out, before)
    build = Build(
        out=storage.absolute(settings.out),
        staging=storage.absolute(staging.uri),
        spec=settings.spec,
        layout=settings.layout,
        tokenizer_path=settings.tokenizer_path and os.path.abspath(settings.tokenizer_path),
        splits=dict(settings.splits),
        shard_bytes=settings.shard_bytes,
        next_number=_next_numbers(before),
        known=known,
        refused=refused,
        rehash=settings.rehash,
        allow_mixed_toolchain=settings.allow_mixed_toolchain,
        silence_s=settings.silence_s,
    )
    staging.write(PLAN, "".join(item.model_dump_json(exclude={"spec"}) + "\n" for item in plan.items).encode())
    elements: list[WorkItem | Outcome] = list(plan.items)
    for receipt in plan.rejected:
        name = f"{receipt.session}-{receipt.source_digest[:16]}.json"
        featurise.write_receipt(staging, name, receipt)
        elements.append(featurise.outcome_of(receipt, name))
    staging.delete(VERDICT)  # of the build before
    with _Watch(plan, staging, on_progress):
        try:
            _run_graph(elements, build, runner, options)
        except MicroturnError:
            raise
        except Exception as error:
            if "KeyboardInterrupt" in str(error):  # Beam wraps what a person meant
                raise KeyboardInterrupt from None
            hint = "mend what it names, and run the same build again: what has a receipt is kept"
            raise MicroturnError(f"the runner gave up: {_last_line(error)}", hint=hint) from error
    if not staging.exists(VERDICT):
        raise MicroturnError("the runner ended without a verdict", hint="its workers must write to the same staging folder as the driver")
    verdict = Verdict.read(staging)
    staging.delete(featurise.UNDER_WAY)
    for folder in (out, staging):
        folder.delete_unfinished()
    if not verdict.blocks:
        staging.delete(PLAN)  # what was to be done; it names where the input lies
        if not settings.keep_parts:
            staging.delete(PARTS)
    return verdict


def _run_graph(elements: list[WorkItem | Outcome], build: Build, runner: Any, options: PipelineOptions) -> None:
    pipeline = beam.Pipeline(runner=runner, options=options)
    _ = pipeline | "Sessions" >> beam.Create(elements, reshuffle=False) | "Build" >> BuildCorpus(build)
    pipeline.run().wait_until_finish()


def _last_line(error: Exception) -> str:
    """What went wrong. A runner with processes of its own raises their whole traceback as one text."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def drop_ratio(dataset: Mapping[str, Any]) -> float:
    """Dropped over decoded audio of a corpus, 0.0 where there was none."""
    totals = dataset["totals"]
    return totals["audio_dropped"] / totals["audio_decoded"] if totals["audio_decoded"] else 0.0


def _refuse_other(before: Mapping[str, Any] | None, settings: Settings, toolchain: str) -> None:
    """A corpus grows only by what could have been in it from the start."""
    if before is None:
        return
    digests = before["digests"]
    hint = "build into another folder"
    for name, digest in (("spec", settings.spec.digest()), ("layout_spec", settings.layout.digest())):
        if digests[name] != digest:
            raise CorpusError(f"{settings.out} holds a corpus of another {name}: {digests[name][:12]}, asked for {digest[:12]}", hint=hint)
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
            state = f"has {found} bytes, not {shard['size_bytes']}" if found >= 0 else "is not there"
            hint = "bring it back, or delete dataset.json and build again: everything is made anew, with the same bytes"
            raise CorpusError(f"{out.uri}: {name} {state}", hint=hint)


def _committed(out: Folder, before: Mapping[str, Any] | None) -> tuple[dict[str, str], frozenset[str]]:
    """Session key → source digest of what is committed; and the keys of sessions that its ledgers reject whole."""
    if before is None:
        return {}, frozenset()
    known: dict[str, str] = {}
    for shard in before["shards"]:
        table = read_table(out, f"index/{shard['name']}.parquet", ["session", "source_digest"])
        known.update(zip(table["session"].to_pylist(), table["source_digest"].to_pylist(), strict=True))
    refused: set[str] = set()
    for part in before["rejected"]:
        refused.update(read_table(out, f"ledger/{part['name']}.parquet", ["session"])["session"].to_pylist())
    return known, frozenset(refused)


def _next_numbers(before: Mapping[str, Any] | None) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for shard in before["shards"] if before else ():
        numbers[shard["split"]] = numbers.get(shard["split"], 0) + 1
    return numbers


class _Watch:
    """Looks at the staging folder now and then, from a thread, and tells how many bytes of input have a receipt or are under way."""

    def __init__(self, plan: Plan, staging: Folder, on_progress: Callable[[int, int], None]) -> None:
        self._size = {item.receipt_name(): sum(f.size_bytes for f in item.files if f.size_bytes != NOT_THERE) for item in plan.items}
        self._staging, self._tell = staging, on_progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            self._look()

    def _look(self) -> None:
        done = {name.removeprefix(f"{RECEIPTS}/") for name in self._staging.names(RECEIPTS)}
        self._tell(sum(self._size[name] for name in done & self._size.keys()), sum(self._size.values()))


def check_splits(splits: Mapping[str, float]) -> None:
    """Raises InputError unless the shares are non-negative and some is positive, under names that may stand in a file's name."""
    hint = "for example train=0.98,val=0.02"
    strange = sorted(name for name in splits if not re.fullmatch(SPLIT, name))
    if strange:
        raise InputError(f"split {strange[0]!r}: a name is 1 to 16 of a–z, 0–9 and _", hint=hint)
    if not all(math.isfinite(share) and share >= 0 for share in splits.values()) or not sum(splits.values()):
        raise InputError(f"split shares {dict(splits)} must be positive", hint=hint)
