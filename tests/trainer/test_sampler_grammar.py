"""Whatever is sampled obeys FORMAT.md section 4: with any weights, chance, company, slots under way and cuts."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.trainer.session import Perceived
from microturn.trainer.session.grammar import Grammar, Said
from microturn.trainer.session.rows import of_tick
from microturn.trainer.session.sampler import Sampling
from spoken_documents import FEW_IDS, LAYOUT, babbler, heard, sampler_of, ticks_said

IDS = LAYOUT.ids


@pytest.fixture(scope="module")
def model():
    return babbler()


def follows_slots(ticks) -> int:
    """How many controls the ticks have; a slot is delegated to when free, cancelled when busy; free again after its end or cancel."""
    busy, controls = set(), 0
    for tick in ticks:
        busy -= {slot for slot, _, ended in tick.background if ended}
        for kind, slot in tick.control:
            assert (slot in busy) == (kind == "cancel"), f"{kind} slot {slot} while {sorted(busy)} are busy"
            busy ^= {slot}
            controls += 1
    return controls


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    text_ids=st.sampled_from([FEW_IDS, range(256)]),
    played=st.lists(st.integers(0, 4), min_size=9, max_size=9),
    data=st.data(),
)
def test_every_sampled_tick_obeys_the_grammar(model, seed, temperature, text_ids, played, data):
    sampler = sampler_of(model, Sampling(seed=seed, temperature=temperature), text_ids)
    talks = [sampler.begin(key, rows=1000) for key in ("a", "b")]
    for tick in range(-1, 8):
        seen = []
        for talk in talks:
            ending = sorted(talk.busy_slots) if data.draw(st.booleans()) else []
            more = {"background": [(slot, list(b"so"), True) for slot in ending[:2]], "typed": list(b"a") * data.draw(st.integers(0, 2))}
            seen.append(None if tick < 0 else heard(seed, tick, **more))
        sampler.perform(talks, seen)
        sampler.played(talks[0], played[tick])
    for talk in talks:
        ticks = ticks_said(talk.document())
        assert len(ticks) == 9 and [tick.perceived for tick in ticks] == [False] + [True] * 8
        assert all(tick.performed_ids <= LAYOUT.say_quota for tick in ticks) and set().union(*(tick.said for tick in ticks)) <= {*text_ids}
        follows_slots(ticks)


def test_a_babbler_delegates_cancels_speaks_and_is_silent(model):
    """The law above would hold of a model that says nothing: this one says everything, in some ticks twice."""
    sampler = sampler_of(model, Sampling(seed=1))
    talk = sampler.begin("a", rows=2000)
    for tick in range(-1, 36):
        sampler.perform(
            [talk], [None if tick < 0 else heard(1, tick, background=[(s, [], True) for s in talk.busy_slots] * (tick % 4 == 0))]
        )
    ticks = ticks_said(talk.document())
    assert {kind for tick in ticks for kind, _ in tick.control} == {"delegate", "cancel"} and follows_slots(ticks) > 6
    assert max(len(tick.control) for tick in ticks) > 1 and {tick.speak for tick in ticks} == {True, False}


def walk(mask_of, choose, busy):
    """One G: the ids that `choose` takes among those allowed."""
    said, ids = Said(), []
    while not ids or ids[-1] not in (IDS.speak, IDS.silent):
        allowed = mask_of(said, busy).nonzero().flatten().tolist()
        assert allowed, f"nothing may come after {ids}"
        ids.append(choose(allowed))
        said = GRAMMAR.after(said, ids[-1])
    return ids


GRAMMAR = Grammar(LAYOUT, 280, FEW_IDS)


@settings(max_examples=100, deadline=None)
@given(busy=st.frozensets(st.integers(0, 4)), data=st.data())
def test_something_may_always_come_next_until_the_voice(busy, data):
    """Controls are preferred, so that all slots become busy within a tick."""

    def choose(allowed):
        controls = [id_ for id_ in allowed if id_ in (IDS.delegate, IDS.cancel, *IDS.slots)]
        return data.draw(st.sampled_from(controls if controls and data.draw(st.integers(0, 3)) else allowed))

    ids, now = walk(GRAMMAR.allowed, choose, busy), set(busy)
    assert len(ids) - 1 <= LAYOUT.say_quota
    for kind, slot in pairwise(ids):
        if kind in (IDS.delegate, IDS.cancel):
            assert (IDS.slots.index(slot) in now) == (kind == IDS.cancel)
            now ^= {IDS.slots.index(slot)}


def test_what_no_tick_may_hold_is_refused():
    eight = list(b"12345678")
    assert of_tick(heard(0, 0, typed=eight), LAYOUT).rows.num_rows == 13
    for more, words in (
        ({"typed": [*eight, 57]}, "9 typed ids"),
        ({"background": [(2, [65] * 17, False)]}, "17 ids of slot 2"),
        ({"background": [(-1, [], True)]}, "slots 0 … 4"),
    ):
        with pytest.raises(InputError, match=words):
            of_tick(heard(0, 0, **more), LAYOUT)
    with pytest.raises(InputError, match=r"hears uint8 \[4, 80\] of codes below 16, found uint8 \[3, 80\]"):
        of_tick(Perceived(heard=np.zeros((3, 80), np.uint8)), LAYOUT)
