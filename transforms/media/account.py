"""Where the units of one stream went: kept, or dropped with a reason. decoded = kept + dropped at any moment, by construction.

The reports at the end of a stream hold these sums; they are integers, text and nothing else that JSON lacks.

Units are the source's: PCM samples at the stream's own rate, or decoded pictures, counted in the order in which they were decoded.
"""

from dataclasses import dataclass, replace

ABSURD_LENGTH = "absurd_length", "the container says a length that no recording has: taken as not said", "decode"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackReport:
    """What became of an audio stream. decoded = kept + the `units` of dropped, exactly.

    Attributes:
        offset_samples: session sample of the stream's first sample minus that of its file's zero.
        drift_samples: where the last timestamp of the last span lies against the count of samples, in session samples; + is later.
        jitter_samples: the largest distance of any timestamp from the count within a span, in session samples.
        num_spans, rate_hz, channels: as found; rate and channels of the first block.
        peak: largest absolute value of what was read or would have been, after downmix, gain and resampling.
        declared, decoded, kept, inserted: source samples; declared is -1 where the container does not say.
        missing: declared less decoded, where that is more than one codec frame (more than none where a lossless format counts its samples);
            less the gaps too, where the claim is a length of time.
        dropped: rows in the order of the stream.
    """

    offset_samples: int
    drift_samples: int
    jitter_samples: int
    num_spans: int
    rate_hz: int
    channels: int
    peak: float
    declared: int
    decoded: int
    kept: int
    inserted: int
    missing: int
    dropped: tuple[Drop, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureReport:
    """What became of a video stream. decoded = used + between + the `units` of dropped, exactly; `between` is a ledger reason of its own.

    Attributes:
        offset_samples: session sample of the stream's first picture minus that of its file's zero.
        declared, decoded, used, between: pictures; used are those that stand in a pair, once each, between those that no deadline chose.
            declared is -1 where the container does not say.
        corrupt: places where a packet could not be decoded, and pictures that came out damaged; the latter are among dropped.
        missing: declared less decoded, where that is more than 0.
        width_px, height_px: of the first picture as coded.
        dropped: rows in the order of the stream.
    """

    offset_samples: int
    declared: int
    decoded: int
    used: int
    between: int
    corrupt: int
    missing: int
    width_px: int
    height_px: int
    dropped: tuple[Drop, ...]
