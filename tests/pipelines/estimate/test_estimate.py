"""What an estimate says is what the build then gives: hours to 1%, windows and shards, bytes of each modality, drops by reason."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpora import ONE_SPLIT, SMALL, Raw, build, ledger, mono_stream, plan_of
from media_makers import clap_film, riff_wav, sound_file, steady_times
from microturn.pipelines import dry_run, run
from microturn.pipelines.estimate import look as looking
from microturn.pipelines.input.inputs import read_sessions
from microturn.schemas.spec import FeatureSpec, PictureSpec
from signals import speech

MEDIA = Path(__file__).resolve().parents[3].parent / "shared" / "media"
EXACT = ("pictures", "what is heard, as codes", "what is heard, as PCM", "own speech, as PCM", "activity, validity")
WITHIN = {"tokens": 1.3, "words, events, meta": 1.6, "tar headers and padding": 1.2}  # they depend on what is said


def agree(expected, actual):
    """The laws that every estimate keeps whose every session was looked at."""
    told = expected.figures
    assert expected.looked_at == expected.of and expected.hours.low == expected.hours.high
    assert told.session_ticks == pytest.approx(actual.session_ticks, rel=0.01, abs=1)
    assert told.view_ticks == pytest.approx(actual.view_ticks, rel=0.01, abs=2)
    assert (told.sessions, told.windows, told.rejected) == (actual.sessions, actual.windows, actual.rejected)
    assert told.bytes.keys() == actual.bytes.keys() == {*EXACT, *WITHIN}
    for name in EXACT:
        assert told.bytes[name] == pytest.approx(actual.bytes[name], rel=0.02, abs=1000), name
    for name, factor in WITHIN.items():
        assert actual.bytes[name] / factor <= told.bytes[name] <= actual.bytes[name] * factor, name
    assert sum(told.bytes.values()) == pytest.approx(actual.size_bytes, rel=0.05)


def listening(path: str, session_id: str, **stream) -> dict:
    people = [{"id": "me", "role": "assistant"}, {"id": "p", "role": "other"}]
    return {"id": session_id, "streams": [mono_stream("p", path, **stream)], "participants": people}


@pytest.fixture
def calls(tmp_path) -> Raw:
    """Two calls of 26 and 41 seconds, of different kinds."""
    made = Raw(tmp_path / "calls")
    made.dyad("one", seconds=26.0, seed=1)
    made.dyad("two", seconds=41.0, seed=2, rate_hz=44_100, ending="flac")
    return made


def test_an_estimate_is_what_the_build_gives(calls, both):
    made = Raw(calls.folder, calls.rows)
    times = steady_times(Fraction(25), 25 * 12)
    made.bytes("film.mp4", clap_film("mp4", "libx264", "aac", times=times, light=40))
    scene = {"path": "film.mp4", "participant": "scene"}
    people = [{"id": "assistant", "role": "assistant"}, {"id": "scene", "role": "other"}]
    made.add(id="film", streams=[{"id": k, "kind": k, **scene} for k in ("audio", "video")], participants=people)
    expected, actual = both(made, spec=FeatureSpec(), shard_bytes=3_000_000)
    agree(expected, actual)
    assert actual.bytes["pictures"] > 100_000 and actual.windows == 5
    assert expected.figures.shards == actual.shards and sum(actual.shards.values()) >= 2
    assert expected.attempts == 3 and expected.figures.cpu_s > 0 and set(expected.wall_s) >= {1, 4}


def test_many_small_windows_fill_the_shards_that_were_foreseen(calls, both):
    expected, actual = both(calls, shard_bytes=300_000)
    assert (expected.figures.shards, expected.figures.windows) == (actual.shards, actual.windows)
    assert sum(actual.shards.values()) > 5


def test_packed_pictures_and_kept_sound_are_foreseen(tmp_path, both):
    made = Raw(tmp_path / "film")
    made.bytes("film.mkv", clap_film("matroska", "libx264", "aac", times=steady_times(Fraction(25), 300), light=40))
    scene = {"path": "film.mkv", "participant": "scene"}
    people = [{"id": "assistant", "role": "assistant"}, {"id": "scene", "role": "other"}]
    made.add(id="film", streams=[{"id": k, "kind": k, **scene} for k in ("audio", "video")], participants=people)
    spec = FeatureSpec(keep_heard_pcm=True, pictures=PictureSpec(codec="png", every_ticks=2))
    expected, actual = both(made, spec=spec)
    assert actual.bytes["what is heard, as PCM"] == expected.figures.bytes["what is heard, as PCM"] > 300_000
    assert expected.figures.bytes["pictures"] == pytest.approx(actual.bytes["pictures"], rel=0.1, abs=2000)


@pytest.mark.parametrize(
    "container, codec",
    [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame"), ("ipod", "aac"),
     ("matroska", "libopus"), ("webm", "libopus"), ("mpegts", "aac"), ("adts", "aac")],
)  # fmt: skip
def test_hours_are_those_of_the_build_whatever_the_container(container, codec, tmp_path, both):
    made = Raw(tmp_path / "raw")
    made.bytes("a.bin", sound_file(container, codec, speech(48_000 * 20, 3), 48_000))
    made.add(**listening("a.bin", "one"))
    expected, actual = both(made)
    said = container not in ("mpegts", "adts")  # the others are guesses, by bytes and bit rate
    assert expected.unsaid == (not said) and actual.session_ticks >= 100
    assert expected.figures.session_ticks == pytest.approx(actual.session_ticks, rel=0.01 if said else 0.15, abs=1)


def test_a_length_that_nobody_says_or_believes_is_told_as_a_doubt(tmp_path, both):
    made = Raw(tmp_path / "raw")
    pcm = (speech(16_000 * 20, 5) * 30_000).astype(np.int16).tobytes()
    made.bytes("cut.wav", riff_wav(pcm[: len(pcm) // 2], claimed_bytes=len(pcm)))
    made.bytes("piped.wav", riff_wav(pcm, claimed_bytes=2**32 - 1))
    made.bytes("said.wav", riff_wav(pcm))
    for name in ("cut", "piped", "said"):
        made.add(**listening(f"{name}.wav", name))
    expected, actual = both(made)
    assert expected.unsaid == 2
    assert expected.figures.session_ticks == pytest.approx(actual.session_ticks, rel=0.01)


def test_what_cannot_be_kept_is_foreseen_with_the_reason_of_the_ledger(calls, both, tmp_path):
    made = Raw(calls.folder, calls.rows)
    made.bytes("empty.wav", b"")
    made.bytes("text.wav", b"not a recording" * 50)
    made.bytes("headless.mp4", clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(25), 50), light=40)[3000:])
    made.sound("short.wav", speech(1000, 7))
    made.file("folder.wav").mkdir()
    for name in ("empty.wav", "text.wav", "headless.mp4", "short.wav", "folder.wav", "gone.wav"):
        made.add(**listening(name, name))
    made.add(**listening("dyad-1.wav", "no such stream", index=3))
    made.add(**listening("dyad-1.wav", "no such channel", channel=7))
    made.add(id="nobody acts", streams=[mono_stream("p", "dyad-1.wav")], participants=[{"id": "p", "role": "other"}])
    made.add(**listening("dyad-1.wav", "twice"))
    made.add(**listening("dyad-1.wav", "twice", channel=1))
    expected, actual = both(made)
    rows = [row for row in ledger(tmp_path / "both") if row["entry"] == "session"]
    assert expected.figures.rejected == actual.rejected == dict(Counter(row["reason"] for row in rows))
    assert set(actual.rejected) >= {"empty_file", "not_media", "too_short", "not_a_file", "missing_file", "no_such_stream", "no_view"}
    assert expected.figures.sessions == actual.sessions == 2 and expected.hours.low == expected.hours.high
    plan = plan_of(made.rows, made.folder)
    seen = looking.look(plan, staging=str(tmp_path / "none"), attempts=0)
    told = {f.key: (f.reason, f.message) for f in seen.foreseen if f is not None and f.reason}
    found = {row["session"]: row for row in rows}
    assert len(told) == 8
    for key, (reason, message) in told.items():
        assert found[key]["reason"] == reason and found[key]["message"].startswith(message)


def test_what_the_corpus_holds_is_not_estimated_again(calls, tmp_path):
    out = tmp_path / "out"
    build(calls.rows[:1], calls.folder, out)
    wanted = run.Settings(out=str(out), spec=SMALL, splits=ONE_SPLIT)
    expected = dry_run.estimate(plan_of(calls.rows, calls.folder), wanted, sample=0, cores=0)
    assert (expected.sessions_known, expected.of, expected.figures.sessions) == (1, 1, 1)
    assert expected.figures.session_ticks == 205
    again = dry_run.estimate(plan_of(calls.rows[:1], calls.folder), wanted, sample=0, cores=0)
    assert again.figures.sessions == again.figures.windows == 0 and again.figures.shards == {}


def test_work_that_stands_costs_nothing(calls, tmp_path, both):
    out = tmp_path / "out"
    plan = plan_of(calls.rows, calls.folder)
    wanted = run.Settings(out=str(out), spec=SMALL, splits=ONE_SPLIT)
    first = dry_run.estimate(plan, wanted, sample=0, cores=0)
    build(calls.rows, calls.folder, out, keep_parts=True)
    (out / "dataset.json").unlink()
    again = dry_run.estimate(plan, wanted, sample=0, cores=0)
    assert (first.sessions_done, again.sessions_done, again.attempts) == (0, 2, 0)
    assert again.figures.windows == first.figures.windows


def test_a_sample_is_the_same_every_time_and_says_that_it_is_one(tmp_path):
    made = Raw(tmp_path / "raw")
    for number in range(12):
        made.sound(f"{number}.wav", speech(16_000 * (2 + number % 3), number))
        made.add(**listening(f"{number}.wav", f"call-{number}"))
    wanted = run.Settings(out=str(tmp_path / "out"), spec=SMALL, splits=ONE_SPLIT)
    plans = [plan_of(rows, made.folder) for rows in (made.rows, made.rows[::-1])]
    seen = [looking.look(plan, staging=str(tmp_path / "none"), sample=5, attempts=0).foreseen for plan in plans]
    assert seen[0] == seen[1] and len(seen[0]) == 5
    expected = dry_run.estimate(plans[0], wanted, sample=5, cores=0)
    whole = dry_run.estimate(plans[0], wanted, sample=0, cores=0)
    assert (expected.looked_at, expected.of) == (5, 12)
    assert expected.figures.session_ticks == pytest.approx(whole.figures.session_ticks, rel=0.02)  # a wav's bytes are its hours
    assert expected.hours.low == pytest.approx(whole.hours.low, rel=0.02)  # so the sample says that it is sure


def test_a_sample_of_unlike_sessions_says_that_it_may_be_wrong(tmp_path):
    made = Raw(tmp_path / "raw")
    for number in range(12):
        rate_hz = 48_000 if number % 2 else 8_000  # an hour takes six times as many bytes
        made.sound(f"{number}.wav", speech(rate_hz * 3, number), rate_hz)
        made.add(**listening(f"{number}.wav", f"call-{number}"))
    wanted = run.Settings(out=str(tmp_path / "out"), spec=SMALL, splits=ONE_SPLIT)
    expected, whole = (dry_run.estimate(plan_of(made.rows, made.folder), wanted, sample=n, cores=0) for n in (6, 0))
    assert expected.hours.low < 0.8 * whole.hours.low < whole.hours.low < expected.hours.high


def test_a_manifest_that_was_written_gives_the_corpus_of_its_folder(calls, tmp_path):
    found = read_sessions(str(calls.folder), True, lambda sentence: None)
    contents = []
    for name, place in (("inferred", calls.folder), ("elsewhere", tmp_path)):
        dry_run.write_manifest(str(place / f"{name}.jsonl"), found.sessions, found.root)
        rows = [json.loads(line) for line in (place / f"{name}.jsonl").read_text().splitlines()]
        build(rows, calls.folder if place == calls.folder else Path("/"), tmp_path / name)
        contents.append(json.loads((tmp_path / name / "dataset.json").read_text())["digests"]["content"])
    build([s.model_dump(mode="json") for s in found.sessions], calls.folder, tmp_path / "direct")
    assert {json.loads((tmp_path / "direct" / "dataset.json").read_text())["digests"]["content"]} == set(contents)


@pytest.mark.skipif(not MEDIA.is_dir(), reason="no shared/media beside the checkout")
def test_recordings_of_other_people_are_foreseen_as_well(both, tmp_path):
    found = read_sessions(str(MEDIA), True, lambda sentence: None)
    rows = [session.model_dump(mode="json") for session in found.sessions]
    expected, actual = both(Raw(tmp_path / "raw", [_moved(row) for row in rows]), spec=FeatureSpec())
    assert actual.sessions == expected.figures.sessions == 8 and actual.windows == expected.figures.windows
    assert expected.figures.session_ticks == pytest.approx(actual.session_ticks, rel=0.01)
    for name in EXACT:
        assert expected.figures.bytes[name] == pytest.approx(actual.bytes[name], rel=0.05, abs=5000), name


def _moved(row: dict) -> dict:
    for entry in [*row["streams"], *row["transcripts"]]:
        entry["path"] = str(MEDIA / entry["path"])
    return row
