"""Proof that sessions are gone: every file of a corpus and of its staging folder searched for their names, and on request for their bytes.

Searched: names of files; keys and `meta.json` of every window in every tar, shards and parts; every text in every Parquet table; all other
files byte by byte, for a name that stands by itself. A name shorter than MIN_TOLD is looked for where names stand, not in free text, and so
is every speaker's: people have the names of other people and of things. Not searched: what a picture or a voice shows, and copies elsewhere
(training runs, backups, snapshots of the disk or the store).
"""

import hashlib
import html
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from ...schemas import keys
from ..storage import folders
from ..storage.folders import Folder
from ..storage.tables import read_table
from ..wording.counted import counted
from .reader import Corpus
from .withdrawn import Listed

MIN_TOLD = 4
AT_ONCE = 16 << 20
_ROW_NAMES = ("session", "session_id")

Tell = Callable[[int, int], None]  # files searched, files in all


@dataclass(slots=True)
class Searched:
    """What was looked at, and every place in which a session was found, or in which that could not be told."""

    num_tars: int = 0
    num_members: int = 0
    num_tables: int = 0
    num_files: int = 0
    num_bytes: int = 0
    places: list[str] = field(default_factory=list)

    def told(self) -> str:
        """What was looked at, in words."""
        return (
            f"{counted(self.num_tars, 'tar')} with {counted(self.num_members, 'member')}, {counted(self.num_tables, 'table')} "
            f"and {counted(self.num_files, 'other file')}, "
            f"{self.num_bytes / 2**20:.1f} MiB in all"
        )


def search(places: list[Folder], listed: Listed, payloads: frozenset[str] = frozenset(), tell: Tell = lambda done, total: None) -> Searched:
    """Looks for the listed sessions in every file below these folders. `payloads`: sha256 of members that no tar may hold, as
    `payloads_of` gives them; with any of them every payload is hashed."""
    found, gone = Searched(), _Gone(listed)
    files = [(folder, name) for folder in places for name in _all_names(folder)]
    for done, (folder, name) in enumerate(files):
        tell(done, len(files))
        if gone.in_text(name) or gone.holds_key(name):
            found.places.append(f"{name}: the file's name")
        try:
            found.num_bytes += folder.size(name)
            found.places += [f"{name}: {place}" for place in _search_file(folder, name, gone, payloads, found)]
        except FileNotFoundError:
            continue  # a lease that has ended
        except Exception as error:  # whatever damage makes a library raise: what cannot be read proves nothing
            found.places.append(f"{name}: cannot be searched: {type(error).__name__}: {error}")
    tell(len(files), len(files))
    return found


def payloads_of(old: Corpus, listed: Listed) -> tuple[frozenset[str], int]:
    """(sha256 of the members that only these sessions have in a corpus of before, how many others they share with sessions that stay).

    What is shared says nothing: an array of no pictures is the same in every window.
    """
    theirs: set[str] = set()
    others: set[str] = set()
    for shard in old.shards:
        table = read_table(old.folder, f"index/{shard['name']}.parquet", ["session", "members"])
        for session, members in zip(table["session"].to_pylist(), table["members"].to_pylist(), strict=True):
            (theirs if session in listed.keys else others).update(member["sha256"] for member in members)
    return frozenset(theirs - others), len(theirs & others)


