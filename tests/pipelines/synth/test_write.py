"""Laws of the folder that `synth` writes: the same bytes, never half a session, bounded memory, manifests that the schema takes."""

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines import synth
from microturn.pipelines.synth.command import synth_command
from microturn.pipelines.synth.mix import blocks
from microturn.pipelines.synth.plan import plans
from microturn.pipelines.synth.play import make_scene
from microturn.pipelines.synth.voices import procedural_voices
from microturn.schemas.errors import InputError
from microturn.schemas.manifest import Session

SMALL = {"hours": 3 * 8 / 3600, "sessions": 3}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    again = f"from pathlib import Path; from microturn.pipelines import synth; synth.make(Path({str(tmp_path / 'b')!r}), seed=1, **{SMALL})"
    subprocess.run([sys.executable, "-c", again], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    for name, seed in (("a", 1), ("c", 2)):
        synth.make(tmp_path / name, seed=seed, **SMALL)
    a, b, c = (files_of(tmp_path / name) for name in "abc")
    assert len(a) == 12 and a == b  # the MP4 too
    assert a.keys() == c.keys() and not [name for name in a if a[name] == c[name]]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    hours=st.integers(1, 200),
    more=st.integers(1, 200),
    layout=st.sampled_from(["mixed", "stereo", "tracks", "video"]),
)
def test_more_hours_only_add_sessions(seed, hours, more, layout):
    few = plans(seed, "procedural", layout, hours / 100, None)
    many = plans(seed, "procedural", layout, (hours + more) / 100, None)
    assert many[: len(few)] == few
    assert sum(plan.num_samples for plan in few) >= hours * 36 * 16_000
    assert sum(plan.num_samples for plan in few[:-1]) < hours * 36 * 16_000 or len(few) == 3


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    def stop_at_third(name, done, total):
        if name.endswith("00002"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth.make(tmp_path / "stopped", seed=1, progress=stop_at_third, **SMALL)
    assert not (tmp_path / "stopped" / "manifest.jsonl").exists()
    assert synth.make(tmp_path / "stopped", seed=1, **SMALL).num_written == 1
    assert synth.make(tmp_path / "straight", seed=1, **SMALL).num_written == 3
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "straight")


def test_what_is_missing_or_cut_short_is_made_again(tmp_path):
    synth.make(tmp_path, seed=1, **SMALL)
    before = files_of(tmp_path)
    assert synth.make(tmp_path, seed=1, **SMALL).num_written == 0
    (tmp_path / "tracks-00001" / "bob.wav").unlink()
    (tmp_path / "stereo-00000.wav").write_bytes(before["stereo-00000.wav"][:1000])
    (tmp_path / "truth" / "video-00002.json").write_text("{")
    assert synth.make(tmp_path, seed=1, **SMALL).num_written == 3
    assert files_of(tmp_path) == before
    assert synth.make(tmp_path, seed=1, overwrite=True, **SMALL).num_written == 3


def test_a_session_that_fails_leaves_nothing_half(tmp_path, monkeypatch):
    from microturn.pipelines.synth import write

    def broken(*args, **kwargs):
        yield np.zeros(1000, np.int16)
        raise OSError("disk full")

    monkeypatch.setattr(write, "blocks", broken)
    with pytest.raises(OSError, match="disk full"):
        synth.make(tmp_path, seed=1, layout="stereo", **SMALL)
    assert files_of(tmp_path) == {}


def test_another_recipe_in_the_same_folder_is_refused(tmp_path):
    synth.make(tmp_path, seed=1, **SMALL)
    for other in ({"seed": 2, **SMALL}, {"seed": 1, "hours": 0.01, "sessions": 3}, {"seed": 2, "layout": "video", "sessions": 1}):
        with pytest.raises(InputError, match="holds a session made from") as refused:
            synth.make(tmp_path, **other)
        assert "--overwrite" in refused.value.hint


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"hours": 0.0}, "above 0"),
        ({"sessions": 0}, "at least 1"),
        ({"hours": 0.001, "sessions": 4}, "a conversation needs 4"),
        ({"layout": "demo", "hours": 1.0}, "neither hours"),
    ],
)
def test_impossible_lengths_are_refused_in_words(tmp_path, wanted, message):
    with pytest.raises(InputError, match=message):
        synth.make(tmp_path, **wanted)


