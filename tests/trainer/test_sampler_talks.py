"""What a talk says hangs on its key, its past and the seed: not on company, undone ticks or the batch. What was played is remembered."""

from dataclasses import replace

import pytest
import torch
from grammar import Tick
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.trainer.session.sampler import Sampling
from spoken_documents import FEW_IDS, LAYOUT, babbler, heard, sampler_of, ticks_said
from tensors import DTYPES, rows_that_differ

IDS = LAYOUT.ids
TICKS = range(-1, 5)
MODELS = {dtype: babbler(dtype) for dtype in (torch.float32, torch.bfloat16)}


def said(performed) -> tuple:
    """What was performed, comparable: ids, voice, bits of own mel."""
    return performed.ids, performed.speaks, None if performed.mel16 is None else performed.mel16.tobytes()


def perceived(seed, tick):
    return None if tick < 0 else heard(seed, tick)


def played_of(tick):
    """Some ticks are cut short."""
    return (4, 0, 4, 2, 4)[tick % 5]


def alone(dtype, key, sampling, seed=7):
    """What the talk with this key says with nobody else about."""
    sampler = sampler_of(MODELS[dtype], sampling)
    talk, done = sampler.begin(key, rows=300), []
    for tick in TICKS:
        done += map(said, sampler.perform([talk], [perceived(seed, tick)]))
        sampler.played(talk, played_of(tick))
    return done


@settings(max_examples=3, deadline=None)
@given(dtype=DTYPES, seed=st.integers(0, 1000), order=st.permutations(["us", "b", "c"]), late=st.integers(0, 2))
def test_a_talk_in_company_says_what_it_says_alone(dtype, seed, order, late):
    """Others come later, hear other things, are cut elsewhere and leave."""
    sampling = Sampling(seed=seed)
    sampler, talks, done = sampler_of(MODELS[dtype], sampling, sessions=3), {"us": None}, []
    talks["us"] = sampler.begin("us", rows=300)
    for tick in TICKS:
        if tick == late:
            talks |= {"b": sampler.begin("b", rows=300), "c": sampler.begin("c", rows=300)}
        if tick == 3:
            sampler.end(talks.pop("b"))
        here = [name for name in order if name in talks]
        seen = [perceived(7 if name == "us" else 8, tick if name == "us" else tick - late - 1) for name in here]
        performed = dict(zip(here, sampler.perform([talks[name] for name in here], seen), strict=True))
        done.append(said(performed["us"]))
        sampler.played(talks["us"], played_of(tick))
    assert done == alone(dtype, "us", sampling)


@pytest.mark.parametrize("dtype", MODELS, ids=["fp32", "bf16"])
def test_a_tick_that_is_undone_and_sampled_again_says_the_same(dtype):
    sampling = Sampling(seed=3)
    sampler, done = sampler_of(MODELS[dtype], sampling), []
    talk = sampler.begin("us", rows=300)
    for tick in TICKS:
        before = replace(talk, pieces=[*talk.pieces], pending=[*talk.pending])
        sampler.perform([talk], [perceived(99, tick)])  # something else is heard, and taken back
        sampler.engine.abort(talk.session)
        again = replace(before, pieces=[*before.pieces], pending=[*before.pending])
        first = said(sampler.perform([again], [perceived(7, tick)])[0])
        sampler.engine.abort(talk.session)
        talk = before
        assert said(sampler.perform([talk], [perceived(7, tick)])[0]) == first
        done.append(first)
        sampler.played(talk, played_of(tick))
    assert done == alone(dtype, "us", sampling)


def test_another_key_or_seed_says_something_else():
    found = {repr(alone(torch.float32, key, Sampling(seed=seed))) for key, seed in (("us", 0), ("us", 1), ("b", 0))}
    assert len(found) == 3


def spoken_tick(wants_control: bool, *, least: int = 3):
    """(sampler, talk) whose last tick speaks, holds enough ids, and control if that is wanted."""
    for seed in range(200):
        sampler = sampler_of(MODELS[torch.float32], Sampling(seed=seed))
        talk = sampler.begin("us", rows=300)
        sampler.perform([talk], [None])
        (performed,) = sampler.perform([talk], [heard(1, 0)])
        has_control, ends_in_text = any(id_ in IDS.slots for id_ in performed.ids), performed.ids[-1:] and performed.ids[-1] in FEW_IDS
        if performed.speaks and len(performed.ids) >= least and ends_in_text and has_control == wants_control:
            return sampler, talk
    raise AssertionError("no such tick")


