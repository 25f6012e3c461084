"""The Triton form of RMSNorm and its gradients, and sums over rows. A row's bits depend on that row and the weight alone.

Order of a row's sum: blocks of at most 1024 columns, added lane by lane from the first block to the last in fp32; then the lanes are added
in one tree. The number of rows is in the grid only.

A weight's gradient adds over rows, in two stages whose order the number of rows alone decides: parts of 128 rows, then the parts from the
first to the last. No atomics.

Letters: M rows, D columns, P parts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocks, launch, steady, tile_for

PART_ROWS = 128  # rows whose sum one program makes


@triton.jit(do_not_specialize=["num_rows"])
def rms_norm_kernel(x, weight, y, factor, num_rows, eps: tl.float32, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr):
    """y = weight · (x · factor rounded to x's dtype), factor = 1 / sqrt(mean(x²) + eps), one per row."""
    o_m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    m_m = o_m < num_rows
    squares = tl.zeros((BM, BD), tl.float32)
    for start in range(0, D, BD):
        o_d = start + tl.arange(0, BD)
        m_md = m_m[:, None] & (o_d < D)[None, :]
        b_x = tl.load(x + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        squares += b_x * b_x
    b_factor = tl.math.div_rn(1.0, tl.math.sqrt_rn(tl.sum(squares, 1) / D + eps))  # [BM]
    tl.store(factor + o_m, b_factor, mask=m_m)
    for start in range(0, D, BD):
        o_d = start + tl.arange(0, BD)
        m_d = o_d < D
        m_md = m_m[:, None] & m_d[None, :]
        b_x = tl.load(x + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_w = tl.load(weight + o_d, mask=m_d, other=0.0).to(tl.float32)  # [BD]
        normed = (b_x * b_factor[:, None]).to(x.dtype.element_ty).to(tl.float32)
        tl.store(y + o_m[:, None] * D + o_d[None, :], (normed * b_w[None, :]).to(y.dtype.element_ty), mask=m_md)


@triton.jit(do_not_specialize=["num_rows"])
def rms_norm_dx_kernel(dy, x, weight, factor, dx, num_rows, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr):
    """dx = factor · (g - n · mean(g · n)) with g = dy · weight and n = x · factor."""
    o_m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    m_m = o_m < num_rows
    b_factor = tl.load(factor + o_m, mask=m_m, other=0.0)  # [BM]
    products = tl.zeros((BM, BD), tl.float32)
    for start in range(0, D, BD):
        o_d = start + tl.arange(0, BD)
        m_d = o_d < D
        m_md = m_m[:, None] & m_d[None, :]
        b_x = tl.load(x + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_dy = tl.load(dy + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_w = tl.load(weight + o_d, mask=m_d, other=0.0).to(tl.float32)  # [BD]
        products += b_dy * b_w[None, :] * (b_x * b_factor[:, None])
    slope = tl.sum(products, 1) / D  # [BM]
    for start in range(0, D, BD):
        o_d = start + tl.arange(0, BD)
        m_d = o_d < D
        m_md = m_m[:, None] & m_d[None, :]
        b_x = tl.load(x + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_dy = tl.load(dy + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_w = tl.load(weight + o_d, mask=m_d, other=0.0).to(tl.float32)  # [BD]
        b_dx = (b_dy * b_w[None, :] - b_x * b_factor[:, None] * slope[:, None]) * b_factor[:, None]
        tl.store(dx + o_m[:, None] * D + o_d[None, :], b_dx.to(dx.dtype.element_ty), mask=m_md)


@triton.jit(do_not_specialize=["num_rows"])
def rms_norm_dw_kernel(
    dy, x, factor, parts, num_rows, D: tl.constexpr, PART: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """parts [P, D]: the sums of dy · x · factor over PART rows each."""
    i_part = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    total = tl.zeros((BM, BD), tl.float32)
    for start in range(0, PART, BM):
        o_m = i_part * PART + start + tl.arange(0, BM)
        m_m = o_m < num_rows
        m_md = m_m[:, None] & m_d[None, :]
        b_x = tl.load(x + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_dy = tl.load(dy + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
        b_factor = tl.load(factor + o_m, mask=m_m, other=0.0)  # [BM]
        total += b_dy * (b_x * b_factor[:, None])
    tl.store(parts + i_part * D + o_d, tl.sum(total, 0), mask=m_d)


@triton.jit(do_not_specialize=["num_parts"])
def column_sums_kernel(parts, y, num_parts, D: tl.constexpr, BM: tl.constexpr, BD: tl.constexpr):
    """y [D] = the sum of parts [P, D], fp32: BM running sums, each from the first of its parts to the last, then one tree."""
    o_d = tl.program_id(0) * BD + tl.arange(0, BD)
    m_d = o_d < D
    total = tl.zeros((BM, BD), tl.float32)
    for start in range(0, num_parts, BM):
        o_m = start + tl.arange(0, BM).to(tl.int64)
        total += tl.load(parts + o_m[:, None] * D + o_d[None, :], mask=(o_m < num_parts)[:, None] & m_d[None, :], other=0.0)  # [BM, BD]
    tl.store(y + o_d, tl.sum(total, 0).to(y.dtype.element_ty), mask=m_d)


def rms_norm(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normed rows, in the dtype of `weight · x`, and the fp32 factor [M] of every row."""
    x = steady(x)
    num_rows, columns = x.numel() // weight_D.shape[0], weight_D.shape[0]
    y = x.new_empty(x.shape, dtype=torch.promote_types(x.dtype, weight_D.dtype))
    factor_M = x.new_empty(num_rows, dtype=torch.float32)
    sizes, grid_rows, warps = _row_blocks(x, num_rows, columns)
    launch(rms_norm_kernel, (grid_rows,), x, steady(weight_D), y, factor_M, num_rows, eps, D=columns, warps=warps, **sizes)
    return y, factor_M


def rms_norm_slopes(dy: Tensor, x: Tensor, weight_D: Tensor, factor_M: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of x and of the weight."""
    x, dy, weight_D = steady(x), steady(dy), steady(weight_D)
    num_rows, columns = factor_M.shape[0], weight_D.shape[0]
    sizes, grid_rows, warps = _row_blocks(x, num_rows, columns)
    dx = torch.empty_like(x)
    launch(rms_norm_dx_kernel, (grid_rows,), dy, x, weight_D, factor_M, dx, num_rows, D=columns, warps=warps, **sizes)
    parts_PD = x.new_empty(blocks(num_rows, PART_ROWS), columns, dtype=torch.float32)
    sizes, warps = _column_blocks(x, columns)
    grid = (parts_PD.shape[0], blocks(columns, sizes["BD"]))
    launch(rms_norm_dw_kernel, grid, dy, x, factor_M, parts_PD, num_rows, D=columns, PART=PART_ROWS, warps=warps, **sizes)
    return dx, column_sums(parts_PD, weight_D.dtype)


def column_sums(parts_PD: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum [D] of fp32 parts [P, D], from the first to the last."""
    num_parts, columns = parts_PD.shape
    y_D = parts_PD.new_empty(columns, dtype=dtype)
    sizes, warps = _column_blocks(parts_PD, columns)
    launch(column_sums_kernel, (blocks(columns, sizes["BD"]),), parts_PD, y_D, num_parts, D=columns, warps=warps, **sizes)
    return y_D


def _row_blocks(x: Tensor, num_rows: int, columns: int) -> tuple[dict[str, int], int, int]:
    """The block of a kernel that sums along rows, how many cover the rows, and the warps."""
    size = tile_for("rows", x)
    block_columns = min(triton.next_power_of_2(columns), size.columns)
    block_rows = size.rows * size.columns // block_columns
    return {"BM": block_rows, "BD": block_columns}, blocks(num_rows, block_rows), size.warps


def _column_blocks(x: Tensor, columns: int) -> tuple[dict[str, int], int]:
    """The block of a kernel that sums along columns, and the warps."""
    size = tile_for("columns", x)
    return {"BM": size.rows, "BD": min(triton.next_power_of_2(columns), size.columns)}, size.warps


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: rows of the model's width, and of one head."""
    for columns in (4096, 128):
        x, weight = torch.zeros(num_rows, columns, dtype=dtype), torch.zeros(columns)
        y, factor = rms_norm(x, weight, 1e-6)
        rms_norm_slopes(y, x, weight, factor)
