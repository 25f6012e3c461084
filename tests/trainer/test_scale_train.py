"""`torchrun … -m microturn train`: the loop of one process, on two; a run goes on with another number of them.

Curves agree within 1e-5 of their values (2e-7 was measured): gradients are added in another order, and rounding grows from step to step.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import config, go, rows

HOUSE = Path(__file__).resolve().parent.parent.parent
TOLERANCE = 1e-5
CURVES = ("loss", "text", "flow", "load", "grad_norm")


@pytest.fixture(scope="module", autouse=True)
def same_threads() -> Iterator[None]:
    """The runs compute with one thread; whoever comes next has what was before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def torchrun(run: Path, settings: dict[str, Any], *, size: int = 2) -> None:
    """Nothing, once `microturn train` has ended well on so many processes; its config is in a file beside the run."""
    path = run.with_suffix(".json")
    path.write_text(json.dumps(settings))
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command = [sys.executable, "-m", *launcher, "-m", "microturn", "train", str(run), "--config", str(path)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=run.parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def apart(run: Path, other: Path) -> float:
    """The largest difference of two runs' curves, as a part of the other's value."""
    pairs = list(zip(rows(run), rows(other), strict=True))
    for one, two in pairs:
        exact = ("step", "rows", "ticks", "lr")
        assert [one.get(name) for name in exact] == [two.get(name) for name in exact]
    return max(abs(one[name] - two[name]) / max(abs(two[name]), 1e-3) for one, two in pairs for name in CURVES)


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    go(run, config(folder, 6))
    return run


def test_two_ranks_draw_the_curve_of_one_and_one_goes_on_where_they_stopped(folder, tmp_path, alone):
    run = tmp_path / "run"
    torchrun(run, config(folder, 4))
    assert len(list((run / "checkpoints" / "step-00000004").glob("*.safetensors"))) == 2
    go(run, config(folder, 6))
    assert len(rows(run)) == 6 and apart(run, alone) < TOLERANCE
    assert [json.loads(line)["ranks"] for line in (run / "environment.jsonl").read_text().splitlines()] == [2, 1]


@pytest.mark.nightly
def test_two_ranks_that_share_experts_go_on_where_one_stopped(folder, tmp_path, alone):
    run = tmp_path / "run"
    go(run, config(folder, 2))
    torchrun(run, config(folder, 4, pace={"expert_ranks": 2, "recompute": True}))
    torchrun(run, config(folder, 6, pace={"evaluate_every": 2}))
    assert len(rows(run)) == 6 and apart(run, alone) < TOLERANCE
