"""The kernel of attention's forward pass: one program, one tile of queries against its keys, oldest block first.

A tile's rows are positions × heads of a group, the heads of a position side by side (their number filled up to a power of two), so that
heads that share keys share their loading. Per block of KEYS keys (a page, or a fixed part of one): scores in fp32, bias added, hidden ones
-∞; then the usual step of an online softmax in powers of two, from a finite first maximum, so that a block of which a row sees nothing
multiplies its sums by exactly 1 and adds exactly 0. Blocks whose every distance is beyond the bias come first, in a loop without it; which
ones these are follows from the tile's position, as everything does. Weights are rounded to the values' dtype before they meet them.
"""

import triton
import triton.language as tl

from .arithmetic import dot
from .attention_bias import by_key, profiles_at

PAGE = tl.constexpr(64)
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def attention_kernel(
    q, k, v, relative, profiles, pages, tiles, y, log_sum, scale: tl.float32, window, extent,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr, SHARE: tl.constexpr,
    KEYS: tl.constexpr, BAND: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """y [T, H, D]; log_sum [T, H], log₂ of each row's sum of powers."""
    BM: tl.constexpr = ROWS * SHARE
    i_g = tl.program_id(1)
    tiles += (tl.num_programs(0) - 1 - tl.program_id(0)) * 5  # the newest first: they see most
    t0, row0, first, stop = tl.multiple_of(tl.load(tiles).to(tl.int32), ROWS), tl.load(tiles + 1), tl.load(tiles + 2), tl.load(tiles + 3)
    pages += tl.load(tiles + 4)
    o_place, o_h, o_d, o_r = tl.arange(0, BM) // SHARE, tl.arange(0, BM) % SHARE, tl.arange(0, BD), tl.arange(0, BR)
    o_row = row0 + o_place
    m_row = (o_row >= first) & (o_row < stop) & (o_h < H // G)
    o_row = o_row * H + i_g * (H // G) + o_h
    q += o_row[:, None] * D
    b_q = tl.load(q + tl.arange(0, BK)[None, :], mask=m_row[:, None] & (tl.arange(0, BK) < D)[None, :], other=0.0)  # [BM, BK]
    b_relative = tl.load(relative + o_row[:, None] * R + o_r[None, :], mask=m_row[:, None] & (o_r < R)[None, :], other=0.0)  # [BM, BR]
    oldest, newest = oldest_block(t0 + (first - row0).to(tl.int32), window, KEYS), (t0 + ROWS - 1) // KEYS
    biased = tl.maximum(tl.maximum(t0 + 1 - extent, 0) // KEYS, oldest)
    y_sum, total, top = tl.zeros((BM, BD), tl.float32), tl.zeros((BM,), tl.float32), tl.full((BM,), -1e38, tl.float32)
    for block in tl.range(oldest, biased, num_stages=STAGES):
        at = block_at(pages, block, i_g, G, D, KEYS)
        b_scores = _products(q, b_q, k + at, m_row, D, BM, KEYS, BD, BK) * (scale * LOG2_E)
        y_sum, total, top = _seen(b_scores, v + at, t0 + o_place - block * KEYS, window, y_sum, total, top, D, KEYS, BD)
    for block in tl.range(biased, newest + 1, num_stages=STAGES):
        at = block_at(pages, block, i_g, G, D, KEYS)
        b_scores = _products(q, b_q, k + at, m_row, D, BM, KEYS, BD, BK) * (scale * LOG2_E)
        b_profiles = profiles_at(profiles, t0 - block * KEYS - KEYS, extent, R, BR, BAND)
        b_scores += by_key(b_relative, b_profiles, o_place, BM, KEYS, BAND) * LOG2_E
        y_sum, total, top = _seen(b_scores, v + at, t0 + o_place - block * KEYS, window, y_sum, total, top, D, KEYS, BD)
    y_sum = y_sum / total[:, None] + 0.0  # no -0.0, which sums below the smallest number may leave
    tl.store(y + o_row[:, None] * D + o_d[None, :], y_sum.to(y.dtype.element_ty), mask=m_row[:, None] & (o_d < D)[None, :])
    tl.store(log_sum + o_row, top + tl.log2(total), mask=m_row)


@triton.jit
def oldest_block(position, window, KEYS: tl.constexpr):
    """The first block of which the row at a position sees anything."""
    return tl.maximum(position - window + 1, 0) // KEYS


@triton.jit
def block_at(pages, block, i_g, G: tl.constexpr, D: tl.constexpr, KEYS: tl.constexpr):
    """Where one head's rows of a document's block begin in a pool."""
    start = block * KEYS
    return ((tl.load(pages + start // PAGE).to(tl.int64) * G + i_g) * PAGE + start % PAGE) * D


@triton.jit
def rows_at(x, N: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, start: tl.constexpr):
    """[N, BD]: columns from `start` on of N rows that lie together."""
    o_d = start + tl.arange(0, BD)
    return tl.load(x + tl.arange(0, N)[:, None] * D + o_d[None, :], mask=(o_d < D)[None, :], other=0.0)


@triton.jit
def _products(q, b_q, k, m_row, D: tl.constexpr, BM: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr):
    """q · kᵀ [BM, KEYS], BK columns of a head after the other; `b_q` holds the first."""
    b_scores = dot(b_q, tl.trans(rows_at(k, KEYS, D, BK, 0)), tl.zeros((BM, KEYS), tl.float32))
    for start in tl.static_range(BK, BD, BK):
        o_d = start + tl.arange(0, BK)
        b_more = tl.load(q + o_d[None, :], mask=m_row[:, None] & (o_d < D)[None, :], other=0.0)  # [BM, BK]
        b_scores = dot(b_more, tl.trans(rows_at(k, KEYS, D, BK, start)), b_scores)
    return b_scores


@triton.jit
def _seen(b_scores, v, o_ahead, window, y_sum, total, top, D: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr):
    """The sums after a block; `o_ahead` is how far each row stands from the block's first key."""
    distance = o_ahead[:, None] - tl.arange(0, KEYS)[None, :]
    b_scores = tl.where((distance >= 0) & (distance < window), b_scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(b_scores, 1))
    weights, shrink = tl.exp2(b_scores - new_top[:, None]), tl.exp2(top - new_top)
    b_v = rows_at(v, KEYS, D, BD, 0)
    y_sum = dot(weights.to(b_v.dtype), b_v, y_sum * shrink[:, None])
    return y_sum, total * shrink + tl.sum(weights, 1), new_top
