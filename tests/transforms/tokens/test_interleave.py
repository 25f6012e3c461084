"""The tokens of a view. The golden is written by hand; `ticks_of` recognises FORMAT's grammar without knowing how it is made.

What equals what: recognised ticks = the slow rule, tick by tick; windows with carries = one window; what is said, typed and returned = what
went in.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from grammar import recognised, ticks_of
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import CorpusError
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.transforms.tokens.interleave import Carry, Interleaved, ViewWindow, interleave, tail_ticks
from microturn.transforms.tokens.tokenizer import BytesTokenizer

GOLDEN = Path(__file__).parent / "goldens" / "six_ticks.txt"
BYTES = BytesTokenizer()
LAYOUT = LayoutSpec()


# ---- a session to cut, and the strategies that draw it


@dataclass
class Session:
    """Everything that happens to one view, by tick of the session; what is beyond the end is nothing."""

    num_ticks: int
    patches: list[int] = field(default_factory=list)
    active: list[bool] = field(default_factory=list)
    say: dict[int, tuple[str, ...]] = field(default_factory=dict)
    typed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    background: dict[int, tuple[tuple[int, str, bool], ...]] = field(default_factory=dict)
    control: dict[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)

    def window(self, start: int, stop: int, layout: LayoutSpec) -> ViewWindow:
        def at(what, last):
            return tuple(what.get(tick, ()) for tick in range(start, last))

        padded = [False, *self.active, *[False] * (stop + 1)]
        return ViewWindow(
            starts_session=start == 0,
            first_tick=start,
            patches_T=np.array([*self.patches, *[0] * stop][start:stop]),
            own_active_T2=np.array(padded[start : stop + 2]),
            say=at(self.say, stop + 1 + layout.text_lead_ticks),
            typed=at(self.typed, stop),
            background=at(self.background, stop),
            control=at(self.control, stop + 1),
        )

    def run(self, layout: LayoutSpec, cuts=(), extra_ticks=0, tokenizer=BYTES) -> list[Interleaved]:
        edges = [0, *sorted({cut for cut in cuts if 0 < cut < self.num_ticks}), self.num_ticks]
        edges += [self.num_ticks + extra_ticks] if extra_ticks else []
        out, carry = [], Carry.empty()
        for start, stop in itertools.pairwise(edges):
            out.append(interleave(self.window(start, stop, layout), layout, tokenizer, carry))
            carry = Carry.from_json(out[-1].carry.to_json())
        return out


words = st.text("abé😀 ", min_size=0, max_size=12)
layouts = st.builds(
    LayoutSpec,
    say_quota=st.integers(2, 9),
    typed_quota=st.integers(1, 9),
    background_quota=st.integers(1, 9),
    text_lead_ticks=st.integers(0, 3),
    speak_hangover_ticks=st.integers(0, 1),
    word_prefix=st.sampled_from([" ", ""]),
)


@st.composite
def sessions(draw, max_ticks=14):
    n = draw(st.integers(1, max_ticks))
    ticks = st.integers(0, n - 1)

    def some(value):
        return draw(st.dictionaries(ticks, st.lists(value, min_size=1, max_size=4).map(tuple), max_size=6))

    return Session(
        num_ticks=n,
        patches=draw(st.lists(st.sampled_from([0, 0, 1, 6]), min_size=n, max_size=n)),
        active=draw(st.lists(st.booleans(), min_size=n, max_size=n)),
        say=some(words),
        typed=some(words),
        background=some(st.tuples(st.integers(0, 4), words, st.booleans())),
        control=some(st.tuples(st.sampled_from(["delegate", "cancel"]), st.integers(0, 4))),
    )


# ---- the golden


def test_six_ticks_are_what_a_person_wrote():
    happened, expected, lag = golden()
    made = interleave(happened, LAYOUT, BYTES, Carry.empty())
    assert spelled(made) == expected
    assert made.max_lag_ticks == lag and made.carry == Carry.empty()


def golden() -> tuple[ViewWindow, list[tuple[int, str]], int]:
    text = GOLDEN.read_text(encoding="utf-8")
    before, after, last = (
        text.split("tick | patches")[1].split("tick | tokens\n")[0],
        text.split("tick | tokens\n")[1],
        text.split("lag |")[1],
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in before.splitlines()[1:] if line.strip()]
    ticks, inside = rows[1:], rows[1:-1]
    window = ViewWindow(
        starts_session=True,
        first_tick=0,
        patches_T=np.array([int(row[1]) for row in inside]),
        own_active_T2=np.array([row[2] == "yes" for row in rows]),
        say=tuple(tuple(row[3].split()) for row in ticks),
        typed=tuple((row[4],) if row[4] else () for row in inside),
        background=tuple(((int(row[5][0]), row[5].split(" ", 2)[2], " complete " in row[5]),) if row[5] else () for row in inside),
        control=tuple(((row[6].split()[0], int(row[6].split()[1])),) if row[6] else () for row in ticks),
    )
    lines = [line.split(" | ") for line in after.split("\nlag")[0].splitlines() if line.strip()]
    return window, [(int(tick), tokens.strip()) for tick, tokens in lines], int(last)


def spelled(made: Interleaved) -> list[tuple[int, str]]:
    """(tick, tokens) of every P and G in the golden's spelling."""
    ids = LAYOUT.ids
    names = {id_: f"<{name}>" for name, id_ in ids.model_dump(exclude={"slots"}).items()}
    names |= {id_: f"<slot {i}>" for i, id_ in enumerate(ids.slots)} | {ids.own: "OWN", ids.heard: "HEARD", ids.patch: "PATCH"}
    slots = made.token_slot.tolist()
    starts = [
        n
        for n, slot in enumerate(slots)
        if slot == Slot.PERFORM or (slot in (Slot.PICTURE, Slot.HEARD) and slots[n - 1] in (Slot.VOICE, Slot.OWN))
    ]
    out = []
    for start, stop in itertools.pairwise([*starts, len(slots)]):
        (tick,) = set(made.token_tick[start:stop].tolist())
        runs = itertools.groupby(made.tokens[start:stop].tolist(), key=lambda id_: names.get(id_, "text"))
        out.append((tick, " ".join(_run(name, list(run)) for name, run in runs)))
    return out


