"""`microturn build` and `verify` as people meet them: exit codes, two-line errors, data on stdout, no traceback."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from corpora import Raw, ledger, mono_stream, tree
from microturn import cli
from microturn.pipelines import build_command, run
from microturn.pipelines.estimate import look
from microturn.pipelines.sessions import child
from microturn.pipelines.storage import folders
from microturn.schemas.spec import FeatureSpec


class Done(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def microturn(capsys, monkeypatch, lent) -> Command:
    """The console script, in this process."""
    monkeypatch.setattr(child, "MediaProcess", lambda: lent)  # of the commands themselves

    def command(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["microturn", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return command


@pytest.fixture
def calls(tmp_path) -> Raw:
    """Two good sessions."""
    made = Raw(tmp_path / "raw")
    for number in range(2):
        made.dyad(f"call-{number}", seconds=1.0, seed=number)
    made.manifest()
    return made


def listening(path: str, session_id: str) -> dict:
    people = [{"id": "me", "role": "assistant"}, {"id": "p", "role": "other"}]
    return {"id": session_id, "streams": [mono_stream("p", path, channel=0)], "participants": people}


def is_two_lines(done: Done) -> bool:
    """An error and a hint, and nothing else that looks like one."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    return lines[-2].startswith("error: ") and lines[-1].startswith("hint: ") and done.err.count("error: ") == 1


def test_a_good_build_exits_with_0_and_says_what_there_is(microturn, calls, tmp_path):
    done = microturn("build", calls.folder, tmp_path / "out", "--split", "train=1")
    told = json.loads(done.out)
    assert done.code == 0 and told["totals"]["num_sessions"] == 2
    assert told["digests"]["content"] in done.err and "2 new" in done.err
    assert microturn("verify", tmp_path / "out").code == 0
    again = microturn("build", calls.folder / "manifest.jsonl", tmp_path / "out", "--split", "train=1")
    assert again.code == 0 and "0 new, 2 known" in again.err and json.loads(again.out) == told
    against = microturn("verify", tmp_path / "out", "--against", calls.folder, "--windows", 3)
    assert against.code == 0 and "3 windows made again" in against.err


def test_dropped_recordings_are_told_and_too_many_of_them_exit_with_3(microturn, calls, tmp_path):
    calls.bytes("text.wav", b"not media" * 99)
    calls.manifest(rows=[*calls.rows, listening("text.wav", "bad one"), listening("gone.wav", "gone\x1b[31m\nred")])
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 3 and json.loads(done.out)["totals"]["rejected_sessions"] == 2
    assert "not_media" in done.err and "text.wav" in done.err and "missing_file" in done.err and "gone.wav" in done.err
    assert "\x1b[31m" not in done.err and "50.0% of the sessions" in done.err
    shutil.rmtree(tmp_path / "out")
    assert microturn("build", calls.folder, tmp_path / "out", "--max-drop-ratio", "0.5").code == 0


