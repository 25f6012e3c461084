"""From a manifest or a folder to a deterministic list of work items. Files are identified here, by size and stamp; nothing is decoded.

Rows that are not a manifest's refuse the whole build before any work is done. Rows that are, but name the same session twice, are settled
here too: of identical ones one is kept, of different ones none.
"""

import errno
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq

from ...schemas import keys
from ...schemas.errors import InputError, MediaError
from ...schemas.manifest import Session
from ...schemas.receipts import FileIdentity, Receipt, WorkItem
from ...schemas.spec import FeatureSpec
from ...schemas.strict import canonical_json, sha256_hex
from ...schemas.tables import LedgerRow
from ..sessions import receipts
from ..sessions.drops import DUPLICATE_KEPT
from ..sessions.receipts import NOT_A_FILE, NOT_THERE, paths_of, source_digest
from ..storage import folders

MAX_ERRORS_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be done, in the order in which sessions fill shards; and the sessions that were settled without being looked at."""

    items: tuple[WorkItem, ...]
    rejected: tuple[Receipt, ...]


def read_manifest(data: bytes, name: str) -> list[Session]:
    """The sessions of a manifest: Parquet if it begins as such, else JSON lines. Raises InputError with the first errors, a line each,
    and for a manifest without sessions."""
    sessions, errors = [], []
    for where, row in _rows(data, name):
        try:
            sessions.append(Session.parse(row, where=where))
        except InputError as error:
            errors.append(f"{error}{f' ({error.hint})' if error.hint else ''}")
    if errors:
        more = f"\n… and {len(errors) - MAX_ERRORS_SHOWN} more" if len(errors) > MAX_ERRORS_SHOWN else ""
        raise InputError("\n".join(errors[:MAX_ERRORS_SHOWN]) + more, hint="nothing was built; mend these rows first")
    if not sessions:
        raise InputError(f"{name}: no session in it", hint="a manifest has one session a line, or a row")
    return sessions


def _rows(data: bytes, name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if data[:4] == b"PAR1":
        try:
            table = pq.read_table(io.BytesIO(data))
        except (ValueError, OSError) as error:
            raise InputError(f"{name}: begins as Parquet and cannot be read ({error})") from None
        for number, row in enumerate(table.to_pylist()):
            yield f"{name}, row {number}", row
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: byte {error.start} is not UTF-8", hint="a manifest is JSON lines in UTF-8, or Parquet") from None
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{number}: not JSON ({error})", hint="a manifest has one JSON object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{name}:{number}: found {type(row).__name__}, expected an object")
        yield f"{name}:{number}", row


def make_plan(
    sessions: Sequence[Session],
    *,
    root: str,
    spec: FeatureSpec,
    toolchain: str,
    splits: Mapping[str, float],
    salt: str = "",
    unnamed: Sequence[str] = (),
) -> Plan:
    """The plan of these sessions, whatever order they came in.

    `root` is where relative paths start; `splits` maps a split to its share; `salt`, unless empty, replaces every speaker by a salted hash
    and hides the names of files; `unnamed` are files whose names are no text, escaped: each is a session that is dropped.
    """
    root = folders.absolute(root)
    by_key: dict[str, list[Session]] = {}  # not by id: an id can be written that has the key of another
    for session in sessions:
        by_key.setdefault(keys.session_key(session.id), []).append(session)
    items, rejected = [], []
    for key in sorted(by_key):
        group = by_key[key]
        item = _item(_pseudonymous(group[0], salt), root, spec, toolchain, splits, bool(salt))
        same = len(group) == 1 or len({_content(session, root) for session in group}) == 1
        if same:
            items.append(item)
        if len(group) > 1:
            rejected.append(_duplicates(item, len(group) - same, same))
    rejected += [_unnamed(name, root, spec, toolchain, splits, bool(salt)) for name in sorted(unnamed)]
    return Plan(items=tuple(sorted(items, key=lambda i: (i.split, i.order))), rejected=tuple(rejected))


def _item(session: Session, root: str, spec: FeatureSpec, toolchain: str, splits: Mapping[str, float], hide_names: bool) -> WorkItem:
    return WorkItem(
        session=session,
        key=keys.session_key(session.id),
        split=session.split or keys.split_of(session.id, session.group, dict(splits)),
        order=keys.session_order(session.id),
        root=root,
        files=tuple(_identify(root, path) for path in paths_of(session)),
        spec=spec,
        toolchain=toolchain,
        hide_names=hide_names,
    )


def _identify(root: str, path: str) -> FileIdentity:
    try:
        return folders.identify(root, path)
    except folders.NotAFileError:
        return FileIdentity(path=path, size_bytes=NOT_A_FILE, stamp="")
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        return FileIdentity(path=path, size_bytes=NOT_THERE if _names_nothing(error) else 0, stamp="")  # else: reading it will tell


def _names_nothing(error: OSError | ValueError) -> bool:
    """Whether no file can be of this name, in contrast to one that cannot be looked at now."""
    absent = (FileNotFoundError, NotADirectoryError, ValueError)
    return isinstance(error, absent) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)


def _content(session: Session, root: str) -> str:
    """`source_digest`, with a file that cannot be read standing for itself. Only duplicates are read for it."""
    digests = {}
    for path in paths_of(session):
        try:
            with folders.open_source(root, path) as file:
                digests[path] = folders.sha256_of(file)
        except (OSError, ValueError, MediaError):
            digests[path] = f"not read: {path}"
    return source_digest(session, digests)


def _pseudonymous(session: Session, salt: str) -> Session:
    if not salt:
        return session
    people = tuple(
        p.model_copy(update={"speaker": sha256_hex(f"{salt}\0{p.speaker}")[:12] if p.speaker else ""}) for p in session.participants
    )
    return session.model_copy(update={"participants": people})


def _unnamed(name: str, root: str, spec: FeatureSpec, toolchain: str, splits: Mapping[str, float], hide_names: bool) -> Receipt:
    """The receipt of a file whose name is no UTF-8: nothing that we write could name it, and nothing of it is read."""
    stream = {"id": "unnamed", "path": name, "kind": "audio", "participant": "unnamed"}
    item = _item(Session.parse({"id": name, "streams": [stream]}, where=name), root, spec, toolchain, splits, hide_names)
    row = LedgerRow(
        session=item.key,
        session_id=name,
        entry="session",
        reason="bad_name",
        stage="plan",
        message="the file's name is not UTF-8, bytes that are not stand as \\x…; rename it",
        dropped=1,
    )
    return receipts.make(item, ledger=[row], proofs=(), digest=sha256_hex(canonical_json(["bad_name", name])))


def _duplicates(item: WorkItem, dropped: int, same: bool) -> Receipt:
    reason, tail = (DUPLICATE_KEPT, "one of them is kept") if same else ("duplicate_id", "their contents differ, none of them is taken")
    row = LedgerRow(
        session=item.key,
        session_id=item.session.id,
        entry="session",
        reason=reason,
        stage="plan",
        message=f"session id {item.session.id!r} stands {dropped + same} times in the manifest; {tail}",
        dropped=dropped,
    )
    return receipts.make(item, ledger=[row], proofs=(), digest=sha256_hex(canonical_json([reason, item.session.id, dropped])))
