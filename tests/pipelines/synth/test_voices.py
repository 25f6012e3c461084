"""Laws of the voices: what a model can hear in them, and that places and sounds agree at every rate."""

import itertools

import numpy as np
import pytest
from bits import same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.synth.formants import Speaker, word_pcm, word_samples
from microturn.pipelines.synth.grammar import CITIES, COLOURS, NUMBERS, SHAPES, THINGS
from microturn.pipelines.synth.voices import Line, procedural_voices

RATES = (8_000, 16_000, 24_000, 48_000)
WORDS = (*COLOURS, *NUMBERS, *SHAPES, *THINGS, *CITIES, "Mm-hm.", "I", "a", "What", "Okay,")
words = st.sampled_from(WORDS)


def pitch_hz(samples: np.ndarray, rate: int) -> float:
    """By autocorrelation, 70 to 400 Hz."""
    x = samples.astype(float)
    x = np.convolve(x * x, np.ones(rate // 2000), "same") - np.mean(x * x)  # energy follows the pulses
    products = np.correlate(x, x, "full")[len(x) - 1 :]
    low, high = rate // 400, rate // 70
    return rate / (low + int(np.argmax(products[low:high])))


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(words, min_size=1, max_size=6), seed=st.integers(0, 50), who=st.integers(0, 1))
def test_spans_do_not_depend_on_the_rate_and_pcm_has_their_length(texts, seed, who):
    voice, line = procedural_voices(seed, seed % 3)[who], Line(" ".join(texts))
    spans = voice.spans(line)
    assert len(spans) == len(texts) and spans[0].start == 0
    assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
    for rate in RATES:
        pcm = voice.pcm(line, rate)
        assert len(pcm) * 16_000 == spans[-1].stop * rate
        for a, b in itertools.pairwise(spans):
            assert not pcm[a.stop * rate // 16_000 : b.start * rate // 16_000].any()


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_loud_from_its_first_millisecond_and_never_clips_for_long(word):
    for number in range(3):
        for voice in procedural_voices(1, number):
            pcm = voice.pcm(Line(word), 16_000).astype(int)
            assert np.abs(pcm[:16]).max() > 200
            assert (np.abs(pcm) >= 32_767).mean() < 0.001
            assert 900 < np.sqrt((pcm**2).mean()) < 4000


@pytest.mark.parametrize("seed", range(6))
def test_the_two_voices_of_a_pair_differ_in_pitch(seed):
    for number in range(3):
        pair = sorted(pitch_hz(voice.pcm(Line("aaaa eeee", "flat"), 16_000), 16_000) for voice in procedural_voices(seed, number))
        assert pair[1] > 1.25 * pair[0]
        assert len({voice.name for voice in procedural_voices(seed, number)}) == 2


@pytest.mark.parametrize("f0", [100.0, 200.0])
def test_a_question_rises_and_a_statement_falls(f0):
    speaker = Speaker(name="x", f0_hz=f0, formant_scale=1.0)
    first, last = ({}, {})
    for tune in ("rise", "fall"):
        pcm = word_pcm("aeaeaeae", speaker, tune, 16_000)
        first[tune], last[tune] = pitch_hz(pcm[:2400], 16_000), pitch_hz(pcm[-2400:], 16_000)
    assert last["rise"] > 1.15 * first["rise"] and last["fall"] < 0.9 * first["fall"]


def test_words_differ_more_from_each_other_than_from_themselves():
    """A nearest neighbour on mean spectra tells ten number words apart, across two tunes."""
    speaker = Speaker(name="x", f0_hz=110, formant_scale=1.0)

    def spectrum(word: str, tune: str) -> np.ndarray:
        pcm = word_pcm(word, speaker, tune, 16_000)
        thirds = [np.abs(np.fft.rfft(part, 4096)) for part in np.array_split(pcm.astype(float), 3)]
        bands = np.concatenate([[band.mean() for band in np.array_split(third[:1600], 40)] for third in thirds])
        return np.log(bands + 1.0)

    known = {word: spectrum(word, "flat") for word in NUMBERS[:11]}
    heard = {word: min(known, key=lambda other, w=word: float(np.abs(known[other] - spectrum(w, "fall")).sum())) for word in known}
    assert sum(word == found for word, found in heard.items()) >= 10


def test_a_word_is_the_same_every_time_and_no_other_speaker_says_it_so():
    a, b = (Speaker(name=name, f0_hz=110, formant_scale=1.0) for name in "ab")
    first = word_pcm("banana", a, "flat", 24_000)
    word_pcm.cache_clear()
    assert same_bits(first, word_pcm("banana", a, "flat", 24_000))
    assert not same_bits(first, word_pcm("banana", b, "flat", 24_000))
    assert word_samples("banana", a) == word_samples("banana", b)
