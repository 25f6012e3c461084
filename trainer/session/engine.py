"""Open, append, abort, close: sessions on one model, batched, append-only, with a committed length that nothing goes behind.

An append computes new rows and leaves them uncommitted. `commit` makes them final; `roll_back` returns to any earlier append's end that is
not committed; `abort` to the committed length. Bits of a session do not depend on how its rows were cut into appends, on who was in the
batch, or on what was rolled back. The cost of an append does not grow with the session but for the reads of the global layers.

Every misuse is a SessionError that says what was asked, what is the case and what to do. One request at a time for each session.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...kernels import PAGE_ROWS, page_table
from ...schemas.errors import InputError
from ..model import Inputs, InteractionModel, State
from ..model.inputs import joined
from ..model.state import ConvState, LayerState
from .pools import Limits, Pools, global_pages, ring_pages
from .serving import served


class SessionError(InputError):
    """A request that a session cannot serve. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a session can return to: how many rows, and the convolutions' states there, [1, K - 1, C] each."""

    rows: int
    convs: tuple[ConvState, ...]


@dataclass(eq=False)
class Session:
    """One growing document. Its fields are the engine's to change.

    Attributes:
        key: the document's; random numbers hang on it.
        capacity: rows it may ever have.
        marks: the committed one, then one for each append since.
        pages, ring: of global and of windowed layers, in the pools.
    """

    key: str
    capacity: int
    pages: tuple[int, ...]
    ring: tuple[int, ...]
    marks: list[Mark]
    touched: float = field(default_factory=time.monotonic)
    is_open: bool = True
    busy: threading.Lock = field(default_factory=threading.Lock)

    @property
    def rows(self) -> int:
        """Rows so far, the uncommitted ones too."""
        return self.marks[-1].rows

    @property
    def committed(self) -> int:
        """Rows that are final."""
        return self.marks[0].rows


