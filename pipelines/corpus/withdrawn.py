"""Sessions that shall be gone: the list that names them, which of them a corpus holds, and the marks that keep them from coming back.

A mark is a hash of the session's key, in dataset.json: it names nobody, and whoever has the id can still ask for it. That is no secrecy
(ids that can be guessed can be tried), and a salt beside the hashes would add none. The same recording under another id has another mark.

`speaker:NAME` on a list is every session in which this speaker takes part, acting or only heard, and has a mark of its own, so that the
list can be asked for again when they are gone. Who takes part stands in the meta of windows: a session that was dropped whole has none, and
is named by its id. An id that begins with `speaker:` is named by its key.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa

from ...schemas import keys, record
from ...schemas.errors import CorpusError, InputError
from ...schemas.strict import sha256_hex
from ..storage import folders
from ..storage.tables import read_table
from ..wording.near import near
from .reader import Corpus

MAX_NAMED = 5
SPEAKER = "speaker:"
NEAR_AMONG = 100_000  # names that a mistyped one is compared with


def mark(session: str) -> str:
    """What dataset.json keeps of a session key, or of `speaker:NAME`, under `withdrawn`."""
    return sha256_hex(f"withdrawn\0{session}")


def are_withdrawn(sessions: Iterable[str], dataset: Mapping[str, Any] | None) -> list[str]:
    """Those of these session keys that a corpus has been told to drop, in their order."""
    marks = set(dataset.get("withdrawn", ())) if dataset else set()
    return [session for session in sessions if marks and mark(session) in marks]


def read_list(path: str) -> list[str]:
    """The names in a text file, one a line: session ids as in the manifest, session keys, `speaker:NAME`. Raises InputError for none."""
    try:
        lines = folders.read_input(path).decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="a text file with a session id or key on each line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error})") from None
    names = list(dict.fromkeys(line for line in lines if line.strip()))
    if not names:
        raise InputError(f"{path}: names no session", hint="a session id or key on each line")
    if SPEAKER in names:
        raise InputError(f"{path}: {SPEAKER} names nobody", hint=f"{SPEAKER}NAME; people without a name are no one person")
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a list means for some corpora.

    Attributes:
        keys: session keys that the names may stand for, there or not; ids: the ids of the manifest among the names and the corpora.
        held: those of the keys that some corpus holds or has dropped whole.
        num_names: on the list; gone: names that were withdrawn before; unknown: names that mean nothing to any of the corpora.
        speakers: the people among the names; near: unknown name → what may have been meant.
    """

    keys: frozenset[str]
    ids: frozenset[str]
    held: frozenset[str]
    num_names: int
    gone: tuple[str, ...]
    unknown: tuple[str, ...]
    speakers: frozenset[str] = frozenset()
    near: Mapping[str, str] = field(default_factory=dict)


def look_up(names: Collection[str], corpora: Iterable[Corpus]) -> Listed:
    """What these names mean. Reads the names in every index and in the ledgers of sessions that were dropped whole, and nothing else; where
    a speaker is named, the meta of one window of each session too."""
    speakers = frozenset(name.removeprefix(SPEAKER) for name in names if name.startswith(SPEAKER))
    wanted: dict[str, set[str]] = {name: set() if name.startswith(SPEAKER) else {name, keys.session_key(name)} for name in names}
    keys_wanted = frozenset().union(*wanted.values()) if wanted else frozenset()
    marks: set[str] = set()
    held: dict[str, str] = {}
    known: set[str] = set()
    for corpus in corpora:
        marks.update(corpus.dataset.get("withdrawn", ()))
        for table in _tables(corpus):
            found = read_table(corpus.folder, table, ["session", "session_id"]).group_by(["session", "session_id"]).aggregate([])
            pairs = list(zip(found["session"].to_pylist(), found["session_id"].to_pylist(), strict=True))
            held.update((session, id_) for session, id_ in pairs if session in keys_wanted)
            if len(known) < NEAR_AMONG:
                known.update(id_ for _, id_ in pairs)
        for speaker, session, id_ in people(corpus) if speakers else ():
            known.add(SPEAKER + speaker)
            if speaker in speakers:
                wanted[SPEAKER + speaker].add(session)
                held[session] = id_
    others = [name for name in names if not wanted[name] & held.keys()]
    gone = tuple(name for name in others if any(mark(key) in marks for key in wanted[name] or {name}))
    unknown = tuple(name for name in others if name not in gone)
    return Listed(
        keys=frozenset(key for name in names for key in wanted[name] if key in held or key == keys.session_key(name)),
        ids=frozenset(name for name in names if not name.startswith(SPEAKER)) | frozenset(held.values()),
        held=frozenset(held),
        num_names=len(names),
        gone=gone,
        unknown=unknown,
        speakers=speakers,
        near={name: meant for name in unknown[:MAX_NAMED] if (meant := _near(name, known))},
    )


def people(corpus: Corpus) -> Iterator[tuple[str, str, str]]:
    """(speaker, session key, session id) of everyone who takes part in a session that has windows, and has a name. One read a session."""
    last = ""
    for shard in corpus.shards:
        table = read_table(corpus.folder, f"index/{shard['name']}.parquet", ["key", "session", "session_id", "members"])
        sessions = [last, *table["session"].to_pylist()]
        last = sessions[-1]
        first_rows = [number for number, (before, session) in enumerate(pairwise(sessions)) if session != before]
        for row in table.take(pa.array(first_rows, pa.int64())).to_pylist():
            at = next(member for member in row["members"] if member["name"] == "meta.json")
            data = corpus.folder.read_range(f"shards/{shard['name']}.tar", at["offset"], at["size"])
            where = f"{shard['name']}.tar:{row['key']}.meta.json"
            if hashlib.sha256(data).hexdigest() != at["sha256"]:
                raise CorpusError(f"{where} is not what the index says", hint="`microturn verify` names all that is damaged")
            for name in {person["speaker"] for person in record.decode_json(data, where=where)["participants"]} - {""}:
                yield name, row["session"], row["session_id"]


def refuse_unknown(listed: Listed, where: str) -> None:
    """Nothing, if every name is known. Raises InputError naming those that are not."""
    if listed.unknown:
        more = f" and {len(listed.unknown) - MAX_NAMED} more" if len(listed.unknown) > MAX_NAMED else ""
        named = ", ".join(repr(name) for name in listed.unknown[:MAX_NAMED])
        meant = f"did you mean {', '.join(map(repr, listed.near.values()))}? " if listed.near else ""
        raise InputError(
            f"{where}: no session {named}{more} in the corpus, nor withdrawn from it", hint=f"{meant}mend the list, or pass --missing-ok"
        )


def _tables(corpus: Corpus) -> list[str]:
    """The tables that name sessions: of those with windows, and of those dropped whole."""
    index = [f"index/{shard['name']}.parquet" for shard in corpus.shards]
    return [*index, *(f"ledger/{part['name']}.parquet" for part in corpus.dataset["rejected"])]


def _near(name: str, known: Iterable[str]) -> str:
    """The known name, of a speaker for a speaker, that is near to this one; "" for none."""
    kind = SPEAKER if name.startswith(SPEAKER) else ""
    alike = sorted(other.removeprefix(kind) for other in known if other.startswith(SPEAKER) == bool(kind))
    return "".join(f"{kind}{meant}" for meant in near(name.removeprefix(kind), alike))
