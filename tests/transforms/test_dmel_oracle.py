"""dMel against the two public implementations of the open model's front end, over more than an hour of audio, code by code.

    N  `tml-renderers`, the compiled encoder          H  transformers' `InklingFeatureExtractor` and `InklingProcessor`, float32 as shipped
    D  the same code as H, its two constants and its input in float64          O  ours

What the tests show:  O = D everywhere;  O = H = N everywhere but where float32 cannot decide. "=" is 0 differing codes, not counting values
within 1e-5 (log10) of a boundary; those are counted and printed. Float32 cannot decide in bands far below the loudest of their frame, where
rounding in its FFT is as large as the value: bare tones and sweeps, and a few codes in ten million of the clean synthetic speech here, none
of the real. N lifts a quiet recording as a whole to an RMS of 0.01, which is not causal: N is asked about one only after its gain.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from bits import same_bits
from microturn.schemas.spec import DmelSpec
from microturn.transforms import dmel, mel
from microturn.transforms.resample import resample
from signals import impulses, noise, speech, sweep, tone

torch = pytest.importorskip("torch")
pytest.importorskip("tml_renderers")
pytest.importorskip("transformers.models.inkling")

SPEC = DmelSpec()
NEAR_LOG10 = 1e-5
MINUTE = 60 * 16_000
N_LIFTS_BELOW_RMS = 0.01
CODES_OF_AN_HOUR = 3600 * 20 * 80


@dataclass
class Tally:
    """How often codes were compared and differed, and how many of them float32 cannot decide, for either reason."""

    name: str
    codes: int = 0
    near: int = 0  # within NEAR_LOG10 of a boundary
    near_differing: int = 0
    steep: int = 0  # farther, but not farther than float32's FFT may err in this band of this frame
    steep_differing: int = 0
    differing: int = 0  # without either excuse

    def add(self, judged, theirs):
        ours, near, steep = judged
        assert ours.shape == theirs.shape
        differs = ours != theirs
        self.codes += ours.size
        self.near += int(near.sum())
        self.steep += int(steep.sum())
        self.near_differing += int((near & differs).sum())
        self.steep_differing += int((steep & differs).sum())
        self.differing += int((~near & ~steep & differs).sum())

    def __str__(self):
        return (
            f"{self.name}: {self.codes:,} codes ({self.codes / CODES_OF_AN_HOUR:.3f} h), {self.differing} differ; within {NEAR_LOG10} of "
            f"a boundary {self.near}, of them {self.near_differing} differ; in steep spectra {self.steep}, of them {self.steep_differing}"
        )


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """N: samples -> codes."""
    import soundfile
    from tml_renderers import chat, tokenizers, v0

    renderer = v0.Renderer(tokenizers.O200kBaseChatTokenizer())
    path = str(tmp_path_factory.mktemp("native") / "heard.wav")

    def encode(samples):
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
        pointer = chat.AudioPointer(location=path, format=chat.AudioFormat.Wav, num_frames=len(samples), sample_rate=16_000)
        spans, _ = renderer.render_for_completion([chat.Message(content=pointer, author=chat.Author(chat.AuthorKind.User))])
        return next(s.span.dmel for s in spans if isinstance(s.span, chat.DmelTokenSpan)).numpy()

    return encode


@pytest.fixture(scope="module")
def extractor():
    """H's features, as shipped."""
    from transformers.models.inkling.feature_extraction_inkling import InklingFeatureExtractor

    return InklingFeatureExtractor()


