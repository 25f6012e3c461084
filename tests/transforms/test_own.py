"""Own mel against a slow version written from FORMAT.md section 5; own codes and head space against their definitions, value by value."""

import numpy as np
import pytest
from bits import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.schemas.spec import OwnMelSpec
from microturn.transforms import own
from signals import impulses, noise, speech

EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
OWN_MEL = EVERY_HALF[(EVERY_HALF >= -7) & (EVERY_HALF <= 2)]  # every value own mel can take (NaN compares false)


def slow_own_mel(samples: np.ndarray) -> np.ndarray:
    """log10 mel float64 [sub-frames, 80] by the definition, with torch's or librosa's conventions nowhere in sight."""
    from librosa.filters import mel  # its triangles are checked against a formula of our own in test_dmel.py

    padded = np.concatenate([np.zeros(800), samples.astype(np.float64), np.zeros(-len(samples) % 200)])
    hann = 0.5 * (1 - np.cos(2 * np.pi * np.arange(800) / 800))
    fourier = np.exp(-2j * np.pi * (np.outer(np.arange(800), np.arange(513)) % 1024) / 1024)
    triangles = mel(sr=16_000, n_fft=1024, n_mels=80, fmin=0, fmax=8000, dtype=np.float64)
    rows = []
    for i in range(-(-len(samples) // 200)):
        stop = 800 + 200 * (i + 1)
        magnitude = np.sqrt(np.maximum(np.abs((padded[stop - 800 : stop] * hann) @ fourier) ** 2, 1e-10))
        rows.append(np.clip(np.log10(np.maximum(triangles @ magnitude, 1e-10)), -7, 2))
    return np.array(rows)


@pytest.mark.parametrize("samples", [speech(16_077, seed=1), noise(8_000, seed=2), impulses(8_000, seed=3), np.zeros(201, np.float32)])
def test_own_mel_is_that_of_the_definition(samples):
    mel16 = own.encode_mel(samples)
    assert mel16.dtype == np.float16 and mel16.shape == (-(-len(samples) // 200), 80) and mel16.flags.c_contiguous
    assert np.isin(mel16, OWN_MEL).all()
    slow = slow_own_mel(samples)
    on_an_edge = slow.astype(np.float16) != (slow + 1e-8).astype(np.float16)
    assert same_bits(mel16[~on_an_edge], slow.astype(np.float16)[~on_an_edge]) and on_an_edge.sum() <= 2


@given(place=st.integers(0, 3_999))
@settings(deadline=None, max_examples=40)
def test_a_sample_sounds_in_exactly_the_sub_frames_that_cover_it(place):
    samples = np.zeros(4_000, np.float32)
    samples[place] = 0.9
    changed = (own.encode_mel(samples) != own.encode_mel(np.zeros(4_000, np.float32))).any(1)
    covered = [200 * (i + 1) - 800 < place < 200 * (i + 1) for i in range(20)]  # the periodic Hann is zero at the first sample
    edge = [abs(place - (200 * (i + 1) - 800)) < 4 or 200 * (i + 1) - place < 4 for i in range(20)]  # and nearly so beside the edges
    assert all(c == w or e for c, w, e in zip(changed.tolist(), covered, edge, strict=True)) and changed.any() | any(edge)


def test_own_codes_are_the_fifteen_comparisons():
    counted = sum((EVERY_HALF.astype(np.float32) > np.float32(-6.7 + 0.6 * n)).astype(np.uint8) for n in range(15))
    assert same_bits(own.codes(EVERY_HALF), counted)
    assert own.codes(OWN_MEL).max() == 15 and own.codes(OWN_MEL).min() == 0
    assert same_bits(own.codes(EVERY_HALF.reshape(4, 2, -1)), counted.reshape(4, 2, -1))


def test_no_half_precision_number_lies_where_a_threshold_was_rounded():
    exact = np.array([-67 + 6 * n for n in range(15)]) / 10
    nearest = np.abs(OWN_MEL.astype(np.float64)[:, None] - exact).min(0)
    assert (nearest > 1e-6).sum() == 12 and (nearest == 0).sum() == 3  # -5.5, -2.5 and 0.5 are halves themselves, and exact in float32
    assert own.codes(np.array([-5.5, -2.5, 0.5], np.float16)).tolist() == [2, 7, 12]  # a value on a threshold does not exceed it


def test_codes_of_unrounded_mel_are_refused():
    with pytest.raises(InputError, match="float32"):
        own.codes(np.zeros(4, np.float32))


def test_head_space_is_the_formula_and_undone_to_within_a_rounding():
    head = own.to_head(OWN_MEL)
    assert head.dtype == np.float32 and np.abs(head - 0.8 * (OWN_MEL.astype(np.float64) + 3)).max() < 5e-7
    back = own.from_head(head)
    large = np.abs(OWN_MEL) > 2**-9  # nearer to zero halves lie closer than the 2e-7 that float32 keeps of mel + 3
    assert same_bits(back[large], OWN_MEL[large]) and np.abs(back.astype(np.float32) - OWN_MEL.astype(np.float32)).max() < 1e-6
    assert same_bits(own.from_head(np.array([-99, 99], np.float32)), np.array([-7, 2], np.float16))


def test_head_space_has_torchs_bits():
    torch = pytest.importorskip("torch")
    head = np.linspace(-4, 5, 200_001, dtype=np.float32)
    by_torch = (1.25 * torch.from_numpy(head) - 3).clamp(-7, 2).to(torch.float16)
    assert same_bits(own.from_head(head), by_torch.numpy())
    assert same_bits(own.to_head(OWN_MEL), (0.8 * (torch.from_numpy(OWN_MEL).float() + 3)).numpy())


def test_a_frame_is_four_sub_frames_in_order():
    mel16 = own.encode_mel(speech(3_200, seed=5))
    frames = own.by_frame(mel16)
    assert frames.shape == (4, 4, 80) and same_bits(frames[2, 3], mel16[11])
    assert own.by_frame(own.codes(mel16)).shape == (4, 4, 80)
    with pytest.raises(InputError, match="15 sub-frames"):
        own.by_frame(mel16[:15])


def test_the_spec_is_obeyed():
    coarse = OwnMelSpec(hop_samples=400, num_bands=40, min_log10=-5.0)
    mel16 = own.encode_mel(noise(4_000, seed=6, rms=1e-5), coarse)
    assert mel16.shape == (10, 40) and mel16.min() == -5 and own.by_frame(mel16, coarse).shape == (5, 2, 40)
