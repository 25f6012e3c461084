"""Attention with relative bias, Triton form: values and gradients against the formula, and law 3: the same bits for any cut of a document,
in any company, on any pages.

The sampler here is unkind: pages are shuffled, memory is NaN until written, older pages are given up as soon as the window allows, and the
rest of a page may hold an append that was taken back.
"""

import pytest
import torch
from microturn.kernels import PAGE_ROWS, attention, fresh_table, lay_out, page_table, ragged, write
from microturn.kernels.relative_attention import naive_attention
from tensors import close, randn, rows_that_differ, same_bits
from torch import Tensor

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-8, torch.bfloat16: 2**-5}
HALF = torch.float16


def operands(
    num_rows: int, heads: int, kv_heads: int, width: int, states: int, extent: int, dtype: torch.dtype, seed: int = 1
) -> list[Tensor]:
    sizes = [
        (num_rows, heads, width), (num_rows, kv_heads, width), (num_rows, kv_heads, width), (num_rows, heads, states), (states, extent),
    ]  # fmt: skip
    return [randn(seed + i, *size, dtype=dtype) for i, size in enumerate(sizes)]


def whole(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, lengths: list[int], window: int | None) -> Tensor:
    table = fresh_table(ragged(lengths))
    return attention(q, lay_out(k, table), lay_out(v, table), relative, profiles, table, scale=1 / q.shape[2], window=window)


