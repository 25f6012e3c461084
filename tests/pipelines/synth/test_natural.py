"""The natural voices, where the extra is installed; where it is not, the sentence that names it."""

import importlib.util
import itertools

import numpy as np
import pytest
from microturn.pipelines import synth
from microturn.pipelines.synth.voices import Line
from microturn.schemas.errors import InputError

INSTALLED = all(importlib.util.find_spec(name) for name in ("hibari", "onnx"))
LINES = ("What colour is the circle?", "Mm-hm.", "and the blue square on the right,", "You typed banana.", "Yes, it is red.", "Four,")


@pytest.fixture(scope="module")
def voices():
    if not INSTALLED:
        pytest.skip("the extra `voices` is not installed")
    from microturn.pipelines.synth.natural import natural_voices

    return natural_voices()


@pytest.mark.skipif(INSTALLED, reason="the extra `voices` is installed")
def test_without_the_extra_the_error_names_it(tmp_path):
    with pytest.raises(InputError, match="not installed") as refused:
        synth.make(tmp_path, voice="natural", layout="stereo", sessions=1)
    assert "pip install 'microturn[voices]'" in refused.value.hint
    assert not (tmp_path / "manifest.jsonl").exists()


@pytest.mark.parametrize("text", LINES)
def test_words_fill_their_line_and_silence_does_not(voices, text):
    line = Line(text)
    for voice in voices:
        spans = voice.spans(line)
        assert len(spans) == len(line.words) and spans[0].start == 0
        assert all(span.start % 2 == span.stop % 2 == 0 and span.stop - span.start > 400 for span in spans)
        assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
        for rate in (16_000, 24_000, 48_000):
            pcm = voice.pcm(line, rate).astype(int)
            assert len(pcm) * 16_000 == spans[-1].stop * rate
            assert np.abs(pcm[: rate // 100]).max() > 100 and np.abs(pcm[-rate // 50 :]).max() > 100, (
                "energy from the first to the last word"
            )


def test_a_pause_at_a_comma_lies_between_the_words(voices):
    for voice in voices:
        pcm, spans = voice.pcm(Line("Yes, it is red."), 16_000).astype(float), voice.spans(Line("Yes, it is red."))
        inside = np.sqrt(np.mean(pcm[spans[0].start : spans[0].stop] ** 2))
        between = pcm[spans[0].stop + 320 : spans[1].start - 320]
        assert len(between) > 400 and np.sqrt(np.mean(between**2)) < inside / 4


def test_the_same_line_is_the_same_samples(voices):
    for voice in voices:
        first = voice.pcm(Line("I am here."), 24_000)
        voice._spoken.cache_clear()
        assert first.tobytes() == voice.pcm(Line("I am here."), 24_000).tobytes()
