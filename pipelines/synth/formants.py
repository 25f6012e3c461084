"""Spoken words from letters: pulses and noise through formants. Word and speaker in, int16 PCM out.

The result is not meant to sound like a person. It has what a model of conversation needs from speech: a spectrum that tells the word, a
pitch that tells the speaker and whether a sentence asks or ends, and an onset and an end that are exact to the sample. A word has the
same length in samples of the session clock at every rate. Cost: about 1 ms a word at 24 kHz; callers cache.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Tune = Literal["flat", "fall", "rise"]

STEP_SAMPLES = 80  # 5 ms of the session clock: parameters of the voice change once a step
FORMANT_WIDTHS_HZ = (90.0, 110.0, 170.0, 250.0)
FORMANT_GAINS = (1.0, 0.5, 0.22, 0.1)  # falls with frequency as a glottal source does
PITCH_OF_TUNE = {"flat": (1.03, 0.97), "fall": (1.0, 0.72), "rise": (0.98, 1.4)}  # factor of f0 at the word's start and end
ONSET_SECONDS, RELEASE_SECONDS = 0.0003, 0.004
LEVEL = 3000.0  # RMS of the loudest 20 ms, in int16 steps: about -21 dB re full scale
NUM_BINS = 161  # of 50 Hz: nothing sounds above 8 kHz, at any rate


class Sound(NamedTuple):
    """A stretch of one class of speech sound.

    Attributes:
        formants_hz: the lowest three; the fourth is 3500 Hz.
        steps: how long, in steps of 5 ms.
        voiced, noise: gains of pulses and of noise.
        noise_hz, noise_width_hz: where the noise lies; width 0 sends it through the formants (a whisper, as in h).
    """

    formants_hz: tuple[int, int, int]
    steps: int
    voiced: float
    noise: float
    noise_hz: int = 0
    noise_width_hz: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Speaker:
    """Who speaks: pitch, length of the vocal tract, pace, breath. Frozen and hashable: it is the key of the caches."""

    name: str
    f0_hz: float
    formant_scale: float
    pace: float = 1.0  # factor on durations
    breath: float = 0.03


# Formants of vowels: Peterson and Barney, "Control methods used in a study of the vowels" (1952), averages of men.
_VOWELS = {
    "a": (660, 1720, 2410),
    "e": (530, 1840, 2480),
    "i": (390, 1990, 2550),
    "o": (570, 840, 2410),
    "u": (640, 1190, 2390),
    "y": (300, 2200, 2900),
    "ee": (270, 2290, 3010),
    "ea": (290, 2200, 2950),
    "ey": (400, 2100, 2700),
    "ay": (480, 2000, 2600),
    "ow": (500, 900, 2300),
    "ou": (350, 900, 2240),
    "oo": (300, 870, 2240),
    "er": (490, 1350, 1690),
    "ar": (730, 1090, 2440),
    "or": (570, 840, 2100),
}
_LIQUIDS = {"l": (360, 1100, 2600), "r": (330, 1060, 1380), "w": (300, 610, 2200), "m": (280, 900, 2200), "n": (280, 1700, 2600)}
_HISSES = {
    "s": (6200, 1600, 0.0),
    "z": (5800, 1600, 0.3),
    "sh": (2900, 900, 0.0),
    "f": (4200, 3500, 0.0),
    "v": (3800, 3500, 0.35),
    "th": (5000, 4000, 0.1),
    "x": (5500, 1800, 0.0),
}
_STOPS = {"p": 900, "b": 700, "t": 4200, "d": 3600, "k": 1900, "c": 1900, "q": 1700, "g": 1500, "ch": 3000, "j": 2700}


def _sounds_of_letters() -> dict[str, tuple[Sound, ...]]:
    table: dict[str, tuple[Sound, ...]] = {"h": (Sound((500, 1500, 2500), 11, 0.0, 0.35),)}
    for letters, formants in _VOWELS.items():
        table[letters] = (Sound(formants, 20 if len(letters) == 1 else 27, 1.0, 0.0),)
    for letters, formants in _LIQUIDS.items():
        table[letters] = (Sound(formants, 14, 0.55, 0.0),)
    for letters, (centre, width, voiced) in _HISSES.items():
        table[letters] = (Sound((350, 1500, 2500), 17, voiced, 0.3, centre, width),)
    for letters, centre in _STOPS.items():
        closure = Sound((300, 1500, 2500), 7, 0.03 if letters in "bdgj" else 0.0, 0.0)
        table[letters] = (closure, Sound((350, 1500, 2500), 6, 0.2 if letters in "bdgj" else 0.0, 0.5, centre, 1500))
    return table


SOUNDS = _sounds_of_letters()


@lru_cache(maxsize=4096)
def sounds_of(word: str) -> tuple[Sound, ...]:
    """The sounds of a word, from its letters, longest spelling first. Doubled letters count once; a stop at the start has no closure."""
    letters = [c for c in word.lower() if c.isascii() and c.isalnum()]
    text = "".join(c for i, c in enumerate(letters) if i == 0 or c != letters[i - 1] or c in "eo")
    found: list[Sound] = []
    at = 0
    while at < len(text):
        size = 2 if text[at : at + 2] in SOUNDS else 1
        found.extend(SOUNDS.get(text[at : at + size], SOUNDS["u"]))
        at += size
    if len(found) > 1 and found[0].voiced < 0.1 and found[0].noise == 0.0:
        found = found[1:]
    return tuple(found) or SOUNDS["u"]


def word_samples(word: str, speaker: Speaker) -> int:
    """Length of the word in samples of the session clock; always even, so that it is whole at 8, 16, 24 and 48 kHz."""
    return 2 * round(sum(sound.steps for sound in sounds_of(word)) * STEP_SAMPLES * speaker.pace / 2)


@lru_cache(maxsize=3000)
def word_pcm(word: str, speaker: Speaker, tune: Tune, rate_hz: int) -> NDArray[np.int16]:
    """int16 [n], n = word_samples · rate / 16000: loud from its first millisecond to its last but a few. The array is shared: read-only.

    Letters: F frames of 20 ms every 5 ms, B bins of 50 Hz from 0.
    """
    num = word_samples(word, speaker) * rate_hz // 16_000
    hop = rate_hz * STEP_SAMPLES // 16_000
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(4 * hop) / (4 * hop))
    num_frames = num // hop + 5
    rows = _parameters(word, speaker)[np.clip(np.arange(num_frames) - 1, 0, None).clip(max=-(-num // hop) - 1)]
    pulses, noise = _excitation(
        num, (num_frames + 3) * hop, 3 * hop, speaker, tune, rate_hz, zlib.crc32(f"{word} {speaker.name} {tune}".encode())
    )
    num_bins = min(NUM_BINS, 2 * hop + 1)
    voiced_FB, noise_FB = _envelopes(rows, speaker, rate_hz, num_bins)
    pulses_FB, noises_FB = (np.fft.rfft(_framed(x, 4 * hop, hop) * window)[:, :num_bins] for x in (pulses, noise))
    frames = np.fft.irfft(pulses_FB * voiced_FB + noises_FB * noise_FB, 4 * hop) * window / 1.5
    out = np.zeros((num_frames + 3, hop))
    for quarter in range(4):
        out[quarter : quarter + num_frames] += frames[:, quarter * hop : (quarter + 1) * hop]
    return _finish(out.reshape(-1)[3 * hop : 3 * hop + num], hop, rate_hz)


def _framed(x, size, hop):
    return np.lib.stride_tricks.sliding_window_view(x, size)[::hop]


def _parameters(word: str, speaker: Speaker) -> NDArray[np.float64]:
    """[steps, 7]: three formants, voiced, noise, noise centre, noise width; smoothed over 25 ms, so that sounds run into each other."""
    rows = [
        (*s.formants_hz, s.voiced, s.noise + speaker.breath * s.voiced, s.noise_hz, s.noise_width_hz)
        for s in sounds_of(word)
        for _ in range(s.steps)
    ]
    wanted = -(-word_samples(word, speaker) // STEP_SAMPLES)
    table = np.array(rows, float)[np.minimum(np.arange(wanted) * len(rows) // wanted, len(rows) - 1)]
    padded = np.pad(table[:, :5], ((2, 2), (0, 0)), mode="edge")
    table[:, :5] = sum(padded[i : i + wanted] for i in range(5)) / 5
    return table


def _excitation(num, total, lead, speaker, tune, rate_hz, seed):
    """Pulses with every harmonic below 7.5 kHz, one at the word's first sample, and white noise; both [total], the word at `lead`."""
    first, last = PITCH_OF_TUNE[tune]
    at = (np.arange(total) - lead) / max(num, 1)
    f0 = speaker.f0_hz * (first + (last - first) * np.clip(at, 0, 1))
    turns = np.cumsum(f0 / rate_hz)
    turns -= turns[lead]
    num_harmonics = int(min(rate_hz / 2, 7500) / f0.max())
    half = np.sin(np.pi * turns)
    near = np.abs(half) < 1e-6
    half[near] = 1.0
    pulses = np.sin((2 * num_harmonics + 1) * np.pi * turns) / (2 * half) - 0.5  # Dirichlet's kernel: the sum of cos(h·x) over h = 1 … n
    pulses[near] = num_harmonics
    return pulses / np.sqrt(num_harmonics), np.random.default_rng(seed).standard_normal(total)


