"""Audio with known properties, for tests: mono float32 at 16 kHz, the same samples for the same arguments on one machine."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

RATE_HZ = 16_000
_FORMANTS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (640, 1190, 2390))


def speech(num_samples: int, seed: int) -> NDArray[np.float32]:
    """Vowels of a gliding pitch and hissed consonants of 60–240 ms, with pauses, over the noise of a quiet room (-80 dB); peak 0.5."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(960, 3840, num_samples // 960 + 1)
    sounds = rng.integers(-2, len(_FORMANTS_HZ), len(lengths))  # -2 a pause, -1 a consonant, else a vowel
    sound_of = np.repeat(sounds, lengths)[:num_samples]
    pitch_hz = np.repeat(rng.uniform(90, 240, len(lengths)), lengths)[:num_samples]
    pulses = np.diff(np.floor(np.cumsum(pitch_hz) / RATE_HZ), prepend=0.0)
    hiss = rng.standard_normal(num_samples)
    voiced = sum(_vowel(pulses * (sound_of == v), formants) for v, formants in enumerate(_FORMANTS_HZ))
    consonants = lfilter([1, -0.9], [1], hiss) * (sound_of == -1)
    mixed = voiced / max(np.abs(voiced).max(), 1e-9) + 0.1 * consonants + 2e-4 * hiss
    return (0.5 * mixed / np.abs(mixed).max()).astype(np.float32)


def noise(num_samples: int, seed: int, rms: float = 0.1) -> NDArray[np.float32]:
    """White noise."""
    return (rms * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def tone(num_samples: int, hz: float, peak: float = 0.9) -> NDArray[np.float32]:
    """A sine."""
    return (peak * np.sin(2 * np.pi * hz / RATE_HZ * np.arange(num_samples))).astype(np.float32)


def sweep(num_samples: int, peak: float = 0.8) -> NDArray[np.float32]:
    """A sine that climbs from 50 to 7850 Hz."""
    hz = np.linspace(50, 7850, num_samples)
    return (peak * np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ)).astype(np.float32)


def impulses(num_samples: int, seed: int) -> NDArray[np.float32]:
    """Single samples of ±0.9, about five a second, in silence."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(num_samples, np.float32)
    samples[rng.integers(0, num_samples, num_samples // 3200 + 1)] = rng.choice([-0.9, 0.9], num_samples // 3200 + 1)
    return samples


def _vowel(pulses: NDArray[np.float64], formants_hz: tuple[int, ...]) -> NDArray[np.float64]:
    for hz in formants_hz:  # one two-pole resonance of 80 Hz width after the other
        radius = np.exp(-np.pi * 80 / RATE_HZ)
        pulses = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * np.pi * hz / RATE_HZ), radius**2], pulses)
    return pulses
