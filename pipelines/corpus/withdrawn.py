"""Sessions that shall be gone: the list that names them, which of them a corpus holds, and the marks that keep them from coming back.

A mark is a hash of the session's key, in dataset.json: it names nobody, and whoever has the id can still ask for it. That is no secrecy
(ids that can be guessed can be tried), and a salt beside the hashes would add none. The same recording under another id has another mark.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...schemas import keys
from ...schemas.errors import InputError
from ...schemas.strict import sha256_hex
from ..storage import folders
from ..storage.tables import read_table
from .reader import Corpus

MAX_NAMED = 5


def mark(session: str) -> str:
    """What dataset.json keeps of a session key under `withdrawn`."""
    return sha256_hex(f"withdrawn\0{session}")


def are_withdrawn(sessions: Iterable[str], dataset: Mapping[str, Any] | None) -> list[str]:
    """Those of these session keys that a corpus has been told to drop, in their order."""
    marks = set(dataset.get("withdrawn", ())) if dataset else set()
    return [session for session in sessions if marks and mark(session) in marks]


def read_list(path: str) -> list[str]:
    """The names in a text file, one a line: session ids as in the manifest, or session keys. Raises InputError for a list of none."""
    try:
        lines = folders.read_input(path).decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="a text file with a session id or key on each line") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error})") from None
    names = list(dict.fromkeys(line for line in lines if line.strip()))
    if not names:
        raise InputError(f"{path}: names no session", hint="a session id or key on each line")
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a list means for some corpora.

    Attributes:
        keys: session keys that the names may stand for, there or not; ids: the ids of the manifest among the names and the corpora.
        held: those of the keys that some corpus holds or has dropped whole.
        num_names: on the list; gone: names that were withdrawn before; unknown: names that mean nothing to any of the corpora.
    """

    keys: frozenset[str]
    ids: frozenset[str]
    held: frozenset[str]
    num_names: int
    gone: tuple[str, ...]
    unknown: tuple[str, ...]


def look_up(names: Collection[str], corpora: Iterable[Corpus]) -> Listed:
    """What these names mean. Reads the names in every index and in the ledgers of sessions that were dropped whole, and nothing else."""
    wanted = {name: {name, keys.session_key(name)} for name in names}
    keys_wanted = frozenset().union(*wanted.values()) if wanted else frozenset()
    marks: set[str] = set()
    held: dict[str, str] = {}
    for corpus in corpora:
        marks.update(corpus.dataset.get("withdrawn", ()))
        tables = [f"index/{shard['name']}.parquet" for shard in corpus.shards]
        for table in [*tables, *(f"ledger/{part['name']}.parquet" for part in corpus.dataset["rejected"])]:
            found = read_table(corpus.folder, table, ["session", "session_id"]).group_by(["session", "session_id"]).aggregate([])
            pairs = zip(found["session"].to_pylist(), found["session_id"].to_pylist(), strict=True)
            held.update((session, id_) for session, id_ in pairs if session in keys_wanted)
    others = [name for name in names if not wanted[name] & held.keys()]
    gone = tuple(name for name in others if any(mark(key) in marks for key in wanted[name]))
    return Listed(
        keys=frozenset(key for name in names for key in wanted[name] if key in held or key == keys.session_key(name)),
        ids=frozenset(names) | frozenset(held.values()),
        held=frozenset(held),
        num_names=len(names),
        gone=gone,
        unknown=tuple(name for name in others if name not in gone),
    )


def refuse_unknown(listed: Listed, where: str) -> None:
    """Nothing, if every name is known. Raises InputError naming those that are not."""
    if listed.unknown:
        more = f" and {len(listed.unknown) - MAX_NAMED} more" if len(listed.unknown) > MAX_NAMED else ""
        named = ", ".join(repr(name) for name in listed.unknown[:MAX_NAMED])
        raise InputError(
            f"{where}: no session {named}{more} in the corpus, nor withdrawn from it", hint="mend the list, or pass --missing-ok"
        )
