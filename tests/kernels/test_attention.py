"""Attention: what it computes (against the formula in float64), and law 3: the same bits for any cut of a document, in any company.

The sampler here is deliberately unkind: pages are shuffled, memory is NaN until written, older pages are given up as soon as the window
allows, and the rest of a page may hold an append that was taken back.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.kernels import PAGE_ROWS, attention, fresh_table, lay_out, page_table, ragged, write
from microturn.kernels.relative_attention import naive_attention
from tensors import DTYPES, SEEDS, THREADS, close, cuts, randn, same_bits, threads
from torch import Tensor

SHAPES = st.sampled_from([(2, 1, 64, 16), (4, 2, 32, 8), (2, 2, 16, 3), (6, 2, 24, 4)])  # heads, key/value heads, width, relative states
REACHES = st.sampled_from([(128, 128), (None, 200), (37, 50), (64, 64), (200, 64), (1, 1), (None, 1)])  # window, extent


def operands(seed: int, num_rows: int, shape: tuple[int, int, int, int], extent: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    heads, kv_heads, width, states = shape
    sizes = [
        (num_rows, heads, width),
        (num_rows, kv_heads, width),
        (num_rows, kv_heads, width),
        (num_rows, heads, states),
        (states, extent),
    ]
    return [randn(seed + i, *size, dtype=dtype) for i, size in enumerate(sizes)]


def whole(q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, lengths: list[int], window: int | None) -> Tensor:
    table = fresh_table(ragged(lengths))
    return attention(q, lay_out(k, table), lay_out(v, table), relative, profiles, table, scale=1 / q.shape[2], window=window)


def in_appends(
    q: Tensor, k: Tensor, v: Tensor, relative: Tensor, profiles: Tensor, appends: list[list[int]], window: int | None, seed: int
) -> Tensor:
    """Documents that arrive piece by piece, all in one pool: step i takes the i-th append of every document that has one."""
    lengths = [sum(pieces) for pieces in appends]
    starts = [sum(lengths[:d]) for d in range(len(lengths))]
    blocks = [-(-length // PAGE_ROWS) for length in lengths]
    shuffled = torch.randperm(sum(blocks) + 3, generator=torch.Generator().manual_seed(seed)).tolist()
    owned = [shuffled[sum(blocks[:d]) : sum(blocks[: d + 1])] for d in range(len(lengths))]
    pools = [torch.full((len(shuffled), k.shape[1], PAGE_ROWS, k.shape[2]), float("nan"), dtype=k.dtype) for _ in range(2)]
    seen, out = [0] * len(lengths), torch.empty_like(q)
    for step in range(max(map(len, appends))):
        live = [d for d in range(len(lengths)) if step < len(appends[d])]
        counts = [appends[d][step] for d in live]
        first = [0 if window is None else max(0, seen[d] - window + 1) // PAGE_ROWS for d in live]
        table = page_table(ragged(counts, [seen[d] for d in live]), [owned[d][f:] for d, f in zip(live, first, strict=True)], first)
        at = torch.cat([torch.arange(starts[d] + seen[d], starts[d] + seen[d] + n) for d, n in zip(live, counts, strict=True)])
        for pool, rows in zip(pools, (torch.full_like(k, 1e30), torch.full_like(v, float("nan"))), strict=True):
            write(rows[at], pool, table)  # an append that is taken back: what follows must not see it
        write(k[at], pools[0], table)
        write(v[at], pools[1], table)
        out[at] = attention(q[at], *pools, relative[at], profiles, table, scale=1 / q.shape[2], window=window)
        seen = [s + dict(zip(live, counts, strict=True)).get(d, 0) for d, s in enumerate(seen)]
    return out


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=SHAPES, reach=REACHES, seed=SEEDS, dtype=DTYPES, first=THREADS, second=THREADS)
def test_a_document_has_the_same_bits_in_any_appends_and_any_company(data, shape, reach, seed, dtype, first, second):
    lengths = data.draw(st.lists(st.integers(1, 230), min_size=1, max_size=3))
    appends = [data.draw(cuts(length)) for length in lengths]
    x = operands(seed, sum(lengths), shape, reach[1], dtype)
    with threads(first):
        together = whole(*x, lengths, reach[0])
        alone = torch.cat(
            [whole(*(part[d] for part in (t.split(lengths) for t in x[:4])), x[4], [n], reach[0]) for d, n in enumerate(lengths)]
        )
    with threads(second):
        arriving = in_appends(*x, appends, reach[0], seed)
    assert bool(together.isfinite().all())
    assert same_bits(together, alone)
    assert same_bits(together, arriving)


def test_long_documents_keep_the_law():
    """More rows than a chunk holds, so that chunks are cut in other places in the whole document than in its appends."""
    lengths, appends = [700, 90], [[512, 1, 20, 167], [30, 60]]
    x = operands(7, 790, (2, 1, 64, 16), 1024)
    assert same_bits(whole(*x, lengths, None), in_appends(*x, appends, None, 7))


def test_a_failed_check_costs_speed_only(monkeypatch):
    x = operands(3, 150, (4, 2, 32, 8), 100)
    fast = whole(*x, [150], None)
    monkeypatch.setattr("microturn.kernels.attention_cpu.proven", lambda *_: False)
    monkeypatch.setattr("microturn.kernels.products.proven", lambda *_: False)
    monkeypatch.setattr("microturn.kernels.products._ROWS", {})
    assert same_bits(whole(*x, [150], None), fast)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3), shape=SHAPES, reach=REACHES, seed=SEEDS)
@example(lengths=[130, 64], shape=(2, 1, 64, 16), reach=(37, 50), seed=0)
def test_values_and_gradients_are_the_formulas(lengths, shape, reach, seed):
    x = [t.requires_grad_() for t in operands(seed, sum(lengths), shape, reach[1])]
    y = whole(*x, lengths, reach[0])
    wanted = naive_attention(*x, tuple(lengths), scale=1 / shape[2], window=reach[0])
    assert close(y, wanted, 1e-5)
    dy = randn(seed + 9, *y.shape)
    for got, want in zip(torch.autograd.grad(y, x, dy), torch.autograd.grad(wanted, x, dy.double()), strict=True):
        assert close(got, want, 1e-5) or float(want.detach().abs().max()) < 1e-6


def test_backward_gives_the_same_bits_twice():
    x = [t.requires_grad_() for t in operands(5, 300, (4, 2, 32, 8), 100)]
    once, twice = ([g.clone() for g in torch.autograd.grad(whole(*x, [200, 100], 128).sum(), x)] for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(once, twice, strict=True))


def test_scores_far_apart_neither_overflow_nor_vanish():
    q, k, v, relative, profiles = operands(1, 100, (2, 1, 16, 4), 100)
    y = whole(q * 300, k * 300, v, relative, profiles, [100], None)
    assert close(y, naive_attention(q * 300, k * 300, v, relative, profiles, (100,), scale=1 / 16, window=None), 1e-4)


def test_a_block_that_was_given_up_too_early_is_refused():
    q, _, _, relative, profiles = operands(1, 1, (2, 1, 16, 4), 10)
    pool = torch.zeros(3, 1, PAGE_ROWS, 16)
    table = page_table(ragged([1], [200]), [[0, 1]], [2])
    assert attention(q, pool, pool, relative, profiles, table, scale=1.0, window=70).shape == q.shape
    with pytest.raises(ValueError, match="sees block 0 of its document, whose pages begin with block 2"):
        attention(q, pool, pool, relative, profiles, table, scale=1.0, window=None)


def test_pages_that_do_not_reach_the_new_rows_are_refused():
    with pytest.raises(ValueError, match="pages of blocks 0 … 0, its new rows are 60 … 69"):
        page_table(ragged([10], [60]), [[4]])


def test_a_pool_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match="contiguous pool"):
        write(randn(1, 3, 1, 16), torch.zeros(1, 1, PAGE_ROWS, 16, dtype=torch.bfloat16), fresh_table(ragged([3])))
