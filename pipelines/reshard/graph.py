"""A reshard as a Beam graph that every runner can run: one trunk, one sink, errors as rows, as in pipelines/graph.py.

Shards are spread by GroupByKey under numbers, for DaskRunner skips a Reshuffle, and one worker would have all of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam

from ...schemas.errors import CorpusError
from ...schemas.receipts import ShardSummary
from ...schemas.strict import canonical_json
from ..storage.folders import Folder
from ..wording.counted import counted
from .steps import look, write
from .tasks import Asked, Fault, Piece, Purge, Rewrite, ShardAt, Told, shards_of

RESULT = "reshard.json"  # under the staging folder: what the last run came to, for the driver, which cannot read a runner's elements
MAX_FAULTS = 100


class Note(Protocol):
    """How far a worker is (pipelines/watch.py WorkerNote)."""

    def to_write(self, num_bytes: int) -> None: ...
    def shard(self, num_bytes: int) -> None: ...
    def shard_finished(self) -> None: ...


NoteOf = Callable[[Folder], Note]  # a class, so that it can be sent to workers


class AnewFromShards(beam.PTransform):
    """Numbered shards to look into → nothing; the summaries of the shards of the canonical layout, or faults, lie in the staging folder."""

    def __init__(self, told: Told, note_of: NoteOf) -> None:
        super().__init__()
        self._told, self._note_of = told, note_of

    def expand(self, numbered):
        return (
            numbered
            | "Spread the old shards" >> beam.GroupByKey()
            | "Look into shards" >> beam.FlatMap(look_all, self._told)
            | "Bring pieces together" >> beam.Map(_under_one_key)
            | "Group pieces" >> beam.GroupByKey()
            | "Assign windows to shards" >> beam.FlatMap(assign_all, self._told, self._note_of)
            | "Write and settle" >> WriteShards(self._told, self._note_of)
        )


class WriteShards(beam.PTransform):
    """Numbered shards to write, or faults → nothing; the summaries or faults lie in the staging folder."""

    def __init__(self, told: Told, note_of: NoteOf) -> None:
        super().__init__()
        self._told, self._note_of = told, note_of

    def expand(self, numbered):
        return (
            numbered
            | "Spread the shards" >> beam.GroupByKey()
            | "Write shards" >> beam.ParDo(WriteShard(self._told, self._note_of))
            | "Bring summaries together" >> beam.Map(_under_one_key)
            | "Group summaries" >> beam.GroupByKey()
            | "Settle" >> beam.Map(settle, self._told)
        )


class WriteShard(beam.DoFn):
    """(number, shards to write) → their summaries; all else passes. A class, for its note tells how far all its shards are."""

    def __init__(self, told: Told, note_of: NoteOf) -> None:
        self._told, self._note_of = told, note_of
        self._note: Note | None = None

    def process(self, under: tuple[int, Iterable[Rewrite | Purge | Fault | Asked]]) -> Iterator[ShardSummary | Fault | Asked]:
        if self._note is None:
            self._note = self._note_of(Folder(self._told.staging))
        for task in under[1]:
            if isinstance(task, (Fault, Asked)):
                yield task
                continue
            yield write(task, self._told, self._note.shard)
            self._note.shard_finished()


def look_all(numbered: tuple[int, Iterable[ShardAt]], told: Told) -> Iterator[Piece | Fault]:
    """The pieces of these shards."""
    for at in numbered[1]:
        yield from look(at, told)


def assign_all(
    keyed: tuple[int, Iterable[Piece | Fault]], told: Told, note_of: NoteOf
) -> Iterator[tuple[int, Rewrite | Purge | Fault | Asked]]:
    """Numbered shards to write; nothing but the faults where there are any."""
    rows = list(keyed[1])
    faults = [row for row in rows if isinstance(row, Fault)]
    pieces = [row for row in rows if isinstance(row, Piece)]
    if not faults:
        note_of(Folder(told.staging)).to_write(sum(size for piece in pieces for size in piece.window_bytes))
    yield from numbered(faults or shards_of(pieces, told.shard_bytes))


def numbered(tasks: Sequence[Rewrite | Purge | Fault]) -> Iterator[tuple[int, Rewrite | Purge | Fault | Asked]]:
    """The elements of `WriteShards`. Numbers as keys: the hash of a text is another one in each process."""
    yield from enumerate([*tasks, Asked(len(tasks))])


def settle(keyed: tuple[int, Iterable[ShardSummary | Fault | Asked]], told: Told) -> None:
    """Leaves what came of it to the driver."""
    rows = list(keyed[1])
    faults = sorted(row for row in rows if isinstance(row, Fault))[:MAX_FAULTS]
    summaries = [row.model_dump() for row in rows if isinstance(row, ShardSummary)]
    asked = sum(row.num_shards for row in rows if isinstance(row, Asked))
    assert faults or len(summaries) == asked, f"{len(summaries)} shards of {asked}"
    found = {"plan": told.plan, "faults": faults, "shards": sorted(summaries, key=lambda shard: shard["name"])}
    Folder(told.staging).write(RESULT, canonical_json(found).encode())


def take(staging: Folder, plan: str) -> list[ShardSummary]:
    """The summaries that `settle` left. Raises CorpusError with the faults, if there are any."""
    found: dict[str, Any] = json.loads(staging.read(RESULT))
    assert found["plan"] == plan, "another run's result: the driver deletes it before it starts"
    if faults := [Fault(*fault) for fault in found["faults"]]:
        more = f" (and {counted(len(faults) - 1, 'more fault')})" if len(faults) > 1 else ""
        raise CorpusError(f"{faults[0].sentence}{more}", hint=f"nothing was changed; {faults[0].hint}")
    return [ShardSummary.model_validate(shard) for shard in found["shards"]]


def _under_one_key(element):
    return 0, element
