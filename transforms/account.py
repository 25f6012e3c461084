"""Where the units of one stream went: kept, or dropped with a reason. decoded = kept + dropped at any moment, by construction.

Units are the source's: PCM samples at the stream's own rate, or decoded pictures, counted in the order in which they were decoded.
"""

from dataclasses import dataclass, replace

MAX_ROWS = 1000  # more than this many rows of a stream are summed per reason, so that a broken file cannot fill the memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A ledger row.

    Attributes:
        reason: stable snake_case name.
        stage: `decode` or `place`.
        message: for people, about the first of the events.
        start, stop: half-open span in source units. start == stop: nothing decoded was lost here, something could not be decoded.
        units: units dropped within the span: stop - start, but in rows that sum more than MAX_ROWS places.
        events: how often it happened.
    """

    reason: str
    stage: str
    message: str
    start: int
    stop: int
    units: int
    events: int = 1


class Account:
    """The sums of one stream.

    Attributes:
        decoded, kept: units so far.
    """

    def __init__(self) -> None:
        self.decoded = self.kept = 0
        self._rows: list[Drop] = []

    @property
    def dropped(self) -> tuple[Drop, ...]:
        """The rows, in the order of the stream; their `units` sum to decoded - kept."""
        return tuple(self._rows)

    def keep(self, units: int) -> None:
        """The next `units` units are kept."""
        self.decoded += units
        self.kept += units

    def drop(self, units: int, reason: str, message: str, stage: str = "place") -> None:
        """The next `units` units are dropped; 0 marks a place where nothing was decoded. A row that touches its like is one with it."""
        start, self.decoded = self.decoded, self.decoded + units
        at = self._like(reason, stage, start)
        if at is None:
            self._rows.append(Drop(reason=reason, stage=stage, message=message, start=start, stop=self.decoded, units=units))
        else:
            row = self._rows[at]
            self._rows[at] = replace(row, stop=self.decoded, units=row.units + units, events=row.events + 1)

    def _like(self, reason: str, stage: str, start: int) -> int | None:
        """Index of the row that the next one belongs to."""
        full = len(self._rows) >= MAX_ROWS
        for at in range(len(self._rows) - 1, -1 if full else max(len(self._rows) - 2, -1), -1):
            row = self._rows[at]
            if (row.reason, row.stage) == (reason, stage) and (full or row.stop == start):
                return at
        return None