def _run(name: str, ids: list[int]) -> str:
    if name == "text":
        return '"' + BYTES.decode(ids).replace("\n", "\\n") + '"'
    return name if len(ids) == 1 else f"{name} x{len(ids)}"


# ---- laws


@settings(max_examples=60, deadline=None)
@given(session=sessions(), layout=layouts, cuts=st.lists(st.integers(1, 13)))
def test_tokens_do_not_depend_on_where_windows_are_cut(session, layout, cuts):
    (whole,), parts = session.run(layout), session.run(layout, cuts)
    offsets = [0, *sorted({cut for cut in cuts if cut < session.num_ticks})]
    assert len(parts) == len(offsets)
    assert np.concatenate([part.tokens for part in parts]).tobytes() == whole.tokens.tobytes()
    assert np.concatenate([part.token_slot for part in parts]).tobytes() == whole.token_slot.tobytes()
    ticks = [part.token_tick + offset for part, offset in zip(parts, offsets, strict=True)]
    assert np.concatenate(ticks).tolist() == whole.token_tick.tolist()
    assert parts[-1].carry == whole.carry and max(part.max_lag_ticks for part in parts) == whole.max_lag_ticks


@settings(max_examples=60, deadline=None)
@given(session=sessions(), layout=layouts, cuts=st.lists(st.integers(1, 13)))
def test_text_is_never_lost(session, layout, cuts):
    tail = tail_ticks(session.run(layout, cuts)[-1].carry, layout)
    parts = session.run(layout, cuts, extra_ticks=tail)
    ticks = recognised(parts, layout)
    assert len(ticks) == 1 + session.num_ticks + tail and parts[-1].carry == Carry.empty()
    in_order = [(session.say.get(tick, ()), session.control.get(tick, ())) for tick in range(session.num_ticks)]
    assert BYTES.decode([id_ for tick in ticks for id_ in tick.said]) == "".join(
        layout.word_prefix + w for said, _ in in_order for w in said
    )
    assert [pair for tick in ticks for pair in tick.control] == [pair for _, pairs in in_order for pair in pairs]
    typed = [message + "\n" for tick in range(session.num_ticks) for message in session.typed.get(tick, ())]
    assert BYTES.decode([id_ for tick in ticks for id_ in tick.typed]) == "".join(typed)
    for slot in range(5):
        given_texts = [(text, done) for tick in sorted(session.background) for s, text, done in session.background[tick] if s == slot]
        results = [(ids, ended) for tick in ticks for s, ids, ended in tick.background if s == slot]
        wanted = "".join(text + "\0" * done for text, done in given_texts)  # NUL marks <end>: no drawn text holds one
        assert BYTES.decode([id_ for ids, ended in results for id_ in ids + [0] * ended]) == wanted


