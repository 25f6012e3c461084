"""Who hears and sees whom: a view's windows are the others as they were placed, and oneself; wherever the windows are cut."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile
from bits import same_bits
from corpora import SMALL, Raw, build, featurised, mono_stream, spoken
from media_makers import clap_film, film_file, steady_times
from microturn.pipelines.corpus import Corpus
from microturn.schemas.layout import Slot
from microturn.schemas.record import Record
from microturn.schemas.spec import FeatureSpec
from microturn.transforms import dmel
from numpy.typing import NDArray
from signals import speech

TICKS = 15
SAMPLES = TICKS * 3200
WHOLE = SMALL.model_copy(update={"window_ticks": 300})
KEPT = WHOLE.model_copy(update={"keep_heard_pcm": True})


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Raw:
    """Mono recordings of a, b and c as 16-bit wavs at 16 kHz: what is placed is what is in the file, to the bit."""
    raw = Raw(tmp_path_factory.mktemp("views"))
    for seed, who in enumerate("abc"):
        raw.sound(f"{who}.wav", 0.3 * speech(SAMPLES, seed + 1))
    raw.bytes("film.mp4", clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(25), 75), light=30))
    raw.bytes("other.mp4", clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(10), 30), light=5))
    return raw


def pcm_of(made: Raw, who: str) -> NDArray[np.int16]:
    return soundfile.read(made.folder / f"{who}.wav", dtype="int16")[0]


def session(*streams: dict[str, Any], roles: str = "a:assistant b:user", **more: Any) -> dict[str, Any]:
    people = [dict(zip(("id", "role"), person.split(":"), strict=True)) for person in roles.split()]
    return {"id": "s", "streams": list(streams), "participants": people, **more}


def whole(made: Raw, row: dict[str, Any], spec: FeatureSpec = WHOLE) -> dict[str, Record]:
    """View → its one window."""
    _, views = featurised(row, made.folder, spec=spec)
    return {view: window for view, (window,) in views.items()}


def voice(who: str, **more: Any) -> dict[str, Any]:
    return mono_stream(who, f"{who}.wav", **more)


def test_a_dyad_gives_two_views_and_each_hears_what_the_other_says(made):
    views = whole(made, session(voice("a"), voice("b")))
    assert views.keys() == {"a", "b"}
    for me, other in ("ab", "ba"):
        assert same_bits(views[me].own_pcm[:-1].reshape(-1), pcm_of(made, me))
        assert same_bits(views[me].heard_dmel[0].reshape(-1, 80), dmel.encode(pcm_of(made, other)))
        assert views[me].heard_valid.tolist() == [[3200] * TICKS] and views[me].own_valid.tolist() == [3200] * TICKS + [0]
        assert same_bits(views[me].activity[::-1], views[other].activity)
        assert views[me].meta["heard"] == [[other]] and views[me].meta["view"] == me
    assert views["a"].heard_dmel.tobytes() != views["b"].heard_dmel.tobytes()


def test_of_three_the_others_are_summed(made):
    views = whole(made, session(voice("a"), voice("b"), voice("c"), roles="a:assistant b:user c:user"))
    float_b, float_c = (pcm_of(made, who).astype(np.float32) / 32768 for who in "bc")
    assert views.keys() == {"a", "b", "c"} and views["a"].meta["heard"] == [["b", "c"]]
    assert same_bits(views["a"].heard_dmel[0].reshape(-1, 80), dmel.encode(float_b + float_c))
    assert views["a"].heard_dmel.shape[0] == 1 and views["a"].activity.shape[0] == 2


def test_or_each_of_them_is_a_stream_of_its_own(made):
    row = session(voice("a"), voice("c"), voice("b"), roles="a:assistant b:user c:user")
    views = whole(made, row, WHOLE.model_copy(update={"heard": "each", "keep_heard_pcm": True}))
    a = views["a"]
    assert a.meta["heard"] == [["b"], ["c"]] and a.heard_dmel.shape[0] == 2 and a.activity.shape[0] == 3
    for place, who in enumerate("bc"):
        assert same_bits(a.heard_dmel[place].reshape(-1, 80), dmel.encode(pcm_of(made, who)))
        assert same_bits(a.heard_pcm[place].reshape(-1), pcm_of(made, who))


def test_others_are_heard_and_never_act(made):
    views = whole(made, session(voice("a"), voice("b"), roles="a:assistant b:other"))
    assert views.keys() == {"a"} and views["a"].activity[0].any()


def test_an_assistant_without_a_voice_listens(made):
    views = whole(made, session(voice("b"), voice("c"), roles="me:assistant b:other c:other"))
    (me,) = views.values()
    assert not me.own_pcm.any() and not me.own_valid.any() and not me.activity[-1].any()
    assert me.activity[0].any() and me.meta["heard"] == [["b", "c"]]
    assert not (me.token_slot == Slot.OWN).any()


def test_a_user_without_a_voice_has_no_view(made):
    assert whole(made, session(voice("a"), roles="a:assistant b:user")).keys() == {"a"}


def test_whoever_hears_nobody_hears_nothing_that_is_real(made):
    a = whole(made, session(voice("a"), roles="a:assistant"))["a"]
    assert a.meta["heard"] == [[]] and not a.heard_valid.any() and not a.activity[0].any()
    assert same_bits(a.heard_dmel[0].reshape(-1, 80), dmel.encode(np.zeros(SAMPLES, np.float32)))


def test_views_of_assistants_only(made):
    spec = WHOLE.model_copy(update={"views": "assistant"})
    assert whole(made, session(voice("a"), voice("b")), spec).keys() == {"a"}
    assert whole(made, session(voice("a"), voice("b"), roles="a:assistant b:assistant"), spec).keys() == {"a", "b"}


def test_two_streams_of_one_participant_are_one_voice(made):
    made.bytes("b-late.wav", (made.folder / "b.wav").read_bytes())  # one file starts once
    row = session(voice("a"), voice("b"), {**voice("b", start=0.2), "id": "b-late", "path": "b-late.wav"})
    heard = whole(made, row)["a"].heard_dmel[0].reshape(-1, 80)
    b = pcm_of(made, "b").astype(np.float32) / 32768
    assert same_bits(heard, dmel.encode(np.concatenate([b, np.zeros(3200, np.float32)]) + np.concatenate([np.zeros(3200, np.float32), b])))


def test_gain_is_applied_and_recorded(made):
    views = whole(made, session(voice("a", gain=0.5), voice("b")))
    half = pcm_of(made, "a").astype(np.float32) / 32768 * np.float32(0.5)
    assert same_bits(views["b"].heard_dmel[0].reshape(-1, 80), dmel.encode(half))
    assert same_bits(views["a"].own_pcm[:-1].reshape(-1), np.rint(half * 32768).astype(np.int16))
    streams = {s["id"]: s for s in views["a"].meta["streams"]}
    assert (streams["a-audio"]["gain"], streams["b-audio"]["gain"]) == ("0.5", "1")
    assert abs(streams["a-audio"]["peak"] - float(np.abs(half).max())) < 1e-6
    db = {level["participant"]: level["db"] for level in views["a"].meta["levels"]}
    plain = {level["participant"]: level["db"] for level in whole(made, session(voice("a"), voice("b")))["a"].meta["levels"]}
    assert abs(plain["a"] - db["a"] - 6.02) <= 0.1 and plain["b"] == db["b"]


@pytest.mark.parametrize("starts", [(0, "0.5125"), ("-1.25", 0), (7, "7.00003125")])
def test_starts_are_placed_to_the_sample_and_written_down(made, starts):
    views = whole(made, session(voice("a", start=starts[0]), voice("b", start=starts[1])))
    first = [round(Fraction(str(s)) * 16_000) for s in starts]
    zero = min(first)
    for who, at in zip("ab", first, strict=True):
        own = views[who].own_pcm.reshape(-1)[: views[who].num_ticks * 3200]
        assert same_bits(own[at - zero : at - zero + SAMPLES], pcm_of(made, who))
        assert not own[: at - zero].any() and not own[at - zero + SAMPLES :].any()
        assert int(views[who].own_valid.sum()) == SAMPLES and (at == zero) == (views[who].own_valid[0] == 3200)
    recorded = {s["id"]: s["start_samples"] for s in views["a"].meta["streams"]}
    assert recorded == {"a-audio": first[0] - zero, "b-audio": first[1] - zero}
    assert views["a"].meta["session_samples"] == max(first) - zero + SAMPLES


@pytest.mark.parametrize("late", [Fraction(1, 2), Fraction(13, 10)])
def test_the_offset_of_sound_and_pictures_within_a_file_is_measured_and_written_down(made, late):
    """One of them starts later than the other by the container's own timestamps."""
    pictures, times = [np.zeros((48, 64, 3), np.uint8)] * 50, steady_times(Fraction(25), 50)
    for name, sound_start, film_start in (("sound", late, Fraction(0)), ("sight", Fraction(0), late)):
        sound = ("flac", speech(16_000, 1), 16_000, sound_start)
        made.bytes("late.mkv", film_file("matroska", "libx264", pictures, [film_start + t for t in times], sound=sound))
        streams = [{"id": kind, "path": "late.mkv", "kind": k, "participant": "b"} for kind, k in (("sound", "audio"), ("sight", "video"))]
        window = whole(made, session(voice("a"), *streams))["a"]
        offsets = {s["id"]: (s["offset_samples"], s["start_samples"]) for s in window.meta["streams"]}
        want = {"sound": (0, 0), "sight": (0, 0), "a-audio": (0, 0)} | {name: (late * 16_000, late * 16_000)}
        assert offsets == want
        assert window.heard_valid[0, 0] == (0 if name == "sound" else 3200)
        first = int(film_start * 16_000)  # then a picture every 640 samples
        assert window.picture_pts.size and all(pts >= first and (pts - first) % 640 == 0 for pts in window.picture_pts.flat)


