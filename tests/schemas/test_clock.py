"""The clock: integers only, rounded once, half to even."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas import clock

samples = st.integers(0, 2**53)


def test_the_units_fit_into_each_other():
    assert (clock.SAMPLE_RATE_HZ, clock.FRAME_SAMPLES, clock.TICK_SAMPLES, clock.TICK_FRAMES, clock.WINDOW_TICKS) == (
        16_000,
        800,
        3200,
        4,
        300,
    )
    assert clock.to_samples(Fraction(1, 5)) == clock.TICK_SAMPLES and clock.to_samples("0.05") == clock.FRAME_SAMPLES


@given(numerator=st.integers(-(10**12), 10**12), denominator=st.integers(1, 10**6), rate_hz=st.sampled_from([8000, 16_000, 44_100, 48_000]))
@example(numerator=1, denominator=32_000, rate_hz=16_000)  # half a sample
@example(numerator=3, denominator=32_000, rate_hz=16_000)
@settings(deadline=None)
def test_an_exact_time_is_the_nearest_sample_and_a_half_goes_to_the_even(numerator, denominator, rate_hz):
    exact = Fraction(numerator, denominator) * rate_hz
    found = clock.to_samples(Fraction(numerator, denominator), rate_hz)
    assert isinstance(found, int) and abs(found - exact) <= Fraction(1, 2)
    assert abs(found - exact) < Fraction(1, 2) or found % 2 == 0


@given(sample=st.integers(-(10**9), 10**9))
@settings(deadline=None)
def test_every_way_to_write_a_time_gives_the_same_sample(sample):
    written = Decimal(sample) / 16_000  # ends after seven decimals at most
    ways = [Fraction(sample, 16_000), written, str(written), f"{sample}/16000"]
    assert [clock.to_samples(way) for way in ways] == [sample] * 4


def test_a_decimal_is_taken_as_written_where_a_float_would_not_do():
    assert clock.to_samples("0.03134375") == 502 and round(float("0.03134375") * 16_000) == 501  # exactly 501.5
    assert clock.to_samples("0.5005") == 8008 and int(0.5005 * 16_000) == 8007


@pytest.mark.parametrize("rounded", [1.0, math.nan, np.float64(0.5), np.float32(0.5), np.float16(2), None, [1]])
def test_what_is_not_exact_is_refused(rounded):
    with pytest.raises(TypeError, match="must be exact"):
        clock.to_samples(rounded)


@given(num_samples=samples)
@settings(deadline=None)
def test_ticks_and_frames_cover_and_none_is_empty(num_samples):
    for count, unit in ((clock.num_ticks(num_samples), clock.TICK_SAMPLES), (clock.num_frames(num_samples), clock.FRAME_SAMPLES)):
        assert count * unit >= num_samples > (count - 1) * unit
    assert clock.num_frames(clock.num_ticks(num_samples) * clock.TICK_SAMPLES) == 4 * clock.num_ticks(num_samples)


@given(sample=samples)
@settings(deadline=None)
def test_what_people_read_says_the_millisecond(sample):
    hours, minutes, seconds = clock.clock_text(sample).split(":")
    ms = (int(hours) * 60 + int(minutes)) * 60_000 + int(seconds.replace(".", ""))
    assert len(minutes) == 2 and len(seconds) == 6 and int(minutes) < 60 and float(seconds) < 60
    assert ms <= Fraction(sample, 16) < ms + 1
    assert clock.clock_text(-sample) == ("-" * (sample > 0)) + clock.clock_text(sample)


def test_a_time_reads_as_people_write_it():
    assert clock.clock_text(3_062_400) == "0:03:11.400" and clock.clock_text(3600 * 16_000 * 30 + 15) == "30:00:00.000"
