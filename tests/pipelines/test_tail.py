"""Text that outlasts its speech: ticks without audio are added until all of it has been said, and nothing else changes."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bits import same_bits
from corpora import LAYOUT, SMALL, Raw, build, featurised, ledger, mono_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.schemas.clock import TICK_SAMPLES
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.schemas.record import Record
from microturn.transforms.tokens import tokenizer
from signals import speech

LONG = ("antidisestablishmentarianism", "floccinaucinihilipilification", "honorificabilitudinitatibus")
TAIL = 9  # ticks of it for these words in the last tick: 87 bytes with their spaces, 8 a tick, of which two come before the end


def talk(made: Raw, ticks: int, words: list[tuple[str, float, float]], *, extra: int = 0, samples: int = 0) -> dict:
    """`a` and `b` for so many ticks, `extra` more of them silent; `a` says the words."""
    made.rows.clear()
    count = samples or ticks * TICK_SAMPLES
    silence = np.zeros(extra * TICK_SAMPLES, np.float32)
    for seed, who in enumerate("ab"):
        made.sound(f"{who}.wav", np.concatenate([speech(count, seed + 1), silence]))
    transcripts = [{"path": made.words("a.json", words), "participant": "a"}]
    return made.add(id="talk", streams=[mono_stream(who, f"{who}.wav") for who in "ab"], transcripts=transcripts)


def said(windows: list[Record], layout: LayoutSpec = LAYOUT) -> str:
    """All text of own words that the tokens hold."""
    ids = [int(i) for w in windows for i in w.tokens[w.token_slot == Slot.SAY]]
    return tokenizer.load(layout).decode(ids)


def joined(windows: list[Record], name: str, axis: int = 0) -> np.ndarray:
    return np.concatenate([getattr(window, name) for window in windows], axis=axis)


@pytest.fixture
def made(tmp_path) -> Raw:
    return Raw(tmp_path / "raw")


def late(ticks: int) -> list[tuple[str, float, float]]:
    """Three long words that start in the last tick."""
    return [(word, ticks * 0.2 - 0.1, ticks * 0.2 - 0.05) for word in LONG]


@pytest.mark.parametrize("ticks", [7, 10, 12, 20])
def test_nothing_of_the_text_is_lost(made, ticks):
    """10 and 20 fill their last window exactly: the tail begins a window of its own."""
    receipt, views = featurised(talk(made, ticks, late(ticks)), made.folder)
    a, b = views["a"], views["b"]
    assert said(a) == "".join(" " + word for word in LONG)
    assert sum(w.num_ticks for w in a) == ticks + TAIL and sum(w.num_ticks for w in b) == ticks
    assert all(w.num_ticks <= SMALL.window_ticks for w in a) and [w.meta["first_tick"] for w in a] == [10 * k for k in range(len(a))]
    assert not any(a[-1].meta["carry_out"].values())
    assert sum(w.meta["tail_ticks"] for w in a) == TAIL and {w.meta["session_ticks"] for w in a} == {receipt.session_ticks} == {ticks}


@pytest.mark.parametrize("ticks", [7, 10])
def test_in_the_tail_nothing_is_real(made, ticks):
    _, views = featurised(talk(made, ticks, late(ticks)), made.folder, spec=SMALL.model_copy(update={"keep_heard_pcm": True}))
    a = views["a"]
    assert not joined(a, "heard_valid", 1)[:, ticks:].any() and joined(a, "heard_valid", 1)[:, :ticks].all()
    assert not joined(a, "heard_pcm", 1)[:, ticks:].any() and joined(a, "heard_pcm", 1).shape == (1, ticks + TAIL, TICK_SAMPLES)
    assert not joined(a, "activity", 1)[:, ticks:].any()
    for window in a:
        after = max(0, ticks - window.meta["first_tick"])
        assert not window.own_pcm[after:].any() and not window.own_valid[after:].any()


@pytest.mark.parametrize("samples", [10 * TICK_SAMPLES, 10 * TICK_SAMPLES - 700, 9 * TICK_SAMPLES + 1])
def test_the_codes_of_the_tail_are_those_of_the_audio_followed_by_zeros(made, samples):
    """The first frame after the end still hears the last 50 ms. The oracle is a recording that goes on silently."""
    _, views = featurised(talk(made, 10, late(9), samples=samples), made.folder)
    tail = joined(views["a"], "heard_dmel", 1)
    _, views = featurised(talk(made, 10, late(9), samples=samples, extra=25), made.folder)
    silent = joined(views["a"], "heard_dmel", 1)
    assert tail.shape[1] > 15 and same_bits(tail, silent[:, : tail.shape[1]])
    assert samples < 10 * TICK_SAMPLES or len(np.unique(tail[0, 10, 0])) > 1  # the frame that looks back is not silent
    assert len(np.unique(tail[0, 11:])) == 1


def test_a_tail_changes_nothing_before_it(made):
    _, with_tail = featurised(talk(made, 12, late(12)), made.folder)
    _, without = featurised(talk(made, 12, []), made.folder)
    for name, axis in (("heard_dmel", 1), ("heard_valid", 1), ("activity", 1)):
        assert same_bits(joined(with_tail["a"], name, axis)[:, :12], joined(without["a"], name, axis))
    for a, b in zip(with_tail["a"], without["a"], strict=False):
        assert same_bits(a.own_pcm[: len(b.own_pcm)], b.own_pcm)
    assert with_tail["b"][0].heard_dmel.tobytes() == without["b"][0].heard_dmel.tobytes()


def test_pictures_stay_where_they_are_when_a_window_grows(raw):
    row = next(row for row in raw.rows if row["id"] == "film")
    typed = [{"kind": "typed", "at": 2.9, "text": "x" * 120}]
    _, plain = featurised(row | {"events": []}, raw.folder)
    _, longer = featurised(row | {"events": typed}, raw.folder)
    a, b = plain["assistant"], longer["assistant"]
    assert sum(w.num_ticks for w in b) > sum(w.num_ticks for w in a)
    assert same_bits(joined(a, "patches"), joined(b, "patches")) and joined(a, "patches").any()
    ticks = [[w.meta["first_tick"] + int(t) for w in windows for t in w.picture_tick] for windows in (a, b)]
    assert ticks[0] == ticks[1]


def test_what_a_tail_may_last_is_limited_and_the_rest_is_still_there(made):
    layout = LayoutSpec(max_tail_ticks=4)
    _, views = featurised(talk(made, 7, late(7)), made.folder, layout=layout)
    a = views["a"]
    assert sum(w.num_ticks for w in a) == 11
    left = tokenizer.load(layout).decode(a[-1].meta["carry_out"]["say_ids"])
    assert said(a) + left == "".join(" " + word for word in LONG) and left


@pytest.mark.parametrize("shard_bytes", [1, 1 << 29])
def test_what_is_never_said_has_a_row_in_the_ledger_once(made, tmp_path, shard_bytes):
    build([talk(made, 7, late(7))], made.folder, tmp_path, layout=LayoutSpec(max_tail_ticks=4), shard_bytes=shard_bytes)
    (row,) = [row for row in ledger(tmp_path) if row["entry"] == "unsaid"]
    assert (row["session"], row["stream"], row["reason"], row["unit"]) == ("talk", "#view-a-own", "limit_tail", "word")
    found = Corpus.open(str(tmp_path))
    assert found.dataset["totals"]["words_unsaid"] == row["dropped"] > 0 and verify(found).faults == []
    build([talk(made, 7, late(7))], made.folder, tmp_path / "all", shard_bytes=shard_bytes)
    assert "unsaid" not in {row["entry"] for row in ledger(tmp_path / "all")}


@pytest.mark.parametrize("ticks", [7, 10])
def test_a_corpus_with_tails_verifies_in_shards_of_any_size(made, tmp_path, ticks):
    row = talk(made, ticks, late(ticks))
    contents = set()
    for size in (1, 100_000, 1 << 29):
        build([row], made.folder, tmp_path / str(size), shard_bytes=size)
        found = Corpus.open(str(tmp_path / str(size)))
        assert verify(found).faults == []
        contents.add(found.dataset["digests"]["content"])
    assert len(contents) == 1


words = st.lists(st.text("abcdefghijé漢", min_size=1, max_size=40), max_size=6)


@settings(deadline=None, max_examples=25)
@given(ticks=st.integers(1, 12), window_ticks=st.integers(1, 12), texts=words, data=st.data())
def test_every_word_is_said_whatever_the_windows_are(ticks, window_ticks, texts, data):
    starts = sorted(data.draw(st.lists(st.integers(0, ticks * 200 - 1), min_size=len(texts), max_size=len(texts)), label="ms"))
    with tempfile.TemporaryDirectory() as folder:
        made = Raw(Path(folder))
        row = talk(made, ticks, [(text, ms / 1000, ms / 1000) for text, ms in zip(texts, starts, strict=True)])
        _, views = featurised(row, made.folder, spec=SMALL.model_copy(update={"window_ticks": window_ticks}))
    a = views["a"]
    assert said(a) == "".join(" " + text for text in texts)
    assert [w.meta["first_tick"] for w in a] == list(range(0, sum(w.num_ticks for w in a), window_ticks))
    assert all(x.meta["carry_out"] == y.meta["carry_in"] for x, y in pairwise(a))