def test_the_manifest_is_one_that_the_schema_takes_and_names_every_file(tmp_path):
    made = synth.make(tmp_path, seed=1, layout="demo")
    rows = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    sessions = [Session.parse(row, where="row") for row in rows]
    assert [s.id for s in sessions] == [t["name"] for t in made.truths] == ["video-00000", "tracks-00001"]
    named = {s.path for session in sessions for s in session.streams} | {t.path for session in sessions for t in session.transcripts}
    assert named | {"manifest.jsonl"} == {name for name in files_of(tmp_path) if not name.startswith("truth/")}
    assert {e.kind for s in sessions for e in s.events} >= {"typed", "delegate", "background"}
    for session, truth in zip(sessions, made.truths, strict=True):
        assert [e.at * 16_000 for e in session.events] == [e["at"] for e in truth["events"]]
        assert {p.role for p in session.participants} == {"assistant", "user"} and session.license == "CC0-1.0"


def test_memory_does_not_grow_with_the_session():
    """Ten minutes of one participant need no more than one; the whole would be 9.6 MB."""
    voices = procedural_voices(0, 0)
    peaks = []
    for minutes in (10, 1, 10):  # the first fills the caches of words
        num_samples = minutes * 60 * 16_000
        scene = make_scene("0", num_samples, voices, seen=False)
        tracemalloc.start()
        total = sum(len(block) for block in blocks(scene, 0, voices[0], 16_000, room_db=-66, num_samples=num_samples))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == num_samples
    assert peaks[2] < peaks[1] + 500_000


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 100), tenths=st.integers(40, 300), rate=st.sampled_from([8_000, 16_000, 24_000, 48_000]))
def test_blocks_are_a_second_long_and_together_the_whole(seed, tenths, rate):
    num_samples = tenths * 1600
    voices = procedural_voices(0, 0)
    scene = make_scene(str(seed), num_samples, voices, seen=False)
    lengths = [len(b) for b in blocks(scene, 1, voices[1], rate, room_db=None, num_samples=num_samples)]
    assert set(lengths[:-1]) <= {rate} and sum(lengths) == num_samples * rate // 16_000


def test_the_command_says_what_was_made_and_what_comes_next(tmp_path):
    result = CliRunner().invoke(synth_command, [str(tmp_path / "raw"), "--sessions", "2", "--hours", "0.003", "--layout", "stereo"])
    assert result.exit_code == 0
    assert "2 sessions (2 stereo)" in result.stdout and f"next: microturn build {tmp_path / 'raw'} CORPUS" in result.stdout
    assert (
        "there already"
        in CliRunner().invoke(synth_command, [str(tmp_path / "raw"), "--sessions", "2", "--hours", "0.003", "--layout", "stereo"]).stdout
    )


def test_help_says_units_and_defaults_and_examples():
    text = CliRunner().invoke(synth_command, ["--help"]).stdout
    for said in ("Hours", "default: 0.05", "default: procedural", "Examples:", "microturn synth raw", "tracks"):
        assert said in text


def test_no_word_lies_beyond_the_end_of_its_track():
    shorter = 0
    for plan in plans(0, "procedural", "tracks", None, 40):
        scene = make_scene(f"0 {plan.index}", plan.num_samples, procedural_voices(0, plan.index // 3), seen=False)
        for who in (0, 1):
            assert max(said.stop for said in scene.said if said.who == who) <= plan.track(who).num_samples
        shorter += plan.track(1).num_samples < plan.num_samples
    assert shorter > 3


def test_no_two_sessions_of_a_seed_are_alike():
    made = plans(0, "procedural", "mixed", 1.0, None)
    assert len({plan.name for plan in made}) == len(made) > 60
    scenes = [make_scene(f"0 {plan.index}", 20 * 16_000, procedural_voices(0, plan.index // 3), seen=False).said for plan in made[:9]]
    assert not any(a == b for a, b in itertools.combinations(scenes, 2))