def test_what_is_typed_is_perceived_by_the_others_and_what_comes_back_by_whom_it_is_for(made):
    events = [
        {"kind": "typed", "at": 0.5, "participant": "b", "text": "hey"},
        {"kind": "typed", "at": 0.9, "text": "all"},
        {"kind": "background", "at": 1, "participant": "a", "text": "found", "complete": True},
        {"kind": "delegate", "at": 0.7, "participant": "a", "slot": 2},
    ]
    views = whole(made, session(voice("a"), voice("b"), events=events))

    def ids(view: str, slot: Slot) -> list[int]:
        return [int(i) for i in views[view].tokens[views[view].token_slot == slot]]

    assert (
        bytes(i for i in ids("a", Slot.TYPED) if i < 256) == b"hey\nall\n" and bytes(i for i in ids("b", Slot.TYPED) if i < 256) == b"all\n"
    )
    assert bytes(i for i in ids("a", Slot.BACKGROUND) if i < 256) == b"found" and ids("b", Slot.BACKGROUND) == []
    assert len(ids("a", Slot.CONTROL)) == 2 and ids("b", Slot.CONTROL) == []
    assert {e["kind"] for e in views["b"].events} >= {"typed", "background", "delegate"}  # labels are everybody's


def test_the_words_of_others_are_labels_and_never_tokens(made):
    transcripts = [{"path": made.words(f"{who}.json", [(f"word{who}", 1.0, 1.2)]), "participant": who} for who in "ab"]
    views = whole(made, session(voice("a"), voice("b"), transcripts=transcripts))
    for who in "ab":
        say = views[who].tokens[views[who].token_slot == Slot.SAY]
        assert bytes(say.tolist()) == f" word{who}".encode()
        assert [w["text"] for w in views[who].words] == ["worda", "wordb"]


