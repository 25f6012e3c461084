"""Exact resume: a run that was killed, stopped or lengthened is the run that never was, bit for bit, rows and weights alike.

8 steps  =  4 steps, then 4 more  =  kill -9 of a real process, then the rest  =  a damaged checkpoint, then the rest (workers differ)
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from corpora import copied
from microturn.schemas.errors import InputError
from microturn.trainer.train import checkpoint
from microturn.trainer.train.loop import Ended
from runs import Listener, config, go, rows, tensors
from tensors import same_bits

STEPS = 8


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The runs compute with one thread; whoever comes next has what was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def straight(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of eight steps that nothing happened to. Do not change it: `shutil.copytree` gives one to tamper with."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    go(run, config(folder, STEPS))
    return run


def last(run: Path, step: int = STEPS) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def assert_same_run(run: Path, straight: Path) -> None:
    assert rows(run) == rows(straight) and [row["step"] for row in rows(run)] == list(range(1, STEPS + 1))
    ours, theirs = tensors(last(run)), tensors(last(straight))
    assert ours.keys() == theirs.keys() and [name for name in ours if not same_bits(ours[name], theirs[name])] == []
    assert checkpoint.read(last(run)).place == checkpoint.read(last(straight)).place


def test_the_run_learns_and_its_weights_move(straight, folder):
    """Not vacuous: equal runs are not runs that stand still."""
    losses = [row["loss"] for row in rows(straight)]
    assert losses[-1] < losses[0] and len({row["grad_norm"] for row in rows(straight)}) == STEPS
    before, after = tensors(last(straight, 6)), tensors(last(straight))
    weights = [name for name in after if name.startswith("model.")]
    moved = [name for name in weights if not same_bits(before[name], after[name])]
    assert len(weights) > 40 and len(moved) > 0.9 * len(weights)


def test_another_seed_is_another_run(straight, folder, tmp_path):
    go(tmp_path / "run", config(folder, 2, seed=4))
    assert [row["loss"] for row in rows(tmp_path / "run")] != [row["loss"] for row in rows(straight)][:2]


def test_a_longer_run_is_the_same_run(straight, folder, tmp_path):
    for steps, workers in ((3, 2), (3, 0), (STEPS, 1)):
        assert go(tmp_path / "run", config(folder, steps, pace={"workers": workers})).ended is Ended.DONE
    assert_same_run(tmp_path / "run", straight)


def test_a_run_that_is_killed_goes_on_as_if_nothing_had_happened(straight, folder, tmp_path):
    run, file = tmp_path / "run", tmp_path / "config.json"
    file.write_text(json.dumps(config(folder, 10_000, pace={"workers": 2, "keep": 10_000})))
    command = [sys.executable, "-c", "from microturn.cli import main; main()", "train", str(run), "--config", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        started = time.monotonic()
        while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_bytes().splitlines()) < 5:
            assert process.poll() is None and time.monotonic() - started < 300, process.communicate()
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL and last(run, 4).is_dir()
    for later in (saved for saved in (run / "checkpoints").glob("step-*") if saved > last(run, 4)):  # wherever the kill fell, there is
        shutil.rmtree(later)  # something to do again
    assert len(rows(run)) >= 5
    go(run, config(folder, STEPS, pace={"workers": 1}))
    assert_same_run(run, straight)


def test_a_run_that_is_asked_to_stop_is_saved_and_goes_on(straight, folder, tmp_path):
    stand = go(tmp_path / "run", config(folder, STEPS), Listener(stop_after=5))
    assert stand.ended is Ended.ASKED and stand.step == 5 and last(tmp_path / "run", 5).is_dir()
    go(tmp_path / "run", config(folder, STEPS))
    assert_same_run(tmp_path / "run", straight)


def set_back(run: Path, straight: Path, step: int) -> None:
    """`run` is a copy of the straight one whose newest checkpoint is of `step`, with all its rows and half a row more."""
    shutil.copytree(straight, run, symlinks=True)
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(last(run, later), ignore_errors=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.')


@pytest.mark.parametrize("step", [4, 6])
def test_rows_beyond_the_checkpoint_are_written_once(straight, folder, tmp_path, step):
    set_back(tmp_path / "run", straight, step)
    go(tmp_path / "run", config(folder, STEPS))
    assert_same_run(tmp_path / "run", straight)


def damage_byte(saved: Path) -> None:
    file = next(saved.glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "is damaged": damage_byte,
    "is missing": lambda saved: next(saved.glob("*.safetensors")).unlink(),
    "is of step 6": lambda saved: shutil.copy(saved.with_name("step-00000006") / "checkpoint.json", saved),
    "no readable checkpoint.json": lambda saved: (saved / "checkpoint.json").write_bytes((saved / "checkpoint.json").read_bytes()[:-40]),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(straight, folder, tmp_path, what):
    shutil.copytree(straight, tmp_path / "run", symlinks=True)
    DAMAGES[what](last(tmp_path / "run"))
    go(tmp_path / "run", config(folder, STEPS), listener := Listener())
    assert [told for told in listener.told if "step-00000008" in told and what in told] and listener.rows[0]["step"] == 7
    assert_same_run(tmp_path / "run", straight)


def test_a_checkpoint_that_was_not_finished_is_none(straight, folder, tmp_path):
    set_back(tmp_path / "run", straight, 6)
    shutil.copytree(last(straight), tmp_path / "run" / "checkpoints" / ".step-00000008.part")
    (tmp_path / "run" / "checkpoints" / ".step-00000008.part" / "checkpoint.json").unlink()
    go(tmp_path / "run", config(folder, STEPS), listener := Listener())
    assert listener.rows[0]["step"] == 7 and not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.parametrize("kept", [[1, 2, 3, 5, 6, 7, 8], [], None], ids=["a gap", "none", "no file"])
def test_metrics_that_are_missing_are_told_and_the_run_goes_on(straight, folder, tmp_path, kept):
    shutil.copytree(straight, tmp_path / "run", symlinks=True)
    lines = (straight / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    if kept is not None:
        (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[step - 1] for step in kept))
    go(tmp_path / "run", config(folder, 9), listener := Listener())
    words = f"rows of {len(kept or [])} steps, the checkpoint is of step 8"
    assert any(words in told for told in listener.told) and [row["step"] for row in rows(tmp_path / "run")] == [*(kept or []), 9]


def test_a_run_that_has_its_steps_is_left_as_it_is(straight, folder):
    before = {file: file.stat().st_mtime_ns for file in last(straight).iterdir()}
    assert go(straight, config(folder, STEPS)).step == STEPS and len(rows(straight)) == STEPS
    assert {file: file.stat().st_mtime_ns for file in last(straight).iterdir()} == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"optimizer": {"lr": 0.02}}, "optimizer.lr is 0.02, the run was started with 0.01"),
        ({"model": {"layers": 3}}, "model.layers is 3, the run was started with 2"),
        ({"data": {"cut_played": 0.5}}, "data.cut_played is 0.5, the run was started with 0.02"),
        ({"schedule": {"decay_from": 4, "decay_steps": 4}}, "schedule.decay_from is 4, the run was started with None"),
        ({"step_sequences": 4}, "step_sequences is 4, the run was started with 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_config_is_refused_naming_both_values(straight, folder, changes, words):
    before = (straight / "config.json").read_bytes(), rows(straight)
    with pytest.raises(InputError) as refused:
        go(straight, config(folder, 9, **changes))
    assert words in str(refused.value) and "new one" in refused.value.hint
    assert ((straight / "config.json").read_bytes(), rows(straight)) == before


def test_a_decay_may_be_added_from_where_the_run_stands(straight, folder, tmp_path):
    shutil.copytree(straight, tmp_path / "run", symlinks=True)
    go(tmp_path / "run", config(folder, 10, schedule={"decay_from": STEPS, "decay_steps": 4}))
    assert [row["rate"] for row in rows(tmp_path / "run")] == [0.005, *[0.01] * 7, 0.0075, 0.005]


def test_another_corpus_is_refused_naming_both_digests(straight, folder, tmp_path):
    other = copied(folder, tmp_path / "other")
    dataset = json.loads((other / "dataset.json").read_text())
    known, strange = dataset["digests"]["content"], "0" * 64
    dataset["digests"]["content"] = strange
    (other / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(InputError) as refused:
        go(straight, config(other, 9))
    assert known in str(refused.value) and strange in str(refused.value)


def test_a_corpus_may_move(straight, folder, tmp_path):
    shutil.copytree(straight, tmp_path / "run", symlinks=True)
    go(tmp_path / "run", config(copied(folder, tmp_path / "moved"), 9))
    assert len(rows(tmp_path / "run")) == 9


def test_a_folder_of_something_else_is_not_written_into(folder, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something, but no config"):
        go(tmp_path, config(folder, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_every_start_leaves_what_it_was_made_with(straight):
    config, corpus = (json.loads((straight / name).read_text()) for name in ("config.json", "corpus.json"))
    starts = [json.loads(line) for line in (straight / "environment.jsonl").read_text().splitlines()]
    assert config["model"]["hidden"] == 32 and config["pace"]["steps"] == STEPS and config["data"]["seed"] == 3
    assert len(corpus["corpora"][0]["identity"]["content"]) == 64 and corpus["layout"]["tokenizer"] == "bytes"
    assert starts[0]["step"] == 0 and starts[0]["packages"]["torch"] == version("torch")
    assert starts[0]["numerics"]["digest"] and starts[0]["numerics"]["contract"] and starts[0]["threads"] == 1
