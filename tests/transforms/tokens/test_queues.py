"""The three queues, one tick at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.transforms.tokens import queues
from microturn.transforms.tokens.tokenizer import BytesTokenizer

BYTES = BytesTokenizer()
LAYOUT = LayoutSpec()
IDS = LAYOUT.ids


def returned(*results):
    return queues.background_add(queues.NOTHING_RETURNED, results, LAYOUT, BYTES)


def emptied(step, queue, nothing):
    """What each tick gives until the queue is as if nothing had ever been there."""
    ticks = []
    while queue != nothing:
        ids, queue = step(queue, LAYOUT)
        ticks.append(ids)
    return ticks


def chars(string):
    return list(string.encode())


# ---- typed


def test_typed_text_goes_out_eight_ids_a_tick_behind_its_mark():
    queue = queues.typed_add(queues.NOTHING_TYPED, ["stop that", ""], BYTES)
    assert emptied(queues.typed_step, queue, queues.NOTHING_TYPED) == [[IDS.typed, *chars("stop tha")], [IDS.typed, *chars("t\n\n")]]


def test_nothing_typed_is_no_token():
    assert queues.typed_step(queues.typed_add(queues.NOTHING_TYPED, [], BYTES), LAYOUT) == ([], queues.NOTHING_TYPED)


# ---- background


@pytest.mark.parametrize(("num_chars", "num_ticks"), [(0, 1), (1, 1), (15, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_the_end_of_a_result_needs_no_quota(num_chars, num_ticks):
    ticks = emptied(queues.background_step, returned((2, "x" * num_chars, True)), queues.NOTHING_RETURNED)
    assert len(ticks) == num_ticks
    assert [tick[:2] for tick in ticks] == [[IDS.background, IDS.slots[2]]] * num_ticks
    assert [tick[-1] == IDS.end for tick in ticks] == [False] * (num_ticks - 1) + [True]
    assert sum(tick.count(ord("x")) for tick in ticks) == num_chars


def test_a_result_that_is_not_complete_has_no_end():
    assert emptied(queues.background_step, returned((0, "so far", False)), queues.NOTHING_RETURNED) == [
        [IDS.background, IDS.slots[0], *chars("so far")]
    ]


def test_two_results_of_one_slot_never_share_a_tick():
    ticks = emptied(queues.background_step, returned((1, "a", True), (1, "b", True)), queues.NOTHING_RETURNED)
    assert ticks == [[IDS.background, IDS.slots[1], ord(c), IDS.end] for c in "ab"]


def test_slots_go_out_side_by_side_in_their_order():
    ticks = emptied(queues.background_step, returned((4, "late", False), (0, "x" * 20, False)), queues.NOTHING_RETURNED)
    assert ticks[0] == [IDS.background, IDS.slots[0], *chars("x" * 16), IDS.background, IDS.slots[4], *chars("late")]
    assert ticks[1:] == [[IDS.background, IDS.slots[0], *chars("xxxx")]]


# ---- own words and control


def test_words_come_before_control_and_keep_their_order_behind_the_backlog():
    queue = queues.say_add(queues.NOTHING_TO_SAY, 0, ["abcdefg"], [("delegate", 2)], LAYOUT, BYTES)
    queue = queues.say_add(queue, 1, ["h"], [("cancel", 2)], LAYOUT, BYTES)
    out = []
    for tick in range(3):
        ids, slots, lag_ticks, queue = queues.say_step(queue, tick, LAYOUT)
        out.append((list(ids), [Slot(slot) for slot in slots], lag_ticks))
    pair = [Slot.CONTROL] * 2
    assert out == [
        (chars(" abcdefg"), [Slot.SAY] * 8, 0),
        ([IDS.delegate, IDS.slots[2], *chars(" h"), IDS.cancel, IDS.slots[2]], [*pair, Slot.SAY, Slot.SAY, *pair], 1),
        ([], [], 0),
    ]


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=12),
    quota=st.integers(2, 9),
)
def test_a_pair_is_never_cut_and_no_tick_is_wasted(arrivals, quota):
    layout = LAYOUT.model_copy(update={"say_quota": quota, "word_prefix": ""})
    queue = queues.NOTHING_TO_SAY
    for tick in range(200):
        num_chars, num_pairs = arrivals[tick] if tick < len(arrivals) else (0, 0)
        queue = queues.say_add(queue, tick, ["x" * num_chars], [("cancel", 1)] * num_pairs, layout, BYTES)
        waiting = len(queue.ids) - queue.done
        ids, slots, _, queue = queues.say_step(queue, tick, layout)
        controls = [id_ for id_, slot in zip(ids, slots, strict=True) if slot == Slot.CONTROL]
        assert controls == [IDS.cancel, IDS.slots[1]] * (len(controls) // 2)
        assert min(waiting, quota - 1) <= len(ids) <= quota
    assert queue == queues.NOTHING_TO_SAY


def test_an_old_state_can_be_returned_to():
    queue = queues.typed_add(queues.NOTHING_TYPED, ["a long message that waits"], BYTES)
    first, later = queues.typed_step(queue, LAYOUT)
    queues.typed_add(later, ["and more"], BYTES)
    assert queues.typed_step(queue, LAYOUT) == (first, later)


@pytest.mark.parametrize("slot", [-1, 5])
def test_a_slot_that_is_none_is_refused(slot):
    with pytest.raises(ValueError, match="slot"):
        returned((slot, "x", True))
    with pytest.raises(ValueError, match="slot"):
        queues.say_add(queues.NOTHING_TO_SAY, 0, [], [("delegate", slot)], LAYOUT, BYTES)


def test_a_control_that_is_none_is_refused():
    with pytest.raises(ValueError, match="delegate or cancel"):
        queues.control_pair("speak", 0, LAYOUT)
