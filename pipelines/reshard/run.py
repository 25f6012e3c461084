"""A reshard from beginning to end, the driver's side: `anew` writes a corpus from corpora, `purge` rids one of sessions where it lies.

Both leave either what was there before or the whole of what was asked for, whenever they are killed, and the same call again goes on.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam

from ...schemas.errors import CorpusError, InputError, MicroturnError
from ...schemas.layout import LayoutSpec
from ...schemas.receipts import ShardSummary
from ...schemas.strict import canonical_json, sha256_hex
from ...schemas.tables import LedgerRow
from ...transforms.tokens import tokenizer
from ..corpus import rejected
from ..corpus.commit import dataset_digest, in_order, publish, read_dataset
from ..corpus.withdrawn import SPEAKER, Listed, are_withdrawn, mark
from ..sessions.drops import DUPLICATE_KEPT
from ..storage import folders
from ..storage.folders import Folder
from ..storage.lease import Lease, refuse_lost
from ..storage.parts import PARTS
from ..storage.tables import read_table
from ..wording.shares import shares_of, splits_told
from .graph import RESULT, AnewFromShards, Note, WriteShards, numbered, take
from .purge import clean, session_of_part, sessions_with_receipts, to_write
from .sources import Held, open_sources, refuse_conflicts
from .steps import DONE
from .tasks import Purge, ShardAt, Told

STAGING = ".staging"
PLAN = "reshard-plan"  # under the staging folder of a corpus that a reshard made: the digest of what it was made by

Graph = Callable[[Sequence[tuple[int, Any]], beam.PTransform], None]  # runs the transform over these elements
NONE = Listed(keys=frozenset(), ids=frozenset(), held=frozenset(), num_names=0, gone=(), unknown=())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to make a corpus anew.

    Attributes:
        staging: URI of the folder in which the sources' builds left their receipts; "" for each source's own.
        layout: None keeps the tokens; tokenizer_path: "" for an embedded tokenizer.
        splits: None keeps every session in its split; move_given: also divide those anew whose split a manifest named.
        shard_bytes: 0 for the first source's.
        drop: what to leave out.
    """

    out: str
    staging: str = ""
    layout: LayoutSpec | None = None
    tokenizer_path: str = ""
    splits: Mapping[str, float] | None = None
    move_given: bool = False
    shard_bytes: int = 0
    drop: Listed = field(default_factory=lambda: NONE)