def _envelopes(rows, speaker, rate_hz, num_bins):
    """Gains [F, B] of pulses and of noise."""
    hz_B = 50.0 * np.arange(num_bins)
    tract_FB = np.zeros((len(rows), num_bins))
    for i, (width, gain) in enumerate(zip(FORMANT_WIDTHS_HZ, FORMANT_GAINS, strict=True)):
        centre_F = rows[:, i] * speaker.formant_scale if i < 3 else np.full(len(rows), 3500 * speaker.formant_scale)
        tract_FB += gain / np.sqrt(1 + ((hz_B - centre_F[:, None]) / (width / 2)) ** 2)
    centre_F, width_F = np.minimum(rows[:, 5], rate_hz * 0.42), rows[:, 6]  # a telephone's s lies at the top of its band
    hiss_FB = 0.5 / (1 + ((hz_B - centre_F[:, None]) / np.maximum(width_F, 1)[:, None]) ** 4)
    hiss_FB[width_F == 0] = tract_FB[width_F == 0]
    return tract_FB * rows[:, 3:4], hiss_FB * rows[:, 4:5]


def _finish(x, hop, rate_hz):
    """Levelled, with ramps at both ends, as int16."""
    energy = np.concatenate([np.zeros(4 * hop), np.cumsum(x * x)])
    loudest = (energy[4 * hop :] - energy[: -4 * hop]).max() / (4 * hop)
    x = x * (LEVEL / np.sqrt(loudest))
    up, down = max(2, round(ONSET_SECONDS * rate_hz)), round(RELEASE_SECONDS * rate_hz)
    x[:up] *= np.arange(1, up + 1) / up
    x[-down:] *= np.arange(down, 0, -1) / down
    pcm = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    pcm.flags.writeable = False
    return pcm
