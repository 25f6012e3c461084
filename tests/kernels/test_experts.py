"""Router, expert products and their sum: values and gradients against float64, and rows that never see how full their experts are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import combine, expert_places, grouped_linear, linear, route, swiglu
from microturn.kernels.experts import naive_combine, naive_grouped_linear
from microturn.kernels.router import naive_route
from tensors import DTYPES, SEEDS, THREADS, close, cuts, randn, same_bits, threads

EXPERTS = 5


def moe(x, logits, w_in, w_out, bias):
    """A whole layer of EXPERTS routed and one shared expert."""
    chosen, weights = route(logits, bias, 2, 8.0, torch.ones(1))
    places = expert_places(torch.cat([chosen, torch.full_like(chosen[:, :1], EXPERTS)], -1), EXPERTS + 1)
    hidden = swiglu(*grouped_linear(x, w_in, places, by_token=True).chunk(2, -1))
    return combine(grouped_linear(hidden, w_out, places, by_token=False), weights, places)


def layer(seed, num_rows, dtype=torch.float32):
    x, logits, bias = randn(seed, num_rows, 16, dtype=dtype), randn(seed + 1, num_rows, EXPERTS + 1), randn(seed + 2, EXPERTS) * 0.1
    w_in, w_out = randn(seed + 3, EXPERTS + 1, 48, 16, dtype=dtype), randn(seed + 4, EXPERTS + 1, 16, 24, dtype=dtype)
    return x, logits, w_in, w_out, bias


@settings(max_examples=30, deadline=None)
@given(data=st.data(), num_rows=st.sampled_from([1, 2, 9, 40, 250]), seed=SEEDS, dtype=DTYPES, first=THREADS, second=THREADS)
def test_a_row_never_sees_how_full_its_experts_are(data, num_rows, seed, dtype, first, second):
    x, logits, *weights = layer(seed, num_rows, dtype)
    lengths = data.draw(cuts(num_rows))
    with threads(first):
        whole = moe(x, logits, *weights)
    with threads(second):
        pieces = [moe(a, b, *weights) for a, b in zip(x.split(lengths), logits.split(lengths), strict=True)]
    assert same_bits(whole, torch.cat(pieces))


def test_a_row_of_a_group_is_the_plain_product_of_that_row():
    x, _, w, _, _ = layer(1, 70)
    places = expert_places(torch.randint(0, EXPERTS + 1, (70, 3), generator=torch.Generator().manual_seed(1)), EXPERTS + 1)
    y = grouped_linear(x, w, places, by_token=True)
    for expert in range(EXPERTS + 1):
        group = slice(places.starts[expert], places.starts[expert + 1])
        assert same_bits(y[group], linear(x[places.token_P[group]], w[expert]))


@settings(max_examples=15, deadline=None)
@given(num_rows=st.integers(1, 30), seed=SEEDS)
def test_values_and_gradients_are_the_formulas(num_rows, seed):
    x, _, w_in, _, _ = layer(seed, num_rows)
    weights = randn(seed, num_rows, 3)
    chosen = torch.stack([torch.randperm(EXPERTS + 1, generator=torch.Generator().manual_seed(seed + t))[:3] for t in range(num_rows)])
    places = expert_places(chosen, EXPERTS + 1)
    leaves = [t.requires_grad_() for t in (x, w_in, weights)]
    y = combine(grouped_linear(x, w_in, places, by_token=True), weights, places)
    wanted = naive_combine(naive_grouped_linear(x, w_in, chosen), weights)
    assert close(y, wanted, 2e-6)
    dy = randn(seed + 5, *y.shape)
    for got, want in zip(torch.autograd.grad(y, leaves, dy), torch.autograd.grad(wanted, leaves, dy.double()), strict=True):
        assert close(got, want, 2e-6)


@settings(max_examples=20, deadline=None)
@given(chosen=st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=2), min_size=1, max_size=90))
def test_every_slot_has_a_place_of_its_own_in_its_experts_group(chosen):
    places = expert_places(torch.tensor(chosen), 7)
    taken = places.place_Tk.flatten().tolist()
    assert len(set(taken)) == len(taken)
    for token, row in enumerate(chosen):
        for slot, expert in enumerate(row):
            place = int(places.place_Tk[token, slot])
            assert places.starts[expert] <= place < places.starts[expert + 1] and int(places.token_P[place]) == token
    for expert, (start, stop) in enumerate(zip(places.starts, places.starts[1:], strict=False)):
        assert set(places.token_P[start:stop].tolist()) == {
            t for t, row in enumerate(chosen) if expert in row
        }  # filling repeats the group's own


@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(1, 40), seed=SEEDS, levels=st.sampled_from([2, 3, 1000]), top_k=st.integers(1, 6))
def test_the_router_chooses_as_a_stable_sort_does_and_weighs_as_the_formula(num_rows, seed, levels, top_k):
    logits = (randn(seed, num_rows, 8 + 2) * levels).round() / levels  # few levels: many ties
    bias = (randn(seed + 1, 8) * levels).round() / levels
    chosen, weights = route(logits, bias, top_k, 8.0, torch.tensor([0.7]))
    scores = torch.sigmoid(logits[:, :8].double()) + bias
    exact = naive_route(logits, bias, top_k, 8.0, torch.tensor([0.7]))
    close_call = (scores.gather(-1, chosen) - scores.gather(-1, exact[0])).abs() < 1e-6
    assert bool(((chosen == exact[0]) | close_call).all())
    picked = torch.cat([logits.double().gather(-1, chosen), logits[:, 8:].double()], -1)
    assert close(weights, torch.softmax(torch.nn.functional.logsigmoid(picked), -1) * 8.0 * 0.7, 1e-6)


def test_equal_scores_go_to_the_smaller_index():
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0, 1.0]])
    assert route(scores, torch.zeros(6), 5, 1.0)[0].tolist() == [[1, 2, 4, 0, 5]]


def test_gradients_reach_logits_and_scale_but_not_the_choice():
    logits, bias, scale = randn(1, 9, 10).requires_grad_(), randn(2, 8).requires_grad_(), torch.ones(1, requires_grad=True)
    dw = randn(3, 9, 5)
    weights, wanted = route(logits, bias, 3, 8.0, scale)[1], naive_route(logits, bias, 3, 8.0, scale)[1]
    for got, want in zip(
        torch.autograd.grad(weights, (logits, scale), dw), torch.autograd.grad(wanted, (logits, scale), dw.double()), strict=True
    ):
        assert close(got, want, 1e-6)
    assert torch.autograd.grad(route(logits, bias, 3, 8.0, scale)[1].sum(), bias, allow_unused=True) == (None,)


def test_what_does_not_fit_is_refused():
    places = expert_places(torch.tensor([[0, 1]]), 3)
    with pytest.raises(ValueError, match="a chosen expert is 3, there are 3"):
        expert_places(torch.tensor([[0, 3]]), 3)
    with pytest.raises(ValueError, match="grouped_linear takes"):
        grouped_linear(randn(1, 2, 8), randn(1, 3, 4, 8), places, by_token=True)
    with pytest.raises(ValueError, match="fp32 weights"):
        combine(randn(1, 8, 4), randn(1, 1, 2, dtype=torch.bfloat16), places)
    with pytest.raises(ValueError, match="chooses 1 to E"):
        route(randn(1, 1, 8), randn(1, 8), 9, 1.0)
