"""Activations and random numbers, Triton form: values, slopes, and that an element depends on itself alone."""

import pytest
import torch
from microturn.kernels import activations, philox
from microturn.kernels.activations import naive_gelu, naive_log_sigmoid, naive_silu
from tensors import close, randn, same_bits

ACTIVATIONS = {
    "sigmoid": (activations.sigmoid, lambda x: torch.sigmoid(x.double())),
    "log_sigmoid": (activations.log_sigmoid, naive_log_sigmoid),
    "silu": (activations.silu, naive_silu),
    "gelu": (activations.gelu, naive_gelu),
}
HALF = {torch.float16: 2**-10, torch.bfloat16: 2**-7}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy says when exp overflows; 1 / inf is meant
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_slopes_are_right_to_a_few_ulps(name):
    op, naive = ACTIVATIONS[name]
    x = torch.cat([torch.linspace(-30, 30, 2500), torch.tensor([0.0, -0.0, 1e-30, -88.0, 88.0, -200.0, 200.0])]).requires_grad_()
    y, wanted = op(x), naive(x)
    torch.testing.assert_close(y.double(), wanted, rtol=3e-6, atol=3e-7)
    (slope,), (wanted_slope,) = torch.autograd.grad(y.sum(), x), torch.autograd.grad(wanted.sum(), x)
    torch.testing.assert_close(slope, wanted_slope, rtol=3e-6, atol=5e-7)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_halves_are_widened_first(name, dtype):
    op, naive = ACTIVATIONS[name]
    x = (randn(1, 3, 50, dtype=dtype) * 3).requires_grad_()
    y = op(x)
    assert y.dtype == dtype and close(y, naive(x), HALF[dtype])
    assert close(*(torch.autograd.grad(z.double().sum(), x)[0] for z in (y, naive(x))), HALF[dtype])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_element_depends_on_itself_alone(name):
    op, x = ACTIVATIONS[name][0], randn(1, 2500) * 5
    assert same_bits(op(x), torch.cat([op(piece) for piece in x.split([1, 2048, 37, 414])]))
    assert same_bits(op(x)[::3], op(x[::3]))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("shape", [(9, 40), (3, 2, 33), (2, 1100)])
def test_swiglu_of_tensors_and_of_halves(shape, dtype):
    both = randn(1, *shape[:-1], 2 * shape[-1], dtype=dtype).requires_grad_()
    gate, up = both.chunk(2, dim=-1)
    y, wanted = activations.swiglu(gate, up), naive_silu(gate) * up.double()
    tolerance = HALF.get(dtype, 2e-6)
    assert close(y, wanted, tolerance) and same_bits(y, activations.swiglu(gate.clone(), up.clone()))
    dy = randn(2, *y.shape, dtype=dtype)
    assert close(torch.autograd.grad(y, both, dy)[0], torch.autograd.grad(wanted, both, dy.double())[0], 2 * tolerance)


@pytest.mark.parametrize(("positions", "dims", "draw"), [([0, 5, 2**32 - 1], 11, 3), (list(range(50)), 30, 0), ([7], 1, 2**31)])
def test_words_are_the_formats(positions, dims, draw):
    key = philox.key("gumbel", 7, 0, "a document")
    got = philox.words(key, torch.tensor(positions), dims, draw)
    assert got.dtype == torch.int64
    assert got.tolist() == [[philox.naive_philox((p, d // 4, draw, 0), key)[d % 4] for d in range(dims)] for p in positions]


def test_numbers_are_the_cpus(monkeypatch):
    from microturn.kernels import dispatch

    key, positions = philox.key("flow", 7, 0, "a document"), torch.arange(90, 130)
    got = [numbers(key, positions, 322, 1) for numbers in (philox.uniforms, philox.gumbels, philox.normals)]
    monkeypatch.setattr(dispatch, "triton_computes", lambda device: False)
    uniforms, gumbels, normals = (numbers(key, positions, 322, 1) for numbers in (philox.uniforms, philox.gumbels, philox.normals))
    assert same_bits(got[0], uniforms) and close(got[1], gumbels, 1e-6) and close(got[2], normals, 1e-6)


def test_cutting_a_document_changes_no_number():
    key, positions = philox.key("flow", 1, 2, "d"), torch.arange(1000, 1037)
    for numbers in (philox.words, philox.uniforms, philox.gumbels, philox.normals):
        whole = numbers(key, positions, 9)
        assert same_bits(whole, torch.cat([numbers(key, piece, 9) for piece in positions.split([1, 20, 16])]))
        assert same_bits(whole[:, :4], numbers(key, positions, 4))