def test_one_sees_the_others_and_not_oneself(made):
    films = [
        {"id": f"{who}-video", "path": path, "kind": "video", "participant": who} for who, path in (("a", "film.mp4"), ("b", "other.mp4"))
    ]
    views = whole(made, session(voice("a"), voice("b"), *films))
    assert (views["a"].meta["pictures"]["participant"], views["b"].meta["pictures"]["participant"]) == ("b", "a")
    assert views["a"].patches.tobytes() != views["b"].patches.tobytes() and len(views["a"].patches) == len(views["b"].patches) == 3
    alone = whole(made, session(voice("a"), voice("b"), films[0]))
    assert alone["a"].meta["pictures"]["stream"] == "" and len(alone["a"].patches) == 0 and len(alone["b"].patches) == 3


def test_both_views_of_a_session_and_both_sessions_of_a_group_are_in_one_split(made, tmp_path):
    rows = [session(voice("a"), voice("b")) | {"id": f"s{k}", "group": f"g{k // 2}"} for k in range(8)]
    build(rows, made.folder, tmp_path / "out", splits={"x": 1, "y": 1, "z": 1})
    where: dict[str, set[str]] = {}
    for row in Corpus.open(str(tmp_path / "out")).rows():
        where.setdefault(f"g{int(row['session'][1:]) // 2}", set()).add(row["split"])
    assert all(len(splits) == 1 for splits in where.values()) and len(set.union(*where.values())) > 1


