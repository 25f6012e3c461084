"""What a reshard is told, the rows that cross its graph, and which windows each new shard takes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ...schemas.layout import LayoutSpec
from ...schemas.receipts import Outcome, ShardTask
from ...schemas.strict import canonical_json
from ..shards.gather import assign
from .sources import Source


@dataclass(frozen=True, kw_only=True)
class Told:
    """What every step is told.

    Attributes:
        out, staging: URIs; lease: token of the driver's lease on `out`.
        sources: what is read; of a session that several hold the first is taken.
        layout: None leaves the tokens as they are; tokenizer_path: "" for an embedded tokenizer.
        splits: None leaves each session in its split; move_given: also those are divided anew whose split a manifest named.
        drop: session keys.
        plan: digest of all this but the folders: finished shards of another plan are not taken for this one's.
    """

    out: str
    staging: str
    lease: str
    sources: tuple[Source, ...]
    layout: LayoutSpec | None
    tokenizer_path: str
    splits: dict[str, float] | None
    move_given: bool
    shard_bytes: int
    drop: frozenset[str]
    plan: str


class ShardAt(NamedTuple):
    """A shard to look into: the number of its corpus, its place there, its name."""

    source: int
    place: int
    name: str


class Piece(NamedTuple):
    """What lies of a session in one shard of a source: all that is known of it until its windows are copied.

    Attributes:
        order: sha256 of the session's id.
        window_bytes: of each window, as the receipt that it was gathered from has it: without tokens and tail.
    """

    at: ShardAt
    session: str
    order: str
    split: str
    window_bytes: tuple[int, ...]


class Fault(NamedTuple):
    """A sentence that nothing may be committed over, and what to do."""

    sentence: str
    hint: str


class Asked(NamedTuple):
    """So many shards are to be written: it passes through the graph, so that an answer comes when there are none."""

    num_shards: int


class SessionAt(NamedTuple):
    """Where a session lies: the number of its corpus, the names of the shards."""

    source: int
    shards: tuple[str, ...]


class Rewrite(NamedTuple):
    """A shard to write: windows of sessions (`task.segments` name their keys), and where these lie."""

    task: ShardTask
    sessions: dict[str, SessionAt]

    def identity(self) -> str:
        """Equal for equal shards to write."""
        segments = [[segment.receipt, segment.start, segment.stop, self.sessions[segment.receipt]] for segment in self.task.segments]
        return canonical_json([self.task.name, self.task.split, segments])


class Purge(NamedTuple):
    """A shard to write again under another name, without the sessions that are dropped.

    Attributes:
        goes_on: the session whose account lies in the shard before, "" for none.
    """

    name: str
    split: str
    old: str
    goes_on: str

    def identity(self) -> str:
        """Equal for equal shards to write."""
        return canonical_json(self)


def shards_of(pieces: Iterable[Piece], shard_bytes: int) -> list[Rewrite]:
    """The shards of the canonical layout: what one build of all these sessions would fill. The order of pieces is nothing."""
    outcomes: dict[str, Outcome] = {}
    places: dict[str, SessionAt] = {}
    for piece in sorted(pieces):
        session, (source, _, shard) = piece.session, piece.at
        if session not in places:
            places[session] = SessionAt(source, (shard,))
            outcomes[session] = Outcome(
                status="done",
                session=session,
                split=piece.split,
                order=piece.order,
                receipt=session,
                window_bytes=piece.window_bytes,
            )
        elif places[session].source == source:  # else another corpus holds the same of it
            before = outcomes[session]
            places[session] = SessionAt(source, (*places[session].shards, shard))
            sizes = before.window_bytes + piece.window_bytes
            outcomes[session] = Outcome(
                status="done", session=session, split=before.split, order=before.order, receipt=session, window_bytes=sizes
            )
    tasks = assign(outcomes.values(), shard_bytes, {})
    return [Rewrite(task, {segment.receipt: places[segment.receipt] for segment in task.segments}) for task in tasks]
