"""A span: a run of audio blocks laid by sample count from its first timestamp, and brought to 16 kHz by a resampler of its own.

It knows how far a block's timestamp lies from where the count puts it; what to do about that is decided in place.py. Departures are
integers of a common fraction of a second, so that a block costs no rational number.
"""

import math
from fractions import Fraction

from ...schemas.clock import SAMPLE_RATE_HZ
from ..resample import Resampler
from .decode import AudioBlock


class Span:
    """A run of blocks at one rate.

    Attributes:
        start: session sample of its first sample.
        seconds: time of its first sample on the stream's clock.
        num_samples: source samples laid so far, which `stop` counts; the caller adds to it.
        resampler: takes them in the same order, not necessarily at once.
    """

    def __init__(self, start: int, seconds: Fraction, block: AudioBlock) -> None:
        """A span whose first sample lies at session sample `start`, and at `seconds` of the stream's clock."""
        self.start, self.seconds, self.rate_hz = start, seconds, block.rate_hz
        self.num_samples = 0
        self.resampler = Resampler(block.rate_hz)
        self._per_second = math.lcm(block.rate_hz, block.time_base.denominator, seconds.denominator)
        self._per_sample = self._per_second // block.rate_hz
        self._per_tick = self._per_second // block.time_base.denominator * block.time_base.numerator
        self._first = seconds.numerator * (self._per_second // seconds.denominator)
        self._last = self._largest = 0

    @property
    def stop(self) -> int:
        """The session sample after its last."""
        return self.start + resampled(self.num_samples, self.rate_hz)

    @property
    def stop_seconds(self) -> Fraction:
        """Where the count of samples puts the next block."""
        return self.seconds + Fraction(self.num_samples, self.rate_hz)

    @property
    def last_departure(self) -> Fraction:
        """Of the last timestamp from the count, session samples."""
        return Fraction(self._last * SAMPLE_RATE_HZ, self._per_second)

    @property
    def largest_departure(self) -> Fraction:
        """Of any timestamp from the count, session samples, without sign."""
        return Fraction(self._largest * SAMPLE_RATE_HZ, self._per_second)

    def takes(self, block: AudioBlock, most_samples: int) -> bool:
        """Whether the block's timestamp is within `most_samples` session samples of the count; a block without one always is."""
        if block.pts is None:
            return True
        departure = block.pts * self._per_tick - self._first - self.num_samples * self._per_sample
        if abs(departure) * SAMPLE_RATE_HZ > most_samples * self._per_second:
            return False
        self._last = departure
        self._largest = max(self._largest, abs(departure))
        return True


def resampled(num_samples: int, rate_hz: int) -> int:
    """Samples at 16 kHz that so many source samples become: ceil(n·16000 / rate)."""
    return -(-num_samples * SAMPLE_RATE_HZ // rate_hz)


def samples_before(frontier: int, at: Fraction, rate_hz: int) -> int:
    """The fewest source samples to cut so that what starts at session second `at` starts, rounded, at `frontier` or later."""
    if round(at * SAMPLE_RATE_HZ) >= frontier:
        return 0
    cut = math.ceil((Fraction(2 * frontier - 1, 2 * SAMPLE_RATE_HZ) - at) * rate_hz)
    return cut if round((at + Fraction(cut, rate_hz)) * SAMPLE_RATE_HZ) >= frontier else cut + 1  # a half that rounds down to even
