"""Truth is truth: what the files of `synth` hold, read with other people's code, lies where truth.json says, to the sample or picture."""

import itertools
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from microturn.pipelines import synth
from microturn.schemas.clock import TICK_SAMPLES, to_samples

MS = 16  # samples of the session clock
QUIET = 200  # int16 steps: above every hiss of a room (-66 dB), below every word


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("raw")
    synth.make(out / "mixed", hours=6 * 24 / 3600, sessions=6, seed=3)
    synth.make(out / "video", hours=9 * 12 / 3600, sessions=9, seed=4, layout="video")  # three picture rates
    return out


def truths(folder: Path, layout: str) -> list[dict]:
    found = [json.loads(path.read_text()) for path in sorted((folder / "truth").glob(f"{layout}-*.json"))]
    assert found
    return found


def audio_of(folder: Path, truth: dict, who: int) -> tuple[np.ndarray, int]:
    """int16 samples of a participant's WAV, by libsndfile, and their rate."""
    stream = [s for s in truth["streams"] if s["kind"] == "audio"][who]
    samples, rate = soundfile.read(folder / stream["path"], dtype="int16", always_2d=True)
    assert rate == stream["rate_hz"] and len(samples) == stream["num_source_samples"]
    return samples[:, stream.get("channel", 0)], rate


def isolated(truth: dict, who: int) -> list[dict]:
    """Words with 10 ms of the speaker's own silence before them."""
    sounds = [(s["start"], s["stop"]) for s in truth["sounds"] if s["participant"] == truth["participants"][who]["id"]]
    sounds += [(w["start"], w["stop"]) for w in truth["participants"][who]["words"]]
    return [w for w in truth["participants"][who]["words"] if not any(a < w["start"] < b + 10 * MS for a, b in sounds)]


def onset_errors(samples: np.ndarray, rate: int, starts: list[int]) -> list[int]:
    """How far behind `start` the first loud sample lies, in samples of the stream; looks from 8 ms before to 8 ms after."""
    reach = rate // 125
    windows = [np.abs(samples[start - reach : start + reach].astype(int)) > QUIET for start in starts]
    return [int(np.argmax(window)) - reach if window.any() else reach for window in windows]