def in_appends(
    q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, appends: list[list[int]], window: int | None, seed: int = 1
) -> Tensor:
    """Documents that arrive piece by piece, all in one pool: step i takes the i-th append of every document that has one."""
    lengths = [sum(pieces) for pieces in appends]
    starts = [sum(lengths[:d]) for d in range(len(lengths))]
    blocks = [-(-length // PAGE_ROWS) for length in lengths]
    shuffled = randn(seed, sum(blocks) + 3).argsort().tolist()
    owned = [shuffled[sum(blocks[:d]) : sum(blocks[: d + 1])] for d in range(len(lengths))]
    pools = [torch.full((len(shuffled), k.shape[1], PAGE_ROWS, k.shape[2]), float("nan"), dtype=k.dtype) for _ in range(2)]
    seen, out = [0] * len(lengths), torch.empty_like(q)
    for step in range(max(map(len, appends))):
        live = [d for d in range(len(lengths)) if step < len(appends[d])]
        counts = [appends[d][step] for d in live]
        first = [0 if window is None else max(0, seen[d] - window + 1) // PAGE_ROWS for d in live]
        table = page_table(ragged(counts, [seen[d] for d in live]), [owned[d][f:] for d, f in zip(live, first, strict=True)], first)
        at = torch.cat([torch.arange(starts[d] + seen[d], starts[d] + seen[d] + n) for d, n in zip(live, counts, strict=True)])
        for pool, rows in zip(pools, (torch.full_like(k, 1e4), torch.full_like(v, float("nan"))), strict=True):
            write(rows[at], pool, table)  # an append that is taken back: what follows must not see it
        write(k[at], pools[0], table)
        write(v[at], pools[1], table)
        out[at] = attention(q[at], *pools, relative[at], profiles, table, scale=1 / q.shape[2], window=window)
        seen = [s + dict(zip(live, counts, strict=True)).get(d, 0) for d, s in enumerate(seen)]
    return out


SHAPES = {  # heads, key/value heads, width, relative states, extent, window, lengths
    "one group, window as long as the bias": (2, 1, 64, 16, 128, 128, [130, 64]),
    "three share, all is seen, bias ends earlier": (3, 1, 24, 3, 100, None, [170]),
    "none share, odd window and extent": (2, 2, 16, 4, 50, 37, [70, 3]),
    "bias beyond the window": (4, 1, 32, 8, 256, 64, [90]),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *[(name, HALF) for name in SHAPES],
        *[(name, dtype) for name in list(SHAPES)[2:] for dtype in (torch.bfloat16, torch.float32)],
        *[pytest.param(name, dtype, marks=pytest.mark.nightly) for name in list(SHAPES)[:2] for dtype in (torch.bfloat16, torch.float32)],
    ],
)
def test_values_are_the_formulas(name, dtype):
    *sizes, extent, window, lengths = SHAPES[name]
    x = operands(sum(lengths), *sizes, extent, dtype)
    wanted = naive_attention(*x, tuple(lengths), scale=1 / sizes[2], window=window)
    assert close(whole(*x, lengths, window), wanted, TOLERANCE[dtype])


GRADIENTS = [
    ("none share, odd window and extent", HALF),
    ("bias beyond the window", torch.bfloat16),
    *[pytest.param(name, dtype, marks=pytest.mark.nightly) for name in SHAPES for dtype in TOLERANCE],
]


@pytest.mark.parametrize(("name", "dtype"), GRADIENTS)
def test_gradients_are_the_formulas(name, dtype):
    *sizes, extent, window, lengths = SHAPES[name]
    gradients_agree(operands(sum(lengths), *sizes, extent, dtype), lengths, window, TOLERANCE[dtype])


def test_gradients_in_fp32():
    gradients_agree(operands(41, 2, 1, 16, 3, 20, torch.float32), [33, 8], 18, 2e-6)


def gradients_agree(x: list[Tensor], lengths: list[int], window: int | None, tolerance: float) -> None:
    x = [t.requires_grad_() for t in x]
    y = whole(*x, lengths, window)
    wanted, dy = naive_attention(*x, tuple(lengths), scale=1 / x[0].shape[2], window=window), randn(9, *y.shape, dtype=y.dtype)
    for got, want in zip(torch.autograd.grad(y, x, dy), torch.autograd.grad(wanted, x, dy.double()), strict=True):
        assert close(got, want, tolerance)


def test_gradients_of_an_append_reach_its_pages_past():
    """New rows 70 … 99 of a document: as in the whole document, where the others get no gradient."""
    q, k, v, relative, profiles = operands(100, 2, 1, 16, 4, 50, HALF)
    leaves = [t.requires_grad_() for t in (k, v, profiles)]
    wanted = torch.autograd.grad(naive_attention(q, k, v, relative, profiles, (100,), scale=1 / 16, window=None)[70:].sum(), leaves)
    table = page_table(ragged([30], [70]), [[0, 1]])
    pages = [lay_out(t, fresh_table(ragged([100]))) for t in (k, v)]
    y = attention(q[70:], *pages, relative[70:], profiles, table, scale=1 / 16, window=None)
    for got, want in zip(torch.autograd.grad(y, leaves, torch.ones_like(y)), wanted, strict=True):
        assert close(got, want, 2**-8)


LAW = [
    ((2, 1, 64, 16), (128, 128), [[100, 1, 20, 44], [7, 40]]),
    ((6, 2, 16, 3), (None, 50), [[1, 63, 1, 20, 85]]),
    ((2, 2, 16, 4), (37, 100), [[64, 33, 5], [1, 1, 30]]),
    ((1, 1, 16, 4), (1, 1), [[3, 62]]),
]


@pytest.mark.parametrize(
    ("sizes", "reach", "appends", "dtype"),
    [
        *[(*law, HALF) for law in LAW],
        *[(*law, dtype) for law in LAW[2:] for dtype in (torch.bfloat16, torch.float32)],
        *[pytest.param(*law, dtype, marks=pytest.mark.nightly) for law in LAW[:2] for dtype in (torch.bfloat16, torch.float32)],
    ],
)
def test_a_document_has_the_same_bits_in_any_appends_and_any_company(sizes, reach, appends, dtype):
    window, extent = reach
    lengths = [sum(pieces) for pieces in appends]
    x = operands(sum(lengths), *sizes, extent, dtype)
    together = whole(*x, lengths, window)
    assert bool(together.isfinite().all())
    alone = [whole(*(t.split(lengths)[d] for t in x[:4]), x[4], [n], window) for d, n in enumerate(lengths)]
    assert same_bits(together, torch.cat(alone))
    assert same_bits(together, in_appends(*x, appends, window))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_a_document_has_the_same_bits_in_random_appends(seed):
    cut = torch.Generator("cpu").manual_seed(seed)
    appends = [torch.randint(1, 90, (4,), generator=cut, device="cpu").tolist() for _ in range(1 + seed % 3)]
    lengths, sizes = [sum(pieces) for pieces in appends], LAW[seed % 4][0]
    window, extent = [(128, 128), (None, 60), (50, 30), (64, 200)][seed // 2 % 4]
    x = operands(sum(lengths), *sizes, extent, [HALF, torch.float32][seed % 2], seed)
    assert same_bits(whole(*x, lengths, window), in_appends(*x, appends, window, seed))


def test_rows_that_come_later_change_nothing():
    q, k, v, relative, profiles = operands(130, 2, 1, 16, 4, 50, HALF)
    first = whole(q, k, v, relative, profiles, [130], None)[:90]
    q, k, v, relative = (torch.cat([t[:90], t[90:] * 100]) for t in (q, k, v, relative))
    assert same_bits(first, whole(q, k, v, relative, profiles, [130], None)[:90])


def test_backward_gives_the_same_bits_twice():
    x = [t.requires_grad_() for t in operands(90, 2, 1, 16, 4, 50, HALF)]
    once, twice = (torch.autograd.grad(whole(*x, [60, 30], 40).sum(), x) for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(once, twice, strict=True))


def test_scores_far_apart_neither_overflow_nor_vanish():
    q, k, v, relative, profiles = operands(100, 2, 1, 16, 4, 100, torch.float32)
    y = whole(q * 300, k * 300, v, relative, profiles, [100], None)
    assert close(y, naive_attention(q * 300, k * 300, v, relative, profiles, (100,), scale=1 / 16, window=None), 1e-4)


def test_blocks_anchored_at_the_buffer_break_the_law():
    """Negative control: pages that hold 64 rows of the packed buffer, whosever they are. What follows a document of 37 rows has its blocks
    cut 37 rows later, and other bits.
    """
    q, k, v, relative, profiles = operands(187, 2, 1, 16, 4, 50, torch.float32)
    together = whole(q, k, v, relative, profiles, [37, 150], 64)[37:]
    packed = page_table(ragged([150], [37]), [[0, 1, 2]])  # positions of the buffer; the window hides most of the other document
    pages = [lay_out(t, fresh_table(ragged([187]))) for t in (k, v)]
    anchored = attention(q[37:], *pages, relative[37:], profiles, packed, scale=1 / 16, window=64)
    assert close(together[64:], anchored[64:], 1e-5)  # the same numbers: nothing but the order of addition changed
    assert rows_that_differ(together[64:], anchored[64:]) > 40


def test_pages_that_two_segments_share_have_no_gradient():
    q, _, _, relative, profiles = operands(2, 1, 1, 16, 4, 10, torch.float32)
    pool, table = torch.zeros(1, 1, PAGE_ROWS, 16), page_table(ragged([1, 1], [5, 5]), [[0], [0]])
    y = attention(q.requires_grad_(), pool, pool, relative, profiles, table, scale=1.0, window=None)
    with pytest.raises(ValueError, match="belong to one segment"):
        y.sum().backward()


def test_a_block_that_was_given_up_too_early_is_refused():
    q, _, _, relative, profiles = operands(1, 2, 1, 16, 4, 10, torch.float32)
    pool = torch.zeros(3, 1, PAGE_ROWS, 16)
    table = page_table(ragged([1], [200]), [[0, 1]], [2])
    assert attention(q, pool, pool, relative, profiles, table, scale=1.0, window=70).shape == q.shape
    with pytest.raises(ValueError, match="sees block 0 of its document, whose pages begin with block 2"):
        attention(q, pool, pool, relative, profiles, table, scale=1.0, window=None)


def test_operands_of_two_dtypes_are_refused():
    q, k, v, relative, profiles = operands(3, 1, 1, 16, 4, 10, torch.float32)
    with pytest.raises(ValueError, match="of one dtype"):
        whole(q, k.bfloat16(), v.bfloat16(), relative, profiles, [3], None)
