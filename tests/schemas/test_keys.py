"""Keys: any id becomes a plain name, a window's key parses from the right, splits are where they were."""

import re
from collections import Counter

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from microturn.schemas.keys import parse_window_key, session_key, session_order, split_of, window_key
from microturn.schemas.record import member_names

PLAIN = re.compile(r"[A-Za-z0-9_-]{1,48}")
hostile_ids = st.text(min_size=1, max_size=200)
plain_keys = st.from_regex(PLAIN, fullmatch=True)
views = st.from_regex(r"[a-z0-9_]{1,16}", fullmatch=True)
ticks = st.integers(0, 9_999_999)
SHARES = {"train": 0.98, "val": 0.01, "test": 0.01}


@given(session_id=hostile_ids)
@example(session_id="../../etc/passwd")
@example(session_id="a.b")  # a dot would end the key of a tar member
@example(session_id="plain\n")
@example(session_id="\0")
@example(session_id="—" * 100)
@example(session_id="x" * 49)
@settings(deadline=None, max_examples=300)
def test_every_key_is_plain(session_id):
    assert PLAIN.fullmatch(session_key(session_id))


@given(session_id=plain_keys)
@settings(deadline=None)
def test_a_plain_id_is_its_own_key(session_id):
    assert session_key(session_id) == session_id


@given(a=hostile_ids, b=hostile_ids)
@example(a="call 1", b="call/1")
@example(a="x" * 49, b="x" * 50)
@example(a="é", b="e\u0301")
@settings(deadline=None, max_examples=300)
def test_other_ids_have_other_keys(a, b):
    assume(a != b)
    assert session_key(a) != session_key(b)


def test_keys_are_where_they_were():
    """Golden; the digests are sha256sum's."""
    assert session_key("call 7/left") == "call-7-left-7558e4a2d733"
    assert session_key("日本") == "session-cf2abf0c5be3"
    assert session_order("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


@given(session=plain_keys, view=views, tick=ticks)
@example(session="a-b-0000000", view="p0", tick=300)
@example(session="-", view="_", tick=0)
@settings(deadline=None, max_examples=200)
def test_a_window_key_parses_from_the_right(session, view, tick):
    assert parse_window_key(window_key(session, view, tick)) == (session, view, tick)


@given(session=plain_keys, view=views, a=ticks, b=ticks)
@settings(deadline=None)
def test_windows_sort_by_key_as_by_time(session, view, a, b):
    assert (window_key(session, view, a) < window_key(session, view, b)) == (a < b)


@pytest.mark.parametrize(
    "no_key", ["", "a-p0-300", "a-p0-00003000", "a-P0-0000300", "-p0-0000300", "a.b-p0-0000300", "a-p0-0000300\n", "a-p0--000300"]
)
def test_what_is_no_window_key_is_refused(no_key):
    with pytest.raises(ValueError, match="is not <session>-<view>-<tick7>"):
        parse_window_key(no_key)


@pytest.mark.parametrize("tick", [-1, 10_000_000])
def test_a_tick_that_would_not_parse_makes_no_key(tick):
    with pytest.raises(AssertionError):
        window_key("a", "p0", tick)


def test_the_longest_member_fits_into_a_tar_name():
    longest = max((*member_names("npy"), *member_names("png")), key=len)
    assert len(f"{window_key('s' * 48, 'v' * 16, 0)}.{longest}") <= 100  # USTAR


def test_splits_are_where_they_were():
    """Golden; the first two bytes of sha256sum's digests, laid on [0, 1): test to 0.25, train to 0.75, val."""
    found = [split_of(f"s{n}", "", {"train": 2, "val": 1, "test": 1}) for n in range(10)]
    assert found == ["train", "train", "test", "val", "train", "train", "test", "test", "train", "test"]


def test_a_group_is_never_divided():
    thirds, ids = {"train": 1, "val": 1, "test": 1}, [f"s{n}" for n in range(50)]
    assert len({split_of(id_, "", thirds) for id_ in ids}) == 3
    assert len({split_of(id_, "speaker-9", thirds) for id_ in ids}) == 1


def test_the_shares_of_splits_converge():
    found = Counter(split_of(f"session-{n}", "", SHARES) for n in range(20_000))
    assert found.keys() == SHARES.keys()
    for name, share in SHARES.items():
        assert abs(found[name] - 20_000 * share) < 5 * (20_000 * share * (1 - share)) ** 0.5  # five deviations


@given(session_id=hostile_ids, scale=st.sampled_from([0.25, 1, 3, 100]))
@settings(deadline=None)
def test_a_split_depends_on_the_proportion_of_shares_and_not_on_their_order(session_id, scale):
    turned = {name: SHARES[name] * scale for name in reversed(SHARES)}
    assert split_of(session_id, "", SHARES) == split_of(session_id, "", turned)


def test_a_split_without_share_stays_empty():
    assert {split_of(str(n), "", {"train": 1, "val": 0, "test": 0}) for n in range(200)} == {"train"}
