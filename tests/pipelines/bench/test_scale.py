"""`microturn bench scale`: the steps that see a whole corpus are the real ones, and what they hold of a session is small."""

import json
import pickle
import tracemalloc

import pytest
from click.testing import CliRunner
from microturn.pipelines.bench import scale
from microturn.schemas.receipts import Outcome


def test_every_step_runs_at_every_size_and_tells_what_it_took():
    result = CliRunner().invoke(scale.scale_bench, ["--sizes", "100,1000", "--json"], catch_exceptions=False)
    steps = json.loads(result.stdout)["steps"]
    assert [(step["what"], step["num"]) for step in steps] == [
        (w, n // (10 if w == "plan" else 1)) for w in scale.STEPS for n in (100, 1000)
    ]
    assert all(step["cpu_s"] > 0 and step["peak_bytes"] >= 0 for step in steps)


@pytest.mark.parametrize("sizes", ["many", "5", "10,-1"])
def test_sizes_that_are_none_are_wrong_usage(sizes):
    assert CliRunner().invoke(scale.scale_bench, ["--sizes", sizes]).exit_code == 2


def test_what_meets_in_one_step_is_under_a_kilobyte_a_session():
    """As it comes from a runner, and 40 bytes a window: a model of pydantic's took two and a half times that."""
    sent = []
    for k in range(1000):
        made = Outcome(status="done", session=f"call-{k:08d}", split="train", order=f"{k:064d}", receipt=f"call-{k:08d}-{k:016d}.json")
        sent.append(pickle.dumps(made))
    tracemalloc.start()
    held = [pickle.loads(data) for data in sent]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(held) == 1000 and size / 1000 < 700
