"""`microturn bench session`: what is counted equals its formula, and without global layers nothing of an append's work grows."""

import json

import pytest
import torch
from click.testing import CliRunner
from microturn.trainer.bench import session as bench
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.session import Engine, Limits
from runs import SIZES

SMALL = ModelSpec.parse(SIZES | {"layers": 4, "global_every": 4}, where="small")


def test_the_bench_counts_what_its_formula_says():
    done = CliRunner().invoke(bench.session_bench, ["--appends", "110", "--rows", "7", "--repeat", "1", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    windowed, whole = found["windowed only"], found["nano as it is"]
    for one in (windowed, whole):
        assert [row["append"] for row in one["appends"]] == [30, 100, 110] and [row["rows"] for row in one["appends"]] == [203, 693, 763]
        assert all(row["kv_rows"] == row["kv_rows_formula"] > 0 for row in one["appends"])
        assert one["session_bytes"] == one["session_bytes_formula"]
        assert one["ratio"] > 0
    assert all(row["again_s"] > 0 for row in whole["appends"]) and windowed["appends"][0]["again_s"] is None
    assert windowed["kv_rows_slope"] < 0.5 < whole["kv_rows_slope"]


def test_the_table_is_for_people():
    args = ["--appends", "31", "--rows", "3", "--repeat", "1"]
    shown = CliRunner().invoke(bench.session_bench, args, env={"COLUMNS": "80"}, catch_exceptions=False).stdout
    assert "append 31 ÷ append 30" in shown and "formula 1 (global layers)" in shown and "memory of the longest session" in shown


@pytest.mark.parametrize("spec, last", [(bench.windowed_only(SMALL), 3000), (SMALL, 300)], ids=["windowed only", "one global layer"])
def test_the_three_thousandth_append_reads_as_much_as_the_thirtieth(spec, last):
    """Counted, not timed. Appends of 32 rows meet pages alike every second time; what lies between comes in long pieces."""
    engine = Engine(initialise(InteractionModel(spec), seed=1), Limits(sessions=1, rows=32 * last))
    session, pieces, counted = engine.open("a", rows=32 * last), bench._pieces(32), []
    for number in (30, last):
        bench._grow(engine, session, pieces, number - 1 - session.rows // 32, 30, lambda _: None)
        counted.append(bench._counted(engine, session, pieces[0]))
        assert counted[-1] == bench.kv_rows(spec, 32 * (number - 1), 32)
    assert (counted[1] == counted[0]) == (spec.global_every > spec.layers)
    assert session.rows == engine.computed - 2 * 32 == 32 * (last - 1)


def test_memory_is_the_formula_s_at_any_length():
    limits = Limits(sessions=1, rows=5000, uncommitted_rows=100)
    for rows in (1, 64, 65, 1000, 5000):
        for dtype in (torch.float32, torch.bfloat16):
            engine = Engine(initialise(InteractionModel(SMALL, dtype=dtype), seed=1), limits)
            session = engine.open("a", rows=rows)
            assert bench.owned_bytes(engine, session) == bench.session_bytes(SMALL, rows, limits, dtype)
