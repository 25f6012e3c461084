"""Law 1: the features of a tick are a function of the samples up to its end. Fed in any pieces, live or from a file, the same bytes.

For every source rate and any way to cut the source, resampled floats, dMel codes, own mel and own codes have the bits they have when fed
whole (live, each piece goes through every stage before the next arrives). Where one stage is replaced by what others use (a dense
projection; a resampler or an encoder that forgets between pieces), the same comparison fails: the negative controls below.
"""

import math
from fractions import Fraction

import numpy as np
from bits import same_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas.spec import DmelSpec, FeatureSpec
from microturn.transforms import dmel, mel, own
from microturn.transforms.media.decode import AudioBlock, Fault, StreamProbe
from microturn.transforms.media.place import AudioTrack
from microturn.transforms.resample import Resampler, resample
from signals import noise, speech

RATES_HZ = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000]
piece_sizes = st.lists(st.integers(0, 6_000), min_size=1, max_size=8).filter(any)


@st.composite
def sources(draw):
    """A recording of one channel, float32 or int16, of up to 1.5 s, and its rate."""
    rate_hz = draw(st.sampled_from(RATES_HZ))
    num_samples = draw(st.integers(0, rate_hz * 3 // 2))
    sound = noise(num_samples, draw(st.integers(0, 1_000)), rms=draw(st.sampled_from([1e-6, 0.01, 0.3])))
    return ((32_767 * sound.clip(-1, 1)).astype(np.int16) if draw(st.booleans()) else sound), rate_hz


def pieces(samples, sizes):
    """The samples cut into pieces of these sizes, over and over."""
    start = turn = 0
    while start < len(samples):
        yield samples[start : start + sizes[turn % len(sizes)]]
        start += sizes[turn % len(sizes)]
        turn += 1


def live(samples, rate_hz, sizes):
    """Resampled floats, codes and own mel, each piece through all stages before the next."""
    resampler, heard, said = Resampler(rate_hz), dmel.start(), own.start()
    given_out = [[], [], []]
    for piece in [*pieces(samples, sizes), None]:
        floats = resampler.finish() if piece is None else resampler.step(piece)
        codes, heard = dmel.step(floats, heard)
        mel16, said = own.step(floats, said)
        for kept, new in zip(given_out, (floats, codes, mel16), strict=True):
            kept.append(new)
    given_out[1].append(dmel.finish(heard))
    given_out[2].append(own.finish(said))
    return [np.concatenate(kept) for kept in given_out]


@given(source=sources(), sizes=piece_sizes)
@settings(deadline=None, max_examples=100)
def test_features_do_not_depend_on_how_audio_arrives(source, sizes):
    samples, rate_hz = source
    floats = resample(samples, rate_hz)
    live_floats, live_codes, live_mel = live(samples, rate_hz, sizes)
    assert same_bits(live_floats, floats)
    assert same_bits(live_codes, dmel.encode(floats)) and len(live_codes) == -(-len(floats) // 800)
    assert same_bits(live_mel, own.encode_mel(floats)) and len(live_mel) == -(-len(floats) // 200)
    assert same_bits(own.codes(live_mel), own.codes(own.encode_mel(floats)))


def placed(sound_CS, rate_hz, sizes, faults=False):
    """What an AudioTrack makes of the channels' mean, fed in blocks of these sizes; a fault between two makes it mix what it has."""
    blocks, start = [], 0
    for piece in pieces(sound_CS.T, sizes):
        if len(piece):
            blocks += [Fault("corrupt_packet", "drawn")] * faults + [AudioBlock(start, Fraction(1, rate_hz), rate_hz, piece.T)]
            start += len(piece)
    stream = StreamProbe(kind="audio", index=0, codec="x", rate_hz=rate_hz, channels=len(sound_CS))
    track = AudioTrack(blocks, stream, zero=Fraction(0), file_start=Fraction(0), spec=FeatureSpec())
    samples, _ = track.read(-(-sound_CS.shape[1] * 16_000 // rate_hz))
    return samples


@given(
    channels=st.integers(2, 12),
    rate_hz=st.sampled_from(RATES_HZ),
    num_samples=st.integers(1, 20_000),
    sizes=piece_sizes,
    faults=st.booleans(),
)
@example(channels=9, rate_hz=16_000, num_samples=50, sizes=[1], faults=True)
@settings(deadline=None, max_examples=60)
def test_the_mean_of_channels_does_not_depend_on_how_they_arrive(channels, rate_hz, num_samples, sizes, faults):
    sound_CS = np.stack([noise(num_samples, seed, rms=0.1 * (seed + 1)) for seed in range(channels)])
    assert same_bits(placed(sound_CS, rate_hz, sizes, faults), placed(sound_CS, rate_hz, [num_samples]))


@given(channels=st.integers(2, 12), num_samples=st.integers(1, 300))
@settings(deadline=None, max_examples=30)
def test_the_mean_of_channels_is_the_exact_mean_rounded(channels, num_samples):
    """Sums that lose nothing, one sample at a time; of two channels to the last bit."""
    sound_CS = np.stack([noise(num_samples, seed + 50, rms=0.1) for seed in range(channels)])
    exact = [math.fsum(column) / channels for column in sound_CS.T.tolist()]
    mixed = placed(sound_CS, 16_000, [num_samples])
    assert np.abs(mixed - exact).max() <= channels * 2**-24
    assert channels > 2 or same_bits(mixed, np.array(exact, np.float32))


@given(sizes=piece_sizes, num_samples=st.integers(1, 100_000), block_rows=st.sampled_from([1, 2, 3, 7, 64]))
@settings(deadline=None, max_examples=40)
def test_no_bit_of_a_mel_magnitude_depends_on_pieces_or_blocks(sizes, num_samples, block_rows):
    samples = noise(num_samples, seed=num_samples)
    whole = magnitudes(samples, [num_samples])
    with_other_blocks = magnitudes(samples, sizes, block_rows)
    assert same_bits(whole, with_other_blocks) and len(whole) == num_samples // 800


def test_a_dense_projection_breaks_the_law(monkeypatch):
    samples = noise(16_000 * 4, seed=1)
    dense = mel.bank(DmelSpec()).toarray()
    monkeypatch.setattr(mel, "bank", lambda spec: dense)
    whole, ticks = magnitudes(samples, [64_000]), magnitudes(samples, [800])
    assert not same_bits(whole, ticks) and np.allclose(whole, ticks, rtol=1e-12)


def test_forgetting_between_pieces_breaks_the_law():
    samples = speech(16_000, seed=2)
    assert not same_bits(np.concatenate([dmel.encode(piece) for piece in pieces(samples, [3_200])]), dmel.encode(samples))
    assert not same_bits(np.concatenate([resample(piece, 8_000) for piece in pieces(samples, [3_200])]), resample(samples, 8_000))


def magnitudes(samples, sizes, block_rows=mel.BLOCK_ROWS):
    """Float64 mel magnitudes of the whole frames of `samples` fed in pieces: stricter than codes, which hide most differences."""
    spec, state, rows = DmelSpec(), dmel.start(), [np.empty((0, 80))]
    usual, mel.BLOCK_ROWS = mel.BLOCK_ROWS, block_rows
    try:
        for piece in pieces(samples, sizes):
            new, state = mel.step(piece, state, spec, keep=lambda mel_FB: mel_FB)
            rows.append(new)
    finally:
        mel.BLOCK_ROWS = usual
    return np.concatenate(rows)
