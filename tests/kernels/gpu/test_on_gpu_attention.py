"""Attention on a GPU at the sizes of a model: law 3 over thousands of rows and shuffled pages, gradients against the formula, and the
library's attention, which must break the law. Small sizes are `forms/`'s business. `make gpu` runs both.
"""

import pytest
import torch
import torch.nn.functional as F
from microturn.kernels import PAGE_ROWS, attention, fresh_table, lay_out, page_table, ragged, write
from microturn.kernels.relative_attention import naive_attention
from tensors import close, randn, rows_that_differ, same_bits
from torch import Tensor

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
MODELS = pytest.mark.parametrize("model", [(32, 8, 128, 16), (2, 1, 64, 8), (6, 2, 64, 16), (4, 4, 128, 16)], ids=str)
REACHES = pytest.mark.parametrize("reach", [(512, 512), (None, 1024)], ids=["window", "global"])
APPENDS = [[1200, 20, 1, 19, 20, 21, 63, 64, 65, 300], [1, 1, 1, 700], [20] * 40]


@pytest.fixture(autouse=True)
def on_the_gpu():
    with torch.device("cuda"):
        yield


def operands(num_rows: int, model: tuple[int, int, int, int], extent: int, dtype: torch.dtype) -> list[Tensor]:
    heads, kv_heads, width, states = model
    q, k, v = (randn(seed, num_rows, n, width, dtype=dtype) for seed, n in ((1, heads), (2, kv_heads), (3, kv_heads)))
    return [q, k, v, randn(4, num_rows, heads, states, dtype=dtype), randn(5, states, extent, dtype=dtype) * 0.3]


def whole(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, lengths: list[int], window: int | None) -> Tensor:
    table = fresh_table(ragged(lengths))
    return attention(q, lay_out(k, table), lay_out(v, table), relative, profiles, table, scale=q.shape[2] ** -0.5, window=window)


def in_appends(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, window: int | None) -> Tensor:
    """All documents of APPENDS at once, piece by piece, on shuffled pages that begin as NaN."""
    lengths = [sum(pieces) for pieces in APPENDS]
    starts, blocks = [sum(lengths[:d]) for d in range(len(lengths))], [-(-length // PAGE_ROWS) for length in lengths]
    shuffled = randn(9, sum(blocks)).argsort().tolist()
    owned = [shuffled[sum(blocks[:d]) : sum(blocks[: d + 1])] for d in range(len(lengths))]
    pools = [torch.full((len(shuffled), k.shape[1], PAGE_ROWS, k.shape[2]), float("nan"), dtype=k.dtype) for _ in range(2)]
    seen, out = [0] * len(lengths), torch.zeros_like(q)
    for step in range(max(map(len, APPENDS))):
        live = [d for d in range(len(lengths)) if step < len(APPENDS[d])]
        table = page_table(ragged([APPENDS[d][step] for d in live], [seen[d] for d in live]), [owned[d] for d in live])
        at = torch.cat([torch.arange(APPENDS[d][step]) + starts[d] + seen[d] for d in live])
        write(k[at], pools[0], table)
        write(v[at], pools[1], table)
        out[at] = attention(q[at], *pools, relative[at], profiles, table, scale=q.shape[2] ** -0.5, window=window)
        for d in live:
            seen[d] += APPENDS[d][step]
    return out


@DTYPES
@MODELS
@REACHES
def test_a_document_has_the_same_bits_in_any_appends_and_any_company(model, reach, dtype):
    window, extent = reach
    lengths = [sum(pieces) for pieces in APPENDS]
    x = operands(sum(lengths), model, extent, dtype)
    together = whole(*x, lengths, window)
    assert bool(together.isfinite().all())
    alone = [whole(*(t.split(lengths)[d] for t in x[:4]), x[4], [n], window) for d, n in enumerate(lengths)]
    assert same_bits(together, torch.cat(alone))
    assert same_bits(together, in_appends(*x, window))


@DTYPES
@REACHES
def test_values_and_gradients_are_the_formulas(reach, dtype):
    window, extent = reach
    lengths, tolerance = [700, 90, 1], {torch.bfloat16: 2**-6, torch.float32: 5e-6}[dtype]
    x = [t.requires_grad_() for t in operands(sum(lengths), (8, 2, 128, 16), extent, dtype)]
    y, wanted = whole(*x, lengths, window), naive_attention(*x, tuple(lengths), scale=128**-0.5, window=window)
    assert close(y, wanted, tolerance)
    dy = randn(9, *y.shape, dtype=dtype)
    for got, want in zip(torch.autograd.grad(y, x, dy), torch.autograd.grad(wanted, x, dy.double()), strict=True):
        assert close(got, want, tolerance)


@DTYPES
def test_gradients_are_the_same_again(dtype):
    lengths = [1500, 300]
    x = [t.requires_grad_() for t in operands(sum(lengths), (8, 2, 128, 16), 512, dtype)]
    first = torch.autograd.grad(whole(*x, lengths, 512).float().square().sum(), x)
    for _ in range(5):
        again = torch.autograd.grad(whole(*x, lengths, 512).float().square().sum(), x)
        assert all(same_bits(a, b) for a, b in zip(first, again, strict=True))


def test_the_library_breaks_the_law():
    """Negative control: what is chosen by the number of queries."""
    q, k, v = (randn(seed, 1, 8, 600, 128, dtype=torch.bfloat16) for seed in (1, 2, 3))
    together = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)
    steps = [F.scaled_dot_product_attention(q[..., t : t + 1, :], k[..., : t + 1, :], v[..., : t + 1, :])[0, :, 0] for t in range(600)]
    assert rows_that_differ(together, torch.stack(steps)) > 0
