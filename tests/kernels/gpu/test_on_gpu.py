"""On a GPU, at the sizes of a model: the row law with real tiles, backward the same again, and the ordinary way that must break the law.

Values at small sizes are `forms/`'s business, which runs on the GPU too. `make gpu` runs both.
"""

import pytest
import torch
from microturn.kernels import activations, bag, cross_entropy, linear, log_softmax, ragged, rms_norm, route, short_conv
from microturn.kernels.products import naive_linear
from tensors import close, randint, randn, rows_that_differ, same_bits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
ROWS, COLUMNS = 600, 1024
PIECES = [1, 1, 2, 20, 64, 127, 128, 257]  # one row, a micro-turn, whole tiles, what is left
ROW_OPS = {
    "linear": lambda x: linear(x, randn(1, 1536, COLUMNS, dtype=x.dtype)),
    "linear, odd width": lambda x: linear(x[:, :75].contiguous(), randn(1, 333, 75, dtype=x.dtype)),
    "rms_norm": lambda x: rms_norm(x, randn(2, COLUMNS, dtype=x.dtype), 1e-6),
    "rms_norm per head": lambda x: rms_norm(x.unflatten(-1, (16, 64)), randn(2, 64), 1e-6).flatten(1),
    "log_softmax": lambda x: log_softmax(linear(x, randn(1, 30_001, COLUMNS, dtype=x.dtype) * 0.1)),
    "cross_entropy": lambda x: cross_entropy(x, (x.float().abs().sum(-1) * 7).long() % COLUMNS),
    "silu": activations.silu,
    "gelu": activations.gelu,
    "swiglu of halves": lambda x: activations.swiglu(*x.chunk(2, dim=-1)),
    "route": lambda x: route(x[:, :258].float().contiguous(), randn(3, 256) * 0.1, 6, 8.0)[1],
    "bag": lambda x: bag(x[:, :80].float().abs().mul(5).clamp(max=15).to(torch.uint8), randn(4, 1280, COLUMNS, dtype=x.dtype)),
}


@pytest.fixture(autouse=True)
def on_the_gpu():
    with torch.device("cuda"):
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ROW_OPS)
def test_a_row_never_sees_its_company(name, dtype):
    op, x = ROW_OPS[name], randn(1, ROWS, COLUMNS, dtype=dtype)
    whole = op(x)
    assert sum(PIECES) == ROWS and same_bits(whole, torch.cat([op(piece) for piece in x.split(PIECES)]))
    assert same_bits(whole.flip(0), op(x.flip(0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_poison_in_other_rows_is_not_seen(dtype):
    x, w = randn(1, ROWS, COLUMNS, dtype=dtype), randn(2, 512, COLUMNS, dtype=dtype)
    whole = linear(x, w)
    x[1::2] = float("nan")
    assert same_bits(whole[::2], linear(x, w)[::2])


def test_values_of_a_large_product():
    x, w = randn(1, 300, 4096), randn(2, 512, 4096)
    assert close(linear(x, w), naive_linear(x, w), 1e-6)  # tf32 would be off by 1e-4
    half, half_w = x.bfloat16(), w.bfloat16()
    assert close(linear(half, half_w), naive_linear(half, half_w), 2**-8)


def test_a_document_in_appends_has_its_bits():
    x, w = randn(1, ROWS, COLUMNS, dtype=torch.bfloat16), randn(2, COLUMNS, 4)
    whole, last = short_conv(x, w, ragged([ROWS]))
    pieces, state, seen = [], torch.zeros(1, 3, COLUMNS), 0
    for piece in x.split(PIECES):
        y, state = short_conv(piece, w, ragged([len(piece)], [seen]), state)
        pieces.append(y)
        seen += len(piece)
    assert same_bits(whole, torch.cat(pieces)) and same_bits(last, state)


def test_gradients_are_the_same_again():
    x, w, taps = (randn(seed, *shape).requires_grad_() for seed, shape in ((1, (ROWS, 256)), (2, (384, 256)), (3, (384, 4))))
    table, codes, weight = randn(4, 1280, 384).requires_grad_(), randint(5, 16, ROWS, 80), randn(6, 384).requires_grad_()

    def gradients():
        y = short_conv(linear(x, w) + bag(codes, table), taps, ragged([ROWS - 77, 77]))[0]
        loss = cross_entropy(activations.gelu(rms_norm(y, weight, 1e-6)), randint(7, 384, ROWS)).mean()
        return torch.autograd.grad(loss, (x, w, taps, table, weight))

    first = gradients()
    assert all(float(g.abs().sum()) > 0 for g in first)
    for _ in range(5):
        assert all(same_bits(a, b) for a, b in zip(first, gradients(), strict=True))


def test_the_library_breaks_the_law():
    """Negative control: cuBLAS chooses by the number of rows."""
    x, w = randn(1, ROWS, 4096, dtype=torch.bfloat16), randn(2, 4096, 4096, dtype=torch.bfloat16)
    plain = torch.nn.functional.linear
    assert rows_that_differ(plain(x, w), torch.cat([plain(piece, w) for piece in x.split(PIECES)])) > 0
