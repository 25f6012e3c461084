"""The corpora that a reshard reads: which may go together, their tables as they were committed, and their payloads, none of them unhashed.

Whatever is read here is compared with what was claimed of it: index and ledger rows with dataset.json, a payload with the index.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from itertools import groupby
from typing import Any, BinaryIO, NoReturn

from ...schemas.errors import CorpusError, InputError
from ...schemas.receipts import MemberAt
from ...schemas.strict import sha256_hex
from ...schemas.tables import LedgerRow, rows_digest
from ..corpus.commit import dataset_digest
from ..corpus.reader import Corpus
from ..corpus.withdrawn import are_withdrawn
from ..sessions.receipts import RECEIPTS
from ..storage import folders
from ..storage.folders import Folder
from ..storage.parts import PartReader
from ..storage.tables import read_table
from ..wording.counted import counted

MAX_NAMED = 5
REMEDY = "bring the file back, or delete dataset.json and build again: everything is made anew, with the same bytes"
RECEIPT_ENDING = len("-0123456789abcdef.json")


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus to read from: its folder, where its receipts lie, and the digest of its dataset.json."""

    uri: str
    staging: str
    digest: str


@dataclass(frozen=True)
class Held:
    """An open source. Opened once in each worker: its dataset.json may name a hundred thousand shards."""

    source: Source
    corpus: Corpus

    @classmethod
    def open(cls, source: Source) -> "Held":
        """Raises CorpusError when the corpus is not the one that the reshard began with."""
        return _opened(source)

    @cached_property
    def _claims(self) -> dict[str, Mapping[str, Any]]:
        return {part["name"]: part for part in [*self.corpus.shards, *self.corpus.dataset["rejected"]]}

    def index(self, shard: str) -> list[dict[str, Any]]:
        """The index rows of a shard. Raises CorpusError when they are not those that were committed."""
        rows = self.corpus.index(shard)
        if rows_digest(rows) != self._claims[shard]["index_digest"]:
            raise self._changed(f"index/{shard}.parquet")
        return rows

    def ledger(self, name: str) -> list[LedgerRow]:
        """The ledger rows of a shard or of a `rejected-…` part. Raises CorpusError when they are not those that were committed."""
        rows = self.corpus.ledger(name)
        if rows_digest(rows) != self._claims[name]["ledger_digest"]:
            raise self._changed(f"ledger/{name}.parquet")
        return [LedgerRow(**row) for row in rows]

    def of_session(self, session: str, shards: Sequence[str]) -> tuple[list[dict[str, Any]], list[LedgerRow]]:
        """(index rows in order, ledger rows) of a session that lies in these shards."""
        rows = [row for shard in shards for row in self._by_session(shard)[0].get(session, ())]
        return rows, [row for shard in shards for row in self._by_session(shard)[1].get(session, ())]

    @property
    def staging(self) -> Folder:
        """Where the receipts of its build lie, if they are still there."""
        return Folder(self.source.staging)

    def receipt_names(self, session: str) -> list[str]:
        """Names of the receipts of a session. The folder is listed once in each worker, when the first is asked for."""
        names = self._receipt_names
        start, stop = bisect_left(names, f"{session}-"), bisect_left(names, f"{session}.")  # "." comes next after "-"
        return [name for name in names[start:stop] if len(name) == len(session) + RECEIPT_ENDING]

    @cached_property
    def _receipt_names(self) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.staging.names(RECEIPTS))

    def _by_session(self, shard: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[LedgerRow]]]:
        return _tables_by_session(self.source, shard)

    def _changed(self, name: str) -> CorpusError:
        return CorpusError(
            f"{self.source.uri}: {name}: its rows are not those that dataset.json was written over",
            hint=f"`microturn verify` tells more; {REMEDY}",
        )


@lru_cache(maxsize=8)
def _opened(source: Source) -> Held:
    corpus = Corpus.open(source.uri)
    if dataset_digest(corpus.folder) != source.digest:
        raise CorpusError(f"{source.uri}: dataset.json has changed while it was read", hint="run the same command again")
    return Held(source, corpus)


@lru_cache(maxsize=3)  # sessions come in order: the shard under way, the one before it, and room for two sources
def _tables_by_session(source: Source, shard: str) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[LedgerRow]]]:
    held = Held.open(source)
    rows = {session: list(found) for session, found in groupby(held.index(shard), key=lambda row: row["session"])}
    ledger: dict[str, list[LedgerRow]] = {}
    for row in held.ledger(shard):
        ledger.setdefault(row.session, []).append(row)
    return rows, ledger


