"""`microturn bench law` compares like with like: plain torch computes the same equations, appends read the same past, both forms meet."""

import json

import pytest
import torch
from click.testing import CliRunner
from documents_by_hand import document
from microturn.trainer.bench.law import law_bench
from microturn.trainer.bench.ops import COLUMNS, timed_ops
from microturn.trainer.bench.plain import Cached, plain
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from tensors import close, rows_that_differ

NUM_OPS = 16
SPEC = ModelSpec.preset("nano").model_copy(update={"window": 50, "bias_extent": 70})


@pytest.fixture(scope="module")
def computed():
    """(model, a document longer than window and bias, its rows with the law)."""
    model, inputs = initialise(InteractionModel(SPEC), seed=3), document(150, seed=1)
    with torch.no_grad():
        return model, inputs, model(inputs).hidden_TD


def test_plain_torch_computes_the_same_equations(computed):
    model, inputs, with_the_law = computed
    with plain(), torch.no_grad():
        found = model(inputs).hidden_TD
    assert close(found, with_the_law, 1e-5) and rows_that_differ(found, with_the_law) > 100  # in another order of addition


@pytest.mark.parametrize("lengths", [(1, 2, 20, 1, 126), (60, 90)], ids=str)
def test_plain_appends_read_their_past(computed, lengths):
    """However it is cut: a cache that reads less, or more, or elsewhere gives other rows altogether."""
    model, inputs, with_the_law = computed
    cached, rows, start = Cached(model, 150), [], 0
    with plain():
        for length in lengths:
            piece = inputs.piece([start], [start + length])
            before = cached.append(piece, keep=False)
            rows.append(cached.append(piece))
            assert rows_that_differ(before, rows[-1]) == 0
            start += length
    assert close(torch.cat(rows), with_the_law, 1e-5) and cached.rows == 150


def test_a_plain_append_without_its_past_shows(computed):
    model, inputs, with_the_law = computed
    cached = Cached(model, 150)
    with plain():
        found = cached.append(inputs.piece([100], [120]))
    assert not close(found, with_the_law[100:120], 1e-2)


def test_each_op_gives_the_same_numbers_in_both_forms():
    """But for grouped products, whose rows lie in other places; which experts of a row come first is nobody's promise in plain torch."""
    ops = timed_ops(initialise(InteractionModel(SPEC), seed=3), 192)
    assert {op.column for op in ops} == set(COLUMNS) and len({op.op for op in ops}) == NUM_OPS
    for op in ops:
        with_the_law = op.law()
        with plain():
            found = op.plain()
        if op.op == "router":
            found, with_the_law = found.sort(-1).values, with_the_law.sort(-1).values
        assert op.op == "grouped experts" or close(found, with_the_law, 1e-5), (op.op, op.column)


@pytest.mark.parametrize("more", [(), ("--ops",)], ids=["steps", "ops"])
def test_the_bench_tells_both_sides_and_their_ratio(more):
    args = ["--preset", "nano", "--rows", "64", "--repeat", "1", "--threads", "1", *more]
    done = CliRunner().invoke(law_bench, [*args, "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)["measured"]
    assert len(found) == (NUM_OPS * 4 if more else 4) and all(row["law_s"] > 0 and row["plain_s"] > 0 for row in found.values())
    table = CliRunner().invoke(law_bench, args, env={"COLUMNS": "80"}, catch_exceptions=False).stdout
    assert ("grouped experts" if more else "append of 20") in table
