"""Words, events and meta of a session's windows: what is known only at the session's end, or has nothing to do with its media.

Labels may look ahead and are never inputs; only own words, typed text and background results become tokens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from ...schemas.clock import TICK_SAMPLES, to_samples
from ...schemas.manifest import Session, Transcript
from ...schemas.rows import EventRow, WordRow
from ...schemas.spec import FeatureSpec
from ..events import find
from ..text.timed_words import TimedWord
from .windows import SessionMedia

Label = TypeVar("Label", WordRow, EventRow)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedWord:
    """A word on the session's clock, half-open [start, stop) in samples."""

    participant: str
    text: str
    start: int
    stop: int
    timing: str

    def row(self) -> WordRow:
        """The word as words.json holds it."""
        return {"participant": self.participant, "text": self.text, "start": self.start, "stop": self.stop, "timing": self.timing}


def place_words(words: Iterable[TimedWord], transcript: Transcript, origin: Fraction, cast: Sequence[str]) -> list[PlacedWord | str]:
    """Words on the session's clock, or the reason (`unknown_speaker`) for each that has no participant, in the order given.

    `origin` is the time, in seconds of the session's clock, that the transcript counts from. A speaker's label is looked up in
    `transcript.speakers`; else the words are `transcript.participant`'s; where the row names none, the label is taken for a participant.
    """
    placed: list[PlacedWord | str] = []
    for word in words:
        who = transcript.speakers.get(word.speaker, "") or transcript.participant or (word.speaker if word.speaker in cast else "")
        if not who:
            placed.append("unknown_speaker")
            continue
        start, stop = (to_samples(origin + time) for time in (word.start, word.stop))
        placed.append(PlacedWord(participant=who, text=word.text, start=start, stop=max(start, stop), timing=word.timing))
    return placed


def found_events(media: SessionMedia, words: Iterable[PlacedWord], spec: FeatureSpec) -> list[EventRow]:
    """The turns, gaps, overlaps, backchannels and interruptions of the session, as rows of events.json."""
    timed = [(word.participant, word.start, word.stop) for word in words]
    return [
        _event(event.kind, event.participant, event.start, event.stop, other=event.other)
        for event in find(media.active_frames, timed, spec.events)
    ]


def given_events(session: Session, zero: Fraction) -> list[EventRow]:
    """The manifest's events as rows of events.json, on the session's clock. The only assistant delegates where nobody is named."""
    rows = []
    acts = {"delegate": session.only_assistant(), "cancel": session.only_assistant()}
    for event in session.events:
        at, who = to_samples(Fraction(event.at) - zero), event.participant or acts.get(event.kind, "")
        rows.append(_event(event.kind, who, at, at, slot=event.slot, text=event.text, complete=event.complete))
    return rows


def _event(
    kind: str, participant: str, start: int, stop: int, *, other: str = "", slot: int = 0, text: str = "", complete: bool = False
) -> EventRow:
    return EventRow(kind=kind, participant=participant, other=other, start=start, stop=stop, slot=slot, text=text, complete=complete)


def by_window(rows: Iterable[Label], window_ticks: int, num_windows: int) -> list[list[Label]]:
    """The rows of each window by where they start, sorted. Rows must start inside the session."""
    windows: list[list[Label]] = [[] for _ in range(num_windows)]
    for row in rows:
        windows[row["start"] // (TICK_SAMPLES * window_ticks)].append(row)
    for window in windows:
        window.sort(key=lambda row: (row["start"], row["stop"], row.get("kind", ""), row["participant"]))  # equal rows keep their order
    return windows


def level_db(squares: int, num_samples: int) -> float:
    """Level of int16 samples from the sum of their squares, dB re full scale, to a tenth; -120.0 for silence or nothing."""
    if not squares:
        return -120.0
    return max(-120.0, round(10 * math.log10(squares / (num_samples * 32_768**2)), 1))
