"""The one clock. Everything that is stored or compared is an integer of samples, frames or ticks; seconds are for people.

| unit   | samples | meaning |
|--------|---------|---------|
| sample | 1       | 1/16000 s, the resolution of every event, word and offset |
| frame  | 800     | 50 ms, one audio token |
| tick   | 3200    | 200 ms, one micro-turn; tick k covers samples [3200k, 3200(k+1)) of the session |
"""

from decimal import Decimal
from fractions import Fraction
from numbers import Rational

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 800
TICK_SAMPLES = 3_200
TICK_FRAMES = TICK_SAMPLES // FRAME_SAMPLES
WINDOW_TICKS = 300


def to_samples(seconds: Fraction | Decimal | int | str, rate_hz: int = SAMPLE_RATE_HZ) -> int:
    """Samples of an exact time in seconds, rounded once, half to even. A float is refused: it has been rounded already."""
    if not isinstance(seconds, (Rational, Decimal, str)):  # numpy's float32 is no `float`, and newer Fractions would take it
        raise TypeError(f"seconds must be exact (Fraction, Decimal, int or str), got {type(seconds).__name__} {seconds!r}")
    exact = seconds if type(seconds) is Fraction else Fraction(seconds)
    samples, rest = divmod(exact.numerator * rate_hz, exact.denominator)  # as round(exact * rate_hz), in half the time
    return samples + (2 * rest + (samples & 1) > exact.denominator)


def num_ticks(num_samples: int) -> int:
    """Ticks that cover `num_samples` samples: ceil(n / 3200)."""
    return -(-num_samples // TICK_SAMPLES)


def num_frames(num_samples: int) -> int:
    """Frames that cover `num_samples` samples: ceil(n / 800)."""
    return -(-num_samples // FRAME_SAMPLES)


def clock_text(sample: int) -> str:
    """`h:mm:ss.mmm` of a session sample, for people; what is less than a millisecond is left out."""
    sign, ms = ("-", -sample) if sample < 0 else ("", sample)
    ms = ms * 1000 // SAMPLE_RATE_HZ
    return f"{sign}{ms // 3_600_000}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"
