"""From own mel to something one can hear. The embedded vocoder is librosa's Griffin-Lim: intelligible, buzzy, no weights. A neural one is a
function of the same signature.

Own mel knows the loudness of 80 bands in windows of 50 ms, no phases. Griffin-Lim guesses phases that fit overlapping windows. What a
window covers ends 12.5 ms after it begins to be new, so a vocoder that may not look ahead is 37.5 ms late; this one works on what it has.

Letters: I sub-frames of 12.5 ms, S samples at 16 kHz.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas.errors import InputError
from ...schemas.spec import OwnMelSpec

Vocoder = Callable[[NDArray[np.float16]], NDArray[np.float32]]
"""Own mel float16 [I, 80] to samples float32 [200 · I] in -1 … 1 at 16 kHz; sample 0 is where sub-frame 0 begins to be new."""

REFERENCE = OwnMelSpec()
ITERATIONS = 32
SPECTRUM_STEPS = 30


def griffin_lim(mel16_IB: NDArray[np.float16], *, iterations: int = ITERATIONS, spec: OwnMelSpec = REFERENCE) -> NDArray[np.float32]:
    """Samples float32 [200 · I] whose own mel is near this one. Deterministic; about four times real time on one core.

    Raises:
        InputError: own mel of another shape.
    """
    if mel16_IB.ndim != 2 or mel16_IB.shape[1] != spec.num_bands:
        raise InputError(f"own mel is [sub-frames, {spec.num_bands}], found {list(mel16_IB.shape)}")
    if not len(mel16_IB):
        return np.zeros(0, np.float32)
    import librosa

    mel = 10.0 ** mel16_IB.astype(np.float64)
    before = spec.fft_window_samples // spec.hop_samples - 1  # windows that end before the first new sample: silence
    mel = np.concatenate([np.zeros((before, spec.num_bands)), mel, np.repeat(mel[-1:], before, axis=0)])  # no edge lies in what is kept
    magnitudes = _spectrum(mel.T, librosa.filters.mel(sr=spec.sample_rate_hz, n_fft=spec.num_fft, n_mels=spec.num_bands, fmax=spec.max_hz))
    samples: NDArray[Any] = librosa.griffinlim(
        magnitudes, n_iter=iterations, hop_length=spec.hop_samples, win_length=spec.fft_window_samples, n_fft=spec.num_fft,
        window="hann", center=False, random_state=0, init="random",
    )  # fmt: skip
    # librosa puts a short window into the middle of its frame: window i covers samples 200 i + (1024 - 800) / 2 and on
    first = (spec.num_fft - spec.fft_window_samples) // 2 + spec.fft_window_samples - spec.hop_samples + before * spec.hop_samples
    wanted = len(mel16_IB) * spec.hop_samples
    samples = np.pad(samples, (0, max(0, first + wanted - len(samples))))[first : first + wanted]
    return np.clip(samples, -1, 1).astype(np.float32)


def _spectrum(mel_BI: NDArray[np.float64], bands_BK: NDArray[np.float32]) -> NDArray[np.float64]:
    """A non-negative spectrum [K, I] with this mel, by multiplicative updates (Lee and Seung, 2001) from the pseudo-inverse.

    Half the error of librosa's `mel_to_stft` (0.007 against 0.042 in log10, 0.066 against 0.094 after Griffin-Lim), in a fifth of its time.
    """
    spectrum_KI = np.maximum(np.linalg.pinv(bands_BK) @ mel_BI, 0) + 1e-12
    wanted_KI = bands_BK.T @ mel_BI
    for _ in range(SPECTRUM_STEPS):
        spectrum_KI *= wanted_KI / (bands_BK.T @ (bands_BK @ spectrum_KI) + 1e-12)
    return spectrum_KI


def write_wav(path: Path | str, samples: NDArray[np.float32], *, rate_hz: int = REFERENCE.sample_rate_hz) -> None:
    """Nothing; writes 16-bit mono."""
    import soundfile

    soundfile.write(str(path), samples, rate_hz, format="WAV", subtype="PCM_16")
