"""Guesses at what was meant: one slip is seen through, and nothing far is offered."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from microturn.pipelines import runners
from microturn.pipelines.build_command import build_command
from microturn.pipelines.wording.near import keys_told, near, near_keys
from microturn.schemas.errors import InputError

OURS = [flag for parameter in build_command.params for flag in parameter.opts if flag.startswith("-")]
KEYS = [f"{session}-{view}-{tick:07}" for session in ("plain", "two-people") for view in ("left", "right") for tick in (0, 300)]
words = st.text(string.ascii_lowercase, min_size=5, max_size=12)


def hint_for(flag: str) -> str:
    with pytest.raises(InputError, match="no such option") as refusal:
        runners.refuse_unknown([flag], OURS)
    return refusal.value.hint


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--worker", "--workers"),
        ("--num-workers", "--workers"),
        ("--shard_byts=3", "--shard-bytes"),
        ("--dryrun", "--dry-run"),
        ("--token", "--tokenizer"),
        ("--pseudonymize", "--pseudonymise"),
        ("--Staging", "--staging"),
        ("--runnr=DaskRunner", "--runner"),
    ],
)
def test_a_slip_is_seen_through_and_our_own_options_come_first(typed, meant):
    assert hint_for(typed) == f"did you mean {meant}?"


@pytest.mark.parametrize(
    "typed", ["--threads", "--out", "--quiet", "--n", "--jobs", "--seed", "--resume", "--format", "--output", "--lang"]
)
def test_what_is_far_from_every_option_gets_no_guess(typed):
    assert hint_for(typed) == "see --help, and Beam's options"


@given(words, st.lists(words, max_size=8))
def test_no_guess_has_a_length_far_from_what_was_typed(typed, known):
    for guess in near(typed, known, n=3):
        assert 0.5 <= len(guess) / len(typed) <= 2


@given(words, st.integers(0, 4), st.sampled_from(string.ascii_lowercase))
def test_one_wrong_letter_is_always_seen_through(word, at, letter):
    assert near(f"{word[:at]}{letter}{word[at + 1 :]}", [word]) == [word]


def test_the_tick_that_all_keys_share_makes_none_near():
    assert near_keys("somebody-left-0000000", KEYS) == [] and keys_told("somebody-left-0000000", KEYS) == f"for example {KEYS[0]}"
    assert near_keys("plian-left-0000300", KEYS)[0] == "plain-left-0000300" and near_keys("two-peple", KEYS)[0] == "two-people-left-0000000"
    assert keys_told("x", []) == "the corpus holds no window"
