"""The Triton form of counter-based random numbers. Words are those of philox.py one folder up, on every machine; so are uniforms.

One program makes blocks of four words from their counters; logarithms are CUDA's accurate ones, sines and cosines polynomials, in
fp32.

Letters: P positions, D dims, Q = blocks of four dims.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocks, launch, steady, tile_for

KINDS = ("words", "uniforms", "gumbels", "normals")
TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four words of Philox4x32-10, of four counters and the key, all uint32."""
    for _ in tl.static_range(10):
        high0, high1 = tl.umulhi(c0, 0xD2511F53), tl.umulhi(c2, 0xCD9E8D57)
        low0, low1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def _uniform(word):
    """((word >> 9) + 0.5) · 2⁻²³, exact."""
    return ((word >> 9).to(tl.int32).to(tl.float32) + 0.5) * 1.1920928955078125e-07


@triton.jit
def _pair(u, v):
    """Two normals of two uniforms."""
    radius = tl.math.sqrt_rn(-2.0 * tl.log(u))
    cosine, sine = _turn(v)
    return radius * cosine, radius * sine


@triton.jit
def _turn(v):
    """cos and sin of 2π v for v in (0, 1): the quarter that v is nearest to, and polynomials for the rest, |rest| ≤ 1/8 (exact). CUDA's own
    would bring a table for large angles, in local memory. Source of the polynomials: Cephes, sinf.c.
    """
    quarter = (v * 4 + 0.5).to(tl.int32)
    t = (v - quarter.to(tl.float32) * 0.25) * TWO_PI
    z = t * t
    sine = t + t * z * (-1.6666654611e-1 + z * (8.3321608736e-3 + z * -1.9515295891e-4))
    cosine = 1 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    swapped, down, left = quarter % 2 == 1, (quarter == 1) | (quarter == 2), (quarter == 2) | (quarter == 3)
    across, up = tl.where(swapped, sine, cosine), tl.where(swapped, cosine, sine)
    return tl.where(down, -across, across), tl.where(left, -up, up)


@triton.jit(do_not_specialize=["num_positions", "k0", "k1", "draw"])
def noise_kernel(
    positions, y, num_positions, k0: tl.int64, k1: tl.int64, draw: tl.int64, D,
    KIND: tl.constexpr, BP: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """y [P, D]: word d of position p is word d % 4 of the block with counter (p, d // 4, draw, 0)."""
    o_p, o_q = tl.program_id(0).to(tl.int64) * BP + tl.arange(0, BP), tl.program_id(1) * BQ + tl.arange(0, BQ)
    m_p = o_p < num_positions
    zeros = tl.zeros((BP, BQ), tl.uint32)
    c0 = tl.load(positions + o_p, mask=m_p, other=0).to(tl.uint32)[:, None] + zeros
    c1 = o_q.to(tl.uint32)[None, :] + zeros
    w0, w1, w2, w3 = philox(c0, c1, draw.to(tl.uint32) + zeros, zeros, k0.to(tl.uint32), k1.to(tl.uint32))
    if KIND == "words":
        w0, w1, w2, w3 = w0.to(tl.int64), w1.to(tl.int64), w2.to(tl.int64), w3.to(tl.int64)
    else:
        w0, w1, w2, w3 = _uniform(w0), _uniform(w1), _uniform(w2), _uniform(w3)
    if KIND == "gumbels":
        w0, w1, w2, w3 = -tl.log(-tl.log(w0)), -tl.log(-tl.log(w1)), -tl.log(-tl.log(w2)), -tl.log(-tl.log(w3))
    if KIND == "normals":
        w0, w1 = _pair(w0, w1)
        w2, w3 = _pair(w2, w3)
    p_y = y + o_p[:, None] * D + 4 * o_q[None, :]
    o_d = 4 * o_q
    tl.store(p_y, w0, mask=m_p[:, None] & (o_d < D)[None, :])
    tl.store(p_y + 1, w1, mask=m_p[:, None] & (o_d + 1 < D)[None, :])
    tl.store(p_y + 2, w2, mask=m_p[:, None] & (o_d + 2 < D)[None, :])
    tl.store(p_y + 3, w3, mask=m_p[:, None] & (o_d + 3 < D)[None, :])


def noise(kind: str, key: tuple[int, int], positions_P: Tensor, dims: int, draw: int) -> Tensor:
    """[P, dims] of one of KINDS: int64 words, or fp32 numbers."""
    positions_P = steady(positions_P)
    y_PD = positions_P.new_empty(positions_P.shape[0], dims, dtype=torch.int64 if kind == "words" else torch.float32)
    size = tile_for("noise", y_PD if kind != "words" else y_PD.new_empty(0, dtype=torch.float32))
    quads = blocks(dims, 4)
    block_quads = min(triton.next_power_of_2(quads), size.columns)
    block_positions = size.rows * size.columns // block_quads
    grid = (blocks(positions_P.shape[0], block_positions), blocks(quads, block_quads))
    operands = (positions_P, y_PD, positions_P.shape[0], *key, draw, dims)
    launch(noise_kernel, grid, *operands, KIND=kind, BP=block_positions, BQ=block_quads, warps=size.warps)
    return y_PD


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: numbers are fp32 whatever the model is."""
    if dtype == torch.float32:
        for kind in KINDS:
            noise(kind, (1, 2**32 - 1), torch.zeros(num_rows, dtype=torch.int64), 320, 0)
