"""Voices: a line of text in, the place of each word and int16 PCM out. Here the procedural ones; those of the extra are in `natural.py`.

A voice answers for one line at a time (`Line`: a phrase spoken in one breath). Everything it says about time is in *even* samples of the
16 kHz session clock, so that a word begins and ends on a whole sample at 8, 16, 24 and 48 kHz alike.
"""

import random
import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .formants import Speaker, Tune, word_pcm, word_samples

VoiceKind = Literal["procedural", "natural"]


class Span(NamedTuple):
    """Half-open interval in samples of the session clock, counted from the line's start."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Line:
    """What is said in one breath. Words are what spaces separate; punctuation stays with its word."""

    text: str
    tune: Tune = "fall"

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.text.split())


class Voice(Protocol):
    """Someone who can speak. Both methods give the same answer every time they are asked."""

    name: str

    def spans(self, line: Line) -> tuple[Span, ...]:
        """Where each word lies; the first starts at 0."""
        ...

    def pcm(self, line: Line, rate_hz: int) -> NDArray[np.int16]:
        """The line up to its last word's stop: int16 [stop · rate / 16000]."""
        ...

    def laugh(self, seed: int, rate_hz: int) -> NDArray[np.int16]:
        """A laugh, or an empty array when this voice cannot."""
        ...


class ProceduralVoice:
    """Word by word from `formants.py`. Truth is exact by construction: words are placed, and nothing sounds between them."""

    def __init__(self, speaker: Speaker) -> None:
        self.name = speaker.name
        self._speaker = speaker

    def spans(self, line: Line) -> tuple[Span, ...]:
        found, at = [], 0
        for i, word in enumerate(line.words):
            stop = at + word_samples(word, self._speaker)
            found.append(Span(at, stop))
            pause_ms = zlib.crc32(f"{line.text} {i} {self.name}".encode()) % 36  # words nearly touch; a comma is a breath
            at = stop + 16 * (pause_ms + (130 if word.endswith((",", ";")) else 0))
        return tuple(found)

    def pcm(self, line: Line, rate_hz: int) -> NDArray[np.int16]:
        spans = self.spans(line)
        out = np.zeros(spans[-1].stop * rate_hz // 16_000, np.int16)
        for i, (word, span) in enumerate(zip(line.words, spans, strict=True)):
            start = span.start * rate_hz // 16_000
            sound = word_pcm(word, self._speaker, line.tune if i == len(spans) - 1 else "flat", rate_hz)
            out[start : start + len(sound)] = sound
        return out

    def laugh(self, seed: int, rate_hz: int) -> NDArray[np.int16]:
        """Four to seven times `ha`, each quieter than the one before."""
        rng = random.Random(f"laugh {seed}")
        burst = word_pcm("ha", self._speaker, "fall", rate_hz)
        step = (word_samples("ha", self._speaker) + 2 * rng.randrange(400, 800)) * rate_hz // 16_000
        num = rng.randrange(4, 8)
        out = np.zeros((num - 1) * step + len(burst), np.int16)
        for i in range(num):
            out[i * step : i * step + len(burst)] = (burst * (0.8 * 0.85**i)).astype(np.int16)
        return out


def procedural_voices(seed: int, number: int) -> tuple[ProceduralVoice, ProceduralVoice]:
    """Assistant and user of pair `number`: a low and a high voice of the six that `seed` gives, in either order."""
    low, high = (_speaker(seed, number % 3 * 2 + i) for i in (0, 1))
    pair = (ProceduralVoice(low), ProceduralVoice(high))
    return pair if random.Random(f"order {seed} {number}").random() < 0.5 else (pair[1], pair[0])


def _speaker(seed: int, number: int) -> Speaker:
    rng = random.Random(f"speaker {seed} {number}")
    f0, scale = ((92, 128), (0.96, 1.04)) if number % 2 == 0 else ((178, 235), (1.1, 1.2))
    return Speaker(
        name=f"procedural-{seed}-{number}",
        f0_hz=round(rng.uniform(*f0), 1),
        formant_scale=round(rng.uniform(*scale), 3),
        pace=round(rng.uniform(0.8, 0.95), 3),
        breath=round(rng.uniform(0.01, 0.06), 3),
    )