@settings(max_examples=50, deadline=None)
@given(session=sessions(), layout=layouts)
def test_the_tail_is_as_long_as_it_must_be(session, layout):
    (whole,) = session.run(layout)
    tail = tail_ticks(whole.carry, layout)
    assert (tail == 0) == (whole.carry == Carry.empty())
    if tail > 1:
        assert session.run(layout, extra_ticks=tail - 1)[-1].carry != Carry.empty()


@settings(max_examples=50, deadline=None)
@given(session=sessions(), layout=layouts)
def test_every_tick_keeps_the_grammar_and_the_quotas(session, layout):
    (whole,) = session.run(layout)
    ticks = recognised([whole], layout)
    assert [tick.perceived for tick in ticks] == [False] + [True] * session.num_ticks
    assert [tick.patches for tick in ticks[1:]] == session.patches
    for tick in ticks:
        assert tick.performed_ids <= layout.say_quota and len(tick.typed) <= layout.typed_quota
        assert all(len(ids) <= layout.background_quota for _, ids, _ in tick.background)
        slots = [slot for slot, _, _ in tick.background]
        assert slots == sorted(set(slots))
        perceived = tick.perceived * 4 + (tick.patches and 1 + tick.patches) + (len(tick.typed) and 1 + len(tick.typed))
        perceived += sum(2 + len(ids) + ended for _, ids, ended in tick.background)
        assert tick.length == perceived + 2 + tick.performed_ids + 4 * tick.speak  # silent: 6, speaking: 10 + m


@settings(max_examples=50, deadline=None)
@given(session=sessions(), hangover=st.integers(0, 1))
def test_speak_means_own_activity_in_the_next_tick_or_just_before_it(session, hangover):
    layout = LayoutSpec(speak_hangover_ticks=hangover)
    active = {tick for tick, is_active in enumerate(session.active) if is_active}
    ticks = recognised(session.run(layout), layout)
    for k, tick in enumerate(ticks, -1):
        assert tick.speak == any(k + 1 - back in active for back in range(hangover + 1))


@settings(max_examples=50, deadline=None)
@given(session=sessions(), lead=st.integers(0, 3))
def test_a_word_is_said_before_the_tick_in_which_it_sounds(session, lead):
    layout = LayoutSpec(say_quota=10_000, text_lead_ticks=lead, word_prefix=" ")
    (whole,) = session.run(layout)
    expected: list[str] = [""] * (session.num_ticks + 1)
    for tick, said in sorted(session.say.items()):
        expected[max(tick - 1 - lead, -1) + 1] += "".join(" " + word for word in said)
    assert [BYTES.decode(tick.said) for tick in ticks_of(whole.tokens, whole.token_slot, layout)] == expected
    assert whole.max_lag_ticks == 0


def test_a_silent_tick_is_six_tokens_and_a_speaking_one_ten_and_its_text():
    session = Session(num_ticks=3, patches=[0] * 3, active=[False, False, True], say={2: ("yes",)})
    assert [tick.length for tick in recognised(session.run(LAYOUT), LAYOUT)] == [2, 6, 10 + len(" yes"), 10]


@pytest.mark.parametrize(("num_chars", "lag"), [(1, 0), (7, 0), (8, 1), (15, 1), (16, 2)])
def test_the_lag_is_that_of_a_words_last_id(num_chars, lag):
    session = Session(num_ticks=9, patches=[0] * 9, active=[False] * 9, say={4: ("x" * num_chars,)})
    assert session.run(LAYOUT)[0].max_lag_ticks == lag
    assert max(part.max_lag_ticks for part in session.run(LAYOUT, cuts=[4, 5])) == lag


def test_a_control_pair_waits_rather_than_being_cut():
    session = Session(
        num_ticks=4, patches=[0] * 4, active=[False] * 4, say={1: ("sixchr",)}, control={1: (("delegate", 3),), 2: (("cancel", 3),)}
    )
    ticks = recognised(session.run(LAYOUT, cuts=[1, 2, 3]), LAYOUT)
    assert [tick.performed_ids for tick in ticks] == [0, 7, 4, 0, 0]
    assert ticks[2].control == [("delegate", 3), ("cancel", 3)]


