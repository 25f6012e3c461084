"""What activations and row ops compute, values and gradients, against float64; their bits are test_row_law.py's business."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import activations, cross_entropy, log_softmax, rms_norm
from microturn.kernels.activations import naive_gelu, naive_log_sigmoid, naive_silu
from microturn.kernels.rows import naive_cross_entropy, naive_rms_norm
from tensors import DTYPES, SEEDS, close, cuts, randn, same_bits

ACTIVATIONS = {
    "sigmoid": (activations.sigmoid, lambda x: torch.sigmoid(x.double())),
    "log_sigmoid": (activations.log_sigmoid, naive_log_sigmoid),
    "silu": (activations.silu, naive_silu),
    "gelu": (activations.gelu, naive_gelu),
}


@settings(max_examples=15, deadline=None)
@given(data=st.data(), total=st.integers(1, 5000), seed=SEEDS, dtype=DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_element_depends_on_itself_alone(name, data, total, seed, dtype):
    op, x = ACTIVATIONS[name][0], randn(seed, total, dtype=dtype) * 5
    assert same_bits(op(x), torch.cat([op(piece) for piece in x.split(data.draw(cuts(total)))]))
    assert same_bits(op(x)[::3], op(x[::3]))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_right_to_a_few_ulps_and_so_are_their_slopes(name):
    op, naive = ACTIVATIONS[name]
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e-30, -88.0, 88.0, -200.0, 200.0])]).requires_grad_()
    y, wanted = op(x), naive(x)
    torch.testing.assert_close(y.double(), wanted, rtol=3e-6, atol=2e-7)
    (slope,), (wanted_slope,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(wanted.sum(), x)
    torch.testing.assert_close(slope, wanted_slope, rtol=3e-6, atol=3e-7)


def test_swiglu_is_silu_times_up():
    gate, up, dy = randn(1, 9, 40).requires_grad_(), randn(2, 9, 40).requires_grad_(), randn(3, 9, 40)
    y, wanted = activations.swiglu(gate, up), naive_silu(gate) * up.double()
    assert close(y, wanted, 1e-6)
    for got, want in zip(torch.autograd.grad(y, (gate, up), dy), torch.autograd.grad(wanted, (gate, up), dy.double()), strict=True):
        assert close(got, want, 1e-6)


def test_bfloat16_is_rounded_once():
    x = randn(1, 3000, dtype=torch.bfloat16) * 4
    assert same_bits(activations.silu(x), activations.silu(x.float()).bfloat16())
    assert same_bits(activations.swiglu(x, x), (activations.silu(x.float()) * x.float()).bfloat16())


@pytest.mark.parametrize("shape", [(1, 8), (7, 64), (3, 5, 128)])
def test_rms_norm_and_its_gradients(shape):
    x, weight, dy = randn(1, *shape).requires_grad_(), randn(2, shape[-1]).requires_grad_(), randn(3, *shape)
    wide = [t.detach().double().requires_grad_() for t in (x, weight)]
    wanted = F.rms_norm(wide[0], shape[-1:], wide[1], 1e-6)
    y = rms_norm(x, weight, 1e-6)
    assert close(y, wanted, 1e-6)
    for got, want in zip(torch.autograd.grad(y, (x, weight), dy), torch.autograd.grad(wanted, wide, dy.double()), strict=True):
        assert close(got, want, 2e-6)


def test_rms_norm_casts_where_the_open_model_does():
    x, weight = randn(1, 50, 64, dtype=torch.bfloat16), randn(2, 64)
    y = rms_norm(x, weight, 1e-6)
    assert y.dtype == torch.float32  # bf16 rows times an fp32 weight
    assert close(y, naive_rms_norm(x, weight, 1e-6), 4e-3)  # the two may round a normed value to neighbours, 2⁻⁸ apart
    assert rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).abs().max() == 0


def test_cross_entropy_and_its_gradient():
    logits, targets, weights = (randn(1, 30, 257) * 4).requires_grad_(), torch.arange(30) * 8, randn(2, 30)
    losses, wanted = cross_entropy(logits, targets), naive_cross_entropy(logits, targets)
    assert losses.dtype == torch.float32 and close(losses, wanted, 1e-6)
    (got,), (want,) = torch.autograd.grad(losses, logits, weights), torch.autograd.grad(wanted, logits, weights.double())
    assert close(got, want, 1e-6)


def test_one_row_of_a_large_vocabulary_equals_the_row_among_others():
    x = randn(1, 4, 70_001)
    assert same_bits(log_softmax(x), torch.cat([log_softmax(row[None]) for row in x]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rms_norm(randn(1, 2, 8), randn(1, 7), 1e-6), "weight of shape"),
        (lambda: rms_norm(randn(1, 1, 40_000), randn(1, 40_000), 1e-6), "at most 32768"),
        (lambda: rms_norm(randn(1, 2, 8).double(), randn(1, 8), 1e-6), "float32 and bfloat16"),
        (lambda: activations.silu(torch.empty(2, device="meta")), "on the CPU and on CUDA devices"),
        (lambda: activations.swiglu(randn(1, 2), randn(1, 3)), "two equal shapes"),
        (lambda: cross_entropy(randn(1, 2, 8), torch.zeros(3, dtype=torch.int64)), "targets"),
    ],
)
def test_what_the_law_does_not_cover_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_autocast_is_refused():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        activations.silu(randn(1, 3))
