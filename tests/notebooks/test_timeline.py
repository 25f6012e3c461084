"""The timeline: what a person reads of a window. The golden is text; the laws say that nothing of the window is left out or made up."""

import os
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.notebooks import lag, ticks, timeline
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.transforms.tokens.interleave import Carry, ViewWindow, interleave
from microturn.transforms.tokens.tokenizer import BytesTokenizer
from rich.cells import cell_len
from rich.console import Console

GOLDEN = Path(__file__).parent / "goldens" / "timeline.txt"
LAYOUT, BYTES = LayoutSpec(), BytesTokenizer()


def shown(record, width=100, start_tick=0, stop_tick=24, tokenizer=BYTES, **terminal):
    """The timeline as printed, without the spaces that fill lines."""
    console = Console(width=width, highlight=False, **terminal)
    with console.capture() as capture:
        console.print(timeline.timeline(record, LAYOUT, tokenizer, start_tick=start_tick, stop_tick=stop_tick))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def test_a_window_reads_as_in_the_golden(little):
    made = shown(little)
    if os.environ.get("MICROTURN_GOLDEN") == "rewrite":
        GOLDEN.write_text(made, encoding="utf-8")
    assert made == GOLDEN.read_text(encoding="utf-8")


def test_every_tick_is_shown_or_counted(little):
    for start, stop in ((0, 24), (4, 12), (7, 9), (20, 24)):
        body = shown(little, start_tick=start, stop_tick=stop).split("performed")[1]
        counted = [int(count) for count in re.findall(r"… (\d+) ticks", body)]
        single = re.findall(r"^0:00:\d\d\.\d +\d+ (?!.*…)", body, re.M)
        assert sum(counted) + len(single) == stop - start
        assert (start == 0) == ("the session begins" in body)


def test_silence_and_absence_are_told_apart(little):
    body = shown(little)
    assert "… 3 ticks not recorded" in body
    assert re.search(r"… \d ticks of silence, 1 ▣", body)


@pytest.mark.parametrize("width", (60, 80, 100, 133, 200))
def test_no_line_is_wider_than_the_terminal(little, width):
    lines = shown(little, width).splitlines()
    assert len(lines) > 20 and max(map(cell_len, lines)) <= width


def test_nothing_in_a_word_reaches_the_terminal(little):
    body = shown(little)
    assert r"\x1b[31mred" in body
    assert not [c for c in body if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_without_a_tokenizer_text_shows_as_ids(little):
    body = shown(little, 200, tokenizer=None)
    assert "[104 105 10]" in body and '"hi' not in body


def test_colour_adds_nothing_but_colour(little):
    plain, colourful = shown(little), shown(little, force_terminal=True, color_system="standard")
    assert "\x1b[" in colourful
    assert [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", colourful).splitlines()] == [line.split() for line in plain.splitlines()]


def test_a_turn_from_the_window_before_reaches_over(little):
    earlier = [{"kind": "turn", "participant": "guest", "other": "", "start": -6400, "stop": 1600}]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(timeline.timeline(little, LAYOUT, BYTES, start_tick=0, stop_tick=2, earlier_events=earlier))
    assert "┃" in next(line for line in capture.get().splitlines() if line.startswith("0:00:00.0"))
    assert "┃" not in next(line for line in shown(little, stop_tick=2).splitlines() if line.startswith("0:00:00.0"))


def test_of_several_who_are_heard_each_word_has_its_speaker(little):
    meta = little.meta | {"heard": [["guest", "other"]]}
    assert "(guest: What)" in shown(replace(little, meta=meta)) and "(What)" in shown(little)


def test_the_words_said_are_the_words_there_were(little):
    said = "".join(re.sub(r"<[^>]*>", "", piece)[1:-1] for tick in ticks.ticks(little, LAYOUT, BYTES) for piece in tick.said)
    assert said == " Extraordinary" + r" \x1b[31mred"


def test_a_range_that_nobody_chose_begins_where_something_happens(little, monkeypatch):
    monkeypatch.setattr(timeline, "SHOWN_TICKS", 5)
    late = {name: [row for row in getattr(little, name) if row["start"] >= 12 * 3200] for name in ("words", "events")}
    active = little.activity * (np.arange(24) >= 12).astype(np.uint8)
    assert timeline.interesting(little) == (0, 5)  # the tick before the first word
    assert timeline.interesting(replace(little, activity=active, **late)) == (11, 16)
    assert timeline.interesting(replace(little, activity=active * 0, words=[], events=[])) == (0, 5)


texts = st.lists(st.lists(st.text("abcdefg", min_size=1, max_size=12), max_size=3), min_size=1, max_size=12)
controls = st.lists(st.lists(st.tuples(st.sampled_from(["delegate", "cancel"]), st.integers(0, 4)), max_size=2), max_size=12)


@settings(max_examples=60, deadline=None)
@example(say=[[], [], ["a"]], control=[], lead=1, cut=0)
@given(say=texts, control=controls, lead=st.integers(0, 2), cut=st.integers(0, 12))
def test_the_lag_read_back_is_the_lag_that_was_made(say, control, lead, cut):
    layout = LayoutSpec(text_lead_ticks=lead, say_quota=4)
    num_ticks = len(say)
    beyond = [*say, *[[]] * (2 + lead)]
    control = [*control[:num_ticks], *[[]] * (1 + num_ticks - len(control[:num_ticks]))]
    carry = Carry.empty()
    for start, stop in ((0, min(cut, num_ticks)), (min(cut, num_ticks), num_ticks)):
        if start == stop:
            continue
        nothing = ((),) * (stop - start)
        window = ViewWindow(
            starts_session=start == 0,
            first_tick=start,
            patches_T=np.zeros(stop - start, np.int64),
            own_active_T2=np.zeros(stop - start + 2, bool),
            say=tuple(map(tuple, beyond[start : stop + 1 + lead])),
            typed=nothing,
            background=nothing,
            control=tuple(map(tuple, control[start : stop + 1])),
        )
        laid = interleave(window, layout, BYTES, carry)
        rows, late = lag.said_lags(laid.token_slot, window, carry, layout, BYTES)
        assert max(late, default=0) == laid.max_lag_ticks
        assert len(rows) == int(np.isin(laid.token_slot, lag.SAID).sum()) and (late >= 0).all()
        carry = laid.carry


def test_rows_tell_the_first_two_performances_apart(little):
    rows = lag.rows_of(little.token_slot)
    assert (np.diff(rows) >= 0).all() and rows[-1] == 24
    first, second = np.flatnonzero(little.token_slot == Slot.PERFORM)[:2]
    assert (rows[first], rows[second]) == (0, 1) and little.token_tick[first] == little.token_tick[second] == 0