def anew(
    sources: Sequence[str], settings: Settings, run: Graph, note_of: Callable[[Folder], Note], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Writes the corpus; gives its dataset.json. A corpus that the same call has made stands as it is.

    Raises:
        Busy: a build is at work in OUT.
        InputError: OUT holds another corpus, or lies in a source.
        CorpusError: the sources may not go together, or one is damaged; nothing is committed.
    """
    held = open_sources(sources, settings.staging)
    out = Folder(folders.absolute(settings.out))
    staging = Folder(f"{out.uri.rstrip('/')}/{STAGING}")
    for one in held:
        if folders.within(out.uri, one.source.uri) or folders.within(one.source.uri, out.uri):
            raise InputError(f"OUT {settings.out} and the corpus {one.source.uri} lie in each other", hint="give OUT a folder of its own")
    refuse_conflicts(held, settings.drop.keys)
    first = held[0].corpus
    layout = settings.layout or first.layout
    splits = settings.splits or first.dataset["splits"]
    _refuse_other_splits(held, settings)
    if len({one.corpus.layout.digest() for one in held}) > 1 and settings.layout is None:
        raise CorpusError("corpora of different layouts", hint="--tokenizer bytes, inkling or FILE gives all of them one")
    told = Told(
        out=out.uri,
        staging=staging.uri,
        lease="",
        sources=tuple(one.source for one in held),
        layout=None if all(one.corpus.layout == layout for one in held) else layout,
        tokenizer_path=settings.tokenizer_path,
        splits=dict(settings.splits) if settings.splits else None,
        move_given=settings.move_given,
        shard_bytes=settings.shard_bytes or first.dataset["shard_bytes"],
        drop=settings.drop.keys,
        plan="",
    )
    if told.layout is not None:
        tokenizer.load(layout, settings.tokenizer_path or None)  # a worker would miss it only when it has begun to write
    plan = _digest_of(told, splits, layout)
    with Lease(out, tell) as lease:
        before = read_dataset(out)
        if before is not None:
            if not staging.exists(PLAN) or staging.read(PLAN).decode() != plan:
                raise InputError(f"{settings.out} holds a corpus already", hint="give OUT a folder of its own, or empty this one")
            tell(f"{settings.out} has been made by the same command: nothing to do")
            return before
        staging.write(PLAN, plan.encode())
        told = replace(told, lease=lease.token, plan=plan)
        shards = [ShardAt(number, place, shard["name"]) for number, one in enumerate(held) for place, shard in enumerate(one.corpus.shards)]
        summaries = _written(list(enumerate(shards)), AnewFromShards(told, note_of), told, run) if shards else []
        refuse_lost(out, lease.token)
        for one in held:  # a session may have been withdrawn from it meanwhile
            if dataset_digest(one.corpus.folder) != one.source.digest:
                raise CorpusError(f"{one.source.uri}: dataset.json has changed while it was read", hint="run the same command again")
        dataset = publish(
            out,
            before=None,
            shards=in_order((), summaries),
            refused=rejected.write_rows(out, list(_rejected_rows(held, settings.drop.keys)), 0),
            spec=first.spec,
            layout=layout,
            toolchain=first.dataset["toolchain"],
            splits=splits,
            shard_bytes=told.shard_bytes,
            is_mixed=any(one.corpus.dataset["mixed_toolchain"] for one in held),
            withdrawn=_marks(held, settings.drop),
        )
        clean(out, staging, dataset, settings.drop.keys)  # an interrupted run may have had a shorter list
        _tidy(out, staging)
    return dataset


def purge(
    uri: str, staging_uri: str, drop: Listed, run: Graph, note_of: Callable[[Folder], Note], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Rids the corpus, and its staging folder, of these sessions; gives its dataset.json. Other files in its folder are not touched.

    Shards that held one are written again under new numbers, dataset.json over them; then everything old is deleted. Killed before the
    commit it leaves the old corpus, killed behind it the new one, and the same call again deletes what is left.

    Raises:
        Busy: a build is at work in the corpus or its staging folder.
        CorpusError: a shard that must be written again is damaged; nothing is committed.
    """
    out = Folder(folders.absolute(uri))
    staging = Folder(folders.absolute(staging_uri) if staging_uri else f"{out.uri.rstrip('/')}/{STAGING}")
    with contextlib.ExitStack() as leases:
        lease = leases.enter_context(Lease(out, tell))
        if not folders.within(staging.uri, out.uri):
            leases.enter_context(Lease(staging, tell))
        held = open_sources([out.uri], staging.uri)[0]
        dataset = held.corpus.dataset
        marks = _marks([held], drop)
        tasks = to_write(held, drop.keys)
        if tasks or drop.held or marks != set(dataset.get("withdrawn", ())):
            told = Told(
                out=out.uri,
                staging=staging.uri,
                lease=lease.token,
                sources=(held.source,),
                layout=None,
                tokenizer_path="",
                splits=None,
                move_given=False,
                shard_bytes=dataset["shard_bytes"],
                drop=drop.keys,
                plan=sha256_hex(canonical_json([held.source.digest, sorted(drop.keys)])),
            )
            summaries = _written(list(numbered([task for task in tasks if task.name])), WriteShards(told, note_of), told, run)
            refuse_lost(out, lease.token)
            if dataset_digest(out) != held.source.digest:
                raise CorpusError("dataset.json has changed while the corpus was purged", hint="run the same command again")
            dataset = _publish_without(held, tasks, summaries, drop, marks)
        clean(out, staging, dataset, drop.keys | (_gone_before(staging, dataset) if drop.speakers else frozenset()))
        _tidy(out, staging)
    return dataset


def _gone_before(staging: Folder, dataset: Mapping[str, Any]) -> frozenset[str]:
    """Sessions that were withdrawn and have left something: after a purge that was killed nothing else says who the speaker's were."""
    left = sessions_with_receipts(staging) | {session_of_part(staging, part) for part in staging.names(PARTS)}
    return frozenset(are_withdrawn(sorted(left), dataset))


def _publish_without(
    held: Held, tasks: Sequence[Purge], summaries: Sequence[ShardSummary], drop: Listed, marks: Collection[str]
) -> dict[str, Any]:
    corpus, dataset = held.corpus, held.corpus.dataset
    written = {summary.name: summary for summary in summaries}
    new_name = {task.old: task.name for task in tasks}
    shards: list[Mapping[str, Any]] = []
    for shard in corpus.shards:  # a session goes on in the next of the list: a shard written again stands where the old one stood
        name = new_name.get(shard["name"], shard["name"])
        if name:
            shards.append(written[name].model_dump() if shard["name"] in new_name else shard)
    return publish(
        corpus.folder,
        before=dataset,
        shards=shards,
        refused=rejected.write(corpus.folder, dataset["rejected"], (), drop.keys),
        spec=corpus.spec,
        layout=corpus.layout,
        toolchain=dataset["toolchain"],
        splits=dataset["splits"],
        shard_bytes=dataset["shard_bytes"],
        is_mixed=dataset["mixed_toolchain"],
        withdrawn=marks,
    )


def _written(elements: Sequence[tuple[int, Any]], transform: beam.PTransform, told: Told, run: Graph) -> list[ShardSummary]:
    """The summaries of what the graph writes. Raises CorpusError for faults, MicroturnError for a runner that gave up."""
    staging = Folder(told.staging)
    staging.delete(RESULT)  # of a run that died
    run(elements, transform)
    if not staging.exists(RESULT):
        raise MicroturnError("the runner ended without a result", hint="its workers must write to the same folder as the driver")
    return take(staging, told.plan)


def _tidy(out: Folder, staging: Folder) -> None:
    for name in (RESULT, DONE):
        staging.delete(name)
    for folder in (out, staging):
        folder.delete_unfinished()


def _rejected_rows(held: Sequence[Held], drop: Collection[str]) -> Iterator[LedgerRow]:
    """What the sources say of sessions dropped whole, but of those that another source holds after all; of several accounts the first."""
    holders: dict[str, set[int]] = {}
    told: dict[str, int] = {}
    for number, one in enumerate(held if len(held) > 1 else ()):
        for shard in one.corpus.shards:
            found = read_table(one.corpus.folder, f"index/{shard['name']}.parquet", ["session"])["session"].unique().to_pylist()
            for session in found:
                holders.setdefault(session, set()).add(number)
    for number, one in enumerate(held):
        for part in one.corpus.dataset["rejected"]:
            for row in one.ledger(part["name"]):
                mended = holders.get(row.session, set()) - {number} and row.reason != DUPLICATE_KEPT
                if row.session not in drop and not mended and told.setdefault(row.session, number) == number:
                    yield row


def _refuse_other_splits(held: Sequence[Held], settings: Settings) -> None:
    """A group of recordings that lies in two corpora must fall into one split."""
    first = held[0]
    for one in held[1:]:
        ours, theirs = first.corpus.dataset["splits"], one.corpus.dataset["splits"]
        if settings.splits is None and shares_of(theirs) != shares_of(ours):
            told = f"{first.source.uri} has {splits_told(ours)}, {one.source.uri} has {splits_told(theirs)}"
            raise CorpusError(
                f"corpora that were split by different shares, a group of recordings could fall apart: {told}",
                hint=f"--split SHARES divides all of them anew, for example --split {splits_told(ours)}",
            )


def _marks(held: Sequence[Held], drop: Listed) -> set[str]:
    """What the corpus shall remember of sessions that may not come back."""
    before = {known for one in held for known in one.corpus.dataset.get("withdrawn", ())}
    return before | {mark(key) for key in drop.keys} | {mark(SPEAKER + name) for name in drop.speakers}


def _digest_of(told: Told, splits: Mapping[str, float], layout: LayoutSpec) -> str:
    """What the corpus follows from, wherever it and its sources lie."""
    sources = [source.digest for source in told.sources]
    given = [sources, layout.digest(), dict(splits), told.splits is not None, told.move_given, told.shard_bytes, sorted(told.drop)]
    return sha256_hex(canonical_json(given))
