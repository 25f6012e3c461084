"""Events, drawn and defined twice.

DRAWN holds little timelines. `a` and a line of `#` is the activity of a, `gap b a` and a line of `=` an expected gap, before b and after a.
One character is 250 ms: a second is `####`, a pause of `.` is short (under 0.5 s), a pause of `..` is not.

`by_definition` is the oracle for random activity: the sentences of the module's docstring as loops over all pairs.
"""

import re
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from microturn.schemas.spec import EventSpec
from microturn.transforms.events import Found, find

SPEC = EventSpec()
CHARACTER = 4_000  # samples of a drawn character: 250 ms, 5 frames
QUICK = settings(deadline=None, max_examples=200)

DRAWN = {
    "nobody speaks": """
        a                 ........
        b                 ........
    """,
    "a short pause belongs to the turn, one of half a second does not, and is no gap": """
        a                 .####.####..####.
        b                 .................
        turn a            .=========.......
        turn a            ............====.
    """,
    "a gap lies between turns of two": """
        a                 ####..........####
        b                 .......####.......
        turn a            ====..............
        gap b a           ....===...........
        turn b            .......====.......
        gap a b           ...........===....
        turn a            ..............====
    """,
    "a gap may be shorter than the pause that belongs to a turn": """
        a                 ####....
        b                 .....###
        turn a            ====....
        gap b a           ....=...
        turn b            .....===
    """,
    "turns that touch have neither gap nor overlap": """
        a                 ####....
        b                 ....####
        turn a            ====....
        turn b            ....====
    """,
    "a second inside another's turn is a backchannel: no turn, no overlap": """
        a                 ############
        b                 ....####....
        turn a            ============
        backchannel b a   ....====....
    """,
    "a little more than a second is a turn": """
        a                 ############
        b                 ....#####...
        turn a            ============
        turn b            ....=====...
        overlap b a       ....=====...
    """,
    "a backchannel may fall into the other's short pause": """
        a                 ####.#######
        b                 ....#.......
        turn a            ============
        backchannel b a   ....=.......
    """,
    "three words are a backchannel": """
        a                 ############
        b                 ....####....
        words b           ....www.....
        turn a            ============
        backchannel b a   ....====....
    """,
    "four words are a turn": """
        a                 ############
        b                 ....####....
        words b           ....wwww....
        turn a            ============
        turn b            ....====....
        overlap b a       ....====....
    """,
    "words elsewhere, or another's, do not count": """
        a                 ############......
        b                 ....####..........
        words a           wwwwwwwwwwww......
        words b           wwww....wwwwwwwwww
        turn a            ============......
        backchannel b a   ....====..........
    """,
    "a word that reaches into the stretch counts": """
        a                 ############
        b                 ....####....
        words b           ...wWww.....
        words b           .......wW...
        turn a            ============
        turn b            ....====....
        overlap b a       ....====....
    """,
    "who begins or ends together with the other is not inside": """
        a                 ########....########
        b                 ####............####
        turn a            ========............
        turn b            ====................
        overlap b a       ====................
        turn a            ............========
        turn b            ................====
        overlap b a       ................====
    """,
    "an interruption: the other stops within two seconds and the interrupter goes on": """
        a                 ##########........
        b                 .....#############
        turn a            ==========........
        turn b            .....=============
        overlap b a       .....=====........
        interruption b a  .....=====........
    """,
    "two seconds to the sample are within two seconds": """
        a                 ############......
        b                 ....##############
        turn a            ============......
        turn b            ....==============
        overlap b a       ....========......
        interruption b a  ....========......
    """,
    "one who speaks on for longer was not interrupted": """
        a                 #############.....
        b                 ....##############
        turn a            =============.....
        turn b            ....==============
        overlap b a       ....=========.....
    """,
    "who comes in and gives up first has interrupted nobody": """
        a                 ###########
        b                 ....######.
        turn a            ===========
        turn b            ....======.
        overlap b a       ....======.
    """,
    "who starts together has not come in": """
        a                 ######....
        b                 ##########
        turn a            ======....
        turn b            ==========
        overlap a b       ======....
    """,
    "a backchannel makes no gap: the floor stays with a": """
        a                 ########......
        b                 ..##......####
        turn a            ========......
        backchannel b a   ..==..........
        gap b a           ........==....
        turn b            ..........====
    """,
    "a third one's turn leaves no gap between two": """
        a                 ####..........
        b                 ..........####
        c                 ...########...
        turn a            ====..........
        turn c            ...========...
        overlap c a       ...=..........
        interruption c a  ...=..........
        turn b            ..........====
        overlap b c       ..........=...
        interruption b c  ..........=...
    """,
    "of two who stop together, each has a gap to whoever speaks next": """
        a                 ######....######
        b                 .#####..........
        c                 ..........######
        turn a            ======..........
        turn b            .=====..........
        overlap b a       .=====..........
        gap a b           ......====......
        gap c a           ......====......
        gap c b           ......====......
        turn a            ..........======
        turn c            ..........======
        overlap c a       ..........======
    """,
    "a backchannel inside two turns is one to each": """
        a                 ##########......
        b                 .########.......
        c                 ....##..........
        turn a            ==========......
        turn b            .========.......
        overlap b a       .========.......
        backchannel c a   ....==..........
        backchannel c b   ....==..........
    """,
    "a backchannel is to the one who still speaks after it": """
        a                 ######......
        b                 ..##########
        c                 .....##.....
        turn a            ======......
        turn b            ..==========
        overlap b a       ..====......
        interruption b a  ..====......
        backchannel c b   .....==.....
    """,
    "a backchannel inside a backchannel answers the turn around both": """
        a                 ############
        b                 ...####.....
        c                 ....##......
        turn a            ============
        backchannel b a   ...====.....
        backchannel c a   ....==......
    """,
}


