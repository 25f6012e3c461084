"""The Triton form of bags of embeddings and the table's gradient. A row's bits depend on its codes and the table alone.

Order: columns from the first to the last, one addition at a time in fp32. A code beyond its levels makes its row NaN (on the CPU it is
refused; here nobody waits for the device to look).

The gradient adds over rows from the first to the last, without atomics: each program owns some rows of the table and walks all rows of
codes, a block at a time, as a product of [code is mine] with dy. One read of dy for every 64 rows of the table.

Letters: R rows, N columns of codes, D columns of the table, V rows of the table.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import dot
from .launch import blocks, launch, steady, tile_for


@triton.jit
def bag_kernel(codes, table, y, N, levels, D, BD: tl.constexpr):
    """y [R, D]: one program per row and block of D."""
    i_r = tl.program_id(0).to(tl.int64)
    o_d = tl.program_id(1) * BD + tl.arange(0, BD)
    m_d = o_d < D
    total = tl.zeros((BD,), tl.float32)
    for column in range(0, N):
        code = tl.load(codes + i_r * N + column).to(tl.int64)
        entry = column * levels + tl.minimum(tl.maximum(code, 0), levels - 1)
        b_entry = tl.load(table + entry * D + o_d, mask=m_d, other=0.0).to(tl.float32)  # [BD]
        total += tl.where((code >= 0) & (code < levels), b_entry, float("nan"))
    tl.store(y + i_r * D + o_d, total.to(y.dtype.element_ty), mask=m_d)


@triton.jit(do_not_specialize=["num_rows"])
def bag_dtable_kernel(
    codes, dy, dtable, num_rows, N, levels, D, BV: tl.constexpr, BR: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    """dtable [V, D]: row v = (column, level) adds dy of all rows whose code in that column is that level."""
    o_v, o_d = tl.program_id(0) * BV + tl.arange(0, BV), tl.program_id(1) * BD + tl.arange(0, BD)
    column, level = o_v // levels, o_v % levels
    m_v, m_d = column < N, o_d < D
    total = tl.zeros((BV, BD), tl.float32)
    for start in range(0, num_rows, BR):
        o_r = start + tl.arange(0, BR).to(tl.int64)
        m_r = o_r < num_rows
        b_codes = tl.load(codes + o_r[None, :] * N + column[:, None], mask=m_v[:, None] & m_r[None, :], other=0)  # [BV, BR]
        mine = b_codes == level[:, None]  # rows beyond the last are zeros of dy
        b_dy = tl.load(dy + o_r[:, None] * D + o_d[None, :], mask=m_r[:, None] & m_d[None, :], other=0.0)  # [BR, BD]
        total = dot(tl.where(mine, 1.0, 0.0).to(b_dy.dtype), b_dy, total)
    p_table = dtable + o_v.to(tl.int64)[:, None] * D + o_d[None, :]
    tl.store(p_table, total.to(dtable.dtype.element_ty), mask=m_v[:, None] & m_d[None, :])


def bag(codes_RN: Tensor, table_VD: Tensor) -> Tensor:
    """The summed embeddings [R, D] in the table's dtype."""
    codes_RN, table_VD = steady(codes_RN), steady(table_VD)
    (num_rows, columns), (entries, width) = codes_RN.shape, table_VD.shape
    size = tile_for("bag", table_VD)
    block = min(triton.next_power_of_2(width), size.columns)
    y_RD = table_VD.new_empty(num_rows, width)
    grid = (num_rows, blocks(width, block))
    launch(bag_kernel, grid, codes_RN, table_VD, y_RD, columns, entries // columns, width, BD=block, warps=size.warps)
    return y_RD


def bag_dtable(dy_RD: Tensor, codes_RN: Tensor, entries: int) -> Tensor:
    """The gradient [V, D] of a table with `entries` rows, in the dtype of dy."""
    dy_RD, codes_RN = steady(dy_RD), steady(codes_RN.int())  # of codes loaded as bytes, Triton 3.7 makes tf32 products on sm_100
    (num_rows, width), columns = dy_RD.shape, codes_RN.shape[1]
    size = tile_for("bag, table", dy_RD)
    dtable_VD = dy_RD.new_empty(entries, width)
    grid = (blocks(entries, size.rows), blocks(width, size.columns))
    operands = (codes_RN, dy_RD, dtable_VD, num_rows, columns, entries // columns, width)
    tiles = {"BV": size.rows, "BR": size.inner, "BD": size.columns}
    launch(bag_dtable_kernel, grid, *operands, warps=size.warps, stages=size.stages, **tiles)
    return dtable_VD


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`."""
    codes_RN, table_VD = torch.zeros(num_rows, 80, dtype=torch.uint8), torch.zeros(1280, 128, dtype=dtype)
    bag_dtable(bag(codes_RN, table_VD), codes_RN, 1280)