def test_dropped_audio_exits_with_3(microturn, calls, tmp_path):
    """Half a wav: nothing that is there is lost, and half of what its header declares is not there."""
    data = (calls.folder / "dyad-0.wav").read_bytes()
    calls.bytes("dyad-0.wav", data[: len(data) // 2])
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 3 and "25.0% of the audio" in done.err


def test_what_is_unsettled_exits_with_4_and_commits_nothing(microturn, calls, tmp_path, monkeypatch):
    stat = os.stat

    def failing(at, **more):
        if str(at).endswith("dyad-1.wav"):
            raise OSError(5, "Input/output error", str(at))
        return stat(at, **more)

    monkeypatch.setattr(folders.os, "stat", failing)
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 4 and "unsettled: session call-1" in done.err and "again" in done.err
    monkeypatch.undo()
    assert done.out == "" and not (tmp_path / "out/dataset.json").exists()
    nothing = microturn("verify", tmp_path / "out")
    assert nothing.code == 2 and is_two_lines(nothing)


def test_a_corpus_of_nothing_is_told_however_much_may_be_dropped(microturn, calls, tmp_path):
    calls.bytes("text.wav", b"not media" * 99)
    calls.manifest(rows=[listening("text.wav", "bad")])
    done = microturn("build", calls.folder, tmp_path / "out", "--max-drop-ratio", "1")
    assert done.code == 3 and "the corpus is empty" in done.err and json.loads(done.out)["totals"]["num_windows"] == 0


@pytest.mark.parametrize(
    ("input_", "out"), [("raw", "raw"), ("raw", "raw/out"), ("raw", "."), ("raw", "raw/../raw/x"), ("link", "raw/out")]
)
def test_input_and_output_that_lie_in_one_another_are_refused(microturn, calls, tmp_path, monkeypatch, input_, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("raw")
    before = tree(calls.folder)
    done = microturn("build", input_, out)
    assert done.code == 2 and is_two_lines(done) and tree(calls.folder) == before


def test_one_recording_may_be_the_input(microturn, calls, tmp_path):
    """Its words beside it come along; other recordings of the folder do not."""
    rows = [["hello", [0.1, 0.4], "SPEAKER_MAIN"], ["hi", [0.5, 0.7], "SPEAKER_USER"]]
    calls.bytes("dyad-0.json", json.dumps({"alignments": rows}).encode())
    done = microturn("build", calls.folder / "dyad-0.wav", tmp_path / "out")
    assert done.code == 0 and json.loads(done.out)["totals"]["num_sessions"] == 1 and "2 of 2 kept" in done.err
    assert microturn("verify", tmp_path / "out", "--against", calls.folder / "dyad-0.wav").code == 0


def test_recordings_whose_names_are_no_text_are_rows(microturn, tmp_path):
    made = Raw(tmp_path / "raw")
    made.sound("good.wav", np.zeros(16_000, np.float32))
    Path(os.fsdecode(os.fsencode(made.folder) + b"/caf\xe9.wav")).write_bytes((made.folder / "good.wav").read_bytes())
    done = microturn("build", made.folder, tmp_path / "out")
    assert done.code == 3 and "caf\\xe9.wav: bad_name" in done.err and json.loads(done.out)["totals"]["num_sessions"] == 1
    assert [(row["session_id"], row["reason"]) for row in ledger(tmp_path / "out") if row["entry"] == "session"] == [
        ("caf\\xe9.wav", "bad_name")
    ]


def test_growing_takes_the_corpus_splits_unless_told_and_says_what_is_absent(microturn, calls, tmp_path):
    assert microturn("build", calls.manifest(rows=calls.rows[:1]), tmp_path / "out", "--split", "train=1").code == 0
    done = microturn("build", calls.manifest(rows=calls.rows[1:]), tmp_path / "out")
    assert done.code == 0 and "1 no longer in the input" in done.err
    other = microturn("build", calls.manifest(), tmp_path / "out", "--split", "train=0.5,val=0.5")
    assert other.code == 1 and is_two_lines(other) and "--split train=1" in other.err


def test_a_conflict_exits_with_1_and_says_what_to_do(microturn, calls, tmp_path):
    assert microturn("build", calls.folder, tmp_path / "out").code == 0
    before = (tmp_path / "out/dataset.json").read_bytes()
    calls.manifest(rows=[row | {"license": "CC0-1.0"} for row in calls.rows])
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 1 and is_two_lines(done) and "conflict: session call-0" in done.err
    assert (tmp_path / "out/dataset.json").read_bytes() == before


def test_another_spec_in_the_same_folder_exits_with_1(microturn, calls, tmp_path):
    assert microturn("build", calls.folder, tmp_path / "out").code == 0
    done = microturn("build", calls.folder, tmp_path / "out", "--set", "window_ticks=50")
    assert done.code == 1 and is_two_lines(done) and "another folder" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/folder"], "no/such/folder"),
        (["RAW", "--set", "pictures.every_tick=1"], "'every_ticks'"),
        (["RAW", "--set", "picture.every_ticks=1"], "'pictures'"),
        (["RAW", "--set", "window_ticks"], "KEY=VALUE"),
        (["RAW", "--set", "window_ticks=0"], "window_ticks"),
        (["RAW", "--set", "window_ticks.x=1"], "window_ticks"),
        (["RAW", "--set", "pictures=1", "--set", "pictures.every_ticks=1"], "pictures"),
        (["RAW", "--set", "heard=[each"], "heard"),
        (["RAW", "--split", "train"], "NAME=SHARE"),
        (["RAW", "--split", "train=0"], "train"),
        (["RAW", "--split", "train=nan"], "train"),
        (["RAW", "--split", "../train=1"], "../train"),
        (["RAW", "--split", "Train=1"], "'Train'"),
        (["RAW", "--split", "train=0.5,train=0.5"], "twice"),
        (["RAW", "--split", "train=-1,val=2"], "0 or more"),
        (["RAW", "--tokenizer", "words"], "--tokenizer"),
        (["RAW", "--tokenizer", "RAW/manifest.jsonl"], "manifest.jsonl"),
        (["RAW", "--spec", "RAW/dyad-0.wav"], "dyad-0.wav"),
        (["RAW/bad.jsonl"], "'license'"),
        (["RAW/empty.jsonl"], "no session"),
        (["RAW/notes"], "no audio or video"),
        (["RAW", "--direct_num_worker=2"], "--direct_num_workers"),
        (["RAW", "--rehsh"], "--rehash"),
        (["RAW", "OUT", "--runner", "DirectRunner"], "--name=value"),
        ([], "INPUT and OUT"),
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_built(microturn, calls, tmp_path, arguments, said):
    calls.manifest("bad.jsonl", rows=[calls.rows[0] | {"licence": "x"}])
    calls.bytes("empty.jsonl", b"\n")
    calls.bytes("notes/a.txt", b"x")
    done = microturn("build", *(a.replace("RAW", str(calls.folder)) for a in arguments), tmp_path / "out")
    assert done.code == 2 and said in done.err and "error: " in done.err.lower()
    assert not (tmp_path / "out").exists()


def test_an_option_of_beams_may_stand_anywhere(microturn, calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = microturn("build", "--runner=DirectRunner", calls.folder, "--direct_num_workers=1", "out")
    assert done.code == 0 and sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_folder_that_cannot_be_written_exits_with_1(microturn, calls, tmp_path):
    (tmp_path / "out").write_text("a file")
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 1 and "error: " in done.err and "out" in done.err


def test_interrupting_exits_with_130_and_says_that_nothing_is_lost(microturn, calls, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run_graph", interrupt)
    done = microturn("build", calls.folder, tmp_path / "out")
    assert done.code == 130 and "again" in done.err


def test_a_report_that_the_corpus_has_outgrown_is_told_of(microturn, calls, tmp_path):
    def tells() -> bool:
        return "report.html tells of the corpus as it was before" in microturn("build", calls.folder, tmp_path / "out").err

    assert not tells()
    microturn("report", tmp_path / "out")
    assert not tells()  # nothing new
    calls.dyad("call-2", seconds=1.0, seed=2)
    calls.manifest()
    assert tells() and not tells()


def test_one_thing_is_never_told_as_many(microturn, tmp_path, monkeypatch, lent):
    monkeypatch.setattr(look, "MediaProcess", lambda silence_s: lent)
    made = Raw(tmp_path / "raw")
    made.dyad("call", seconds=1.0)
    made.bytes("notes.pdf", b"neither media nor words")
    made.manifest()
    out, alone = tmp_path / "out", tmp_path / "alone.txt"
    alone.write_text("somebody\n")
    told = [microturn("build", made.folder, out, "--dry-run", *more) for more in ([], ["--infer"])]
    told += [microturn("build", made.folder, out, "--split", "train=1"), microturn("build", made.folder, out)]
    told += [microturn("verify", out, "--against", made.folder, "--windows", 1), microturn("inspect", out), microturn("report", out)]
    told += [microturn("verify", out, "--absent", alone, "--missing-ok"), microturn("reshard", out, tmp_path / "anew")]
    text = "\n".join([*(done.out + done.err for done in told), (out / "report.html").read_text()])
    assert [done for done in told if done.code] == [] and "1 session" in text and "1 window" in text
    assert re.findall(r"(?<![\d.,:–-])1 (?!ms|is)(?:more |other |new )?[a-z-]+s\b", text) == []


def test_the_spec_that_is_printed_is_the_spec_that_is_read(microturn, calls, tmp_path):
    assert yaml.safe_load(microturn("build", "--print-spec").out) == FeatureSpec().model_dump(mode="json")
    settings = ["--set", "window_ticks=25", "--set", "pictures.tiling=inkling", "--set", "activity.above_floor_db=7.5"]
    first = microturn("build", "x", "y", *settings, "--print-spec")
    (tmp_path / "spec.yaml").write_text(first.out)
    second = microturn("build", "x", "y", "--spec", tmp_path / "spec.yaml", "--print-spec")
    assert first.code == second.code == 0 and first.out == second.out
    assert FeatureSpec.parse(yaml.safe_load(first.out), where="").window_ticks == 25
    changed = microturn("build", "x", "y", "--spec", tmp_path / "spec.yaml", "--set", "window_ticks=26", "--print-spec")
    assert yaml.safe_load(changed.out) == yaml.safe_load(first.out) | {"window_ticks": 26}


def test_verify_says_each_difference_on_stdout_and_exits_with_1(microturn, calls, tmp_path):
    microturn("build", calls.folder, tmp_path / "out")
    dataset = json.loads((tmp_path / "out/dataset.json").read_bytes())
    dataset["totals"]["num_ticks"] += 1
    (tmp_path / "out/dataset.json").write_text(json.dumps(dataset))
    (tmp_path / "out/shards/stray").write_bytes(b"")
    done = microturn("verify", tmp_path / "out")
    assert done.code == 1 and len(done.out.splitlines()) == 2 and "2 differences" in done.err
    calls.words("dyad-0.words.json", [("other", 0.1, 0.2)])
    done = microturn("verify", tmp_path / "out", "--against", calls.folder)
    assert done.code == 1 and "not what the raw files give" in done.out


def test_help_says_what_goes_in_what_comes_out_and_the_exit_codes(microturn):
    told = microturn("build", "--help")
    assert told.code == 0 and all(f"  {code}  " in told.out for code in range(5)) and "microturn build raw corpus" in told.out
    assert all(f"--{option}" in told.out for option in ("workers", "staging", "rehash", "pseudonymise", "max-drop-ratio", "print-spec"))
    assert (build_command.EXIT_FAILED, build_command.EXIT_DROPPED, build_command.EXIT_UNSETTLED) == (1, 3, 4)


def test_a_folder_is_read_by_its_layout_where_it_has_no_manifest(microturn, calls, tmp_path):
    Path(calls.folder / "manifest.jsonl").unlink()
    done = microturn("build", calls.folder, tmp_path / "out", "--set", "window_ticks=50")
    assert done.code == 0 and "2 stereo" in done.err and json.loads(done.out)["totals"]["num_sessions"] == 2