class _Gone:
    """The names that may stand nowhere."""

    def __init__(self, listed: Listed) -> None:
        self._keys, self._names, self._speakers = listed.keys, listed.keys | listed.ids, listed.speakers
        long = sorted(name for name in self._names if len(name) >= MIN_TOLD)
        ways = {way for name in long for way in (name, *_as_json(name, ""), html.escape(name))}
        told = b"|".join(re.escape(way.encode()) for way in sorted(ways, key=len, reverse=True))
        spoken = {way for name in self._speakers for colon in (":", ": ") for way in _as_json(name, f'"speaker"{colon}')}
        told_by = [rb"(?<![A-Za-z0-9_])(?:" + told + rb")(?![A-Za-z0-9_])"] if ways else []
        self._told = re.compile(b"|".join([*told_by, *(re.escape(way.encode()) for way in sorted(spoken))]) or rb"(?!)")
        self.longest = max((len(way.encode()) for way in ways | spoken), default=0)

    def is_name(self, text: str) -> bool:
        return text in self._names

    def is_speaker(self, text: str) -> bool:
        return text in self._speakers

    def holds_key(self, text: str) -> bool:
        """Whether it is the key of a window of theirs, or of a member of one, or of a receipt."""
        key = text.rpartition("/")[2].partition(".")[0]
        try:
            return keys.parse_window_key(key)[0] in self._keys
        except ValueError:
            return key[: -len("-0123456789abcdef")] in self._keys

    def in_text(self, text: str) -> bool:
        return bool(self._told.search(text.encode()))

    def find(self, data: bytes) -> int:
        """The first byte of one of their names in this text, -1 for none."""
        match = self._told.search(data)
        return match.start() if match else -1


def _as_json(name: str, before: str) -> tuple[str, str]:
    """The name as it stands in JSON, escaped and not; with its quotes, and what is to stand before them, where something is."""
    both = json.dumps(name), json.dumps(name, ensure_ascii=False)
    return (f"{before}{both[0]}", f"{before}{both[1]}") if before else (both[0][1:-1], both[1][1:-1])


def _all_names(folder: Folder) -> list[str]:
    """Every file, those that a writer left unfinished too."""
    local = folder.local
    unfinished = [str(path.relative_to(local)) for path in local.rglob("*.tmp")] if local else []
    return sorted({*folder.names(), *unfinished})


def _search_file(folder: Folder, name: str, gone: _Gone, payloads: frozenset[str], found: Searched) -> Iterator[str]:
    if name.endswith(".tar"):
        found.num_tars += 1
        yield from _search_tar(folder, name, gone, payloads, found)
    elif name.endswith(".parquet"):
        found.num_tables += 1
        yield from _search_table(read_table(folder, name), gone)
    else:
        found.num_files += 1
        yield from _search_bytes(folder, name, gone)


def _search_tar(folder: Folder, name: str, gone: _Gone, payloads: frozenset[str], found: Searched) -> Iterator[str]:
    with folder.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            found.num_members += 1
            if gone.holds_key(info.name):
                yield f"member {info.name}"
            is_meta = info.name.endswith(".meta.json")
            if not is_meta and not payloads:
                continue
            payload = tar.extractfile(info).read()
            if payloads and hashlib.sha256(payload).hexdigest() in payloads:
                yield f"member {info.name}: its bytes are those of a member that is to be gone"
            if is_meta:
                meta = json.loads(payload)
                yield from (f"member {info.name}: its {key}" for key in _ROW_NAMES if gone.is_name(meta[key]))
                if any(gone.is_speaker(person["speaker"]) for person in (meta, *meta["participants"])):
                    yield f"member {info.name}: a speaker"


def _search_table(table: pa.Table, gone: _Gone) -> Iterator[str]:
    for column in table.column_names:
        if not pa.types.is_string(table.schema.field(column).type):
            continue
        for number, text in enumerate(table[column].to_pylist()):
            named = gone.is_name(text) if column in _ROW_NAMES else gone.holds_key(text) or gone.in_text(text)
            if named or (column == "speaker" and gone.is_speaker(text)):
                yield f"row {number}: column {column}"
                break


def _search_bytes(folder: Folder, name: str, gone: _Gone) -> Iterator[str]:
    with folder.open(name) as file:
        before, start = b"", 0
        while data := file.read(AT_ONCE):
            if (at := gone.find(before + data)) >= 0:
                yield f"byte {start + at}"
                return
            kept = (before + data)[-gone.longest - 1 :]
            start += len(before) + len(data) - len(kept)
            before = kept


def places_of(out: str, staging: str) -> list[Folder]:
    """The corpus and its staging folder, where that lies elsewhere."""
    apart = staging and not folders.within(staging, out)
    return [Folder(out), Folder(staging)] if apart else [Folder(out)]
