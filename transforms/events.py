"""What happens between speakers: frame-level activity of every participant in, turns, gaps, overlaps, backchannels and interruptions out.

All times are session samples, all intervals half-open.

- A *stretch* is a participant's activity with pauses shorter than `turn_pause_samples` filled. Every stretch is a turn or a backchannel.
- A *backchannel* is a stretch of at most `backchannel_max_samples` and `backchannel_max_words` words inside a turn of another, who spoke
  before it began and still speaks after it ended. It is no turn: it makes no gap, overlap or interruption of its own. A word counts if it
  shares a sample with the stretch; a participant without a transcript has no words, so the length alone decides. Inside two turns it is
  found twice, once to each.
- A *gap* is a silence between turns of two participants: nobody has a turn in it, `other` stops where it starts, and `participant` starts
  where it stops. A silence after which the same participant goes on is a pause, not a gap; turns that touch have no gap.
- An *overlap* is where turns of two participants coincide; `participant` came in second. Of two that start together the one that stops
  first counts as second; of two that also stop together, the later name.
- An *interruption* is an overlap, listed again under this name, in which `participant` came in while `other` was already speaking,
  `other` stops at most `interruption_stop_samples` and at least `interruption_min_overlap_samples` after that, and `participant` speaks
  on. The latter keeps apart the quick hand-over, where the next speaker starts on the last syllable.

For example, one character being 250 ms:

    a   ########.#######........      a short pause: one turn, 0–16
    b   ...###........########..      a backchannel to a, 3–6; a turn, 14–22; overlap with a and interruption of a, 14–16

Costs a sort and a sweep, for a stretch meets at most one stretch of each other participant at a time. Knows nothing of what was recorded:
an absent stream counts as silent. Source of the terms: FORMAT.md section 3.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..schemas.clock import FRAME_SAMPLES
from ..schemas.spec import EventSpec

Kind = Literal["turn", "gap", "overlap", "backchannel", "interruption"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One event.

    Attributes:
        kind: what it is.
        participant: whose turn, backchannel or interruption; of a gap: who speaks after it; of an overlap: who came in second.
        other: the other party: who holds the turn, is interrupted, or spoke before the gap; "" of a turn.
        start, stop: session samples, half-open.
    """

    kind: Kind
    participant: str
    other: str
    start: int
    stop: int


@dataclass(frozen=True, order=True, slots=True)
class _Stretch:
    """Sorted by who came first: of two that start together the longer, of two equal ones the earlier name."""

    start: int
    minus_stop: int
    participant: str
    num_words: int = field(compare=False)

    @property
    def stop(self) -> int:
        return -self.minus_stop

    def is_short(self, spec: EventSpec) -> bool:
        return self.stop - self.start <= spec.backchannel_max_samples and self.num_words <= spec.backchannel_max_words

    def is_inside(self, earlier: "_Stretch") -> bool:
        return earlier.start < self.start and self.stop < earlier.stop


def find(active: Mapping[str, NDArray[np.uint8]], words: Sequence[tuple[str, int, int]], spec: EventSpec) -> list[Found]:
    """The events of a session, sorted by (start, stop, kind, participant, other).

    `active` has uint8 [F] per 50 ms frame for each participant over the whole session, `words` (participant, start, stop) in any order.

    Raises:
        ValueError: if the participants' activity differs in length.
    """
    lengths = {name: len(active_F) for name, active_F in active.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"activity must cover the same frames for everybody, got {lengths}")
    words_of: dict[str, list[tuple[int, int]]] = {name: [] for name in active}
    for name, start, stop in words:
        words_of.setdefault(name, []).append((start, max(stop, start + 1)))  # a word without length still is somewhere
    stretches = sorted(stretch for name in active for stretch in _stretches(name, active[name], words_of[name], spec))
    meetings = list(_meetings(stretches))
    # Inside any longer stretch is enough: if that one is a backchannel itself, it lies inside a turn of a third, and so does this one.
    backchannels = {later for earlier, later in meetings if later.is_short(spec) and later.is_inside(earlier)}
    turns = [stretch for stretch in stretches if stretch not in backchannels]

    found = [Found(kind="turn", participant=t.participant, other="", start=t.start, stop=t.stop) for t in turns]
    found += _gaps(turns)
    for earlier, later in meetings:
        if earlier not in backchannels:
            found += _between(earlier, later, later in backchannels, spec)
    return sorted(found, key=lambda f: (f.start, f.stop, f.kind, f.participant, f.other))


def _stretches(name: str, active_F: NDArray[np.uint8], words: Sequence[tuple[int, int]], spec: EventSpec) -> Iterator[_Stretch]:
    """One participant's activity, short pauses filled, with the number of words in each stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(active_F) != 0, [False]]))) * FRAME_SAMPLES
    if len(edges) == 0:
        return
    starts, stops = edges[0::2], edges[1::2]
    breaks = starts[1:] - stops[:-1] >= spec.turn_pause_samples
    starts, stops = starts[np.r_[True, breaks]], stops[np.r_[breaks, True]]

    begun = np.searchsorted(np.sort([start for start, _ in words]), stops, "left")  # words that start before the stretch ends
    over = np.searchsorted(np.sort([stop for _, stop in words]), starts, "right")  # words that end before it starts: begun, too
    num_words = begun - over
    for start, stop, count in zip(starts.tolist(), stops.tolist(), num_words.tolist(), strict=True):
        yield _Stretch(start, -stop, name, count)


def _meetings(stretches: Sequence[_Stretch]) -> Iterator[tuple[_Stretch, _Stretch]]:
    """Every pair (earlier, later) of sorted stretches that share a sample. Nobody has two at once, so these are of two participants."""
    under_way: list[_Stretch] = []
    for later in stretches:
        under_way = [earlier for earlier in under_way if earlier.stop > later.start]
        for earlier in under_way:
            yield earlier, later
        under_way.append(later)


def _between(earlier: _Stretch, later: _Stretch, is_backchannel: bool, spec: EventSpec) -> Iterator[Found]:
    """The events of a turn and of what came in during it."""
    names = {"participant": later.participant, "other": earlier.participant}
    if is_backchannel:
        if later.is_inside(earlier):
            yield Found(kind="backchannel", **names, start=later.start, stop=later.stop)
        return
    stop = min(earlier.stop, later.stop)
    yield Found(kind="overlap", **names, start=later.start, stop=stop)
    speaks_on = later.stop > earlier.stop  # so it came in, too: of two that start together the longer is the earlier
    if speaks_on and spec.interruption_min_overlap_samples <= earlier.stop - later.start <= spec.interruption_stop_samples:
        yield Found(kind="interruption", **names, start=later.start, stop=stop)


def _gaps(turns: Sequence[_Stretch]) -> Iterator[Found]:
    """The silences between sorted turns of different participants; of several who stop or start at the same sample, each pair has one."""
    silent_since = 0
    stopped: set[str] = set()
    for start, group in groupby(turns, key=lambda turn: turn.start):
        starting = list(group)
        if start > silent_since:
            for turn in starting:
                for other in stopped - {turn.participant}:
                    yield Found(kind="gap", participant=turn.participant, other=other, start=silent_since, stop=start)
        for turn in starting:
            if turn.stop > silent_since:
                silent_since, stopped = turn.stop, {turn.participant}
            elif turn.stop == silent_since:
                stopped.add(turn.participant)
