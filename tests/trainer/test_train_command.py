"""`microturn train` as it is typed: Ctrl-C, resuming with less said, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from microturn import cli
from microturn.schemas.errors import InputError
from microturn.trainer.train.command import EXIT_INTERRUPTED
from microturn.trainer.train.run_folder import RunFolder
from runs import config, rows

TRAIN = [sys.executable, "-c", "from microturn.cli import main; main()", "train"]


@pytest.fixture
def written(folder: Path, tmp_path: Path) -> str:
    """A config file of a tiny run."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config(folder, 1000)))
    return str(tmp_path / "tiny.yaml")


def printed(*args: str) -> dict:
    """The config that would be used."""
    result = invoke(*args, "--print-config")
    assert result.exit_code == 0, result.exception
    return yaml.safe_load(result.stdout)


def invoke(*args: str) -> Result:
    return CliRunner().invoke(cli.microturn, ["train", *args])


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(written, tmp_path):
    """It reaches every process of the terminal, workers of the loader too."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*TRAIN, str(run), "--config", written, "--workers", "2", "--set", "pace.checkpoint_every=0"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    started = time.monotonic()
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_bytes():
        assert process.poll() is None and time.monotonic() - started < 300, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    done = len(rows(run))
    assert process.returncode == EXIT_INTERRUPTED and f"stopped after step {done}, saved; the same command goes on" in said, said
    assert "Traceback" not in said and (run / "checkpoints/last").resolve().name == f"step-{done:08d}" and done < 1000


def test_the_command_trains_and_a_shorter_one_goes_on(written, tmp_path):
    run = str(tmp_path / "run")
    for args in (["--config", written, "--steps", "1"], ["--steps", "3", "--workers", "1"]):
        ran = invoke(run, *args)
        assert ran.exit_code == 0 and "weights in checkpoints/last" in ran.stderr and ran.stdout == "", ran.exception
    assert [row["step"] for row in rows(Path(run))] == [1, 2, 3]
    assert {"loss", "text", "flow", "load"} <= rows(Path(run))[0].keys()
    assert len(RunFolder(run).environment.read_text().splitlines()) == 2
    refused = invoke(run, "--seed", "4")
    assert isinstance(refused.exception, InputError) and "seed is 4, the run was started with 3" in str(refused.exception)
    assert json.loads(RunFolder(run).config.read_text())["pace"]["steps"] == 3
    assert "3 steps, more than the 2 asked for" in invoke(run, "--steps", "2").stderr and len(rows(Path(run))) == 3
    assert printed(run, "--set", "pace.keep=7") == printed(run) | {"pace": printed(run)["pace"] | {"keep": 7}}


def test_options_lie_over_settings_over_the_file(written, tmp_path):
    found = printed(str(tmp_path / "r"), "--config", written, "--set", "pace.steps=5", "--set", "optimizer.lr=1e-3", "--steps", "6")
    assert (found["pace"]["steps"], found["optimizer"]["lr"], found["model"]["hidden"]) == (6, 1e-3, 32)


@pytest.mark.parametrize(
    "args, words, hint",
    [
        (["--preset", "nano"], "a new run, and no corpus", "--data"),
        (["--data", "c", "--preset", "nani"], "no preset 'nani'", "'nano'"),
        (["--data", "c", "--preset", "nano", "--set", "optimizer.clip=1"], "unknown key 'optimizer.clip'", "'clip_norm'"),
        (["--data", "c", "--preset", "nano", "--set", "lr=1e-3"], "unknown key 'lr'", "optimizer.lr"),
        (["--data", "c", "--preset", "nano", "--set", "seed"], "expected KEY=VALUE", "optimizer.lr"),
        (["--data", "c"], "no model", "nano"),
        (["--data", "not-there", "--preset", "nano"], "dataset.json: not there", "microturn build"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_is_wrong_is_refused_and_leaves_nothing(tmp_path, args, words, hint):
    result = invoke(str(tmp_path / "run"), *args)
    assert isinstance(result.exception, InputError) and words in str(result.exception) and hint in result.exception.hint
    assert not (tmp_path / "run").exists()


def test_a_model_too_small_for_the_corpus_is_refused(written, tmp_path):
    refused = invoke(str(tmp_path / "run"), "--config", written, "--set", "model.vocabulary=270")
    assert isinstance(refused.exception, InputError) and "the corpus has ids up to 273" in str(refused.exception)