def last_tick(talk) -> Tick:
    return ticks_said(talk.document())[-1]


def test_a_tick_played_whole_is_remembered_whole():
    sampler, talk = spoken_tick(False)
    ids, before = talk.performed.ids, talk.document()
    assert sampler.played(talk, 4) == () and talk.performed is None
    tick = last_tick(talk)
    assert tick.speak and (tick.said, tick.length) == ([*ids], 4 + 1 + len(ids) + 1 + 4)
    assert torch.equal(talk.document().own_codes, before.own_codes) and before.own_codes.any()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_frames_that_were_not_played_are_remembered_as_code_zero(frames):
    sampler, talk = spoken_tick(False)
    codes, ids = talk.document().own_codes[-4:], talk.performed.ids
    assert sampler.played(talk, frames) == ()
    tick, now = last_tick(talk), talk.document().own_codes[-4:]
    assert tick.speak and tick.said == [*ids]
    assert torch.equal(now[:frames], codes[:frames]) and not now[frames:].any() and codes[frames:].flatten(1).any(1).all()


def test_a_tick_that_was_not_played_becomes_silence_and_its_words_come_back():
    sampler, talk = spoken_tick(False)
    ids = talk.performed.ids
    assert sampler.played(talk, 0) == ids and len(ids) >= 3
    tick = last_tick(talk)
    assert not tick.speak and (tick.said, tick.length) == ([], 6)


def test_control_has_consequences_so_it_stays_with_what_stood_before_it():
    sampler, talk = spoken_tick(True)
    ids, busy = talk.performed.ids, talk.busy_slots
    unsaid = sampler.played(talk, 0)
    tick = last_tick(talk)
    kept = ids[: len(ids) - len(unsaid)]
    assert unsaid and not set(unsaid) & {*IDS.slots, IDS.delegate, IDS.cancel} and kept + unsaid == ids and kept[-1] in IDS.slots
    assert not tick.speak and tick.length == 6 + len(kept) and talk.busy_slots == busy and tick.control


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 4])
def test_what_is_remembered_is_what_the_next_tick_follows_from(frames):
    """The trainer's forward over the remembered document has the rows of the session, after the cut too."""
    model = MODELS[torch.float32]
    sampler, talk = spoken_tick(False)
    sampler.played(talk, frames)
    appended, append = [], sampler.engine.append

    def kept(pieces):
        appended.append((talk.session.rows, append(pieces)[0]))
        return [appended[-1][1]]

    sampler.engine.append = kept
    sampler.perform([talk], [heard(1, 1)])
    with torch.no_grad():
        whole = model(talk.document()).hidden_TD
    assert all(rows_that_differ(rows, whole[start : start + len(rows)]) == 0 for start, rows in appended)
    assert talk.document().rows.num_rows == talk.session.rows + sum(piece.rows.num_rows for piece in talk.pending)


def test_silence_cannot_be_cut_and_nothing_is_played_twice():
    sampler, talk = spoken_tick(False)
    for frames in (-1, 5):
        with pytest.raises(InputError, match=f"{frames} frames played of session 'us', which has a tick"):
            sampler.played(talk, frames)
    sampler.played(talk, 3)
    with pytest.raises(InputError, match="has no tick to play"):
        sampler.played(talk, 3)
    while sampler.perform([talk], [heard(2, talk.session.rows)])[0].speaks:
        pass
    before = talk.document().ids
    assert sampler.played(talk, 0) == () and torch.equal(talk.document().ids, before)


def test_a_tick_that_nobody_asked_about_was_played_whole():
    (one, told), (other, silent) = spoken_tick(False), spoken_tick(False)
    one.played(told, 4)
    for sampler, talk in ((one, told), (other, silent)):
        sampler.perform([talk], [heard(1, 1)])
    assert torch.equal(told.document().ids, silent.document().ids) and torch.equal(told.document().own_codes, silent.document().own_codes)
