"""The resampler's promises: no sample lost, none early or late, the same bits in any pieces. Law 1 as a whole is in test_law1.py."""

import numpy as np
import pytest
import soxr
from bits import same_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.transforms.resample import Resampler, resample
from signals import noise, tone

RATES_HZ = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]
STATED_DELAY = {8_000: 1852, 11_025: 1342, 12_000: 1235, 22_050: 643, 24_000: 585, 32_000: 926, 44_100: 643, 48_000: 586, 96_000: 1266}


@given(rate_hz=st.one_of(st.sampled_from(RATES_HZ), st.integers(1_000, 200_000)), num_in=st.integers(0, 3_000))
@example(rate_hz=44_100, num_in=1)  # soxr alone gives none
@example(rate_hz=768_000, num_in=100_000)
@settings(deadline=None, max_examples=100)
def test_the_total_is_exact(rate_hz, num_in):
    assert len(resample(noise(num_in, seed=1), rate_hz)) == -(-num_in * 16_000 // rate_hz)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_tone_stays_where_it_was(rate_hz):
    seconds = np.arange(rate_hz) / rate_hz
    resampled = resample((0.9 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32), rate_hz)
    error = np.abs(resampled - tone(16_000, hz=440))[1_000:-1_000]
    assert error.max() < 2e-4  # one sample late would be 0.15


def test_what_16_khz_cannot_hold_is_removed():
    seconds = np.arange(48_000) / 48_000
    inaudible = resample(np.sin(2 * np.pi * 9_000 * seconds).astype(np.float32), 48_000)
    assert np.abs(inaudible[1_000:-1_000]).max() < 1e-5


def test_16_khz_passes_untouched():
    samples = noise(5_000, seed=2)
    assert same_bits(resample(samples, 16_000), samples)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_int16_is_read_as_fractions_of_full_scale(rate_hz):
    int16 = (32_767 * noise(5_000, seed=3)).astype(np.int16)
    assert same_bits(resample(int16, rate_hz), resample(int16.astype(np.float32) / 32_768, rate_hz))


@pytest.mark.parametrize("rate_hz", STATED_DELAY)
def test_the_stated_delay_is_the_delay(rate_hz):
    resampler, samples, worst = Resampler(rate_hz), noise(rate_hz, seed=4), 0
    for start in range(0, rate_hz, 7):
        resampler.step(samples[start : start + 7])
        worst = max(worst, resampler.delay_samples)
    assert STATED_DELAY[rate_hz] - 20 <= worst <= STATED_DELAY[rate_hz] + 1
    resampler.finish()
    assert resampler.delay_samples == 0 and (resampler.num_in, resampler.num_out) == (rate_hz, 16_000)


def test_soxrs_int16_stream_depends_on_the_pieces():  # why it is not used; the negative control of the law for the resampler
    samples = (32_767 * noise(44_100, seed=5)).astype(np.int16)
    whole = soxr.ResampleStream(44_100, 16_000, 1, dtype="int16").resample_chunk(samples, last=True)
    stream = soxr.ResampleStream(44_100, 16_000, 1, dtype="int16")
    pieces = [stream.resample_chunk(samples[i : i + 441], last=i + 441 >= len(samples)) for i in range(0, len(samples), 441)]
    assert (np.concatenate(pieces) != whole).mean() > 0.05


@pytest.mark.parametrize("samples", [np.zeros(10), np.zeros((10, 2), np.float32), np.array([np.nan], np.float32)])
def test_other_samples_are_refused(samples):
    with pytest.raises(InputError):
        resample(samples, 48_000)


@pytest.mark.parametrize("rate_hz", [0, -8_000, 44_100.0])
def test_a_rate_is_a_positive_integer(rate_hz):
    with pytest.raises(InputError, match="sample rate"):
        Resampler(rate_hz)


def test_a_span_ends_once():
    resampler = Resampler(48_000)
    resampler.finish()
    for verb in (resampler.finish, lambda: resampler.step(noise(10, seed=6))):
        with pytest.raises(AssertionError):
            verb()