class Engine:
    """Sessions on one model; see the module.

    Attributes:
        model: what computes: the given model, in half precision a copy of it with weights rounded once (serving.py).
        computed: rows computed so far, for measuring that an append's work does not grow.
    """

    def __init__(self, model: InteractionModel, limits: Limits | None = None) -> None:
        self.model, self.limits = served(model), limits or Limits()
        self.pools = Pools(model.spec, self.limits, model.dtype)
        self.sessions: dict[str, Session] = {}
        self.computed = 0

    def open(self, key: str, *, rows: int) -> Session:
        """A new session with memory for `rows` rows."""
        if key in self.sessions:
            raise SessionError(f"session {key!r} is open already", hint="close it, or choose another key: random numbers hang on it")
        if rows < 1:
            raise SessionError(f"session {key!r} wants {rows} rows", hint="about 10 a tick, 50 a second, without pictures")
        if len(self.sessions) >= self.limits.sessions:
            raise SessionError(
                f"session {key!r}: {len(self.sessions)} of {self.limits.sessions} sessions are open",
                hint="close or reap one, or raise Limits.sessions",
            )
        taken = self.pools.take(global_pages(rows), ring_pages(self.model.spec, rows, self.limits))
        if taken is None:
            free = len(self.pools.free_global) * PAGE_ROWS
            raise SessionError(f"session {key!r} wants {rows} rows, {free} are free", hint="close or reap a session, or raise Limits.rows")
        session = Session(key, rows, *taken, marks=[Mark(0, self._no_past())])
        self.sessions[key] = session
        return session

    @torch.no_grad()
    def append(self, pieces: Sequence[tuple[Session, Inputs]]) -> list[Tensor]:
        """The hidden rows [n, D] of each session's new rows, uncommitted. All of them are computed in one batch.

        Positions that inputs may carry are not looked at: rows go behind the session's newest.
        """
        sessions = [session for session, _ in pieces]
        lengths = [inputs.rows.num_rows for _, inputs in pieces]
        if len({id(session) for session in sessions}) < len(sessions) or not pieces:
            raise SessionError(f"an append of {len(pieces)} pieces for {len({id(s) for s in sessions})} sessions: one piece each")
        with _held(sessions):
            for session, (_, inputs) in zip(sessions, pieces, strict=True):
                self._refuse_append(session, inputs)
            inputs = joined([inputs for _, inputs in pieces], [session.rows for session in sessions])
            inputs = replace(inputs, counted=torch.zeros(inputs.rows.num_rows, dtype=torch.bool))  # loads are the trainer's business
            output = self.model(inputs, self._state(sessions, inputs))
            for number, (session, length) in enumerate(zip(sessions, lengths, strict=True)):
                convs = tuple(_of_segment(conv, number) for conv in output.convs)
                session.marks.append(Mark(session.rows + length, convs))
                session.touched = time.monotonic()
        self.computed += inputs.rows.num_rows
        return list(output.hidden_TD.split(lengths))

    def commit(self, session: Session, rows: int | None = None) -> None:
        """Nothing; rows up to `rows`, an append's end (all of them by default), are final: memory behind the window may be reused."""
        with _held([session]):
            kept = self._mark(session, session.rows if rows is None else rows)
            del session.marks[:kept]

    def roll_back(self, session: Session, rows: int) -> None:
        """Nothing; the session ends after `rows` rows again, an earlier append's end."""
        with _held([session]):
            kept = self._mark(session, rows)
            del session.marks[kept + 1 :]

    def abort(self, session: Session) -> None:
        """Nothing; the session ends where it was committed."""
        self.roll_back(session, session.committed)

    def close(self, session: Session) -> None:
        """Nothing; its memory is free."""
        with _held([session]):
            self._refuse_closed(session)
            session.is_open = False
            del self.sessions[session.key]
            self.pools.give_back(session.pages, session.ring)

    def reap(self) -> list[str]:
        """The keys of sessions that were idle for longer than the limit, now closed."""
        late = time.monotonic() - self.limits.idle_seconds
        idle = [session for session in self.sessions.values() if session.touched < late and not session.busy.locked()]
        for session in idle:
            self.close(session)
        return [session.key for session in idle]

    def _refuse_closed(self, session: Session) -> None:
        if not session.is_open or self.sessions.get(session.key) is not session:
            raise SessionError(f"session {session.key!r} is not open here", hint="open it, or restore it from a snapshot")

    def _refuse_append(self, session: Session, inputs: Inputs) -> None:
        self._refuse_closed(session)
        length = inputs.rows.num_rows
        if length < 1:
            raise SessionError(f"session {session.key!r}: an append of no rows")
        if inputs.rows.num_segments > 1:
            raise SessionError(
                f"session {session.key!r}: an append of rows of {inputs.rows.num_segments} documents",
                hint="a session is one document: open one for each, and give each its piece",
            )
        if session.rows + length > session.capacity:
            raise SessionError(
                f"session {session.key!r} has {session.rows} rows, {length} more exceed its capacity of {session.capacity}",
                hint="open sessions with enough rows: about 10 a tick, 50 a second, without pictures",
            )
        if session.rows + length - session.committed > self.limits.uncommitted_rows:
            raise SessionError(
                f"session {session.key!r}: {session.rows + length - session.committed} uncommitted rows, "
                f"{self.limits.uncommitted_rows} are allowed",
                hint="commit, or append in smaller pieces",
            )

    def _mark(self, session: Session, rows: int) -> int:
        """Which mark has this many rows."""
        self._refuse_closed(session)
        found = [number for number, mark in enumerate(session.marks) if mark.rows == rows]
        if not found:
            ends = [mark.rows for mark in session.marks]
            raise SessionError(
                f"session {session.key!r} cannot return to {rows} rows",
                hint=f"the committed length and the ends of appends since are {ends}",
            )
        return found[0]

    def _no_past(self) -> tuple[ConvState, ...]:
        spec, past = self.model.spec, self.model.spec.conv_taps - 1

        def zeros(columns: int) -> Tensor:
            return torch.zeros(1, past, columns)

        widths = [spec.num_heads(layer)[1] * spec.head_dim for layer in range(spec.layers)]
        return tuple(ConvState(zeros(width), zeros(width), zeros(spec.hidden), zeros(spec.hidden)) for width in widths)

    def _state(self, sessions: Sequence[Session], inputs: Inputs) -> State:
        """What the layers read: two tables of pages, and every session's newest states of convolutions, one after the other."""
        spec, rows = self.model.spec, inputs.rows
        blocks = [-(-(position + length) // PAGE_ROWS) for position, length in zip(rows.positions, rows.lengths, strict=True)]
        whole = page_table(rows, [session.pages[:stop] for session, stop in zip(sessions, blocks, strict=True)])
        firsts = [max(0, session.committed - spec.window + 1) // PAGE_ROWS for session in sessions]
        rings = [
            [session.ring[block % len(session.ring)] for block in range(first, stop)]
            for session, first, stop in zip(sessions, firsts, blocks, strict=True)
        ]
        windowed = page_table(rows, rings, firsts)
        layers = []
        for layer in range(spec.layers):
            convs = [session.marks[-1].convs[layer] for session in sessions]
            joined_convs = ConvState(*(torch.cat(parts) for parts in zip(*map(_tensors, convs), strict=True)))
            table = whole if spec.is_global(layer) else windowed
            layers.append(LayerState(table, self.pools.keys[layer], self.pools.values[layer], joined_convs))
        return State(tuple(layers))


@contextmanager
def _held(sessions: Sequence[Session]) -> Iterator[None]:
    """Inside, nobody else's request is served for these sessions. Raises SessionError when one is under way."""
    with ExitStack() as locks:
        for session in sessions:
            if not session.busy.acquire(blocking=False):
                raise SessionError(f"session {session.key!r} already has a request under way", hint="wait for it to return")
            locks.callback(session.busy.release)
        yield


def _tensors(conv: ConvState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return conv.keys, conv.values, conv.attention, conv.mlp


def _of_segment(conv: ConvState, segment: int) -> ConvState:
    return ConvState(*(tensor[segment : segment + 1].clone() for tensor in _tensors(conv)))
