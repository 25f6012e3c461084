"""Linear layers, Triton form: values, gradients and the row law. (The interpreter adds in numpy's order, not a GPU's.)"""

import pytest
import torch
from microturn.kernels import linear
from microturn.kernels.products import naive_linear
from tensors import close, randn, rows_that_differ, same_bits

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2**-9, torch.bfloat16: 2**-6}  # the interpreter cuts bf16 off instead of rounding


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 8, 5), (37, 75, 130), (129, 64, 64), (20, 200, 257)])
def test_values_and_gradients(shape, dtype):
    m, k, n = shape
    x, w, dy = randn(1, m, k, dtype=dtype).requires_grad_(), randn(2, n, k, dtype=dtype).requires_grad_(), randn(3, m, n, dtype=dtype)
    y, wanted = linear(x, w), naive_linear(x, w)
    assert y.dtype == dtype and close(y, wanted, TOLERANCE[dtype])
    for got, want in zip(torch.autograd.grad(y, (x, w), dy), torch.autograd.grad(wanted, (x, w), dy.double()), strict=True):
        assert close(got, want, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_never_sees_its_company(dtype):
    x, w = randn(1, 150, 96, dtype=dtype), randn(2, 70, 96, dtype=dtype)
    whole = linear(x, w)
    assert same_bits(whole, torch.cat([linear(piece, w) for piece in x.split([1, 2, 20, 127])]))
    x[1::2] = float("nan")
    assert same_bits(whole[::2], linear(x, w)[::2])


def test_no_rows_give_no_rows():
    assert linear(torch.zeros(0, 8), randn(1, 4, 8)).shape == (0, 4)


def test_an_operand_at_an_odd_address_is_the_same_operand():
    x, w = randn(1, 33, 40), randn(2, 24, 40)
    moved = torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)
    assert moved.data_ptr() % 16 and same_bits(linear(moved, w), linear(x, w))


def test_adding_in_parts_chosen_by_the_rows_breaks_the_law():
    """Negative control: as many splits of K as fill a device, which is what libraries do."""
    x, w = randn(1, 32, 256), randn(2, 24, 256)

    def split(x):
        parts = 4 if x.shape[0] < 8 else 1
        return sum(linear(a.contiguous(), b.contiguous()) for a, b in zip(x.chunk(parts, 1), w.chunk(parts, 1), strict=True))

    assert rows_that_differ(split(x), torch.cat([split(x[:4]), split(x[4:])])) > 1
