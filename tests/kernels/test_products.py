"""Linear layers: values, gradients, refusals. Their bits are test_row_law.py's business."""

import pytest
import torch
from microturn.kernels import linear
from microturn.kernels.products import naive_linear
from tensors import close, randn, same_bits


@pytest.mark.parametrize("shape", [(1, 16), (5, 16), (37, 16), (2, 3, 16)])
def test_values_and_gradients(shape):
    x, w = randn(1, *shape).requires_grad_(), randn(2, 24, 16).requires_grad_()
    y, wanted = linear(x, w), x.double() @ w.double().T
    assert y.shape == (*shape[:-1], 24) and close(y, wanted, 1e-6)
    dy = randn(3, *y.shape)
    for got, want in zip(torch.autograd.grad(y, (x, w), dy), torch.autograd.grad(wanted, (x, w), dy.double()), strict=True):
        assert close(got, want, 1e-6)


def test_bfloat16_adds_in_fp32():
    x, w = randn(1, 20, 512, dtype=torch.bfloat16), randn(2, 64, 512, dtype=torch.bfloat16)
    assert close(linear(x, w), naive_linear(x, w), 2**-8)


def test_a_graph_changes_no_bit():
    x, w = randn(1, 21, 48), randn(2, 33, 48)
    assert same_bits(linear(x, w), linear(x, w.clone().requires_grad_()).detach())


def test_no_rows_give_no_rows():
    assert linear(torch.empty(0, 8), randn(1, 4, 8)).shape == (0, 4)


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (randn(1, 3, 8), randn(1, 4, 7)),
        (randn(1, 3, 8), randn(1, 8, 4).T),
        (randn(1, 3, 8), randn(1, 4, 8, dtype=torch.bfloat16)),
        (randn(1, 8), randn(1, 4, 8)),
    ],
)
def test_operands_that_do_not_fit_are_refused(x, w):
    with pytest.raises(ValueError, match="linear takes x"):
        linear(x, w)
