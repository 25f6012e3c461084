"""From own mel to sound: heard by the analysis that made it."""

import numpy as np
import pytest
from microturn.schemas.errors import InputError
from microturn.trainer.speech import griffin_lim, write_wav
from microturn.transforms import own


@pytest.fixture(scope="module")
def speech():
    """Two seconds of a gliding, pulsing voice: harmonics under a moving formant."""
    t = np.arange(32_000) / 16_000
    phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16_000
    voice = sum(np.sin(h * phase) / h * np.exp(-(((h * 110 - 900 - 500 * np.sin(2 * np.pi * t)) / 900) ** 2)) for h in range(1, 40))
    return (0.2 * voice * (np.sin(2 * np.pi * 1.5 * t) > -0.6)).astype(np.float32)


def difference(mel_a, mel_b):
    """Mean |log10| difference in sub-frames that are heard."""
    loud = mel_a.astype(np.float64).max(axis=1) > -2
    return np.abs(mel_a.astype(np.float64) - mel_b.astype(np.float64))[loud].mean()


def test_what_is_said_is_heard_where_it_was_said(speech):
    mel = own.encode_mel(speech)
    samples = griffin_lim(mel)
    assert len(samples) == len(speech) and samples.dtype == np.float32
    here = difference(mel, own.encode_mel(samples))
    for shift in (-200, 200):  # a sub-frame early or late would be heard
        assert difference(mel, own.encode_mel(np.roll(samples, shift))) > 1.3 * here
    assert here < 0.15


def test_noise_says_something_else(speech):
    """The measure can fail."""
    mel = own.encode_mel(speech)
    noise = np.random.default_rng(0).normal(0, 0.1, len(speech)).astype(np.float32)
    assert difference(mel, own.encode_mel(noise)) > 0.5


def test_silence_stays_silent():
    assert np.abs(griffin_lim(own.encode_mel(np.zeros(3200, np.float32)))).max() < 1e-5


def test_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"\[sub-frames, 80\]"):
        griffin_lim(np.zeros((4, 4, 80), np.float16))
    assert len(griffin_lim(np.zeros((0, 80), np.float16))) == 0


def test_the_wav_holds_the_samples(tmp_path, speech):
    import soundfile

    write_wav(tmp_path / "a.wav", speech)
    read, rate = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate == 16_000 and np.abs(read - speech).max() < 1 / 32_000