def read(drawing):
    """(active, words, expected) of a drawing."""
    active, words, expected = {}, [], []
    for *label, line in map(str.split, drawing.strip().splitlines()):
        spans = [(m.start() * CHARACTER, m.end() * CHARACTER) for m in re.finditer(r"=+", line)]
        match label:
            case [name]:
                active[name] = np.repeat(np.array([c == "#" for c in line], np.uint8), 5)
            case ["words", name]:  # each w starts a word, a W is another 250 ms of it
                words += [(name, m.start() * CHARACTER, m.end() * CHARACTER) for m in re.finditer(r"wW*", line)]
            case [kind, name, *other]:
                expected += [Found(kind=kind, participant=name, other="".join(other), start=start, stop=stop) for start, stop in spans]
    return active, words, expected


def order(found):
    return found.start, found.stop, found.kind, found.participant, found.other


@pytest.mark.parametrize("name", DRAWN)
def test_events_are_found_as_drawn(name):
    active, words, expected = read(DRAWN[name])
    assert find(active, words, SPEC) == sorted(expected, key=order)


@pytest.mark.parametrize("at, counts", [(15_999, False), (16_000, True), (31_999, True), (32_000, False)])
def test_a_word_without_length_counts_where_it_stands(at, counts):
    active, words, _ = read(DRAWN["three words are a backchannel"])  # of b, in samples 16,000 to 32,000
    kinds = {found.kind for found in find(active, [*words, ("b", at, at)], SPEC)}
    assert ("backchannel" not in kinds) == counts


def test_the_drawings_show_every_kind_and_a_wrong_one_is_noticed():
    assert {f.kind for drawing in DRAWN.values() for f in read(drawing)[2]} == {"turn", "gap", "overlap", "backchannel", "interruption"}
    active, words, _ = read(DRAWN["a gap lies between turns of two"])
    _, _, other = read(DRAWN["turns that touch have neither gap nor overlap"])
    assert find(active, words, SPEC) != sorted(other, key=order)


def by_definition(active, words, spec):
    """The same events from frames and pairs: regular expressions, a recursion and quantifiers, no sweep and no search."""
    stretches = []
    for name, active_F in active.items():
        text = "".join("01"[x] for x in active_F)
        text = re.sub("(?<=1)0+(?=1)", lambda m: "01"[800 * len(m[0]) < spec.turn_pause_samples] * len(m[0]), text)
        stretches += [(name, m.start() * 800, m.end() * 800) for m in re.finditer("1+", text)]

    @cache
    def is_turn(stretch):
        name, start, stop = stretch
        num_words = sum(bool(set(range(a, max(b, a + 1), 100)) & set(range(start, stop, 100))) for who, a, b in words if who == name)
        short = stop - start <= spec.backchannel_max_samples and num_words <= spec.backchannel_max_words
        return not (short and any(n != name and a < start and stop < b and is_turn((n, a, b)) for n, a, b in stretches))

    turns = [stretch for stretch in stretches if is_turn(stretch)]
    found = {("turn", name, "", start, stop) for name, start, stop in turns}
    for one, a, b in turns:
        for two, c, d in turns:
            if one == two:
                continue
            if b < c and not any(start < c and b < stop for _, start, stop in turns):
                found.add(("gap", two, one, b, c))
            if max(a, c) < min(b, d) and (a, -b, one) < (c, -d, two):
                found.add(("overlap", two, one, max(a, c), min(b, d)))
            if a < c < b < d and spec.interruption_min_overlap_samples <= b - c <= spec.interruption_stop_samples:
                found.add(("interruption", two, one, c, b))
    for name, start, stop in set(stretches) - set(turns):
        found |= {("backchannel", name, n, start, stop) for n, a, b in turns if n != name and a < start and stop < b}
    return sorted((Found(kind=k, participant=p, other=o, start=a, stop=b) for k, p, o, a, b in found), key=order)


