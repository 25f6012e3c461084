"""What a purge writes again and what it deletes: shards, receipts, parts, leavings of builds, the report."""

import contextlib
import tarfile
from collections.abc import Collection, Mapping
from typing import Any

from ...schemas import keys
from ...schemas.errors import CorpusError
from ..corpus.commit import next_numbers, sweep
from ..sessions import receipts
from ..storage.folders import Folder
from ..storage.parts import PARTS
from ..storage.tables import read_table
from ..storage.tar import BLOCK
from .sources import RECEIPT_ENDING, Held
from .tasks import Purge

REPORT = "report.html"  # beside the shards, made by `microturn report`: it tells of sessions that are gone
OF_ONE_RUN = ("work", "under-way", "verdict.json")  # in the staging folder: plans and notes of a build that died


def to_write(held: Held, drop: Collection[str]) -> list[Purge]:
    """A row for each shard that holds a session of these; its new name is "" where nothing else is in it."""
    next_number = next_numbers(held.corpus.shards)
    tasks: list[Purge] = []
    last = ""
    for shard in held.corpus.shards:
        found = read_table(held.corpus.folder, f"index/{shard['name']}.parquet", ["session"])["session"].unique().to_pylist()
        if any(session in drop for session in found):
            name = ""
            if any(session not in drop for session in found):
                name = f"{shard['split']}-{next_number[shard['split']]:06d}"
                next_number[shard["split"]] += 1
            tasks.append(Purge(name, shard["split"], shard["name"], last if found[0] == last else ""))
        last = found[-1]
    return tasks


def clean(out: Folder, staging: Folder, dataset: Mapping[str, Any], drop: Collection[str]) -> None:
    """Deletes what is left of these sessions beside the corpus that `dataset` describes. Safe to repeat."""
    sweep(out, dataset)
    out.delete(REPORT)
    for name in OF_ONE_RUN:
        staging.delete(name)
    parts: set[str] = set()
    named: list[str] = []
    for name in staging.names(receipts.RECEIPTS):
        file = name.rpartition("/")[2]
        if file[:-RECEIPT_ENDING] in drop:
            named.append(name)
            with contextlib.suppress(CorpusError):
                parts.update(receipts.read(staging, file).parts())
    for part in parts | {part for part in staging.names(PARTS) if session_of_part(staging, part) in drop}:
        staging.delete(part)
    for name in named:  # after its parts: whoever is killed between finds them by it
        staging.delete(name)


def sessions_with_receipts(staging: Folder) -> set[str]:
    """The sessions that some build has left a receipt of."""
    return {name.rpartition("/")[2][:-RECEIPT_ENDING] for name in staging.names(receipts.RECEIPTS)}


def session_of_part(staging: Folder, part: str) -> str:
    """The session whose windows a part holds, as its first member is named; "" where that cannot be read."""
    try:
        with staging.open(part) as file:
            name = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict").name
        return keys.parse_window_key(name.partition(".")[0])[0]
    except (tarfile.HeaderError, ValueError):
        return ""
