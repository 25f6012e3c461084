"""Ops along rows, Triton form: values, gradients and the row law. Expected values are `naive_…`'s, in float64."""

import pytest
import torch
from microturn.kernels import bag, cross_entropy, log_softmax, rms_norm, route
from microturn.kernels.bags import naive_bag
from microturn.kernels.gpu import softmax, tiles
from microturn.kernels.router import naive_route
from microturn.kernels.rows import naive_cross_entropy, naive_rms_norm
from tensors import close, randint, randn, same_bits

TOLERANCE = {torch.float32: 3e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}
COLUMNS = 90
ROW_OPS = {
    "rms_norm": lambda x: rms_norm(x, randn(2, COLUMNS, dtype=x.dtype), 1e-6),
    "rms_norm per head": lambda x: rms_norm(x.unflatten(-1, (6, 15)), randn(2, 15), 1e-6).flatten(1),
    "log_softmax": log_softmax,
    "cross_entropy": lambda x: cross_entropy(x, (x.float().nan_to_num().abs().sum(-1) * 7).long() % COLUMNS),
    "route": lambda x: route(x.float(), randn(3, 88) * 0.1, 6, 8.0, torch.tensor([1.3]))[1],
    "route's choice": lambda x: route(x.float(), randn(3, 88) * 0.1, 6, 8.0)[0],
    "bag": lambda x: bag(x[:, :9].float().nan_to_num().abs().mul(5).clamp(max=15).to(torch.uint8), randn(4, 9 * 16, 24, dtype=x.dtype)),
}


def gradients_agree(y, wanted, inputs, tolerance):
    dy = randn(99, *y.shape, dtype=y.dtype)
    pairs = zip(torch.autograd.grad(y, inputs, dy), torch.autograd.grad(wanted, inputs, dy.double()), strict=True)
    return all(close(got, want, tolerance) for got, want in pairs)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy says where NaN is computed with
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ROW_OPS)
def test_a_row_never_sees_its_company(name, dtype):
    op, x = ROW_OPS[name], randn(1, 14, COLUMNS, dtype=dtype) * 3
    whole = op(x)
    assert same_bits(whole, torch.cat([op(piece) for piece in x.split([1, 10, 3])]))
    x[1::2] = float("nan")
    assert same_bits(whole[::2], op(x)[::2])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 8), (131, 33), (3, 1500), (2, 5, 64)])
def test_rms_norm_and_its_gradients(shape, dtype):
    x, weight = randn(1, *shape, dtype=dtype).requires_grad_(), randn(2, shape[-1]).requires_grad_()
    y, wanted = rms_norm(x, weight, 1e-6), naive_rms_norm(x, weight, 1e-6)
    assert y.dtype == torch.float32 and close(y, wanted, TOLERANCE[dtype])
    assert gradients_agree(y, x.double() * torch.rsqrt(x.double().pow(2).mean(-1, True) + 1e-6) * weight, (x, weight), TOLERANCE[dtype])
    assert rms_norm(x, weight.to(dtype), 1e-6).dtype == dtype


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of 64 columns, so that a small vocabulary has several."""
    monkeypatch.setattr(softmax, "tile_for", lambda op, x: tiles.Tile(1, 64, 1, 4, 1))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 5), (7, 64), (9, 257)])
def test_log_softmax_and_cross_entropy(small_chunks, shape, dtype):
    x, targets = (randn(1, *shape, dtype=dtype) * 4).requires_grad_(), torch.arange(shape[0]) * 3 % shape[1]
    y, losses = log_softmax(x), cross_entropy(x, targets)
    assert y.dtype == losses.dtype == torch.float32
    assert same_bits(losses.detach(), -y.detach().gather(-1, targets[:, None])[:, 0])  # one number for both
    for got, want in ((y, torch.log_softmax(x.double(), -1)), (losses, naive_cross_entropy(x, targets))):
        assert close(got, want, 2e-6) and gradients_agree(got, want, (x,), TOLERANCE[dtype])


def test_columns_that_are_minus_infinity_and_targets_that_are_none(small_chunks):
    x = randn(1, 3, 200)
    x[:, 64:192] = float("-inf")  # two whole chunks
    assert close(log_softmax(x)[:, :64], torch.log_softmax(x.double(), -1)[:, :64], 1e-6)
    assert cross_entropy(x, torch.tensor([0, 200, -1])).isnan().tolist() == [False, True, True]


def test_a_large_vocabulary_in_the_chunks_of_the_table():
    x = randn(1, 2, 20_001)
    assert close(log_softmax(x), torch.log_softmax(x.double(), -1), 1e-6)
    assert same_bits(log_softmax(x), torch.cat([log_softmax(row[None]) for row in x]))


@pytest.mark.parametrize("shared", [0, 2])
def test_the_router_and_its_gradients(shared):
    logits, bias, scale = (randn(1, 21, 12 + shared) * 3).requires_grad_(), randn(2, 12), torch.tensor([1.3]).requires_grad_()
    (chosen, weights), (wanted_chosen, wanted) = route(logits, bias, 4, 8.0, scale), naive_route(logits, bias, 4, 8.0, scale)
    assert torch.equal(chosen, wanted_chosen) and close(weights, wanted, 1e-6)
    assert gradients_agree(weights, wanted, (logits, scale), 2e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_ties_go_to_the_smaller_index():
    assert route(torch.zeros(2, 40), torch.zeros(40), 5, 1.0)[0].tolist() == [[0, 1, 2, 3, 4]] * 2
    assert route(torch.full((1, 40), float("nan")), torch.zeros(40), 5, 1.0)[0].max() < 40


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "columns", "levels", "width"), [(1, 3, 16, 8), (37, 5, 16, 20), (11, 13, 7, 24)])
def test_a_bag_and_its_gradient(rows, columns, levels, width, dtype):
    codes = randint(1, levels, rows, columns, dtype=torch.uint8)
    table = randn(2, columns * levels, width, dtype=dtype).requires_grad_()
    y, wanted = bag(codes, table), naive_bag(codes, table)
    assert y.dtype == dtype and close(y, wanted, TOLERANCE[dtype])
    assert gradients_agree(y, wanted, (table,), TOLERANCE[dtype])
    assert same_bits(y.detach(), bag(codes.long(), table.detach()))


def test_a_code_beyond_its_levels_makes_its_row_nan():
    y = bag(torch.tensor([[0, 1], [16, 0], [15, 15], [0, -1]]), randn(1, 32, 4))
    assert y.isnan().any(-1).tolist() == [False, True, False, True]
