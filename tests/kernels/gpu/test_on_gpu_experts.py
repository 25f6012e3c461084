"""Expert products on a GPU at the sizes of a model: rows that never see how full their experts are, gradients against float64, and the same
bits again. Small sizes are `forms/`'s business. `make gpu` runs both.
"""

import pytest
import torch
from microturn.kernels import combine, expert_places, grouped_linear, linear, route, swiglu
from microturn.kernels.experts import naive_combine, naive_grouped_linear
from tensors import close, randn, same_bits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
ROWS, WIDTH, INNER, EXPERTS, SHARED, CHOSEN = 900, 512, 256, 64, 2, 6
PIECES = [1, 1, 2, 20, 20, 64, 128, 664]


@pytest.fixture(autouse=True)
def on_the_gpu():
    with torch.device("cuda"):
        yield


def layer(x, logits, w_in, w_out):
    """A whole layer of EXPERTS routed and SHARED shared experts."""
    chosen, weights = route(logits, torch.zeros(EXPERTS), CHOSEN, 4.0)
    shared = (EXPERTS + torch.arange(SHARED)).expand(x.shape[0], -1)
    places = expert_places(torch.cat([chosen, shared], -1), EXPERTS + SHARED)
    hidden = swiglu(*grouped_linear(x, w_in, places, by_token=True).chunk(2, -1))
    return combine(grouped_linear(hidden, w_out, places, by_token=False), weights, places)


def operands(dtype):
    w_in, w_out = randn(3, EXPERTS + SHARED, 2 * INNER, WIDTH, dtype=dtype), randn(4, EXPERTS + SHARED, WIDTH, INNER, dtype=dtype)
    return randn(1, ROWS, WIDTH, dtype=dtype), randn(2, ROWS, EXPERTS + SHARED), w_in / 16, w_out / 16


@DTYPES
def test_a_row_never_sees_how_full_its_experts_are(dtype):
    x, logits, *weights = operands(dtype)
    whole = layer(x, logits, *weights)
    pieces = zip(x.split(PIECES), logits.split(PIECES), strict=True)
    assert sum(PIECES) == ROWS and same_bits(whole, torch.cat([layer(*piece, *weights) for piece in pieces]))
    x[1::2] = float("nan")
    assert same_bits(whole[::2], layer(x, logits, *weights)[::2])


@DTYPES
def test_a_row_of_a_group_is_the_linear_layer_of_that_row(dtype):
    x, logits, w, _ = operands(dtype)
    chosen, _ = route(logits, torch.zeros(EXPERTS), CHOSEN, 4.0)
    places = expert_places(chosen, EXPERTS + SHARED)
    y = grouped_linear(x, w, places, by_token=True)
    for expert in range(0, EXPERTS, 7):
        group = slice(int(places.starts[expert]), int(places.starts[expert + 1]))
        assert same_bits(y[group], linear(x[places.token_P[group]], w[expert]))


@DTYPES
def test_values_and_gradients_are_the_formulas(dtype):
    tolerance = {torch.bfloat16: 2**-7, torch.float32: 2e-6}[dtype]
    x, logits, w, _ = operands(dtype)
    x, logits = x[:200], logits[:200]
    chosen, weights = route(logits, torch.zeros(EXPERTS), CHOSEN, 4.0)
    weights = weights[:, :CHOSEN].contiguous()
    leaves = [t.requires_grad_() for t in (x, w, weights)]
    places = expert_places(chosen, EXPERTS + SHARED)
    y = combine(grouped_linear(x, w, places, by_token=True), weights, places)
    wanted = naive_combine(naive_grouped_linear(x, w, chosen), weights)
    assert close(y, wanted, tolerance)
    dy = randn(5, *y.shape, dtype=dtype)
    for got, want in zip(torch.autograd.grad(y, leaves, dy), torch.autograd.grad(wanted, leaves, dy.double()), strict=True):
        assert close(got, want, tolerance)


@DTYPES
def test_gradients_are_the_same_again(dtype):
    leaves = [t.requires_grad_() for t in operands(dtype)]
    first = torch.autograd.grad(layer(*leaves).float().square().sum(), leaves)
    for _ in range(5):
        assert all(same_bits(a, b) for a, b in zip(first, torch.autograd.grad(layer(*leaves).float().square().sum(), leaves), strict=True))
