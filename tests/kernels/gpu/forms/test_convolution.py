"""The short convolution, Triton form. Its order is the CPU form's, multiply then add, so its bits must be too."""

import pytest
import torch
from microturn.kernels import dispatch, ragged, short_conv
from microturn.kernels.convolution import naive_short_conv
from tensors import close, randn, same_bits

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
CASES = [((1,), 4, False), ((1, 2, 3, 5), 4, False), ((40, 1, 17), 4, True), ((2, 2, 9), 2, True), ((150,), 4, True)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("lengths", "taps", "past"), CASES)
def test_values_and_gradients(lengths, taps, past, dtype):
    x, w = randn(1, sum(lengths), 37, dtype=dtype).requires_grad_(), randn(2, 37, taps).requires_grad_()
    state = randn(3, len(lengths), taps - 1, 37) if past else None
    rows = ragged(lengths, [5] * len(lengths) if past else None)
    y, wanted = short_conv(x, w, rows, state)[0], naive_short_conv(x, w, rows, state)
    assert y.dtype == dtype and close(y, wanted, TOLERANCE[dtype])
    dy = randn(4, *y.shape, dtype=dtype)
    for got, want in zip(torch.autograd.grad(y, (x, w), dy), torch.autograd.grad(wanted, (x, w), dy.double()), strict=True):
        assert close(got, want, 2 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("lengths", "taps", "past"), CASES)
def test_its_bits_are_those_of_the_cpu_form(monkeypatch, lengths, taps, past, dtype):
    x, w, rows = randn(1, sum(lengths), 130, dtype=dtype), randn(2, 130, taps), ragged(lengths, [5] * len(lengths) if past else None)
    state = randn(3, len(lengths), taps - 1, 130) if past else None
    y, new_state = short_conv(x, w, rows, state)
    monkeypatch.setattr(dispatch, "triton_computes", lambda device: False)
    with torch.device("cpu"):
        wanted, wanted_state = short_conv(x.cpu(), w.cpu(), rows, None if state is None else state.cpu())
    assert same_bits(y.cpu(), wanted) and same_bits(new_state.cpu(), wanted_state)


def test_a_document_has_the_same_bits_in_any_appends_and_any_company():
    x, w = randn(1, 60, 24, dtype=torch.bfloat16), randn(2, 24, 4)
    whole, last = short_conv(x, w, ragged([60]))
    pieces, state, seen = [], torch.zeros(1, 3, 24), 0
    for length in (1, 1, 20, 2, 36):
        company = torch.full((7, 24), float("nan"), dtype=torch.bfloat16)
        rows = ragged([3, length, 4], [9, seen, 0])
        states = torch.cat([torch.full((1, 3, 24), float("nan")), state, torch.zeros(1, 3, 24)])
        y, states = short_conv(torch.cat([company[:3], x[seen : seen + length], company[3:]]), w, rows, states)
        pieces.append(y[3 : 3 + length])
        state, seen = states[1:2], seen + length
    assert same_bits(whole, torch.cat(pieces)) and same_bits(last, state)
