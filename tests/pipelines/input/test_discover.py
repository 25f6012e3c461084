"""A folder without a manifest, understood: what belongs together and who is who, from what lies beside what."""

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpora import SMALL, Raw, featurised
from media_makers import film_file, steady_times
from microturn.pipelines.input.discover import Found, Look, discover, find_manifest
from microturn.pipelines.input.plan import read_manifest
from microturn.pipelines.sessions.featurise import look_request
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.synth.write import make as synthesise
from microturn.schemas.errors import InputError, MicroturnError
from microturn.schemas.manifest import Session
from signals import speech


@pytest.fixture
def made(tmp_path) -> Raw:
    return Raw(tmp_path / "raw")


def mono(made: Raw, name: str, seconds: float = 1.0, seed: int = 1) -> None:
    made.sound(name, speech(round(seconds * 16_000), seed))


def stereo(made: Raw, name: str, seconds: float = 1.0) -> None:
    made.sound(name, np.stack([speech(round(seconds * 16_000), seed) for seed in (1, 2)]))


def moshi(made: Raw, name: str) -> None:
    rows = [["hello", [0.1, 0.4], "SPEAKER_MAIN"], ["hi", [0.5, 0.7], "SPEAKER_USER"]]
    made.bytes(name, json.dumps({"alignments": rows}).encode())


def film(made: Raw, name: str, channels: int = 1) -> None:
    sound = np.stack([speech(16_000, seed) for seed in range(channels)]) if channels else None
    pictures = [np.zeros((48, 64, 3), np.uint8)] * 25
    tracks = {"sound": ("aac", sound, 16_000, Fraction(0))} if channels else {}
    made.bytes(name, film_file("mp4", "libx264", pictures, steady_times(Fraction(25), 25), **tracks))


def found(made: Raw) -> Found:
    """The folder, understood; files are looked at in this process."""
    asked: list[str] = []

    def look(path: str) -> Look | None:
        asked.append(path)
        try:
            return Look(**look_request({"root": str(made.folder), "path": path}, lambda _: None))
        except (MicroturnError, OSError):
            return None

    return discover(Folder(str(made.folder)), look)


def by_id(found: Found) -> dict[str, Session]:
    return {session.id: session for session in found.sessions}


def roles(session: Session) -> dict[str, str]:
    return {person.id: person.role for person in session.cast()}


def test_stereo_with_words_beside_it_is_a_dyad_and_left_is_the_assistant(made):
    stereo(made, "calls/one.wav")
    moshi(made, "calls/one.json")
    (session,) = found(made).sessions
    assert session.id == "calls/one" and roles(session) == {"assistant": "assistant", "user": "user"}
    assert [(s.participant, s.path, s.channel) for s in session.streams] == [
        ("assistant", "calls/one.wav", 0),
        ("user", "calls/one.wav", 1),
    ]
    _, views = featurised(session.model_dump(mode="json"), made.folder)
    assert [(w["participant"], w["text"]) for w in views["user"][0].words] == [("assistant", "hello"), ("user", "hi")]


def test_stereo_without_words_is_a_dyad_too_and_mono_a_scene(made):
    stereo(made, "two.wav")
    mono(made, "one.wav")
    sessions = by_id(found(made))
    assert roles(sessions["two"]) == {"assistant": "assistant", "user": "user"}
    assert roles(sessions["one"]) == {"assistant": "assistant", "scene": "other"} and sessions["one"].streams[0].participant == "scene"
    assert found(made).layouts == {"stereo": 1, "tracks": 0, "single": 1}


@pytest.mark.parametrize(
    ("names", "people"),
    [
        (("call_alice.wav", "call_bob.wav"), {"alice": "user", "bob": "user"}),
        (("call-agent.wav", "call-caller.flac"), {"agent": "assistant", "caller": "user"}),
        (("call.ch1.wav", "call.ch2.wav"), {"ch1": "user", "ch2": "user"}),
        (("call_spk1.wav", "call_spk2.wav", "call_spk3.wav"), {"spk1": "user", "spk2": "user", "spk3": "user"}),
        (("call/track 1.wav", "call/track 2.wav"), {"track_1": "user", "track_2": "user"}),
        (("call/Ann.wav", "call/bob.wav"), {"ann": "user", "bob": "user"}),
        (("2024/call/main.wav", "2024/call/other.wav"), {"main": "assistant", "other": "user"}),
    ],
)
def test_one_file_a_speaker_is_one_session(made, names, people):
    for seed, name in enumerate(names):
        mono(made, name, seed=seed)
    understood = found(made)
    (session,) = understood.sessions
    assert roles(session) == people and understood.layouts["tracks"] == 1
    assert {s.path for s in session.streams} == set(names) and all(s.channel is None for s in session.streams)
    assert session.id == ("2024/call" if "2024" in names[0] else "call")


