"""From the pieces of a sequence to its documents: edges moved to ticks, windows read, damaged ones left out by name.

The ends of a piece are places in a stream of tokens; the tick edge nearest to one is the cut, the earlier of two. Both sequences that meet
there find the same edge, whoever makes them: nothing is lost, nothing comes twice. A damaged window has no ticks: the documents end before
it and begin behind it, and every sequence that would have held a part of it says so.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import CorpusError
from ...schemas.layout import Slot
from ...schemas.record import Record
from .document import Document, Making, Window, make
from .mixture import Mixture
from .order import Dropped, Piece
from .windows import KEEP_BYTES, Windows


class Damage(NamedTuple):
    """A window that could not be used: of which corpus, which of its windows, and the sentence that names it."""

    corpus: int
    window: int
    message: str


class Sequences:
    """Makes the sequences of a mixture, one at a time, in whatever order they are asked for.

    `skip_damaged`: damaged windows become nothing and are told; else the first raises CorpusError.
    """

    def __init__(self, mixture: Mixture, *, skip_damaged: bool = False) -> None:
        self._corpora = mixture.corpora
        self._windows = [Windows(corpus, keep_bytes=KEEP_BYTES // len(mixture.corpora)) for corpus in mixture.corpora]
        self._making = Making(layout=mixture.layout, spec=mixture.spec, prologue_ids=mixture.prologue_ids)
        self._skip_damaged = skip_damaged

    def make(self, corpus: int, pieces: Sequence[Piece]) -> tuple[list[Document], list[Damage]]:
        """The documents of a sequence, none if nothing is left of it, and what was damaged in it."""
        damaged: dict[int, Damage] = {}
        documents = [document for piece in pieces for document in self._documents(corpus, piece, damaged)]
        return documents, list(damaged.values())

    def _documents(self, corpus: int, piece: Piece, damaged: dict[int, Damage]) -> Iterator[Document]:
        start, stop = (self._tick_at(corpus, piece, place, damaged) for place in (piece.start, piece.stop))
        index = self._corpora[corpus].index
        together: list[Window] = []
        begin = start
        for number in range(piece.window, piece.window + piece.num_windows):
            first, end = int(index.first_tick_W[number]), int(index.first_tick_W[number] + index.ticks_W[number])
            if end <= start or first >= stop:
                continue
            window = self._read(corpus, number, damaged)
            if window is not None:
                together.append(window)
                continue
            if together:
                yield make(together, begin, first, self._making, epoch=piece.epoch, dropped=piece.dropped)
            together, begin = [], end
        if together:
            yield make(together, begin, stop, self._making, epoch=piece.epoch, dropped=piece.dropped)

    def _tick_at(self, corpus: int, piece: Piece, place: int, damaged: dict[int, Damage]) -> int:
        """The tick of the session at whose start the stretch is cut for this place."""
        index = self._corpora[corpus].index
        windows = slice(piece.window, piece.window + piece.num_windows)
        tokens_W = index.tokens_W[windows].astype(np.int64)
        if piece.dropped & Dropped.PICTURES:
            tokens_W -= index.picture_tokens_W[windows]
        ends_W = np.cumsum(tokens_W) + 1 + len(self._making.prologue_ids)
        first_tick = int(index.first_tick_W[piece.window])
        if place <= 0:
            return first_tick
        if place >= ends_W[-1]:
            return first_tick + int(index.ticks_W[windows].sum())
        number = int(np.searchsorted(ends_W, place, side="right"))
        window_first = int(index.first_tick_W[piece.window + number])
        window = self._read(corpus, piece.window + number, damaged)
        if window is None:
            return window_first  # it has no ticks: all its edges are one
        edges = ends_W[number] - tokens_W[number] + tick_edges(window.record, piece.dropped)
        return window_first + nearest(edges, place)

    def _read(self, corpus: int, number: int, damaged: dict[int, Damage]) -> Window | None:
        try:
            return self._windows[corpus].read(number)
        except CorpusError as error:
            if not self._skip_damaged:
                raise
            damaged.setdefault(number, Damage(corpus, number, str(error)))
            return None


def tick_edges(window: Record, dropped: Dropped) -> NDArray[np.int64]:
    """Tokens [T + 1] before each tick of the window, and all of them; G(-1) belongs to tick 0, dropped pictures are not there.

    Typed text and results count although they are dropped: the index does not know them.
    """
    ticks_N = window.token_tick
    if dropped & Dropped.PICTURES:
        ticks_N = ticks_N[~np.isin(window.token_slot, (Slot.PICTURE, Slot.PATCH))]
    return np.concatenate([[0], np.cumsum(np.bincount(ticks_N, minlength=window.num_ticks))])


def nearest(edges: NDArray[np.int64], place: int) -> int:
    """Which of the rising edges is nearest to the place, the earlier of two."""
    after = int(np.searchsorted(edges, place))
    if after == 0 or (after < len(edges) and edges[after] - place < place - edges[after - 1]):
        return after
    return after - 1
