"""dMel against a slow version written from the definition, and the promises of its stream. Other people's code: test_dmel_oracle.py."""

import itertools
from fractions import Fraction

import librosa
import numpy as np
import pytest
from bits import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.schemas.spec import DmelSpec
from microturn.transforms import dmel, mel
from signals import impulses, noise, speech, sweep

SPEC = DmelSpec()
seeds = st.integers(0, 2**16)


def slaney_triangles(num_bands: int, num_fft: int, rate_hz: int, max_hz: int) -> np.ndarray:
    """Triangles [bands, bins] between points equally spaced in mel: linear to 1 kHz (200/3 Hz a mel), then 27 mels to a factor of 6.4."""

    def hz(mels):
        return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    top_mels = 15 + 27 * np.log(max_hz / 1000) / np.log(6.4)
    left, centre, right = (hz(np.linspace(0, top_mels, num_bands + 2))[i : i + num_bands, None] for i in range(3))
    bins_hz = np.arange(num_fft // 2 + 1) * rate_hz / num_fft
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)


def slow_log_mel(samples: np.ndarray, spec: DmelSpec) -> np.ndarray:
    """log10 mel [frames, bands] by the definition: one discrete Fourier sum a frame, no FFT, no state."""
    window, hop = spec.fft_window_samples, spec.hop_samples
    num_frames = -(-len(samples) // hop)
    padded = np.concatenate([np.zeros(window - hop), samples.astype(np.float64), np.zeros(-len(samples) % hop)])
    hann = 0.5 * (1 - np.cos(2 * np.pi * np.arange(window) / window))
    turns = np.outer(np.arange(window), np.arange(window // 2 + 1)) % window / window
    fourier = np.exp(-2j * np.pi * turns)
    triangles = slaney_triangles(spec.num_bands, window, spec.sample_rate_hz, spec.max_hz)
    rows = []
    for frame in range(num_frames):
        power = np.abs((padded[frame * hop : frame * hop + window] * hann) @ fourier) ** 2
        rows.append(triangles @ np.sqrt(np.maximum(power, spec.power_floor)))
    return np.log10(np.maximum(np.array(rows), spec.mel_floor))


def log_mel(samples: np.ndarray, spec: DmelSpec) -> np.ndarray:
    """log10 of what our machinery compares with the thresholds."""
    magnitudes, state = mel.step(samples, dmel.start(spec), spec, keep=lambda mel_FB: mel_FB)
    return np.log10(np.concatenate([magnitudes, mel.finish(state, spec, keep=lambda mel_FB: mel_FB)]))


def nearest_centre(log10: np.ndarray, spec: DmelSpec) -> np.ndarray:
    centres = np.linspace(spec.min_log10, spec.max_log10, spec.num_codes)
    return np.abs(np.clip(log10, spec.min_log10, spec.max_log10)[..., None] - centres).argmin(-1).astype(np.uint8)


def to_boundary(log10: np.ndarray, spec: DmelSpec) -> np.ndarray:
    """Distance in log10 to the nearest point between two centres."""
    centres = np.linspace(spec.min_log10, spec.max_log10, spec.num_codes)
    return np.abs(log10[..., None] - (centres[1:] + centres[:-1]) / 2).min(-1)


SIGNALS = {
    "speech": speech(16_000 * 2 + 123, seed=1),
    "noise": noise(16_000, seed=2),
    "sweep": sweep(24_000),
    "impulses": impulses(16_000, seed=3),
    "clipped": np.clip(30 * speech(16_000, seed=4), -1, 1),
    "faint": noise(8_000, seed=5, rms=1e-6),
    "silence": np.zeros(1_601, np.float32),
    "one sample": np.array([0.5], np.float32),
}
OTHER_SPEC = DmelSpec(hop_samples=160, fft_window_samples=640, num_bands=24, max_hz=7000, min_log10=-6.0, num_codes=9)


@pytest.mark.parametrize("spec", [SPEC, OTHER_SPEC], ids=["reference", "other constants"])
@pytest.mark.parametrize("name", SIGNALS)
def test_codes_are_those_of_the_definition(name, spec):
    slow = slow_log_mel(SIGNALS[name], spec)
    codes = dmel.encode(SIGNALS[name], spec)
    assert codes.shape == slow.shape and codes.dtype == np.uint8 and codes.flags.c_contiguous
    assert np.abs(log_mel(SIGNALS[name], spec) - slow).max() < 2e-6
    differing = (codes != nearest_centre(slow, spec)) & (to_boundary(slow, spec) > 2e-6)
    assert not differing.any()


def test_the_definition_tells_a_symmetric_window_from_a_periodic_one(monkeypatch):  # negative control of the test above
    monkeypatch.setattr(mel, "fft_window", lambda spec: np.hanning(spec.fft_window_samples))
    assert np.abs(log_mel(SIGNALS["speech"], SPEC) - slow_log_mel(SIGNALS["speech"], SPEC)).max() > 1e-4


@given(log10=st.floats(-12, 6), ulps=st.integers(-64, 64), n=st.integers(0, 14))
@settings(deadline=None)
def test_thresholds_give_the_nearest_centre(log10, ulps, n):
    threshold = dmel.thresholds()[n]
    magnitudes = np.array([10**log10, threshold + ulps * np.spacing(threshold)])
    codes = dmel.quantise(magnitudes)
    by_distance = nearest_centre(np.log10(magnitudes), SPEC)
    assert codes[0] == by_distance[0] or to_boundary(np.log10(magnitudes[:1]), SPEC) < 1e-14
    assert codes[1] == n + (ulps > 0) and (abs(ulps) < 16 or codes[1] == by_distance[1])  # nearer than that, float64's log10 cannot say


def test_thresholds_are_the_last_numbers_not_above_the_powers_of_ten():
    for n, threshold in enumerate(dmel.thresholds()):  # 10^(-6.7 + 0.6n), to the tenth power on both sides: exact
        power = Fraction(10) ** (-67 + 6 * n)
        assert Fraction(threshold) ** 10 <= power < Fraction(np.nextafter(threshold, 1e9)) ** 10


def test_constants_have_room_for_a_last_bit():
    hann = np.sin(np.pi * np.arange(1600) / 1600) ** 2
    triangles = librosa.filters.mel(sr=16_000, n_fft=1600, n_mels=80, fmax=8000, dtype=np.float64)
    assert same_bits(mel.rounded(hann), mel.fft_window(SPEC)) and np.array_equal(mel.rounded(triangles), mel.bank(SPEC).toarray())
    for constants, ulps in itertools.product([hann, triangles], [-16, 16]):  # what another SIMD level or libm may give
        moved = constants + ulps * np.spacing(constants) * (constants > 0)
        assert not np.array_equal(moved, constants) and np.array_equal(mel.rounded(moved), mel.rounded(constants))


@given(num_samples=st.integers(0, 5_000), seed=seeds)
@settings(deadline=None, max_examples=30)
def test_every_sample_is_in_a_frame_and_the_end_is_padded_with_zeros(num_samples, seed):
    samples = noise(num_samples, seed)
    codes = dmel.encode(samples)
    assert codes.shape == (-(-num_samples // 800), 80)
    assert same_bits(codes, dmel.encode(np.concatenate([samples, np.zeros(-num_samples % 800, np.float32)])))


@given(frame=st.integers(0, 9), seed=seeds)
@settings(deadline=None, max_examples=30)
def test_a_frame_never_hears_the_future(frame, seed):
    samples = noise(8_000, seed)
    other = np.concatenate([samples[: 800 * (frame + 1)], noise(8_000, seed + 1)])
    codes, other_codes = dmel.encode(samples), dmel.encode(other)
    assert same_bits(codes[: frame + 1], other_codes[: frame + 1])
    assert frame == 9 or not same_bits(codes[frame + 1], other_codes[frame + 1])


@given(seed=seeds, first=st.integers(0, 3_000), second=st.integers(1, 3_000))
@settings(deadline=None, max_examples=20)
def test_a_held_state_can_be_gone_back_to(seed, first, second):
    samples = noise(first + second, seed)
    _, state = dmel.step(samples[:first], dmel.start())
    once, after = dmel.step(samples[first:], state)
    samples[:first] = 0  # the caller's buffer is the caller's
    again, after_again = dmel.step(samples[first:], state)
    assert same_bits(once, again) and same_bits(after.tail_S, after_again.tail_S)
    assert state.tail_S.base is None  # a state does not keep the piece alive
    with pytest.raises(ValueError, match="read-only"):
        state.tail_S[0] = 1


def test_int16_is_read_as_fractions_of_full_scale():
    int16 = np.arange(-32_768, 32_768).astype(np.int16)
    assert same_bits(mel.mono_float32(int16), np.arange(-1, 1, 2**-15).astype(np.float32))
    assert same_bits(dmel.encode(int16), dmel.encode(np.arange(-1, 1, 2**-15).astype(np.float32)))


def test_silence_is_its_own_code_and_not_zero():
    assert same_bits(dmel.encode(np.zeros(4_000, np.float32)), np.tile(dmel.silence(), (5, 1)))
    assert dmel.silence().tolist() == [2] * 80  # the power floor: 10 · 1e-5 · (1 / 10 Hz a bin) = 1e-6


def test_decoded_codes_lie_within_half_a_step():
    slow = slow_log_mel(SIGNALS["speech"], SPEC)
    decoded = dmel.decode(dmel.encode(SIGNALS["speech"]))
    assert decoded.dtype == np.float32 and decoded.shape == slow.shape
    assert np.abs(decoded - np.clip(slow, -7, 2)).max() <= 0.3 + 1e-6
    assert dmel.centres()[[0, -1]].tolist() == [-7.0, 2.0] and len(dmel.centres()) == 16


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(10), "float64"),
        (np.zeros(10, np.int32), "int32"),
        (np.zeros(10, ">f4"), ">f4"),
        (np.zeros((10, 1), np.float32), r"\[10, 1\]"),
        ([0.0, 1.0], "list"),
        (np.array([0, np.nan, 0], np.float32), "nan at sample 1"),
        (np.array([0, 0, -np.inf], np.float32), "-inf at sample 2"),
    ],
)
def test_other_samples_are_refused_in_words(samples, words):
    with pytest.raises(InputError, match=words) as refusal:
        dmel.encode(samples)
    assert refusal.value.hint