@st.composite
def conversations(draw, names="abcd", max_spans=14):
    """(active, words): up to four participants' activity as spans of 1–60 frames, anywhere; words on a grid of 100 samples."""
    num_frames = draw(st.integers(0, 200))
    active = {name: np.zeros(num_frames, np.uint8) for name in draw(st.permutations(names[: draw(st.integers(1, len(names)))]))}
    words = []
    for _ in range(draw(st.integers(0, max_spans))):
        name, first, length = draw(st.sampled_from(sorted(active))), draw(st.integers(0, 199)), draw(st.integers(1, 60))
        active[name][first : first + length] = 1
        for _ in range(draw(st.integers(0, 4))):
            at = first * 8 + draw(st.integers(-10, 500))
            words.append((name, at * 100, (at + draw(st.integers(0, 30))) * 100))
    return active, words


specs = st.builds(
    EventSpec,
    turn_pause_samples=st.sampled_from([1, 800, 1_200, 8_000]),
    backchannel_max_samples=st.sampled_from([0, 4_000, 16_000, 100_000]),
    backchannel_max_words=st.sampled_from([0, 1, 3]),
    interruption_stop_samples=st.sampled_from([0, 4_000, 32_000]),
    interruption_min_overlap_samples=st.sampled_from([0, 1_600, 8_000]),
)


@QUICK
@given(conversation=conversations(), spec=specs)
def test_events_are_what_the_definitions_say(conversation, spec):
    assert find(*conversation, spec) == by_definition(*conversation, spec)


def test_random_conversations_have_every_kind_of_event():
    kinds = set()

    @settings(deadline=None, max_examples=200, derandomize=True, database=None)
    @given(conversation=conversations())
    def look(conversation):
        kinds.update(found.kind for found in find(*conversation, SPEC))

    look()
    assert kinds == {"turn", "gap", "overlap", "backchannel", "interruption"}  # so the laws here are about something


@QUICK
@given(conversation=conversations(), frames_before=st.integers(0, 50), frames_after=st.integers(0, 50))
def test_shifting_all_activity_shifts_all_events(conversation, frames_before, frames_after):
    active, words = conversation
    by = frames_before * 800
    later = find(
        {name: np.pad(active_F, (frames_before, frames_after)) for name, active_F in active.items()},
        [(name, start + by, stop + by) for name, start, stop in words],
        SPEC,
    )
    moved = [(f.kind, f.participant, f.other, f.start + by, f.stop + by) for f in find(active, words, SPEC)]
    assert [(f.kind, f.participant, f.other, f.start, f.stop) for f in later] == moved


@QUICK
@given(conversation=conversations(), names=st.permutations("abcd"))
def test_exchanging_participants_mirrors_events(conversation, names):
    active, words = conversation
    found = find(active, words, SPEC)
    turns = [(f.start, f.stop) for f in found if f.kind == "turn"]
    assume(len(turns) == len(set(turns)))  # of two equal turns the names alone say which came second
    to = {"": ""} | dict(zip("abcd", names, strict=True))
    mirrored = find({to[name]: active_F for name, active_F in active.items()}, [(to[name], a, b) for name, a, b in words], SPEC)
    assert mirrored == sorted((replace(f, participant=to[f.participant], other=to[f.other]) for f in found), key=order)


@QUICK
@given(conversation=conversations(), data=st.data())
def test_neither_the_order_of_participants_nor_of_words_matters(conversation, data):
    active, words = conversation
    names = data.draw(st.permutations(list(active)))
    assert find(active, words, SPEC) == find({n: active[n] for n in names}, data.draw(st.permutations(words)), SPEC)


@QUICK
@given(conversation=conversations())
def test_every_active_frame_is_in_one_turn_or_one_backchannel_of_its_speaker(conversation):
    active, words = conversation
    found = find(active, words, SPEC)
    for name, active_F in active.items():
        spans = {(f.start, f.stop) for f in found if f.participant == name and f.kind in ("turn", "backchannel")}
        covered = np.zeros(len(active_F), int)
        for start, stop in spans:
            covered[start // 800 : stop // 800] += 1
        assert covered.max(initial=0) <= 1 and (covered[active_F == 1] == 1).all()


def test_activity_of_different_length_is_refused():
    with pytest.raises(ValueError, match=r"same frames for everybody, got \{'a': 3, 'b': 4\}"):
        find({"a": np.ones(3, np.uint8), "b": np.ones(4, np.uint8)}, [], SPEC)


def test_ten_hours_of_four_people_take_seconds():
    """0.8 s where this was written; comparing all pairs of their 43,000 stretches would take minutes."""
    active = {}
    for seed, name in enumerate("abcd"):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 60, 24_000)
        active[name] = np.repeat(np.arange(24_000) % 2, lengths)[:700_000].astype(np.uint8)
    words = [(name, at, at + 4_000) for name in active for at in range(0, 500_000_000, 20_000)]
    size = min(map(len, active.values()))
    begun = time.perf_counter()
    found = find({name: active_F[:size] for name, active_F in active.items()}, words, SPEC)
    assert len(found) > 40_000
    assert time.perf_counter() - begun < 90  # all pairs would take minutes
