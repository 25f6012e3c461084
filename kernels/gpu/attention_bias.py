"""The relative bias inside a kernel: one product gives a tile's bias by distance, a shift per row lines distances up with keys.

For a tile at position t0 and KEYS keys from u0 on, the *band* [rows, BAND] is relative · profiles for distances d0 … d0 + BAND - 1,
d0 = t0 - u0 - KEYS; the row at place i and the key at j are t0 + i - (u0 + j) apart, which is column i + KEYS - j. The shift is a gather
of the flattened band, which Triton takes through shared memory (a gather along an axis of a matrix would be hundreds of shuffles). It
lies there in squares of 8 rows by 8 columns, one behind the other: as matrix instructions leave results, neither stores nor loads then
meet in a bank. Shifting back, for gradients, is the same gather the other way round.

Distances below 0 and from the extent on have zero profiles, so the band is exact zero there.
"""

import triton
import triton.language as tl

from .arithmetic import dot


@triton.jit
def profiles_at(profiles, d0, extent, R: tl.constexpr, BR: tl.constexpr, BAND: tl.constexpr):
    """[BR, BAND]: the profiles of distances d0 … d0 + BAND - 1, zero where there are none."""
    o_r, o_e = tl.arange(0, BR), d0 + tl.arange(0, BAND)
    m_e = (o_e >= 0) & (o_e < extent)
    return tl.load(profiles + o_r[:, None] * extent + o_e[None, :], mask=(o_r < R)[:, None] & m_e[None, :], other=0.0)


@triton.jit
def _squares(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A matrix [ROWS, COLUMNS] flat, in squares of 8 by 8."""
    return tl.reshape(tl.permute(tl.reshape(x, [ROWS // 8, 8, COLUMNS // 8, 8]), (0, 2, 1, 3)), [ROWS * COLUMNS])


@triton.jit
def _picked(squares, o_row, o_column, COLUMNS: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """[M, N]: the elements of a matrix in squares at these rows and columns (two indices that together have that shape)."""
    o = ((o_row // 8) * (COLUMNS // 8) + o_column // 8) * 64 + (o_row % 8) * 8 + o_column % 8
    return tl.reshape(tl.gather(squares, tl.reshape(o, [M * N]), 0), [M, N])


@triton.jit
def by_key(b_relative, b_profiles, o_place, BM: tl.constexpr, KEYS: tl.constexpr, BAND: tl.constexpr):
    """Bias [BM, KEYS] by key; `o_place` [BM] is each row's place in its tile."""
    band = _squares(dot(b_relative, b_profiles, tl.zeros((BM, BAND), tl.float32)), BM, BAND)
    o_column = o_place[:, None] + KEYS - tl.arange(0, KEYS)[None, :]
    return _picked(band, tl.arange(0, BM)[:, None], o_column, BAND, BM, KEYS)


@triton.jit
def by_key_transposed(b_relative, b_profiles, BM: tl.constexpr, KEYS: tl.constexpr, BAND: tl.constexpr):
    """Bias [KEYS, BM] by key, of a tile whose row i stands at place i."""
    band = _squares(dot(b_relative, b_profiles, tl.zeros((BM, BAND), tl.float32)), BM, BAND)
    o_i = tl.arange(0, BM)[None, :]
    return _picked(band, o_i, o_i + KEYS - tl.arange(0, KEYS)[:, None], BAND, KEYS, BM)


@triton.jit
def by_distance(b_scores, first: tl.constexpr, BM: tl.constexpr, KEYS: tl.constexpr, COLUMNS: tl.constexpr):
    """What stands by key in [BM, KEYS], by distance: columns of the band from `first` on, [BM, COLUMNS], zero where a distance meets none
    of the keys. Row i stands at place i.
    """
    o_i = tl.arange(0, BM)[:, None]
    o_j = o_i + KEYS - first - tl.arange(0, COLUMNS)[None, :]
    found = _picked(_squares(b_scores, BM, KEYS), o_i, tl.minimum(tl.maximum(o_j, 0), KEYS - 1), KEYS, BM, COLUMNS)
    return tl.where((o_j >= 0) & (o_j < KEYS), found, 0.0)
