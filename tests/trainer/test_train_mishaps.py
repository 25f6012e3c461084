"""What happens to run folders: two processes at once, rows that were torn, links a kill came before, damage; and what of it is told."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from microturn import kernels
from microturn.schemas.errors import InputError, MicroturnError
from microturn.trainer.train import checkpoint, run_folder
from microturn.trainer.train.alone import LOCK, Busy, alone
from microturn.trainer.train.run_folder import RunFolder
from microturn.trainer.train.trained import trained
from runs import Listener, config, go, rows

OFTEN = {"evaluate_every": 1, "evaluate_sequences": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def made(held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps, each of them saved and looked at. Do not change it: `run` is a copy."""
    run = tmp_path_factory.mktemp("runs") / "run"
    before = torch.get_num_threads()
    go(run, config(held_out, 3, pace=OFTEN))
    torch.set_num_threads(before)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run", symlinks=True)


def step(run: Path, number: int) -> Path:
    return run / "checkpoints" / checkpoint.name_of(number)


def hold(run: Path, line: Connection) -> None:
    """Another process that trains the run, until it is killed; it has a worker of its own, as a loader has."""
    with alone(run, print):
        worker = os.fork()
        line.send(worker or os.getpid())
        signal.pause()


def test_a_second_process_is_refused_and_a_dead_one_does_not_count(run, held_out):
    fork = multiprocessing.get_context("fork")
    line, theirs = fork.Pipe()
    other = fork.Process(target=hold, args=(run, theirs))
    other.start()
    workers = {line.recv(), line.recv()} - {other.pid}
    try:
        before = {path: path.read_bytes() for path in run.glob("*.json*")}
        with pytest.raises(Busy, match=f"process {other.pid} on .* trains this run") as refused:
            go(run, config(held_out, 4, pace=OFTEN))
        assert "wait for its end" in refused.value.hint and {path: path.read_bytes() for path in run.glob("*.json*")} == before
        other.kill()
        other.join()
        go(run, config(held_out, 4, pace=OFTEN))  # though its worker lives on
        assert len(rows(run)) == 4
    finally:
        other.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def test_a_start_that_was_killed_at_once_is_no_other_folder(held_out, tmp_path):
    for name in (LOCK, ".config.json.part"):
        (tmp_path / name).write_text("")
    assert go(tmp_path, config(held_out, 1)).step == 1


# ---- environment.jsonl


def test_a_torn_row_of_the_environment_goes_and_the_run_goes_on(run, held_out):
    file = RunFolder(run).environment
    whole = file.read_text()
    file.write_text(whole + whole[:40])
    assert trained(run).numerics == json.loads(whole)["numerics"]["digest"]
    for steps in (4, 5):
        go(run, config(held_out, steps, pace=OFTEN))
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 3, 4]


def test_a_run_without_its_environment_can_be_used(run):
    RunFolder(run).environment.unlink()
    assert trained(run).numerics == "" and trained(run).step == 3


def test_the_fingerprint_is_of_the_device_that_computes(run, monkeypatch):
    asked = []
    monkeypatch.setattr(run_folder.kernels, "fingerprint", lambda device: asked.append(device) or {"digest": "f00"})
    assert "fingerprint f00, the start before had" in RunFolder(run).write_environment(3, torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1)] and RunFolder(run).numerics() == "f00" and kernels.fingerprint


# ---- checkpoints


def test_a_best_that_a_kill_came_before_is_found_again(run, held_out):
    best = checkpoint.read(step(run, 3)).best
    assert best is not None and best.step > 1  # else nothing below can fail
    for link in ("best", "last"):
        (run / "checkpoints" / link).unlink()
        (run / "checkpoints" / link).symlink_to(checkpoint.name_of(1))
    assert trained(run, "best").step == best.step
    go(run, config(held_out, 3, pace=OFTEN))  # nothing to do, but for the links
    assert os.readlink(run / "checkpoints" / "best") == checkpoint.name_of(best.step)
    go(run, config(held_out, 4, pace=OFTEN | {"evaluate_every": 0, "keep": 1}))
    links = [os.readlink(run / "checkpoints" / link) for link in ("best", "last")]
    assert links == [checkpoint.name_of(best.step), checkpoint.name_of(4)] and trained(run, "best").step == best.step
    assert {path.name for path in (run / "checkpoints").glob("step-*")} == set(links)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("hurt", [flip, lambda file: os.truncate(file, 100), Path.unlink], ids=["flipped", "cut", "gone"])
def test_a_damaged_best_is_not_used(run, hurt: Callable[[Path], None]):
    best = checkpoint.best_in(run / "checkpoints")
    hurt(next(best.glob("*.safetensors")))
    with pytest.raises(InputError, match=f"{best.name}: .* is (damaged|missing)") as refused:
        trained(run, "best")
    assert "take the last" in refused.value.hint


def test_an_identity_names_the_dtype_that_the_model_has(run):
    one, other = trained(run), trained(run)
    assert one.identity == other.identity
    other.model.dtype = torch.bfloat16
    assert one.identity != other.identity


# ---- nonsense


@pytest.mark.parametrize(
    "name, text", [("corpus.json", "{}"), ("corpus.json", '{"corpora": 5}'), ("corpus.json", "torn"), ("config.json", "5")]
)
def test_nonsense_in_a_run_folder_is_named(run, held_out, name, text):
    (run / name).write_text(text)
    for use in (lambda: trained(run), lambda: go(run, config(held_out, 4, pace=OFTEN))):
        with pytest.raises(MicroturnError, match=name):
            use()


@pytest.mark.parametrize("line", ["torn", "5", '{"loss": 1.0}', "\udcff"])
def test_a_broken_line_within_the_metrics_is_named(run, held_out, line):
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0] + line.encode(errors="surrogateescape") + b"\n" + lines[2])
    with pytest.raises(MicroturnError, match=r"metrics.jsonl, (line|row) 2") as refused:
        go(run, config(held_out, 4, pace=OFTEN))
    assert "take it out" in refused.value.hint
    (run / "metrics.jsonl").write_bytes(lines[0] + lines[2])
    assert go(run, config(held_out, 4, pace=OFTEN), listener := Listener()).step == 4 and any(
        "rows of 2 steps" in told for told in listener.told
    )