@pytest.mark.parametrize(
    "names",
    [
        ("call_01.wav", "call_02.wav", "call_03.wav"),
        ("day/1.wav", "day/2.wav"),
        ("a-take1.wav", "a-take2.wav"),
        ("b/talk 1.wav", "b/talk 2.wav"),
    ],
)
def test_numbers_are_takes_and_no_speakers(made, names):
    for seed, name in enumerate(names):
        mono(made, name, seed=seed)
    understood = found(made)
    assert understood.layouts == {"stereo": 0, "tracks": 0, "single": len(names)} and len(understood.sessions) == len(names)


def test_a_name_that_is_no_text_is_told_and_costs_no_other_recording(made):
    mono(made, "good.wav")
    for name in (b"caf\xe9.wav", b"notes\xff.txt"):
        Path(os.fsdecode(os.fsencode(made.folder) + b"/" + name)).write_bytes((made.folder / "good.wav").read_bytes())
    understood = found(made)
    assert [s.id for s in understood.sessions] == ["good"] and understood.unnamed == ("caf\\xe9.wav",)


def test_one_recording_is_understood_like_a_folder_of_it(made):
    stereo(made, "calls/one.wav")
    moshi(made, "calls/one.json")
    mono(made, "calls/other.wav")
    folder = Folder(str(made.folder / "calls"))
    (session,) = discover(folder, lambda path: Look(channels=2, seconds=1.0, pictures=False), one="one.wav").sessions
    assert session.id == "one" and len(session.streams) == 2 and [t.path for t in session.transcripts] == ["one.json"]


def test_people_known_by_the_names_of_files_can_be_numbered(made):
    for name in ("call_zoe.wav", "call_agent.wav"):
        mono(made, name)
    looked = Look(channels=1, seconds=1.0, pictures=False)
    (session,) = discover(Folder(str(made.folder)), lambda path: looked, numbered=True).sessions
    assert roles(session) == {"p0": "assistant", "p1": "user"} and {s.id for s in session.streams} == {"p0-audio", "p1-audio"}


@pytest.mark.parametrize("why", ["lengths", "channels", "too many", "unreadable"])
def test_files_that_cannot_be_one_conversation_are_sessions_of_their_own(made, why):
    mono(made, "call_a.wav", 2.0)
    if why == "lengths":
        mono(made, "call_b.wav", 1.0)
    elif why == "channels":
        stereo(made, "call_b.wav", 2.0)
    elif why == "unreadable":
        made.bytes("call_b.wav", b"nothing")
    else:
        for speaker in "bcdefghij":
            mono(made, f"call_{speaker}.wav", 2.0)
    understood = found(made)
    assert (
        understood.layouts["tracks"] == 0 and "call_a" in by_id(understood) and len(understood.sessions) == (10 if why == "too many" else 2)
    )


def test_tracks_bring_their_own_words(made):
    for seed, who in enumerate(("alice", "bob")):
        mono(made, f"call_{who}.wav", seed=seed)
        made.words(f"call_{who}.json", [(f"i am {who}", 0.1, 0.5)])
    (session,) = found(made).sessions
    assert [(t.participant, t.path, t.stream) for t in session.transcripts] == [
        (who, f"call_{who}.json", f"{who}-audio") for who in ("alice", "bob")
    ]


def test_a_film_is_heard_and_seen(made):
    film(made, "a.mp4")
    film(made, "silent.mp4", channels=0)
    film(made, "call.mp4", channels=2)
    moshi(made, "call.json")
    sessions = by_id(found(made))
    assert [(s.kind, s.participant) for s in sessions["a"].streams] == [("audio", "scene"), ("video", "scene")]
    assert [(s.kind, s.participant) for s in sessions["silent"].streams] == [("video", "scene")]
    kinds = [(s.kind, s.participant, s.channel) for s in sessions["call"].streams]
    assert kinds == [("audio", "assistant", 0), ("audio", "user", 1), ("video", "user", None)]
    _, views = featurised(sessions["silent"].model_dump(mode="json"), made.folder, spec=SMALL)
    assert views["assistant"][0].patches.shape[0] == 1


def test_words_beside_a_mono_file_do_not_give_it_a_second_channel(made):
    mono(made, "talk.wav")
    made.words("talk.json", [("alone", 0.1, 0.2)])
    (session,) = found(made).sessions
    assert roles(session) == {"assistant": "assistant", "scene": "other"}
    _, views = featurised(session.model_dump(mode="json"), made.folder)
    assert [(w["participant"], w["text"]) for w in views["assistant"][0].words] == [("scene", "alone")]