@pytest.mark.parametrize("layout", ["stereo", "tracks"])
def test_a_word_begins_within_a_millisecond_of_its_truth(raw, layout):
    num_words = 0
    for truth in truths(raw / "mixed", layout):
        for who in (0, 1):
            samples, rate = audio_of(raw / "mixed", truth, who)
            starts = [word["source_start"] for word in isolated(truth, who)]
            errors = onset_errors(samples, rate, starts)
            assert all(0 <= error <= rate // 1000 for error in errors), (truth["name"], max(errors))
            num_words += len(errors)
            ends = [np.abs(samples[w["source_stop"] - rate // 80 : w["source_stop"]].astype(int)).max() for w in isolated(truth, who)]
            assert min(ends, default=QUIET) >= QUIET, "a word sounds until its stop, but for the last 12 ms"
            shifted = onset_errors(samples, rate, [start + rate // 500 for start in starts])  # the check can fail: 2 ms off
            assert all(error < 0 for error in shifted)
    assert num_words > 50


def test_nothing_sounds_but_what_truth_names(raw):
    checked = 0
    for truth in truths(raw / "mixed", "stereo") + truths(raw / "mixed", "tracks"):
        for who in (0, 1):
            samples, rate = audio_of(raw / "mixed", truth, who)
            name = truth["participants"][who]["id"]
            spans = [(w["source_start"], w["source_stop"]) for w in truth["participants"][who]["words"]]
            spans += [(s["start"] * rate // 16_000, s["stop"] * rate // 16_000) for s in truth["sounds"] if s["participant"] == name]
            rest = np.ones(len(samples), bool)
            for start, stop in spans:
                rest[start:stop] = False
            loudest = np.abs(samples[rest].astype(int)).max()
            assert loudest == 0 if truth["room_db"] is None else 0 < loudest < QUIET
            checked += truth["room_db"] is None
    assert checked, "a session in digital silence is among them"


def test_seconds_in_json_round_to_exactly_the_truth(raw):
    num_words = 0
    for truth in truths(raw / "mixed", "stereo") + truths(raw / "mixed", "video"):
        rows = json.loads((raw / "mixed" / f"{truth['name']}.json").read_text(), parse_float=Decimal)["alignments"]
        assert rows == sorted(rows, key=lambda row: row[1][0])
        for label, person in zip(("SPEAKER_MAIN", "SPEAKER_USER"), truth["participants"], strict=True):
            found = [(text, to_samples(a), to_samples(b)) for text, (a, b), speaker in rows if speaker == label]
            assert found == [(w["text"], w["start"], w["stop"]) for w in person["words"]]
            assert all(a * 16_000 % 1 == 0 for _, (a, _), _ in rows), "exact as written, not only after rounding"
            num_words += len(found)
    for truth in truths(raw / "mixed", "tracks"):
        for person in truth["participants"]:
            rows = json.loads((raw / "mixed" / truth["name"] / f"{person['id']}.json").read_text(), parse_float=Decimal)
            found = [(row["word"], to_samples(row["start"]), to_samples(row["end"])) for row in rows]
            assert found == [(w["text"], w["start"], w["stop"]) for w in person["words"]]
    assert num_words > 100


def test_source_samples_and_session_samples_are_the_same_time(raw):
    for truth in truths(raw / "mixed", "*"):
        for person, stream in zip(truth["participants"], truth["streams"], strict=False):
            for word in person["words"]:
                for edge in ("start", "stop"):
                    assert Fraction(word[f"source_{edge}"], stream["rate_hz"]) == Fraction(word[edge], 16_000)


def movie(folder: Path, truth: dict) -> tuple[list[Fraction], list[np.ndarray], np.ndarray]:
    """Times of the pictures in session samples, their luma, and the sound [2, samples] at 48 kHz."""
    path = str(folder / f"{truth['name']}.mp4")
    with av.open(path) as container:
        pictures = [(frame.pts * frame.time_base * 16_000, frame.to_ndarray()[:240]) for frame in container.decode(video=0)]
    with av.open(path) as container:
        blocks = [(frame.pts, frame.to_ndarray()) for frame in container.decode(audio=0)]
    assert blocks[0][0] == 0, "sound starts at the session's zero"
    return [at for at, _ in pictures], [luma for _, luma in pictures], np.concatenate([block for _, block in blocks], axis=1)


def test_the_flash_and_its_beep_are_one_moment(raw):
    rates, claps = set(), 0
    for truth in truths(raw / "video", "video"):
        times, lumas, sound = movie(raw / "video", truth)
        white = [luma[:200].mean() > 220 for luma in lumas]
        first = [i for i in range(len(white)) if white[i] and not (i and white[i - 1])]
        assert len(first) == len(truth["pictures"]["flashes"])
        beeps = [s["start"] for s in truth["sounds"] if s["kind"] == "clap"]
        for picture, flash, beep in zip(first, truth["pictures"]["flashes"], beeps, strict=True):
            assert picture == flash["picture"] and flash["beep"] == beep
            assert abs(times[picture] - beep) <= 1, "of a picture's 534 to 880 samples"
            heard = np.abs(sound[1, (beep - 160) * 3 : (beep + 160) * 3]) > 0.15
            assert abs(int(np.argmax(heard)) - 480) <= 48, "AAC keeps the beep's onset within 1 ms"
            claps += 1
            rates.add(truth["pictures"]["rate"])
    assert claps >= 3 and len(rates) >= 2


def test_the_counter_shows_the_tick_of_each_picture(raw):
    rates, first_times = set(), set()
    for truth in truths(raw / "video", "video"):
        times, lumas, _ = movie(raw / "video", truth)
        assert len(times) == truth["pictures"]["num_pictures"]
        assert times[0] == truth["pictures"]["first_pts"] * Fraction(truth["pictures"]["time_base"]) * 16_000
        for at, luma in zip(times, lumas, strict=True):
            bits = [luma[220, 20 * i + 10] > 150 for i in range(16)]
            assert sum(bit << (15 - i) for i, bit in enumerate(bits)) == at // TICK_SAMPLES
        steps = {b - a for a, b in itertools.pairwise(times)}
        assert len(steps) > 2 if truth["pictures"]["rate"] == "variable" else steps == {16_000 / Fraction(truth["pictures"]["rate"])}
        rates.add(truth["pictures"]["rate"])
        first_times.add(times[0] > 0)
    assert rates == {"25", "30000/1001", "variable"} and first_times == {True, False}, "some cameras start after the microphone"


def test_the_wall_and_the_table_are_seen_in_their_colours(raw):
    from microturn.pipelines.synth.screen import RGB

    seen = 0
    for truth in truths(raw / "mixed", "video"):
        with av.open(str(raw / "mixed" / f"{truth['name']}.mp4")) as container:
            pictures = [(frame.pts * frame.time_base * 16_000, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        sights = truth["pictures"]["sights"]
        for sight, until in zip(sights, [s["start"] for s in sights[1:]] + [truth["num_samples"]], strict=True):
            shown = [rgb for at, rgb in pictures if sight["start"] + 1600 < at < until and rgb[10, 310].mean() < 245]  # no flash
            for rgb in shown[:1]:
                assert np.abs(rgb[10, 310].astype(int) - RGB[sight["wall"]]).max() < 12
                colours = [colour for _, colour, count in sight["table"] for _ in range(count)]
                for cell, colour in enumerate(colours):
                    row, column = cell % 5, cell // 5
                    assert np.abs(rgb[row * 40 + 20, column * 40 + 20].astype(int) - RGB[colour]).max() < 24
                    seen += 1
    assert seen > 3


def test_the_mouth_is_open_when_the_user_speaks(raw):
    truth = truths(raw / "mixed", "video")[0]
    times, lumas, _ = movie(raw / "mixed", truth)
    words = [(w["start"], w["stop"]) for w in truth["participants"][1]["words"]]
    mouths = np.array([luma[118:131, 150:170].mean() for luma in lumas])
    speaking = np.array([any(start <= at < stop - 640 for start, stop in words) for at in times])
    silent = np.array([all(at + 640 <= start or at >= stop for start, stop in words) for at in times])
    usual = np.array([luma[:200].mean() < 220 for luma in lumas])
    assert mouths[speaking & usual].mean() < mouths[silent & usual].mean() - 20


def test_turns_gaps_and_overlaps_agree_with_a_slower_count(raw):
    """Activity as one boolean per millisecond, instead of intervals."""
    overlaps = 0
    for truth in truths(raw / "mixed", "*"):
        active = np.zeros((2, truth["num_samples"] // MS + 2), bool)
        for who, person in enumerate(truth["participants"]):
            spans = [(w["start"], w["stop"]) for w in person["words"]]
            spans += [(s["start"], s["stop"]) for s in truth["sounds"] if s["kind"] == "laugh" and s["participant"] == person["id"]]
            for start, stop in spans:
                active[who, start // MS : -(-stop // MS)] = True
            edges = np.flatnonzero(np.diff(active[who].astype(int), prepend=0))
            for stop, start in zip(edges[1::2], edges[2::2], strict=False):
                if start - stop < 499:
                    active[who, stop:start] = True
            mine = [t for t in truth["turns"] if t["participant"] == person["id"]]
            assert abs(active[who].sum() - sum(t["stop"] - t["start"] for t in mine) / MS) <= 2 * len(mine)
        both = sum(o["stop"] - o["start"] for o in truth["overlaps"]) / MS
        assert abs((active[0] & active[1]).sum() - both) <= 2 * len(truth["overlaps"])
        assert all(gap["start"] < gap["stop"] for gap in truth["gaps"])
        quiet = np.flatnonzero(np.diff((~active.any(0)).astype(int), prepend=0))
        runs = [(a, b) for a, b in zip(quiet[::2], quiet[1::2], strict=False) if a and (active[:, a - 1] != active[:, b]).any()]
        found = [gap for gap in truth["gaps"] if gap["stop"] - gap["start"] > 2 * MS]
        assert [a for a, _ in runs] == [-(-gap["start"] // MS) for gap in found] and len(runs) > 3
        overlaps += len(truth["overlaps"])
    assert overlaps > 3
