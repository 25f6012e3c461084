"""The Triton form of linear layers: x · wᵀ and its two gradients. A row's bits depend on that row and the weights alone.

Order: one program makes one block of results; the added-up axis is walked from its start in steps of the tile's `inner`, each step one dot
of fixed shape on top of the fp32 sums so far. No split of that axis, no atomics. Rows beyond the last are read as zeros and not written,
so a tile holds the same arithmetic for one row as for a thousand, and the number of rows is in the grid only, never in the binary.

Backward uses the same walk: dx adds over columns, dw over rows from the first to the last, so it is deterministic; dw's order depends on
the batch, as a gradient must.

Programs go through the blocks in groups of 8 rows of blocks, so that neighbours in time share operands in L2.

Letters: M rows, K columns of x, N columns of the result.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import dot
from .launch import blocks, launch, steady, tile_for


@triton.jit
def _block_product(
    p_a, p_b, p_y, num_rows, num_columns, length, a_row, a_step, b_step, b_column,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Block of y [num_rows, num_columns] = a · b, the axis of `length` added up; the other arguments are strides in elements."""
    num_block_rows, num_block_columns = tl.cdiv(num_rows, BM), tl.cdiv(num_columns, BN)
    i_block = tl.program_id(0)
    i_group = i_block // (GROUP * num_block_columns)
    group_rows = tl.minimum(num_block_rows - i_group * GROUP, GROUP)
    i_in_group = i_block % (GROUP * num_block_columns)
    o_m = (i_group * GROUP + i_in_group % group_rows) * BM + tl.arange(0, BM)
    o_n = (i_in_group // group_rows) * BN + tl.arange(0, BN)
    o_k = tl.arange(0, BK)
    m_m, m_n = o_m < num_rows, o_n < num_columns
    p_a += o_m.to(tl.int64)[:, None] * a_row + o_k.to(tl.int64)[None, :] * a_step
    p_b += o_k.to(tl.int64)[:, None] * b_step + o_n.to(tl.int64)[None, :] * b_column
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, length, BK):
        m_k = o_k < length - start
        b_a = tl.load(p_a, mask=m_m[:, None] & m_k[None, :], other=0.0)  # [BM, BK]
        b_b = tl.load(p_b, mask=m_k[:, None] & m_n[None, :], other=0.0)  # [BK, BN]
        total = dot(b_a, b_b, total)
        p_a += BK * a_step
        p_b += BK * b_step
    p_y += o_m.to(tl.int64)[:, None] * num_columns + o_n[None, :]
    tl.store(p_y, total.to(p_y.dtype.element_ty), mask=m_m[:, None] & m_n[None, :])  # [BM, BN]


@triton.jit(do_not_specialize=["num_rows"])
def linear_kernel(
    x, w, y, num_rows, K, N, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """y [M, N] = x [M, K] · w [N, K]ᵀ."""
    _block_product(x, w, y, num_rows, N, K, K, 1, 1, K, BM, BN, BK, GROUP)


@triton.jit(do_not_specialize=["num_rows"])
def linear_dx_kernel(
    dy, w, dx, num_rows, K, N, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """dx [M, K] = dy [M, N] · w [N, K]."""
    _block_product(dy, w, dx, num_rows, K, N, N, 1, K, 1, BM, BN, BK, GROUP)


@triton.jit(do_not_specialize=["num_rows"])
def linear_dw_kernel(
    dy, x, dw, num_rows, K, N, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):  # fmt: skip
    """dw [N, K] = dy [M, N]ᵀ · x [M, K], rows added from the first to the last."""
    _block_product(dy, x, dw, N, K, num_rows, 1, N, K, 1, BM, BN, BK, GROUP)


GROUP = 8  # rows of blocks that are walked together


def product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """x · wᵀ of 2-D operands of one dtype. Columns are filled with zeros to a multiple of 16, so that loads are vectors (the hMLP's 75)."""
    odd = -x_MK.shape[1] % 16
    if odd:
        x_MK, w_NK = F.pad(x_MK, (0, odd)), F.pad(w_NK, (0, odd))
    y_MN = x_MK.new_empty(x_MK.shape[0], w_NK.shape[0])
    _launch(linear_kernel, x_MK, w_NK, y_MN, x_MK.shape[0], *_inner(w_NK))
    return y_MN


def product_dx(dy_MN: Tensor, w_NK: Tensor) -> Tensor:
    """The gradient of x: dy · w."""
    dx_MK = dy_MN.new_empty(dy_MN.shape[0], w_NK.shape[1])
    _launch(linear_dx_kernel, dy_MN, w_NK, dx_MK, dy_MN.shape[0], *_inner(w_NK))
    return dx_MK


def product_dw(dy_MN: Tensor, x_MK: Tensor) -> Tensor:
    """The gradient of w: dyᵀ · x."""
    dw_NK = dy_MN.new_empty(dy_MN.shape[1], x_MK.shape[1])
    _launch(linear_dw_kernel, dy_MN, x_MK, dw_NK, dy_MN.shape[0], x_MK.shape[1], dy_MN.shape[1])
    return dw_NK


def _inner(w_NK: Tensor) -> tuple[int, int]:
    return w_NK.shape[1], w_NK.shape[0]


def _launch(kernel, a: Tensor, b: Tensor, y: Tensor, num_rows: int, num_inputs: int, num_outputs: int) -> None:
    size = tile_for("linear", a)
    grid = (blocks(y.shape[0], size.rows) * blocks(y.shape[1], size.columns),)
    tiles = {"BM": size.rows, "BN": size.columns, "BK": size.inner, "GROUP": GROUP}
    launch(kernel, grid, steady(a), steady(b), y, num_rows, num_inputs, num_outputs, warps=size.warps, stages=size.stages, **tiles)


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: ordinary widths, and the 75 numbers of the hMLP's first stage."""
    for inputs in (64, 75):
        x_MK, w_NK = torch.zeros(num_rows, inputs, dtype=dtype), torch.zeros(128, inputs, dtype=dtype)
        dy_MN = product(x_MK, w_NK)
        product_dx(dy_MN, w_NK)
        product_dw(dy_MN, x_MK)