@pytest.fixture(scope="module")
def busy(made) -> dict[str, Any]:
    """A session with everything in it: overlapping voices, pictures, words that outlast it, typed and returned text."""
    films = {"id": "a-video", "path": "film.mp4", "kind": "video", "participant": "b"}
    words = [*spoken(2.6), ("antidisestablishmentarianism", 2.9, 2.95), ("floccinaucinihilipilification", 2.95, 3.0)]
    events = [
        {"kind": "typed", "at": 0.5, "participant": "b", "text": "a rather long note that waits for its turn"},
        {"kind": "background", "at": 1, "participant": "a", "text": "and an answer that needs several ticks", "complete": True},
        *({"kind": "delegate", "at": at, "participant": "a", "slot": 2} for at in (0, 1.9, 2.0)),
    ]
    transcripts = [{"path": made.words("busy.json", words), "participant": "a"}]
    return session(voice("a"), voice("b", start="0.31"), films, transcripts=transcripts, events=events)


@pytest.fixture(scope="module")
def together(made, busy) -> dict[str, list[Record]]:
    """Its views, uncut."""
    return featurised(busy, made.folder, spec=KEPT)[1]


def _one(windows: list[Record]) -> dict[str, Any]:
    """What the windows of a view say together, in ticks of the session."""
    axes = {"activity": 1, "heard_dmel": 1, "heard_pcm": 1, "heard_valid": 1, "patches": 0, "picture_pts": 0, "tokens": 0, "token_slot": 0}
    one: dict[str, Any] = {name: np.concatenate([getattr(w, name) for w in windows], axis=axis) for name, axis in axes.items()}
    one |= {name: [int(t) + w.meta["first_tick"] for w in windows for t in getattr(w, name)] for name in ("picture_tick", "token_tick")}
    for name in ("own_pcm", "own_valid"):
        one[name] = np.concatenate([*(getattr(w, name)[:-1] for w in windows), getattr(windows[-1], name)[-1:]])
    one |= {name: [x for w in windows for x in getattr(w, name)] for name in ("words", "events")}
    return one


@pytest.mark.parametrize("window_ticks", range(1, 51))
def test_where_windows_are_cut_changes_nothing(made, busy, together, window_ticks):
    cut = featurised(busy, made.folder, spec=KEPT.model_copy(update={"window_ticks": window_ticks}))[1]
    assert together.keys() == cut.keys() == {"a", "b"} and len(cut["a"]) == -(-together["a"][0].num_ticks // window_ticks)
    for view in together:
        want, got = _one(together[view]), _one(cut[view])
        for name, value in want.items():
            assert same_bits(value, got[name]) if isinstance(value, np.ndarray) else value == got[name], (view, name)
        for x, y in pairwise(cut[view]):
            assert same_bits(x.own_pcm[-1], y.own_pcm[0])
    assert together["a"][0].meta["tail_ticks"] and len(together["a"][0].patches) and together["a"][0].words