@pytest.fixture(scope="module")
def shipped(extractor):
    """H: samples -> codes."""
    return lambda samples: quantised(extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"][0])


@pytest.fixture(scope="module")
def in_float64():
    """D: samples -> codes."""
    from transformers.audio_utils import mel_filter_bank
    from transformers.models.inkling.feature_extraction_inkling import InklingFeatureExtractor

    extractor = InklingFeatureExtractor()
    extractor.window = torch.hann_window(1600, periodic=True, dtype=torch.float64)
    extractor.mel_filters = torch.from_numpy(mel_filter_bank(801, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney").T.copy())
    return lambda samples: quantised(extractor._torch_extract_fbank_features(torch.from_numpy(samples).double()[None])[0])


def quantised(log_mel):
    """Codes of transformers' features by transformers' own quantiser, called without the tokenizer that its processor wants."""
    from transformers.models.inkling.processing_inkling import InklingProcessor

    centres = torch.linspace(-7.0, 2.0, 16, dtype=torch.float64).to(log_mel.dtype)
    processor = SimpleNamespace(bin_centers=centres, dmel_min_value=-7.0, dmel_max_value=2.0)
    return InklingProcessor._extract_dmel_bins(processor, log_mel).numpy().astype(np.uint8)


def judged(samples):
    """Our codes, and where float32 cannot decide, two masks [frames, 80]: next to a boundary, and where rounding in its FFT may reach one.

    That rounding: 8 units of the windowed frame's norm, in each bin of the band. It is white, so it drowns bands far below the loudest.
    """
    rows, state = mel.step(samples, dmel.start(), SPEC, keep=lambda mel_FB: mel_FB)
    magnitudes = np.concatenate([rows, mel.finish(state, SPEC, keep=lambda mel_FB: mel_FB)])
    log10 = np.log10(magnitudes)
    distance = np.abs(log10 - (0.6 * np.rint(np.clip((log10 + 6.7) / 0.6, 0, 14)) - 6.7))

    padded = np.concatenate([np.zeros(800), samples, np.zeros(-len(samples) % 800)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1600)[::800] * mel.fft_window(SPEC)
    rounding = 8 * 2.0**-24 * np.sqrt((frames**2).sum(1, keepdims=True)) * mel.bank(SPEC).sum(axis=1)
    near = distance < NEAR_LOG10
    return dmel.encode(samples), near, ~near & (distance <= np.log10(1 + rounding / magnitudes))


def is_lifted(samples):
    return 0 < np.sqrt(np.mean(samples.astype(np.float64) ** 2)) < N_LIFTS_BELOW_RMS


def an_hour():
    """More than an hour for N and for H, without bare tones: speech, noise, clipping, tones in noise, impulses, DC, faint, silent."""
    for seed in range(42):
        yield np.float32(2.0 ** -(seed % 3)) * speech(MINUTE, seed)
    for seed, rms in enumerate([0.3, 0.1, 0.03, 0.012, 0.3, 0.1]):
        yield noise(MINUTE, seed, rms)
    for seed in range(6):
        yield np.cumsum(noise(MINUTE, seed, 0.01)).astype(np.float32) % 1 - np.float32(0.5)  # a wrapped random walk: steep, with edges
        yield np.clip(40 * speech(MINUTE // 2, 100 + seed), -1, 1)
    for hz in (50, 440, 1000.5, 3333, 7900):
        yield tone(MINUTE // 2, hz) + noise(MINUTE // 2, 1, 0.01)
    for seed in range(4):
        yield impulses(MINUTE, seed)
    for rms in (1e-3, 1e-4, 1e-6, 1e-9):  # these are for H alone
        yield noise(MINUTE // 2, 9, rms)
        yield speech(MINUTE // 2, 9) * np.float32(rms)
    yield np.full(MINUTE // 4, 0.3, np.float32) + noise(MINUTE // 4, 3, 1e-3)
    yield np.full(MINUTE // 4, -0.9, np.float32)
    yield np.zeros(MINUTE // 4, np.float32)
    yield from (noise(n, n) for n in (1, 2, 799, 800, 801, 1599, 1600, 1601, 4000))


def bare_tones():
    """Spectra so steep that float32 cannot hold their quiet bands."""
    quiet_room = noise(MINUTE // 3, 8, 1e-4)
    yield from (tone(MINUTE // 3, hz) for hz in (50, 440, 1000.5, 3333, 7900))
    yield from (sweep(MINUTE // 3, peak) for peak in (0.8, 0.05))
    yield from (np.tile(sweep(MINUTE // 30), 10), sweep(MINUTE // 3) + quiet_room)
    yield np.round(32_767 * tone(MINUTE // 3, 440)).astype(np.int16) / np.float32(32_768)


def test_an_hour_of_audio_has_the_open_models_codes(shipped, native, capsys):
    by_h, by_n = Tally("O and H"), Tally("O and N")
    for samples in an_hour():
        ours = judged(samples)
        by_h.add(ours, shipped(samples))
        if not is_lifted(samples):
            by_n.add(ours, native(samples))
    with capsys.disabled():
        print(f"\n{by_h}\n{by_n}")
    assert min(by_h.codes, by_n.codes) > CODES_OF_AN_HOUR
    assert by_h.differing == 0 and by_n.differing == 0
    assert max(by_h.steep_differing, by_n.steep_differing) <= 10 and by_h.near + by_h.steep < 5e-3 * by_h.codes


def test_the_comparison_can_fail(shipped):
    samples, tally = speech(MINUTE, seed=1), Tally("one sample late")
    tally.add(judged(np.concatenate([np.zeros(1, np.float32), samples[:-1]])), shipped(samples))
    assert tally.differing > 10


def test_in_float64_the_open_models_code_gives_our_codes_for_any_audio(in_float64, capsys):
    tally = Tally("O and D")
    others = (speech(3 * MINUTE, 1), noise(3 * MINUTE, 2), impulses(3 * MINUTE, 3), np.float32(1e-6) * speech(MINUTE, 4), sweep(800))
    for samples in (*bare_tones(), *others):
        tally.add(judged(samples), in_float64(samples))
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.codes > 1_000_000
    assert tally.differing == tally.steep_differing == 0  # no excuse but nearness: float64 decides what float32 cannot


def test_on_bare_tones_float32_rounding_explains_every_difference(shipped, native, capsys):
    tally = Tally("O and H, bare tones")
    for samples in bare_tones():
        theirs = shipped(samples)
        tally.add(judged(samples), theirs)
        assert is_lifted(samples) or same_bits(theirs, native(samples))  # N rounds as H does
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.differing == 0
    assert 0 < tally.steep_differing < 2e-3 * tally.codes


def test_the_filterbank_is_the_open_models(extractor):
    ours, theirs = mel.bank(SPEC).toarray(), extractor.mel_filters.numpy()
    assert np.allclose(ours, theirs, rtol=2**-23, atol=0) and ((ours > 0) == (theirs > 0)).all()


@pytest.mark.parametrize("rms", [0.009, 1e-3, 1e-5])
def test_quiet_audio_has_the_native_codes_once_its_gain_is_applied(native, rms):
    quiet = speech(MINUTE // 2, seed=7)
    quiet *= np.float32(rms / np.sqrt(np.mean(quiet.astype(np.float64) ** 2)))
    gain = N_LIFTS_BELOW_RMS / np.sqrt(np.mean(quiet.astype(np.float64) ** 2))
    tally = Tally("lifted")
    tally.add(judged((gain * quiet).astype(np.float32)), native(quiet))
    assert tally.differing == tally.steep_differing == 0
    assert (dmel.encode(quiet) != native(quiet)).mean() > 0.05  # without it they differ: the gain is real


def test_real_speech_has_the_open_models_codes(media, shipped, native, capsys):
    import soundfile

    by_h, by_n = Tally("real speech, O and H"), Tally("real speech, O and N")
    for name in ("jfk.flac", "two_speakers.wav", "ami_dev00.wav", "ES2011a.Headset-0-40s-46s.wav", "stereo.sph", "stereo.opus"):
        channels, rate_hz = soundfile.read(media / name, dtype="float32", always_2d=True)
        for channel in (channels[:, 0], channels.mean(1)):
            for level in (1, 0.5, 0.1, 1e-3):
                samples = resample(channel * np.float32(level), rate_hz)
                ours = judged(samples)
                by_h.add(ours, shipped(samples))
                if not is_lifted(samples):
                    by_n.add(ours, native(samples))
    with capsys.disabled():
        print(f"\n{by_h}\n{by_n}")
    assert by_n.codes > 100_000
    assert by_h.differing == by_n.differing == by_h.steep_differing == by_n.steep_differing == 0
