"""Law 3 for ops along rows: a row's bits depend on the row and the weights alone.

Every op is run on many rows at once and on the same rows in any pieces, among neighbours of any kind, with one thread and with two.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import activations, bag, cross_entropy, linear, log_softmax, rms_norm, route
from microturn.kernels.products import product, rows_called, tiled_product
from microturn.kernels.selfcheck import cancelling
from tensors import DTYPES, SEEDS, THREADS, cuts, randn, rows_that_differ, same_bits, threads

COLUMNS = 96
ROW_OPS = {
    "linear": lambda x: linear(x, randn(1, 64, COLUMNS, dtype=x.dtype)),
    "linear, odd width": lambda x: linear(x, randn(1, 33, COLUMNS, dtype=x.dtype)),
    "linear, one output": lambda x: linear(x, randn(1, 1, COLUMNS, dtype=x.dtype)),
    "rms_norm": lambda x: rms_norm(x, randn(2, COLUMNS, dtype=x.dtype), 1e-6),
    "rms_norm per head": lambda x: rms_norm(x.unflatten(-1, (6, 16)), randn(2, 16), 1e-6).flatten(1),
    "log_softmax": log_softmax,
    "cross_entropy": lambda x: cross_entropy(x, (x.float().nan_to_num().abs().sum(-1) * 7).long().clamp(0, 10**6) % COLUMNS),
    "sigmoid": activations.sigmoid,
    "log_sigmoid": activations.log_sigmoid,
    "silu": activations.silu,
    "gelu": activations.gelu,
    "swiglu of halves": lambda x: activations.swiglu(*x.chunk(2, dim=-1)),
    "router weights": lambda x: route(x.float(), randn(3, 90) * 0.1, 6, 8.0, torch.tensor([1.3]))[1],
    "router choice": lambda x: route(x.float(), randn(3, 90) * 0.1, 6, 8.0)[0],
    "bag": lambda x: bag(
        x.float().nan_to_num(0, 0, 0).abs().mul(5).clamp(max=15).to(torch.uint8), randn(4, COLUMNS * 16, 24, dtype=x.dtype)
    ),
}


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), num_rows=st.sampled_from([1, 2, 5, 11, 20, 37, 64, 130, 400]), seed=SEEDS, dtype=DTYPES, first=THREADS, second=THREADS
)
@pytest.mark.parametrize("name", ROW_OPS)
def test_a_row_never_sees_its_company(name, data, num_rows, seed, dtype, first, second):
    op, x = ROW_OPS[name], randn(seed, num_rows, COLUMNS, dtype=dtype) * 3
    lengths = data.draw(cuts(num_rows))
    with threads(first):
        whole = op(x)
    with threads(second):
        assert same_bits(whole, torch.cat([op(piece) for piece in x.split(lengths)]))
        assert same_bits(whole, torch.cat([op(piece.clone()) for piece in x.split(lengths)]))


@settings(max_examples=10, deadline=None)
@given(
    num_rows=st.integers(1, 40),
    before=st.integers(0, 9),
    seed=SEEDS,
    dtype=DTYPES,
    poison=st.sampled_from([float("nan"), float("inf"), 1e30, 0.0]),
)
@pytest.mark.parametrize(
    "name", sorted(set(ROW_OPS) - {"router choice", "router weights"})
)  # a router refuses nothing, but NaN has no rank
def test_neighbours_of_any_kind_change_nothing(name, num_rows, before, seed, dtype, poison):
    op, x = ROW_OPS[name], randn(seed, num_rows, COLUMNS, dtype=dtype)
    company = torch.cat([torch.full((before, COLUMNS), poison, dtype=dtype), x, torch.full((3, COLUMNS), poison, dtype=dtype)])
    assert same_bits(op(company)[before : before + num_rows], op(x))


WIDTHS = st.sampled_from([(16, 8), (24, 16), (16, 48), (64, 64), (128, 1), (128, 384), (100, 33), (2, 5), (512, 128)])


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 80), seed=SEEDS, dtype=DTYPES, count=THREADS, widths=WIDTHS)
def test_a_product_has_the_bits_of_its_tiles(num_rows, seed, dtype, count, widths):
    x, w = cancelling(torch.Generator().manual_seed(seed), num_rows, *widths, dtype)
    with threads(count):
        assert same_bits(product(x, w), tiled_product(x, w))
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
        assert same_bits(tiled_product(x[order], w), tiled_product(x, w)[order])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 80), seed=SEEDS, dtype=DTYPES, widths=WIDTHS)
def test_a_row_whose_terms_cancel_is_all_rounding_and_still_the_same(data, num_rows, seed, dtype, widths):
    x, w = cancelling(torch.Generator().manual_seed(seed), num_rows, *widths, dtype)
    assert same_bits(linear(x, w), torch.cat([linear(piece, w) for piece in x.split(data.draw(cuts(num_rows)))]))


def test_weights_may_lie_anywhere():
    """A weight mapped from a file may begin at any address."""
    for widths in ((24, 16), (64, 64), (100, 33)):
        for dtype in (torch.float32, torch.bfloat16):
            x, w = cancelling(torch.Generator().manual_seed(1), 40, *widths, dtype)
            moved = torch.cat([w.new_zeros(1), w.flatten()])[1:].view_as(w)
            assert same_bits(linear(x, w), linear(x, moved)) and same_bits(tiled_product(x, w), tiled_product(x, moved))


def test_a_failed_check_costs_speed_only(monkeypatch):
    x, w = randn(1, 37, 48), randn(2, 40, 48)
    fast = product(x, w)
    monkeypatch.setattr("microturn.kernels.products._ROWS", {})
    monkeypatch.setattr("microturn.kernels.products.proven", lambda *_: False)
    assert rows_called(37, 48, 40, torch.float32) == 0
    assert same_bits(product(x, w), fast)


def test_few_rows_are_not_called_as_they_are_where_that_breaks_bits():
    """One fp32 row is a matrix-vector product everywhere we looked; if the check let it pass, the check would be asleep."""
    x, w = randn(1, 1, 128), randn(2, 128, 128)
    if rows_that_differ(x @ w.T, tiled_product(x, w)):
        assert rows_called(1, 128, 128, torch.float32) != 1