class ShardReader(PartReader):
    """Payloads of a corpus by their byte ranges, and payloads made from them, which stay in memory until `forget`."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._folder = folder
        self._made: dict[str, bytes] = {}
        self._keys: dict[tuple[str, int], str] = {}

    def __enter__(self) -> "ShardReader":
        return self

    def locate(self, row: Mapping[str, Any]) -> dict[str, MemberAt]:
        """Name → where it lies, of an index row's members."""
        part = f"shards/{row['shard']}.tar"
        for member in row["members"]:
            self._keys[part, member["offset"]] = row["key"]
        return {member["name"]: MemberAt(part=part, **member) for member in row["members"]}

    def make(self, key: str, name: str, payload: bytes) -> MemberAt:
        """Where a payload that no shard holds lies from now on."""
        part = f"made/{key}"
        self._made[f"{part}.{name}"] = payload
        return MemberAt(name=name, part=f"{part}.{name}", offset=0, size=len(payload), sha256=sha256_hex(payload))

    def forget(self) -> None:
        """Lets go of what belongs to the windows so far."""
        self._made.clear()
        self._keys.clear()

    def _at(self, at: MemberAt) -> BinaryIO:
        return BytesIO(self._made[at.part]) if at.part in self._made else super()._at(at)

    def _refuse(self, at: MemberAt) -> NoReturn:
        """A corpus is not ours to mend: nothing is removed."""
        key = self._keys.get((at.part, at.offset), "")
        raise CorpusError(
            f"{self._folder.uri}: {at.part}: window {key}: {at.name} at byte {at.offset} is not what the index says",
            hint=f"`microturn verify` names all that is damaged; {REMEDY}",
        )


def open_sources(uris: Sequence[str], staging: str = "") -> list[Held]:
    """These corpora, open. Raises InputError, and CorpusError for those that may not go together or that are not all there."""
    held: list[Held] = []
    for uri in uris:
        place = folders.absolute(uri.rstrip("/") or "/")
        if any(folders.within(place, other.source.uri) for other in held):
            raise InputError(f"{uri} stands twice")
        digest = dataset_digest(Folder(place))
        Corpus.open(place)  # says what is wrong with a folder that is none
        held.append(Held.open(Source(place, folders.absolute(staging) if staging else f"{place}/.staging", digest)))
        _refuse_damaged(held[-1])
    for other in held[1:]:
        _refuse_unlike(held[0], other)
    return held


def refuse_conflicts(held: Sequence[Held], drop: frozenset[str]) -> None:
    """Nothing, if every session that several corpora hold has the same content in all of them. Raises CorpusError naming those that differ,
    and those that one corpus holds and another was told to drop."""
    found: dict[str, str] = {}
    conflicts = []
    for number, one in enumerate(held if len(held) > 1 else ()):
        mine: dict[str, str] = {}
        for shard in one.corpus.shards:
            table = read_table(one.corpus.folder, f"index/{shard['name']}.parquet", ["session", "source_digest"])
            unlike = table.group_by(["session", "source_digest"]).aggregate([])
            mine.update(zip(unlike["session"].to_pylist(), unlike["source_digest"].to_pylist(), strict=True))
        conflicts += [session for session, digest in mine.items() if found.get(session, digest) != digest and session not in drop]
        for other in (*held[:number], *held[number + 1 :]):
            if back := are_withdrawn((session for session in mine if session not in drop), other.corpus.dataset):
                text = f"{one.source.uri} holds sessions that {other.source.uri} was told to drop: {_named(back)}"
                raise CorpusError(text, hint="name them in --drop")
        found |= mine
    if conflicts:
        hint = "name them in --drop, or drop them from one of the corpora first"
        raise CorpusError(f"sessions that differ between the corpora: {_named(sorted(conflicts))}", hint=hint)


def _named(sessions: Sequence[str]) -> str:
    more = f" and {len(sessions) - MAX_NAMED} more" if len(sessions) > MAX_NAMED else ""
    return ", ".join(sessions[:MAX_NAMED]) + more


def _refuse_unlike(one: Held, other: Held) -> None:
    """Only what one build could have made goes together."""
    for name, what in (("spec", "feature spec"), ("toolchain", "toolchain")):
        here, there = (held.corpus.dataset["digests"][name] for held in (one, other))
        if here != there:
            told = f"{one.source.uri} has {here[:12]}, {other.source.uri} has {there[:12]}"
            raise CorpusError(f"corpora of another {what}: {told}", hint="build one of them again as the other was built")


def _refuse_damaged(held: Held) -> None:
    folder = held.corpus.folder
    for shard in held.corpus.shards:
        name = f"shards/{shard['name']}.tar"
        found = folder.size(name) if folder.exists(name) else -1
        if found != shard["size_bytes"]:
            state = f"has {counted(found, 'byte')}, not {shard['size_bytes']}" if found >= 0 else "is not there"
            raise CorpusError(f"{folder.uri}: {name} {state}", hint=REMEDY)
