"""Nano learns, on conversations from synth, in minutes on a CPU. Nightly: every figure here is one of the README's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from microturn.trainer.train import step as stepping
from microturn.trainer.train.run_folder import RunFolder
from runs import go

pytestmark = pytest.mark.nightly

CURVE = Path(__file__).parent / "goldens" / "nano_curve.json"
STEPS = 150


def microturn(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "microturn", *map(str, arguments)], check=True, capture_output=True)


def nano(corpus: Path, steps: int, **changes) -> dict:
    return {
        "seed": 0,
        "model": {"preset": "nano"},
        "corpora": [{"path": str(corpus)}],
        "data": {"sequence_tokens": 2048, "cut_played": 0.0},
        "step_sequences": 1,
        "optimizer": {"lr": 3e-3},
        "schedule": {"warmup_steps": 20},
        "losses": {"bias_rate": 3e-3},
        "pace": {"steps": steps, "workers": 0, "threads": 1, "evaluate_every": 0},
    } | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[list[dict], torch.Tensor]:
    """The rows of a run on twenty minutes of conversation, with a fifth held out; and the experts' counts of its last 50 steps."""
    folder = tmp_path_factory.mktemp("learning")
    microturn("synth", folder / "raw", "--hours", 0.3, "--layout", "stereo", "--seed", 5)
    microturn("build", folder / "raw", folder / "corpus", "--split", "train=0.8,val=0.2")
    counted, move = [], stepping.move_biases

    def watched(model, counts_LE, rate):
        counted.append(counts_LE)
        move(model, counts_LE, rate)

    patch = pytest.MonkeyPatch()
    patch.setattr(stepping, "move_biases", watched)
    pace = {"steps": STEPS, "workers": 0, "threads": 1, "evaluate_every": STEPS, "evaluate_sequences": 4}
    go(folder / "run", nano(folder / "corpus", STEPS, pace=pace))
    patch.undo()
    return RunFolder(folder / "run").rows(), torch.stack(counted[-50:]).sum(0)


def smoothed(rows: list[dict]) -> dict[str, list[float]]:
    """Means of ten steps."""
    return {name: [sum(row[name] for row in rows[at : at + 10]) / 10 for at in range(0, STEPS, 10)] for name in ("text", "flow")}


def test_losses_fall_as_they_did(run):
    """Bits differ between machines and so, a little, do curves; a change that learns worse shows."""
    found, recorded = smoothed(run[0]), json.loads(CURVE.read_text())
    for name in ("text", "flow"):
        assert found[name][-1] < found[name][0] / 3
        for now, then in zip(found[name], recorded[name], strict=True):
            assert now == pytest.approx(then, rel=0.15)


def test_what_was_held_out_is_understood_better_than_without_listening(run):
    last = run[0][-1]
    assert last["held_out_text"] < 0.6 * last["floor_text"]
    assert last["held_out_flow"] < 0.6 * last["floor_flow"]


def test_experts_share_the_rows_that_are_not_silent(run):
    counts = run[1].double()
    assert (counts.amax(-1) / counts.mean(-1)).max() <= 1.5


def test_one_session_can_be_learned_by_heart(tmp_path):
    microturn("synth", tmp_path / "raw", "--sessions", 1, "--hours", 0.008, "--layout", "stereo", "--seed", 5)
    microturn("build", tmp_path / "raw", tmp_path / "corpus", "--split", "train=1")
    data = {"sequence_tokens": 1024, "document_ticks": 300, "cut_played": 0.0}
    schedule = {"warmup_steps": 20, "decay_from": 240, "decay_steps": 160, "floor": 0.02}
    losses = {"flow_draws": 4, "bias_rate": 1e-3}
    go(tmp_path / "run", nano(tmp_path / "corpus", 400, data=data, schedule=schedule, losses=losses))
    rows = RunFolder(tmp_path / "run").rows()
    late = rows[-10:]
    assert sum(row["text"] for row in late) / 10 <= 0.05
    assert sum(row["flow"] for row in late) / 10 <= 0.25 * rows[0]["flow"]