def test_ids_are_int32_ticks_uint16_slots_uint8_and_in_range():
    made = interleave(golden()[0], LAYOUT, BYTES, Carry.empty())
    assert (made.tokens.dtype, made.token_tick.dtype, made.token_slot.dtype) == (np.int32, np.uint16, np.uint8)
    assert made.tokens.min() >= 0 and made.tokens.max() <= LAYOUT.ids.patch


@settings(max_examples=50, deadline=None)
@given(text=st.lists(st.characters() | st.sampled_from(["\ud83d", "\ude00", "\0", "\u202e", "\n", " "]), max_size=50).map("".join))
def test_hostile_text_comes_back_as_text(text):
    shown = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    session = Session(num_ticks=1, patches=[0], active=[True], say={0: (text,)}, typed={0: (text,)}, background={0: ((0, text, True),)})
    tail = tail_ticks(session.run(LAYOUT)[0].carry, LAYOUT)
    ticks = recognised(session.run(LAYOUT, extra_ticks=tail), LAYOUT)
    assert BYTES.decode([id_ for tick in ticks for id_ in tick.said]) == " " + shown
    assert BYTES.decode([id_ for tick in ticks for id_ in tick.typed]) == shown + "\n"


def test_a_text_of_ten_thousand_characters_takes_its_ticks():
    session = Session(num_ticks=2, patches=[0, 0], active=[False, False], say={0: ("a" * 9_999,)}, typed={1: ("b" * 79,)})
    carry = session.run(LAYOUT)[0].carry
    assert tail_ticks(carry, LAYOUT) == 10_000 // 8 - 3


# ---- controls: the tests above can fail


@settings(max_examples=50, deadline=None)
@given(session=sessions(), place=st.integers(0, 500))
def test_the_recogniser_refuses_a_token_out_of_place(session, place):
    (whole,) = session.run(LAYOUT)
    place %= len(whole.tokens)
    rest = np.delete(np.arange(len(whole.tokens)), place)
    full = ticks_of(whole.tokens, whole.token_slot, LAYOUT)
    try:
        less = ticks_of(whole.tokens[rest], whole.token_slot[rest], LAYOUT)
    except AssertionError:
        return
    assert whole.token_slot[place] in (Slot.SAY, Slot.TYPED, Slot.BACKGROUND, Slot.PATCH) and less != full


def test_the_recogniser_refuses_a_cut_pair():
    ids = LAYOUT.ids
    tokens = np.array([ids.perform, ids.delegate, ids.silent])
    with pytest.raises(AssertionError):
        ticks_of(tokens, np.array([Slot.PERFORM, Slot.CONTROL, Slot.VOICE]), LAYOUT)


def test_a_window_without_its_carry_loses_text():
    session = Session(num_ticks=4, patches=[0] * 4, active=[False] * 4, say={1: ("much too long for a tick",)})
    first, second = (session.window(start, start + 2, LAYOUT) for start in (0, 2))
    left = interleave(first, LAYOUT, BYTES, Carry.empty()).carry
    assert len(interleave(second, LAYOUT, BYTES, left).tokens) > len(interleave(second, LAYOUT, BYTES, Carry.empty()).tokens)


# ---- refusals


@pytest.mark.parametrize("change", [{"typed": ()}, {"say": ((),)}, {"own_active_T2": np.zeros(3, bool)}, {"patches_T": np.zeros(0, int)}])
def test_lengths_that_disagree_are_refused(change):
    fields = {name: getattr(golden()[0], name) for name in ViewWindow.__slots__} | change
    with pytest.raises(ValueError, match="ticks"):
        interleave(ViewWindow(**fields), LAYOUT, BYTES, Carry.empty())


@pytest.mark.parametrize("change", [{"speak_hangover_ticks": 2}, {"say_quota": 1}])
def test_layouts_that_a_window_cannot_keep_are_refused(change):
    layout = LAYOUT.model_copy(update=change)
    with pytest.raises(ValueError, match=next(iter(change))):
        interleave(golden()[0], layout, BYTES, Carry.empty())


@pytest.mark.parametrize(
    "change",
    [{"say_ids": [1]}, {"typed_ids": [1.5]}, {"typed_ids": None}, {"more": []}, {"background_ids": [1], "background_slots": [5]}],
)
def test_a_carry_that_is_none_is_refused(change):
    with pytest.raises(CorpusError, match=r"^here: not a carry"):
        Carry.from_json(Carry.empty().to_json() | change, where="here")
