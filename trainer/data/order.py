"""The order of a corpus in one epoch, and what lies between two places of it: a pure function of (seed, epoch, token).

Stretches (runs of consecutive windows of a view) are shuffled by a keyed hash of their content, so the order stays the same when a corpus
is resharded. One after the other they are a stream of tokens, and a sequence is what lies between two places of it. Nothing is remembered:
the state of a loader is the epoch and the token of it that comes next.

The index knows tokens of windows, not of ticks. So a cut is a place in the stream; whoever reads the window moves it to the nearest edge
of a tick, the same for the sequence that ends there and the one that begins there (making.py). All tokens stay, none comes twice.
Costs: 0.3 s an epoch for a million stretches, then microseconds a sequence; 13 bytes a stretch.

Letters: W windows, D stretches, E stretches of an epoch.
"""

from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import InputError
from . import chance
from .index import WindowIndex
from .spec import DataSpec


class Dropped(IntFlag):
    """What a document does without."""

    NOTHING = 0
    PICTURES = 1
    TYPED = 2
    BACKGROUND = 4


class Piece(NamedTuple):
    """A part of a stretch, for one sequence. Places count the stretch's tokens, BOS and prologue first, dropped pictures left out.

    Attributes:
        window, num_windows: the stretch's first window and how many it has.
        start, stop: half-open; to be moved to the nearest edges of ticks.
    """

    window: int
    num_windows: int
    start: int
    stop: int
    epoch: int
    dropped: Dropped


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stretches:
    """What is shuffled.

    Attributes:
        window_D, num_windows_D: first window and how many.
        tokens_D, picture_tokens_D: sums over the windows.
        identity_D: the first 8 bytes of the first window's digest: what the stretch is, wherever it lies.
        session_identity_D: that of the session's first window; side_D, num_sides_D: which of its views this is, and of how many.
    """

    window_D: NDArray[np.int64]
    num_windows_D: NDArray[np.int64]
    tokens_D: NDArray[np.int64]
    picture_tokens_D: NDArray[np.int64]
    identity_D: NDArray[np.uint64]
    session_identity_D: NDArray[np.uint64]
    side_D: NDArray[np.int64]
    num_sides_D: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.window_D)


def stretches(index: WindowIndex, spec: DataSpec, *, where: str) -> Stretches:
    """The stretches of the views that the spec takes. Raises InputError naming `where` when there are none of these."""
    unknown = sorted(set(spec.views) - set(index.view_names))
    if unknown:
        raise InputError(f"{where}: no view {unknown[0]!r}", hint=f"it has: {', '.join(sorted(index.view_names))}")
    taken_W = np.flatnonzero(np.isin(index.view_W, [index.view_names.index(name) for name in spec.views or index.view_names]))
    session_W, view_W, first_W = (array[taken_W].astype(np.int64) for array in (index.session_W, index.view_W, index.first_tick_W))
    end_W = first_W + index.ticks_W[taken_W]
    new_session_W = np.diff(session_W, prepend=-1) != 0
    new_view_W = new_session_W | (np.diff(view_W, prepend=-1) != 0)
    lot_W = first_W // index.window_ticks // max(1, spec.document_ticks // index.window_ticks)
    broken_W = np.concatenate([[True], (first_W[1:] != end_W[:-1]) | (np.diff(taken_W) != 1)])
    first_D = np.flatnonzero(new_view_W | broken_W | (np.diff(lot_W, prepend=-1) != 0))

    identity_W = index.digest_W[taken_W, :8].copy().view("<u8")[:, 0]
    session_number_W = np.cumsum(new_session_W) - 1
    first_view_W = np.cumsum(new_view_W)[np.flatnonzero(new_session_W)][session_number_W]
    side_W = np.cumsum(new_view_W) - first_view_W
    num_sides = np.bincount(session_number_W[new_view_W])
    return Stretches(
        window_D=taken_W[first_D],
        num_windows_D=np.diff(first_D, append=len(taken_W)),
        tokens_D=np.add.reduceat(index.tokens_W[taken_W].astype(np.int64), first_D),
        picture_tokens_D=np.add.reduceat(index.picture_tokens_W[taken_W].astype(np.int64), first_D),
        identity_D=identity_W[first_D],
        session_identity_D=identity_W[np.flatnonzero(new_session_W)][session_number_W[first_D]],
        side_D=side_W[first_D],
        num_sides_D=num_sides[session_number_W[first_D]],
    )


class EpochOrder:
    """One epoch of a corpus: which stretches, in which order, without what.

    Attributes:
        num_tokens: of the stream: BOS, prologues and all tokens that are not dropped.
    """

    def __init__(self, stretches: Stretches, spec: DataSpec, epoch: int, *, num_prologue: int = 0) -> None:
        """The order of `epoch`; `num_prologue` is how many ids the prologue has."""
        self._stretches, self._epoch = stretches, epoch
        drawn_D4 = chance.of_identity(chance.key("order", spec.seed, epoch, ""), stretches.identity_D)
        order = np.argsort(drawn_D4[:, 0].astype(np.uint64) << np.uint64(32) | drawn_D4[:, 1], kind="stable")
        if spec.sides == "one":
            drawn = chance.of_identity(chance.key("side", spec.seed, epoch, ""), stretches.session_identity_D)[:, 0].astype(np.uint64)
            chosen_D = (drawn * stretches.num_sides_D.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
            order = order[(stretches.side_D == chosen_D)[order]]
        self.stretch_E = order.astype(np.uint32)
        self.dropped_E = drop_bits(stretches.identity_D, spec, epoch)[order]
        pictures_E = np.where(self.dropped_E & Dropped.PICTURES, stretches.picture_tokens_D[order], 0)
        tokens_E = 1 + num_prologue + stretches.tokens_D[order] - pictures_E
        self._starts_E1 = np.concatenate([[0], np.cumsum(tokens_E)])
        self.num_tokens = int(self._starts_E1[-1])

    def pieces(self, start: int, stop: int) -> list[Piece]:
        """What lies in [start, stop) of the stream, in order; places from 0 to `num_tokens`."""
        if not 0 <= start < stop <= self.num_tokens:
            raise IndexError(f"an epoch of {self.num_tokens} tokens has no [{start}, {stop})")
        first = int(np.searchsorted(self._starts_E1, start, side="right")) - 1
        last = int(np.searchsorted(self._starts_E1, stop))
        return [self._piece(at, start, stop) for at in range(first, last)]

    def _piece(self, at: int, start: int, stop: int) -> Piece:
        number, begin, end = int(self.stretch_E[at]), int(self._starts_E1[at]), int(self._starts_E1[at + 1])
        return Piece(
            window=int(self._stretches.window_D[number]),
            num_windows=int(self._stretches.num_windows_D[number]),
            start=max(start, begin) - begin,
            stop=min(stop, end) - begin,
            epoch=self._epoch,
            dropped=Dropped(int(self.dropped_E[at])),
        )


def drop_bits(identity_D: NDArray[np.uint64], spec: DataSpec, epoch: int) -> NDArray[np.uint8]:
    """`Dropped` of whatever bears these names."""
    chances = (spec.drop_pictures, spec.drop_typed, spec.drop_background)
    if not any(chances):
        return np.zeros(len(identity_D), np.uint8)
    drawn_D4 = chance.uniform(chance.of_identity(chance.key("drop", spec.seed, epoch, ""), identity_D))
    bits = np.array([Dropped.PICTURES, Dropped.TYPED, Dropped.BACKGROUND], np.uint8)
    return ((drawn_D4[:, :3] < np.array(chances)) * bits).sum(axis=1, dtype=np.uint8)
