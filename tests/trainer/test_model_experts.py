"""What routers did: counts and unevenness of their choices, against slow ways to compute them."""

from collections import Counter

import pytest
import torch
from handmade import SPEC, TICK, made, model_of
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import ragged
from microturn.trainer.model.experts import Router, uneven
from tensors import SEEDS, close, randn, threads


def chosen_by(model, inputs) -> list[list[list[int]]]:
    """Per router and row, the chosen experts, looked up while a forward runs."""
    seen: list[list[list[int]]] = []
    hooks = [router.register_forward_hook(lambda _, __, output: seen.append(output[1].tolist())) for router in model.routers()]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("counted", ["some", "all", "none"])
def test_counts_are_those_of_counting_one_by_one(counted):
    inputs, model = made(["t" + TICK * 2, "thhhht"], seed=2), model_of()
    if counted == "none":
        inputs.counted[:] = False
    everybody = type(inputs)(**{name: getattr(inputs, name) for name in type(inputs).__dataclass_fields__} | {"counted": None})
    given_inputs = everybody if counted == "all" else inputs
    rows = range(inputs.rows.num_rows) if counted == "all" else [row for row, yes in enumerate(inputs.counted.tolist()) if yes]
    with threads(1):
        slow = [Counter(expert for row in rows for expert in layer[row]) for layer in chosen_by(model, given_inputs)]
        with torch.no_grad():
            output = model(given_inputs)
    assert output.counts_LE.tolist() == [[layer[expert] for expert in range(SPEC.experts)] for layer in slow]
    assert output.counts_LE.sum() == len(rows) * 3 * SPEC.experts_per_row and (float(output.load) > 0) == (counted != "none")


def slow_uneven(logits, chosen, lengths, counted) -> float:
    """Document by document: k experts a row, (E / k) Σ_e share that chose e · mean normalised score of e, times its counted rows."""
    total, start, experts, k = 0.0, 0, logits.shape[1], chosen.shape[1]
    for length in lengths:
        rows = [row for row in range(start, start + length) if counted is None or counted[row]]
        start += length
        scores = [1 / (1 + (-logits[row].double()).exp()) for row in rows]
        for expert in range(experts if rows else 0):
            share = sum(expert in chosen[row].tolist() for row in rows) / len(rows)
            mean = sum(float(score[expert] / score.sum()) for score in scores) / len(rows)
            total += len(rows) * experts / k * share * mean
    return total


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=SEEDS, masked=st.booleans())
def test_unevenness_is_that_of_the_formula(lengths, seed, masked):
    rows, logits = ragged(lengths), randn(seed, sum(lengths), 8)
    chosen = randn(seed + 1, sum(lengths), 8).topk(3, dim=-1).indices
    counted = randn(seed + 2, sum(lengths)) > 0 if masked else None
    _, load = uneven(logits, chosen, rows, counted)
    assert abs(float(load) - slow_uneven(logits, chosen, lengths, counted)) < 1e-4


def test_an_even_load_is_1_a_row_and_a_crowded_one_more():
    """And its gradient pushes the crowded expert's scores down."""
    rows, logits = ragged([8]), torch.zeros(8, 8, requires_grad=True)
    even = torch.stack([(torch.arange(2) + 2 * row) % 8 for row in range(8)])
    _, load = uneven(logits, even, rows, None)
    assert close(load, torch.tensor(8.0), 1e-6)
    pulled = torch.zeros(8, 8)
    pulled[:, :2] = 3.0
    pulled.requires_grad_()
    _, crowded = uneven(pulled, torch.arange(2).expand(8, 2), rows, None)
    crowded.backward()
    assert crowded.item() > 8.5 and bool((pulled.grad[:, :2] > 0).all()) and bool((pulled.grad[:, 2:] < 0).all())


def test_a_bias_moves_the_choice_and_no_weight():
    router, x = Router(SPEC), randn(1, 5, 64)
    with torch.no_grad():
        for parameter in router.parameters():
            parameter.copy_(randn(2, *parameter.shape) * 0.2)
        _, chosen, weights = router(x)
        router.bias += 7.0  # of all alike
        assert torch.equal(router(x)[2], weights)
        router.bias[3] += 10
        assert bool((router(x)[1][:, 0] == 3).all()) and not bool((chosen[:, 0] == 3).all())
