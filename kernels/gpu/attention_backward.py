"""The kernels of attention's backward pass. Deterministic: every sum has one writer and an order that the batch alone decides.

Scores are computed again from the saved logarithm of each row's sum, in three passes without atomics:

    dq_kernel         a program a tile and head: blocks from the oldest to the newest; gradients of queries and relative states
    dkv_kernel        a program a block and key/value head: tiles in order, in each the heads of the group; gradients of keys and values
    dprofiles_kernel  a program a part of the tiles, a key/value head and a *diagonal* (tiles against keys at one distance d0); what a
                      part adds to the profiles of d0 … d0 + BAND - 1; `sum_profiles_kernel` adds parts and overlapping diagonals

A tile is ROWS positions of one head. With p the weights and dp = dy · vᵀ: ds = p · (dp - dy · y), dq = scale · ds · k,
dk = scale · dsᵀ · q, dv = pᵀ · dy; ds by distance instead of key is the gradient of the band. p and ds are rounded to the operands' dtype
before products.
"""

import triton
import triton.language as tl

from .arithmetic import dot
from .attention_bias import by_distance, by_key, by_key_transposed, profiles_at
from .attention_forward import LOG2_E, PAGE, block_at, oldest_block, rows_at


@triton.jit(do_not_specialize=["num_rows"])
def slope_kernel(dy, y, slope, num_rows, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr):
    """slope = dy · y of each of num_rows rows of a head."""
    o_m, o_d = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.arange(0, BD)
    m_md = (o_m < num_rows)[:, None] & (o_d < D)[None, :]
    b_dy = tl.load(dy + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    b_y = tl.load(y + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    tl.store(slope + o_m, tl.sum(b_dy * b_y, 1), mask=o_m < num_rows)


@triton.jit
def _tile(tiles, i_tile, head, window, ROWS: tl.constexpr, H: tl.constexpr, KEYS: tl.constexpr):
    """Of a tile: position, rows of this head among all heads' rows, which are new, the oldest block seen, where its pages begin."""
    tiles += i_tile * 5
    t0, row0, first = tl.multiple_of(tl.load(tiles).to(tl.int32), ROWS), tl.load(tiles + 1), tl.load(tiles + 2)
    o_row = row0 + tl.arange(0, ROWS)
    m_row = (o_row >= first) & (o_row < tl.load(tiles + 3))
    return t0, o_row * H + head, m_row, oldest_block(t0 + (first - row0).to(tl.int32), window, KEYS), tl.load(tiles + 4)


@triton.jit
def _rows(x, o_row, m_row, C: tl.constexpr, BC: tl.constexpr, start: tl.constexpr):
    """[rows, BC]: columns from `start` on of these rows of C columns."""
    o_c = start + tl.arange(0, BC)
    return tl.load(x + o_row[:, None] * C + o_c[None, :], mask=m_row[:, None] & (o_c < C)[None, :], other=0.0)


@triton.jit
def _by_keys(
    x, o_row, m_row, b_x, keys, b_keys, D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr
):
    """x · keysᵀ [ROWS, KEYS]; of both, the loaded rows are taken if a product has all columns, else BK columns are loaded at a time."""
    b_products = tl.zeros((ROWS, KEYS), tl.float32)
    if BK == BD:
        return dot(b_x, tl.trans(b_keys), b_products)
    for start in tl.static_range(0, BD, BK):
        b_products = dot(_rows(x, o_row, m_row, D, BK, start), tl.trans(rows_at(keys, KEYS, D, BK, start)), b_products)
    return b_products


@triton.jit
def _by_rows(
    x, o_row, m_row, b_x, keys, b_keys, D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr
):
    """keys · xᵀ [KEYS, ROWS], otherwise like `_by_keys`."""
    b_products = tl.zeros((KEYS, ROWS), tl.float32)
    if BK == BD:
        return dot(b_keys, tl.trans(b_x), b_products)
    for start in tl.static_range(0, BD, BK):
        b_products = dot(rows_at(keys, KEYS, D, BK, start), tl.trans(_rows(x, o_row, m_row, D, BK, start)), b_products)
    return b_products


@triton.jit
def dq_kernel(
    q, k, v, relative, profiles, pages, tiles, dy, log_sum, slope, dq, d_relative, scale: tl.float32, window, extent,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, BAND: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dq [T, H, D] and d_relative [T, H, R]."""
    PIECE: tl.constexpr = max(BAND // 4, 16)  # of the band at a time: all of it would spill
    head = tl.program_id(1)
    t0, o_row, m_row, oldest, pages_at = _tile(tiles, tl.num_programs(0) - 1 - tl.program_id(0), head, window, ROWS, H, KEYS)
    pages += pages_at
    o_i, o_j = tl.arange(0, ROWS), tl.arange(0, KEYS)
    b_q, b_dy = _rows(q, o_row, m_row, D, BD, 0), _rows(dy, o_row, m_row, D, BD, 0)
    b_relative = _rows(relative, o_row, m_row, R, BR, 0)
    b_log_sum = tl.load(log_sum + o_row, mask=m_row, other=float("inf"))  # [ROWS]
    b_slope = tl.load(slope + o_row, mask=m_row, other=0.0)  # [ROWS]
    b_dq, b_d_relative = tl.zeros((ROWS, BD), tl.float32), tl.zeros((ROWS, BR), tl.float32)
    for block in tl.range(oldest, (t0 + ROWS - 1) // KEYS + 1, num_stages=STAGES):
        at = block_at(pages, block, head // (H // G), G, D, KEYS)
        b_k, b_v = rows_at(k + at, KEYS, D, BD, 0), rows_at(v + at, KEYS, D, BD, 0)
        b_scores = _by_keys(q, o_row, m_row, b_q, k + at, b_k, D, ROWS, KEYS, BD, BK) * (scale * LOG2_E)
        d0 = t0 - block * KEYS - KEYS
        if d0 < extent:
            b_profiles = profiles_at(profiles, d0, extent, R, BR, BAND)
            b_scores += by_key(b_relative, b_profiles, o_i, ROWS, KEYS, BAND) * LOG2_E
        distance = (d0 + KEYS + o_i)[:, None] - o_j[None, :]
        p = tl.where((distance >= 0) & (distance < window), tl.exp2(b_scores - b_log_sum[:, None]), 0.0)
        ds = p * (_by_keys(dy, o_row, m_row, b_dy, v + at, b_v, D, ROWS, KEYS, BD, BK) - b_slope[:, None])
        b_dq = dot(ds.to(b_k.dtype), b_k, b_dq)
        if d0 < extent:
            for first in tl.static_range(0, BAND, PIECE):
                b_profiles = profiles_at(profiles, d0 + first, extent, R, BR, PIECE)
                b_d_relative = dot(by_distance(ds, first, ROWS, KEYS, PIECE).to(b_k.dtype), tl.trans(b_profiles), b_d_relative)
    o_d, o_r = tl.arange(0, BD), tl.arange(0, BR)
    tl.store(dq + o_row[:, None] * D + o_d[None, :], (b_dq * scale).to(dq.dtype.element_ty), mask=m_row[:, None] & (o_d < D)[None, :])
    b_d_relative = b_d_relative.to(d_relative.dtype.element_ty)
    tl.store(d_relative + o_row[:, None] * R + o_r[None, :], b_d_relative, mask=m_row[:, None] & (o_r < R)[None, :])


@triton.jit
def dkv_kernel(
    q, k, v, relative, profiles, blocks, tiles, dy, log_sum, slope, dk, dv, scale: tl.float32, window, extent,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, BAND: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block's pages, [N, G, 64, D]."""
    i_block, i_part, i_g = tl.program_id(0) // (PAGE // KEYS), tl.program_id(0) % (PAGE // KEYS), tl.program_id(1)
    blocks += i_block * 4
    u0 = tl.load(blocks).to(tl.int32) * PAGE + i_part * KEYS
    at = ((tl.load(blocks + 1) * G + i_g) * PAGE + i_part * KEYS) * D
    first, stop = tl.load(blocks + 2).to(tl.int32), tl.load(blocks + 3).to(tl.int32)
    k, v, o_i, o_j = k + at, v + at, tl.arange(0, ROWS), tl.arange(0, KEYS)
    b_k, b_v = rows_at(k, KEYS, D, BD, 0), rows_at(v, KEYS, D, BD, 0)
    b_dk, b_dv = tl.zeros((KEYS, BD), tl.float32), tl.zeros((KEYS, BD), tl.float32)
    for i in tl.range(first * (H // G), stop * (H // G), num_stages=STAGES):
        t0, o_row, m_row, _, _ = _tile(tiles, i // (H // G), i_g * (H // G) + i % (H // G), window, ROWS, H, KEYS)
        b_q, b_dy = _rows(q, o_row, m_row, D, BD, 0), _rows(dy, o_row, m_row, D, BD, 0)
        b_scores = _by_rows(q, o_row, m_row, b_q, k, b_k, D, ROWS, KEYS, BD, BK) * (scale * LOG2_E)
        if t0 - u0 - KEYS < extent:
            b_profiles = profiles_at(profiles, t0 - u0 - KEYS, extent, R, BR, BAND)
            b_relative = _rows(relative, o_row, m_row, R, BR, 0)
            b_scores += by_key_transposed(b_relative, b_profiles, ROWS, KEYS, BAND) * LOG2_E
        distance = (t0 - u0 + o_i)[None, :] - o_j[:, None]
        b_log_sum = tl.load(log_sum + o_row, mask=m_row, other=float("inf"))  # [ROWS]
        p = tl.where((distance >= 0) & (distance < window), tl.exp2(b_scores - b_log_sum[None, :]), 0.0)
        b_dv = dot(p.to(b_dy.dtype), b_dy, b_dv)
        b_slope = tl.load(slope + o_row, mask=m_row, other=0.0)  # [ROWS]
        ds = p * (_by_rows(dy, o_row, m_row, b_dy, v, b_v, D, ROWS, KEYS, BD, BK) - b_slope[None, :])
        b_dk = dot(ds.to(b_q.dtype), b_q, b_dk)
    o_d = tl.arange(0, BD)
    o_jd, m_jd = at + o_j[:, None] * D + o_d[None, :], (o_j >= 0)[:, None] & (o_d < D)[None, :]
    tl.store(dk + o_jd, (b_dk * scale).to(dk.dtype.element_ty), mask=m_jd)
    tl.store(dv + o_jd, b_dv.to(dv.dtype.element_ty), mask=m_jd)


@triton.jit(do_not_specialize=["num_tiles", "part_tiles"])
def dprofiles_kernel(
    q, k, v, relative, profiles, pages, tiles, dy, log_sum, slope, parts, scale: tl.float32, window, extent, num_tiles, part_tiles,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, R: tl.constexpr, ROWS: tl.constexpr,
    KEYS: tl.constexpr, BAND: tl.constexpr, BD: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """parts [diagonals, parts · G, BR, BAND]: tiles against the keys that begin at t0 - (diagonal · KEYS - ROWS) - KEYS."""
    i_diagonal, i_part, i_g = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    first = i_part * part_tiles
    stop = tl.minimum(first + part_tiles, num_tiles)
    d0 = i_diagonal * KEYS - ROWS
    b_profiles = profiles_at(profiles, d0, extent, R, BR, BAND)
    o_i, o_j = tl.arange(0, ROWS), tl.arange(0, KEYS)
    near, far = tl.zeros((BR, BAND // 2), tl.float32), tl.zeros((BR, BAND // 2), tl.float32)
    for i in tl.range(first * (H // G), stop * (H // G), num_stages=STAGES):
        t0, o_row, m_row, oldest, pages_at = _tile(tiles, i // (H // G), i_g * (H // G) + i % (H // G), window, ROWS, H, KEYS)
        u0 = t0 - d0 - KEYS
        there = (u0 >= oldest * KEYS) & (u0 < t0 + ROWS)
        block = tl.where(there, u0, t0) // KEYS  # where there is none, another of the document, all hidden
        at = block_at(pages + pages_at, block, i_g, G, D, KEYS)
        b_q, b_dy = _rows(q, o_row, m_row, D, BD, 0), _rows(dy, o_row, m_row, D, BD, 0)
        b_k, b_v = rows_at(k + at, KEYS, D, BD, 0), rows_at(v + at, KEYS, D, BD, 0)
        b_relative = _rows(relative, o_row, m_row, R, BR, 0)
        b_scores = _by_keys(q, o_row, m_row, b_q, k + at, b_k, D, ROWS, KEYS, BD, BK) * (scale * LOG2_E)
        b_scores += by_key(b_relative, b_profiles, o_i, ROWS, KEYS, BAND) * LOG2_E
        distance = (d0 + KEYS + o_i)[:, None] - o_j[None, :]
        seen = (distance >= 0) & (distance < window) & there
        b_log_sum = tl.load(log_sum + o_row, mask=m_row, other=float("inf"))  # [ROWS]
        p = tl.where(seen, tl.exp2(b_scores - b_log_sum[:, None]), 0.0)
        b_slope = tl.load(slope + o_row, mask=m_row, other=0.0)  # [ROWS]
        ds = p * (_by_keys(dy, o_row, m_row, b_dy, v + at, b_v, D, ROWS, KEYS, BD, BK) - b_slope[:, None])
        near = dot(tl.trans(b_relative), by_distance(ds, 0, ROWS, KEYS, BAND // 2).to(b_relative.dtype), near)
        far = dot(tl.trans(b_relative), by_distance(ds, BAND // 2, ROWS, KEYS, BAND // 2).to(b_relative.dtype), far)
    parts += ((i_diagonal * tl.num_programs(1) + i_part).to(tl.int64) * G + i_g) * (BAND * BR)
    parts += tl.arange(0, BR)[:, None] * BAND + tl.arange(0, BAND // 2)[None, :]
    tl.store(parts, near)
    tl.store(parts + BAND // 2, far)


@triton.jit(do_not_specialize=["num_parts"])
def sum_profiles_kernel(
    parts, d_profiles, num_parts, num_diagonals, extent,
    R: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BAND: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    """d_profiles [R, E]: for KEYS distances, the diagonals that reach them one after the other, of each its parts in order."""
    i_block, o_r, o_j = tl.program_id(0), tl.arange(0, BR), tl.arange(0, KEYS)
    total = tl.zeros((BR, KEYS), tl.float32)
    for back in tl.static_range(0, ROWS // KEYS + 1):
        if i_block + back < num_diagonals:
            p_part = parts + (i_block + back).to(tl.int64) * num_parts * (BR * BAND)
            p_part += o_r[:, None] * BAND + (ROWS - back * KEYS + o_j)[None, :]
            for _ in range(num_parts):
                total += tl.load(p_part)  # [BR, KEYS]
                p_part += BR * BAND
    o_e = i_block * KEYS + o_j
    m_re = (o_r < R)[:, None] & (o_e < extent)[None, :]
    tl.store(d_profiles + o_r[:, None] * extent + o_e[None, :], total.to(d_profiles.dtype.element_ty), mask=m_re)
