"""Rows of words.json and events.json. All participants' words and events stand in every view. FORMAT.md section 3."""

from typing import TypedDict


class WordRow(TypedDict):
    """A word, half-open [start, stop) in session samples.

    Attributes:
        timing: `word`: the times are its own; `segment`: it was spread evenly over a segment that had times.
    """

    participant: str
    text: str
    start: int
    stop: int
    timing: str


class EventRow(TypedDict):
    """Something found or given, half-open [start, stop) in session samples. One shape for all kinds: readers that infer a schema from the
    first records must never be surprised.

    Attributes:
        kind: found: `turn`, `gap`, `overlap`, `backchannel`, `interruption`; given by the row: `typed`, `background`, `delegate`, `cancel`.
        participant: whose turn it is, who came in, who typed, who delegates; "" for every view.
        other: who spoke before, or at the same time; "" for none.
        slot, text, complete: of what was given; 0, "" and False otherwise.
    """

    kind: str
    participant: str
    other: str
    start: int
    stop: int
    slot: int
    text: str
    complete: bool
