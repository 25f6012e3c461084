"""The sample recordings in tests/media are what their README says."""

import json
from decimal import Decimal
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from microturn.schemas.clock import to_samples
from microturn.schemas.manifest import Session

FOLDER = Path(__file__).resolve().parents[2] / "media" / "two_people"
NAMES = ("video-00000", "tracks-00001")


@pytest.fixture(scope="module")
def truths() -> dict[str, dict]:
    return {name: json.loads((FOLDER / "truth" / f"{name}.json").read_text()) for name in NAMES}


def test_the_sample_is_small_and_complete(truths):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    for truth in truths.values():
        assert truth["size_bytes"] == {path: (FOLDER / path).stat().st_size for path in truth["size_bytes"]}
    rows = [json.loads(line) for line in (FOLDER / "manifest.jsonl").read_text().splitlines()]
    sessions = [Session.parse(row, where="manifest.jsonl") for row in rows]
    assert [session.id for session in sessions] == list(NAMES)
    assert all(session.license == "CC0-1.0" and session.consent == "synthetic" for session in sessions)
    assert all((FOLDER / stream.path).is_file() for session in sessions for stream in session.streams)


def test_the_video_makes_two_windows_and_holds_one_of_each_event(truths):
    truth = truths["video-00000"]
    assert 60 * 16_000 < truth["num_samples"] <= 70 * 16_000
    assert truth["overlaps"] and truth["backchannels"] and truth["interruptions"] and truth["gaps"] and truth["pictures"]["flashes"]
    kinds = [event["kind"] for event in truth["events"]]
    assert "typed" in kinds and kinds.index("delegate") < kinds.index("background")
    assert any(sight["door"] for sight in truth["pictures"]["sights"])


def test_words_of_the_files_are_the_truth(truths):
    for name, truth in truths.items():
        for who, label in enumerate(("SPEAKER_MAIN", "SPEAKER_USER")):
            person = truth["participants"][who]
            if name.startswith("video"):
                rows = json.loads((FOLDER / f"{name}.json").read_text(), parse_float=Decimal)["alignments"]
                found = [(text, to_samples(a), to_samples(b)) for text, (a, b), speaker in rows if speaker == label]
            else:
                rows = json.loads((FOLDER / name / f"{person['id']}.json").read_text(), parse_float=Decimal)
                found = [(row["word"], to_samples(row["start"]), to_samples(row["end"])) for row in rows]
            assert found == [(w["text"], w["start"], w["stop"]) for w in person["words"]] and len(found) > 15


def test_people_are_heard_where_their_words_are_and_nowhere_else(truths):
    """RMS over all words is 20 dB above RMS over all the rest, in each channel of both sessions."""
    with av.open(str(FOLDER / "video-00000.mp4")) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    heard = {("video-00000", who): (sound[who], 48_000) for who in (0, 1)}
    for who, name in enumerate(("alice", "bob")):
        heard["tracks-00001", who] = soundfile.read(FOLDER / "tracks-00001" / f"{name}.wav")
    for (name, who), (samples, rate) in heard.items():
        person = truths[name]["participants"][who]
        inside = np.zeros(len(samples), bool)
        for x in person["words"] + [s for s in truths[name]["sounds"] if s["participant"] == person["id"]]:
            inside[x["start"] * rate // 16_000 : x["stop"] * rate // 16_000] = True
        assert np.mean(samples[inside] ** 2) > 100 * np.mean(samples[~inside] ** 2), (name, person["id"])


def test_each_clap_is_a_beep_and_a_flash_at_the_same_moment(truths):
    truth = truths["video-00000"]
    with av.open(str(FOLDER / "video-00000.mp4")) as container:
        pictures = [(frame.pts * frame.time_base * 16_000, frame.to_ndarray()[:200].mean() > 220) for frame in container.decode(video=0)]
    with av.open(str(FOLDER / "video-00000.mp4")) as container:
        user = np.concatenate([frame.to_ndarray()[1] for frame in container.decode(audio=0)])
    flashes = [at for i, (at, white) in enumerate(pictures) if white and not pictures[i - 1][1]]
    beeps = [sound["start"] for sound in truth["sounds"] if sound["kind"] == "clap"]
    assert flashes == beeps and beeps
    for beep in beeps:
        loud = np.abs(user[beep * 3 - 480 : beep * 3 + 480]) > 0.15
        assert abs(int(np.argmax(loud)) - 480) <= 48