def test_all_layouts_together(made):
    stereo(made, "a/one.wav")
    moshi(made, "a/one.json")
    for who in ("ann", "bob"):
        mono(made, f"b/{who}.wav")
    for who in ("x", "y"):
        mono(made, f"c/talk_{who}.wav")
    mono(made, "c/lecture.wav")
    film(made, "c/walk.mp4")
    made.bytes("notes.txt", b"x")
    made.bytes(".hidden/x.wav", b"x")
    made.bytes("truth/x.json", b"{}")
    understood = found(made)
    assert understood.layouts == {"stereo": 1, "tracks": 2, "single": 2}
    assert sorted(by_id(understood)) == ["a/one", "b", "c/lecture", "c/talk", "c/walk"]
    assert understood.left_alone == ("notes.txt",)


def test_the_same_name_with_two_endings_is_two_sessions(made):
    mono(made, "talk.wav")
    mono(made, "talk.flac")
    assert sorted(by_id(found(made))) == ["talk.flac", "talk.wav"]


def test_of_several_word_files_the_one_with_word_times_is_taken(made):
    mono(made, "talk.wav")
    made.words("talk.json", [("exact", 0.1, 0.2)])
    made.bytes("talk.vtt", b"WEBVTT\n\n00:00.000 --> 00:01.000\nspread over the segment\n")
    made.bytes("talk.srt", b"1\n00:00:00,000 --> 00:00:01,000\nspread over the segment\n")
    understood = found(made)
    assert [t.path for t in understood.sessions[0].transcripts] == ["talk.json"]
    assert understood.left_alone == ("talk.srt", "talk.vtt")


def test_names_that_are_no_participants_are_numbered(made):
    for name in ("Zoë Ünal.wav", "Ænne.wav"):
        mono(made, f"call/{name}")
    (session,) = found(made).sessions
    assert len(roles(session)) == 2 and {p.speaker for p in session.cast()} == {"zoë ünal", "ænne"}


def test_the_order_of_the_folder_does_not_matter(made, monkeypatch):
    for name in ("b_x.wav", "b_y.wav", "a.wav", "c.wav"):
        mono(made, name)
    first = found(made)
    names = Folder.names
    monkeypatch.setattr(Folder, "names", lambda self, prefix="": names(self, prefix)[::-1])
    assert sorted(first.sessions, key=lambda s: s.id) == sorted(found(made).sessions, key=lambda s: s.id)


def test_a_folder_with_nothing_to_hear_is_refused(made):
    made.bytes("notes.txt", b"x")
    with pytest.raises(InputError, match="no audio or video") as error:
        found(made)
    assert "wav" in error.value.hint


def test_a_manifest_at_the_top_is_found(made):
    assert find_manifest(Folder(str(made.folder))) == ""
    made.bytes("manifest.parquet", b"")
    assert find_manifest(Folder(str(made.folder))) == "manifest.parquet"
    made.manifest()
    assert find_manifest(Folder(str(made.folder))) == "manifest.jsonl"


def test_a_folder_of_synth_is_understood_as_its_manifest_says(tmp_path):
    """Same sessions, same participants on the same channels, same words: all that is heard, seen and said is the same."""
    synthesise(tmp_path, sessions=3, hours=0.005, seed=3)
    given = {s.id: s for s in read_manifest((tmp_path / "manifest.jsonl").read_bytes(), "manifest.jsonl")}
    understood = by_id(found(Raw(tmp_path)))
    assert understood.keys() == given.keys() and len(given) == 3
    for name, session in understood.items():
        ours, theirs = (featurised(s.model_dump(mode="json"), tmp_path)[1] for s in (session, given[name]))
        assert ours.keys() == theirs.keys()
        for view in ours:
            for a, b in zip(ours[view], theirs[view], strict=True):
                assert a.heard_dmel.tobytes() == b.heard_dmel.tobytes() and a.own_pcm.tobytes() == b.own_pcm.tobytes()
                assert a.patches.tobytes() == b.patches.tobytes() and a.words == b.words


def test_paths_with_strange_names_survive(made):
    for name in ("a b/c d.wav", "ü/ß.wav", "line\nbreak.wav", "100%.wav", "*.wav", "[x].wav"):
        mono(made, name)
    sessions = found(made).sessions
    assert len(sessions) == 6
    assert all(folders.identify(str(made.folder), s.streams[0].path).size_bytes for s in sessions)
    assert all((Path(made.folder) / s.streams[0].path).is_file() for s in sessions)
