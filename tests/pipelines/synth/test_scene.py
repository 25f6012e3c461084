"""Laws of conversations, over seeds: they can be acted, and what the assistant says can be learned."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.synth.exchanges import DECK, ESSENTIAL
from microturn.pipelines.synth.grammar import COLOURS, NUMBERS
from microturn.pipelines.synth.play import make_scene
from microturn.pipelines.synth.scene import ASSISTANT, USER, Scene
from microturn.pipelines.synth.voices import procedural_voices

seeds = st.integers(0, 10_000)
LENGTH = 90 * 16_000


def scene_of(seed: int, num_samples: int = LENGTH, seen: bool = True, essential_first: bool = False) -> Scene:
    voices = procedural_voices(seed % 7, seed % 3)
    return make_scene(str(seed), num_samples, voices, seen=seen, essential_first=essential_first)


def sounds_of(scene: Scene, who: int) -> list[tuple[int, int]]:
    return sorted((x.start, x.stop) for x in (*scene.said, *scene.noises) if x.who == who)


def words_after(scene: Scene, sample: int, who: int, num_lines: int = 1) -> str:
    """What a participant says in his next lines."""
    lines = [s for s in scene.said if s.who == who and s.start >= sample][:num_lines]
    return " ".join(" ".join(s.line.words[: s.num_words]) for s in lines).lower()


@settings(deadline=None, max_examples=30)
@given(seed=seeds, seconds=st.integers(4, 120), seen=st.booleans())
def test_nobody_speaks_over_himself_or_outside_the_session(seed, seconds, seen):
    scene = scene_of(seed, seconds * 16_000, seen)
    for who in (ASSISTANT, USER):
        sounds = sounds_of(scene, who)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(sounds))
        assert all(0 <= start < stop <= scene.num_samples for start, stop in sounds)
    assert all(0 < h.at < scene.num_samples for h in scene.happenings)


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_every_time_is_whole_at_8_16_24_and_48_khz(seed):
    scene = scene_of(seed)
    edges = [edge for s in scene.said for span in s.spans for edge in (s.start + span.start, s.start + span.stop)]
    edges += [edge for n in scene.noises for edge in (n.start, n.stop)]
    assert edges and all(edge * rate % 16_000 == 0 for edge in edges for rate in (8_000, 16_000, 24_000, 48_000))


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_a_backchannel_is_short_and_inside_the_turn_of_the_other(seed):
    scene = scene_of(seed, essential_first=True)
    hums = [s for s in scene.said if s.manner == "backchannel"]
    assert hums
    for hum in hums:
        others = [(s.start, s.stop) for s in scene.said if s.who != hum.who and s.start - 8_000 < hum.stop and s.stop + 8_000 > hum.start]
        assert hum.stop - hum.start <= 16_000 and len(hum.line.words) <= 3
        assert min(a for a, _ in others) < hum.start and max(b for _, b in others) > hum.stop


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_who_is_interrupted_stops_within_two_seconds(seed):
    scene = scene_of(seed, essential_first=True)
    interruptions = [s for s in scene.said if s.manner == "interruption"]
    assert interruptions
    for said in interruptions:
        sounds = sounds_of(scene, 1 - said.who)
        assert any(start < said.stop and stop > said.start for start, stop in sounds), "it overlaps with the one who speaks"
        silent_from = max(stop for start, stop in sounds if start < said.start)
        for start, stop in sounds:  # a pause under half a second belongs to the turn
            silent_from = stop if said.start <= start < silent_from + 8_000 else silent_from
        assert said.start < silent_from < said.start + 32_000


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_the_essentials_are_all_there_in_a_minute(seed):
    scene = scene_of(seed, 66 * 16_000, essential_first=True)
    assert {e.__name__ for e in ESSENTIAL} <= set(scene.exchanges)
    assert {"typed", "delegate", "background"} <= {h.kind for h in scene.happenings}
    assert any(n.kind == "clap" for n in scene.noises)


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_results_answer_requests_and_are_said_after_they_arrived(seed):
    scene = scene_of(seed, 4 * LENGTH)
    open_slots: set[int] = set()
    for h in scene.happenings:
        if h.kind == "delegate":
            assert h.slot not in open_slots
            open_slots.add(h.slot)
        elif h.kind in ("background", "cancel"):
            assert h.slot in open_slots
            if h.kind == "cancel" or h.complete:
                open_slots.discard(h.slot)
        if h.kind == "background" and h.complete:
            degrees = int(re.search(r"(\d+) degrees", h.text).group(1))
            assert f"{NUMBERS[degrees]} degrees" in words_after(scene, h.at, ASSISTANT, 2)
        if h.kind == "typed":
            assert words_after(scene, h.at, ASSISTANT) == f"you typed {h.text}."


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_colours_are_answered_as_the_table_shows_them(seed):
    scene = scene_of(seed, 4 * LENGTH)
    asked = 0
    for said in scene.said:
        match = re.fullmatch(r"What colour (?:is|are) the (circle|square|triangle|star)s?\?", said.line.text)
        if match:
            table = [sight for sight in scene.sights if sight.start <= said.start][-1].table
            colour = next(c for shape, c, _ in table if shape == match.group(1))
            answer = words_after(scene, said.stop, ASSISTANT)
            assert colour in answer and not any(c in answer for c in COLOURS if c != colour)
            asked += 1
    assert asked


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_what_only_the_picture_tells_is_not_asked_without_one(seed):
    scene = scene_of(seed, 4 * LENGTH, seen=False)
    text = " ".join(s.line.text for s in scene.said)
    assert "wall" not in text and "door" not in text
    for sight in scene.sights[1:]:  # without a picture everything that is put on the table is said
        assert sight.table[-1][1] in words_after(scene, sight.start, USER)


def test_every_exchange_is_played_sooner_or_later():
    scenes = [scene_of(seed, 10 * LENGTH) for seed in range(3)]
    assert {name for scene in scenes for name in scene.exchanges} == {e.__name__ for e in DECK}


@pytest.mark.parametrize("seed", range(3))
def test_conversation_has_gaps_overlaps_and_silence(seed):
    scene = scene_of(seed, 6 * LENGTH)
    gaps = [b.start - a.stop for a, b in zip(scene.said, scene.said[1:], strict=False) if a.who != b.who]
    assert sum(gap < 0 for gap in gaps) > len(gaps) / 20
    positive = sorted(gap for gap in gaps if gap > 0)
    assert 1_600 < positive[len(positive) // 2] < 6_400, "half of the gaps last less than about 0.2 s"
    assert max(gaps) > 32_000


def test_equal_seeds_give_equal_scenes_and_others_do_not():
    assert scene_of(5) == scene_of(5)
    assert scene_of(5).said != scene_of(12).said
