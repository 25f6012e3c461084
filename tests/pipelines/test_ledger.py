"""The ledger closes: whatever the input is, each of its samples, pictures, words and events is kept, or dropped for a stated reason."""

import contextlib
import tempfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from corpora import SMALL, Raw, build, ledger, mono_stream, plan_of, records
from hypothesis import given, settings
from hypothesis import strategies as st
from media_makers import riff_wav, sound_file, with_garbage
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.sessions import featurise
from microturn.pipelines.storage.folders import Folder
from microturn.schemas.errors import MediaError
from microturn.schemas.keys import session_key
from microturn.schemas.manifest import Session
from microturn.schemas.tables import open_sums
from microturn.transforms.sessions.recording import Recording
from signals import speech

HOSTILE_IDS = (
    "../../etc/passwd",
    "🎙 émigré",
    "x" * 1000,
    "two\nlines\r\x1b[31m",
    "con",
    "a.b.c",
    "-",
    "'; drop table",
    "\u202eright to left",
)
FRAMES = 24_000  # of a recording here, at 16 kHz


def one(made: Raw, session_id: str, path: str, **more) -> None:
    """A session of one recording that an assistant listens to."""
    people = [{"id": "assistant", "role": "assistant"}, {"id": "p", "role": "other"}]
    made.add(id=session_id, streams=[mono_stream("p", path, **more.pop("stream", {}))], participants=people, **more)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Raw:
    """Everything that can be wrong with input, beside good sessions."""
    made = Raw(tmp_path_factory.mktemp("zoo"))
    sound = speech(FRAMES, 1)
    flac, mp3 = sound_file("flac", "flac", sound, 16_000), sound_file("mp3", "mp3", sound, 16_000)
    pcm = (sound * 32767).astype("<i2").tobytes()
    made.bytes("good.wav", riff_wav(pcm))
    made.bytes("good.flac", flac)
    one(made, "good-wav", "good.wav")
    one(made, "good-flac", "good.flac")
    one(made, "half-wav", made.bytes("half.wav", riff_wav(pcm)[: 44 + FRAMES]))
    one(made, "half-flac", made.bytes("half.flac", flac[: len(flac) // 2]))
    one(made, "garbage-flac", made.bytes("garbage.flac", with_garbage(flac, 0.5, 2_000)))
    one(made, "garbage-mp3", made.bytes("garbage.mp3", with_garbage(mp3, 0.5, 2_000)))
    one(made, "nan", made.bytes("nan.wav", _float_wav(np.where(np.arange(FRAMES) // 500 == 9, np.nan, sound))))
    one(made, "empty", made.bytes("empty.wav", b""))
    one(made, "gone", "gone.wav")
    one(made, "text", made.bytes("text.wav", b"these are the times that try men's souls\n" * 99))
    one(made, "no-channel", "good.wav", stream={"channel": 5})
    one(made, "no-stream", "good.wav", stream={"index": 3})
    one(made, "short", made.bytes("short.wav", riff_wav(pcm[:6398])), transcripts=[{"path": made.words("w.json", [("hi", 0, 0.1)])}],
        events=[{"kind": "typed", "at": 0.1, "text": "hi"}])  # fmt: skip
    one(made, "headless", made.bytes("headless.wav", pcm))
    made.add(id="nobody", streams=[mono_stream("p", "good.wav")], participants=[{"id": "p", "role": "other"}])
    made.add(id="one-bad", streams=[mono_stream("a", "good.wav"), mono_stream("b", "text.wav")])
    words = [("before", 0.2, 0.3), ("inside", 1.2, 1.4), ("beyond", 99, 99.5), ("", 1, 2), ("inverted", 1.5, 1.4)]
    late = {"clock": "session", "participant": "p", "path": made.words("late.json", words)}
    one(
        made,
        "late-words",
        "good.wav",
        stream={"start": 1},
        transcripts=[late],
        events=[{"kind": "typed", "at": at, "text": "x"} for at in (0, 1.5, 99)],
    )
    one(made, "bad-words", "good.wav", transcripts=[{"path": made.bytes("bad.json", b"\xff\xfe{")}])
    names = made.bytes("names.json", b'[{"word": "hi", "start": 0.1, "end": 0.2, "speaker": "Zoe"}]')
    one(made, "stranger", "good.wav", transcripts=[{"path": names, "stream": "p-audio"}])
    made.rows[-1]["streams"] += [
        {"id": name, "path": "good.flac", "kind": "audio", "participant": "p"} for name in ("events", "transcript-0")
    ]
    made.rows[-1]["events"] = [{"kind": "typed", "at": 0.5, "text": "x"}]
    for hostile in HOSTILE_IDS:
        one(made, hostile, "good.wav")
    for _ in range(3):
        one(made, "twice", "good.wav")
    for path in ("good.wav", "good.flac"):
        one(made, "same-name", path)
    return made


def _float_wav(samples: np.ndarray) -> bytes:
    return riff_wav(samples.astype("<f4").tobytes(), bits=32, tag=3)


@pytest.fixture(scope="module")
def built(zoo, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "out"
    verdict = build(zoo.rows, zoo.folder, out)
    assert not verdict.blocks
    return out


def rows_of(out: Path, session_id: str) -> list[dict]:
    return [row for row in ledger(out) if row["session_id"] == session_id]


DROPPED_WHOLE = {
    "empty": "empty_file", "gone": "missing_file", "text": "not_media", "no-channel": "no_such_channel", "no-stream": "no_such_stream",
    "short": "too_short", "headless": "not_media", "nobody": "no_view", "one-bad": "not_media", "same-name": "duplicate_id",
}  # fmt: skip
PARTLY = {  # session → (entry, unit, reason) of what happened to part of it
    "garbage-flac": {("inserted", "sample", "gap"), ("missing", "sample", "missing")},  # libav skips to the next sound frame by itself
    "garbage-mp3": {("dropped", "sample", "corrupt_packet"), ("missing", "sample", "missing")},
    "nan": {("dropped", "sample", "non_finite"), ("inserted", "sample", "gap")},
    "late-words": {("dropped", "word", reason) for reason in ("before_session", "beyond_session", "empty", "inverted_time")}
    | {("dropped", "event", reason) for reason in ("before_session", "beyond_session")},
    "bad-words": {("unused", "word", "bad_transcript")},
    "stranger": {("dropped", "word", "unknown_speaker")},
}


@pytest.mark.parametrize("session_id", DROPPED_WHOLE)
def test_what_cannot_be_used_is_dropped_whole_with_its_reason(zoo, built, session_id):
    rows = rows_of(built, session_id)
    (whole,) = (row for row in rows if row["entry"] == "session")
    assert whole["reason"] == DROPPED_WHOLE[session_id]
    files = {Path(s["path"]).name for row in zoo.rows if row["id"] == session_id for s in row["streams"]}
    about_a_file = session_id not in ("short", "nobody", "same-name")
    assert len(whole["message"]) > 20 and (not about_a_file or any(name in whole["message"] for name in files))
    assert all(row["kept"] == 0 for row in rows)
    assert session_id not in {row["session_id"] for row in Corpus.open(str(built)).rows()}


@pytest.mark.parametrize("session_id", PARTLY)
def test_what_cannot_be_used_in_part_is_dropped_in_part(built, session_id):
    rows = rows_of(built, session_id)
    assert {(row["entry"], row["unit"], row["reason"]) for row in rows if row["entry"] != "stream"} == PARTLY[session_id]
    assert all(row["message"] for row in rows if row["entry"] != "stream")
    assert sum(row["kept"] for row in rows if row["unit"] == "sample") > FRAMES // 2
    assert records(built, session_key(session_id))


def test_everything_is_accounted_for(zoo, built):
    """Every session of the manifest has either windows or a row that drops it, and every stream of the former exactly one total."""
    windows = {row["session_id"] for row in Corpus.open(str(built)).rows()}
    for row in zoo.rows:
        rows = rows_of(built, row["id"])
        whole = [r for r in rows if r["entry"] == "session" and r["reason"] != "duplicate_identical"]
        assert (row["id"] in windows) != bool(whole), row["id"]
        totals = Counter(r["stream"] for r in rows if r["entry"] == "stream" and r["unit"] == "sample")
        if row["id"] in windows:
            assert totals == Counter(s["id"] for s in row["streams"]), row["id"]


def test_decoded_is_kept_and_dropped_exactly(built):
    totals = [row for row in ledger(built) if row["entry"] == "stream"]
    assert len(totals) > 20
    assert all(row["decoded"] == row["kept"] + row["dropped"] for row in totals)
    assert verify(Corpus.open(str(built))).faults == []


@pytest.mark.parametrize("session_id", ["good-wav", "good-flac", "half-wav", "nan", "stranger"])
def test_decoded_is_what_another_decoder_decodes(zoo, built, session_id):
    """libsndfile is the oracle."""
    streams = {s["id"]: zoo.folder / s["path"] for row in zoo.rows if row["id"] == session_id for s in row["streams"]}
    for row in rows_of(built, session_id):
        if row["entry"] == "stream" and row["unit"] == "sample":
            assert row["decoded"] == len(soundfile.read(streams[row["stream"]])[0]) > 0


@pytest.mark.parametrize(("session_id", "lost"), [("half-wav", FRAMES // 2), ("half-flac", None)])
def test_what_the_container_declared_and_did_not_hold_is_a_row(built, session_id, lost):
    rows = rows_of(built, session_id)
    (total,) = (row for row in rows if row["entry"] == "stream")
    (missing,) = (row for row in rows if row["entry"] == "missing")
    assert total["declared"] == FRAMES and (missing["start"], missing["stop"]) == (total["decoded"], FRAMES)
    assert lost is None or FRAMES - total["decoded"] == lost


def test_samples_that_are_no_numbers_are_dropped_and_are_not_real(built):
    (total,) = (row for row in rows_of(built, "nan") if row["entry"] == "stream")
    (dropped,) = (row for row in rows_of(built, "nan") if row["entry"] == "dropped")
    assert (total["dropped"], total["kept"]) == (500, FRAMES - 500) and (dropped["start"], dropped["stop"]) == (4500, 5000)
    assert sum(int(window.heard_valid.sum()) for window in records(built, "nan")) == FRAMES - 500


def test_pictures_are_accounted_for(raw, corpus):
    with av.open(str(raw.folder / "film.mp4")) as file:
        pictures = sum(1 for _ in file.decode(video=0))
    with av.open(str(raw.folder / "film.mp4")) as file:
        samples = sum(frame.samples for frame in file.decode(audio=0))
    totals = {row["stream"]: row for row in rows_of(corpus, "film") if row["entry"] == "stream"}
    assert totals["sight"]["decoded"] == pictures == 75 and totals["sound"]["decoded"] == samples
    assert 0 < totals["sight"]["kept"] < 75
    shown = {int(pts) for window in records(corpus, "film") for pair in window.picture_pts for pts in pair}
    assert totals["sight"]["kept"] == len(shown)


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
def test_hostile_ids_become_plain_keys_and_stay_in_meta(built, hostile):
    (window, *_) = records(built, session_key(hostile))
    assert window.meta["session_id"] == hostile and window.meta["session"] == session_key(hostile)
    assert {row["session_id"] for row in ledger(built) if row["session"] == session_key(hostile)} == {hostile}


def test_hostile_ids_write_nothing_outside(zoo, built):
    assert sorted(path.name for path in built.parent.iterdir()) == ["out"]
    names = [path.name for path in built.rglob("*")]
    assert all(name.isascii() and name.isprintable() and len(name) < 120 for name in names)


def test_of_equal_rows_one_is_kept_and_the_others_are_told(built):
    (row,) = (row for row in rows_of(built, "twice") if row["entry"] == "session")
    assert (row["reason"], row["dropped"]) == ("duplicate_identical", 2) and "twice" in row["message"]
    assert len({window.meta["first_tick"] for window in records(built, "twice")}) == len(records(built, "twice"))


def test_of_different_rows_with_one_id_none_is_kept(built):
    (row,) = rows_of(built, "same-name")
    assert (row["reason"], row["dropped"]) == ("duplicate_id", 2)


def test_a_session_dropped_whole_counts_once_and_one_that_is_kept_does_not(built):
    totals = Corpus.open(str(built)).dataset["totals"]
    assert totals["rejected_sessions"] == len(DROPPED_WHOLE)


def test_two_ids_that_want_the_same_key_are_one_id_that_stands_twice(zoo, tmp_path):
    """Whoever knows how keys are made can write a plain id that looks like the key of another."""
    made = Raw(zoo.folder, rows=[])
    for session_id in ("a b", session_key("a b"), "good"):
        one(made, session_id, "good.wav")
    assert build(made.rows, made.folder, tmp_path / "out").fresh == 1
    (row,) = (row for row in ledger(tmp_path / "out") if row["entry"] == "session")
    assert (row["reason"], row["dropped"]) == ("duplicate_id", 2)


@pytest.mark.parametrize("why", ["good", "bad clock", "no channel", "not media", "short"])
def test_every_file_that_was_opened_is_closed(zoo, tmp_path, why):
    made, opened = Raw(zoo.folder, rows=[]), []
    text = {"id": "text", "path": "good.wav", "kind": "text", "participant": "p"}
    streams = {"bad clock": [text], "no channel": [mono_stream("q", "good.wav", channel=3)], "not media": [mono_stream("q", "text.wav")]}
    one(made, "x", "short.wav" if why == "short" else "good.wav", transcripts=[{"path": "w.json", "participant": "p", "stream": "p-audio"}])
    made.rows[0]["streams"] += streams.get(why, [])
    made.rows[0]["participants"].append({"id": "q"})
    if why == "bad clock":
        made.rows[0]["transcripts"][0]["stream"] = "text"

    def open_source(path: str):
        opened.append((made.folder / path).open("rb"))
        return opened[-1]

    with contextlib.suppress(MediaError), Recording(Session.parse(made.rows[0], where=""), open_source, SMALL) as recording:
        list(recording.windows())
    assert opened and all(file.closed for file in opened)


DAMAGED = {
    kind: sound_file(kind, codec, speech(FRAMES, 1), 16_000)
    for kind, codec in (
        ("flac", "flac"),
        ("mp3", "mp3"),
        ("ogg", "flac"),
        ("mp4", "aac"),
        ("matroska", "libopus"),
        ("wav", "pcm_s16le"),
    )
}


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(sorted(DAMAGED)), start=st.floats(0, 1), length=st.integers(0, 3000), cut=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_no_damage_opens_the_ledger(kind, start, length, cut, seed):
    data = with_garbage(DAMAGED[kind], start, length, seed)
    with tempfile.TemporaryDirectory() as folder:
        made = Raw(Path(folder))
        one(made, "x", made.bytes("x.bin", data[: int(len(data) * (1 if cut > 0.7 else cut))]))
        receipt = featurise.make(plan_of(made.rows, made.folder, spec=SMALL).items[0], Folder(folder))
    totals = [row for row in receipt.ledger if row.entry == "stream"]
    assert open_sums(receipt.ledger) == []
    assert bool(receipt.windows) == (not any(row.entry == "session" for row in receipt.ledger))
    assert not receipt.windows or len(totals) == 1


def test_a_clean_file_drops_nothing():
    """The negative control of the one above."""
    for kind, data in DAMAGED.items():
        with tempfile.TemporaryDirectory() as folder:
            made = Raw(Path(folder))
            one(made, "x", made.bytes("x.bin", data))
            receipt = featurise.make(plan_of(made.rows, made.folder, spec=SMALL).items[0], Folder(folder))
        (total,) = (row for row in receipt.ledger if row.entry == "stream")
        with av.open(BytesIO(data)) as file:
            assert total.decoded == sum(frame.samples for frame in file.decode(audio=0)), kind
        assert {row.reason for row in receipt.ledger if row.entry == "dropped"} <= {"codec_padding"}
