"""The Triton form of log-softmax and cross-entropy over large vocabularies. A row's bits depend on that row alone.

Order: a row is cut into chunks of a fixed number of columns, counted from its start; each chunk gives its largest value and the sum of
exp(x - largest) (one tree over the chunk), by a program of its own, so a single row of 200,000 columns fills a GPU. The chunks of a row
are then combined in one tree whose shape the number of columns decides. Loss and log-probabilities come of the same number: trainer and
sampler agree.

Letters: M rows, V columns, C chunks of a row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocks, launch, steady, tile_for


@triton.jit
def chunk_kernel(x, largest, total, V, C, BV: tl.constexpr):
    """Per row and chunk: the largest value, and the sum of exp(x - largest). Both [M, C]."""
    i_m, i_c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_v = i_c * BV + tl.arange(0, BV)
    b_x = tl.load(x + i_m * V + o_v, mask=o_v < V, other=float("-inf")).to(tl.float32)  # [BV]
    top = tl.max(b_x, 0)
    anchor = tl.maximum(top, -3.0e38)  # a chunk of -inf alone sums exp(-inf), not exp(nan)
    tl.store(largest + i_m * C + i_c, top)
    tl.store(total + i_m * C + i_c, tl.sum(tl.exp(b_x - anchor), 0))


@triton.jit
def _log_sum(largest, total, i_m, C, BC: tl.constexpr):
    """log Σ exp of row i_m, of its chunks."""
    o_c = tl.arange(0, BC)
    b_top = tl.load(largest + i_m * C + o_c, mask=o_c < C, other=float("-inf"))  # [BC]
    b_total = tl.load(total + i_m * C + o_c, mask=o_c < C, other=0.0)  # [BC]
    top = tl.maximum(tl.max(b_top, 0), -3.0e38)
    return top + tl.log(tl.sum(b_total * tl.exp(b_top - top), 0))


@triton.jit
def log_softmax_kernel(x, largest, total, y, V, C, BV: tl.constexpr, BC: tl.constexpr):
    """y = x - log Σ exp, fp32."""
    i_m = tl.program_id(0).to(tl.int64)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    b_x = tl.load(x + i_m * V + o_v, mask=o_v < V, other=0.0).to(tl.float32)  # [BV]
    tl.store(y + i_m * V + o_v, b_x - _log_sum(largest, total, i_m, C, BC), mask=o_v < V)


@triton.jit
def loss_kernel(x, targets, largest, total, loss, log_sum, V, C, BC: tl.constexpr):
    """loss = log Σ exp - x[target] of one row, and log Σ exp; NaN where the target is no column."""
    i_m = tl.program_id(0).to(tl.int64)
    target = tl.load(targets + i_m)
    b_x = tl.load(x + i_m * V + target, mask=(target >= 0) & (target < V), other=float("nan")).to(tl.float32)
    summed = _log_sum(largest, total, i_m, C, BC)
    tl.store(log_sum + i_m, summed)
    tl.store(loss + i_m, -(b_x - summed))


@triton.jit
def loss_dx_kernel(x, targets, log_sum, d_loss, dx, V, BV: tl.constexpr):
    """dx = d_loss · (exp(x - log Σ exp) - [column is the target])."""
    i_m = tl.program_id(0).to(tl.int64)
    o_v = tl.program_id(1) * BV + tl.arange(0, BV)
    m_v = o_v < V
    b_x = tl.load(x + i_m * V + o_v, mask=m_v, other=0.0).to(tl.float32)  # [BV]
    hit = tl.where(o_v == tl.load(targets + i_m), 1.0, 0.0)
    b_dx = (tl.exp(b_x - tl.load(log_sum + i_m)) - hit) * tl.load(d_loss + i_m)
    tl.store(dx + i_m * V + o_v, b_dx.to(dx.dtype.element_ty), mask=m_v)


@triton.jit
def chunk_sums_kernel(dy, total, V, C, BV: tl.constexpr):
    """Per row and chunk the sum of dy: [M, C]."""
    i_m, i_c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_v = i_c * BV + tl.arange(0, BV)
    tl.store(total + i_m * C + i_c, tl.sum(tl.load(dy + i_m * V + o_v, mask=o_v < V, other=0.0), 0))


@triton.jit
def log_softmax_dx_kernel(dy, y, total, dx, V, C, BV: tl.constexpr, BC: tl.constexpr):
    """dx = dy - exp(y) · Σ dy."""
    i_m = tl.program_id(0).to(tl.int64)
    o_v, o_c = tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, BC)
    m_v = o_v < V
    summed = tl.sum(tl.load(total + i_m * C + o_c, mask=o_c < C, other=0.0), 0)
    b_dy = tl.load(dy + i_m * V + o_v, mask=m_v, other=0.0)  # [BV]
    b_y = tl.load(y + i_m * V + o_v, mask=m_v, other=0.0)  # [BV]
    tl.store(dx + i_m * V + o_v, (b_dy - tl.exp(b_y) * summed).to(dx.dtype.element_ty), mask=m_v)


def log_softmax(x_MV: Tensor) -> Tensor:
    """log softmax along the last axis of 2-D x, fp32."""
    x_MV = steady(x_MV)
    chunks = _chunks(x_MV)
    y_MV = torch.empty_like(x_MV, dtype=torch.float32)
    launch(log_softmax_kernel, chunks.grid, x_MV, *_tops(x_MV, chunks), y_MV, chunks.columns, chunks.count, **chunks.sizes(BC=True))
    return y_MV


def log_softmax_dx(dy_MV: Tensor, y_MV: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of x, of that of y."""
    dy_MV = steady(dy_MV)
    chunks = _chunks(y_MV)
    total_MC = _per_chunk(y_MV, chunks)
    launch(chunk_sums_kernel, chunks.grid, dy_MV, total_MC, chunks.columns, chunks.count, **chunks.sizes())
    dx_MV = torch.empty_like(y_MV, dtype=dtype)
    launch(log_softmax_dx_kernel, chunks.grid, dy_MV, y_MV, total_MC, dx_MV, chunks.columns, chunks.count, **chunks.sizes(BC=True))
    return dx_MV


def cross_entropy(x_MV: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
    """-log softmax(x)[target], fp32 [M], and log Σ exp of every row. A target that is no column gives NaN."""
    x_MV, targets_M = steady(x_MV), steady(targets_M)
    chunks = _chunks(x_MV)
    loss_M, log_sum_M = (x_MV.new_empty(x_MV.shape[0], dtype=torch.float32) for _ in range(2))
    operands = (x_MV, targets_M, *_tops(x_MV, chunks), loss_M, log_sum_M, chunks.columns, chunks.count)
    launch(loss_kernel, (x_MV.shape[0],), *operands, warps=1, BC=chunks.combined)
    return loss_M, log_sum_M


def cross_entropy_dx(d_loss_M: Tensor, x_MV: Tensor, targets_M: Tensor, log_sum_M: Tensor) -> Tensor:
    """The gradient of the logits, in their dtype."""
    x_MV, targets_M, d_loss_M = steady(x_MV), steady(targets_M), steady(d_loss_M)
    chunks = _chunks(x_MV)
    dx_MV = torch.empty_like(x_MV)
    launch(loss_dx_kernel, chunks.grid, x_MV, targets_M, log_sum_M, d_loss_M, dx_MV, chunks.columns, **chunks.sizes())
    return dx_MV


class _Chunks:
    """How rows of x are cut: `columns` of a row, `count` chunks of `size` columns, `combined` lanes of the tree over them."""

    def __init__(self, num_rows: int, columns: int, size: int, warps: int) -> None:
        self.columns, self.size, self.warps = columns, min(size, triton.next_power_of_2(columns)), warps
        self.count = blocks(columns, self.size)
        self.combined = triton.next_power_of_2(self.count)
        self.grid = (num_rows, self.count)

    def sizes(self, *, BC: bool = False) -> dict[str, int]:
        """The constants of a launch with one program per row and chunk."""
        return {"warps": self.warps, "BV": self.size} | ({"BC": self.combined} if BC else {})


def _chunks(x_MV: Tensor) -> _Chunks:
    size = tile_for("vocabulary", x_MV)
    return _Chunks(x_MV.shape[0], x_MV.shape[1], size.columns, size.warps)


def _tops(x_MV: Tensor, chunks: _Chunks) -> tuple[Tensor, Tensor]:
    """Every chunk's largest value and sum, [M, C]."""
    largest_MC, total_MC = _per_chunk(x_MV, chunks), _per_chunk(x_MV, chunks)
    launch(chunk_kernel, chunks.grid, x_MV, largest_MC, total_MC, chunks.columns, chunks.count, **chunks.sizes())
    return largest_MC, total_MC


def _per_chunk(x_MV: Tensor, chunks: _Chunks) -> Tensor:
    return x_MV.new_empty(x_MV.shape[0], chunks.count, dtype=torch.float32)


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: the open model's vocabulary (four rows stand for more, to spare memory)."""
    x_MV, targets_M = torch.zeros(min(num_rows, 4), 201_024, dtype=dtype), torch.zeros(min(num_rows, 4), dtype=torch.int64)
    log_softmax_dx(x_MV.float(), log_softmax(x_MV), dtype)
    loss_M, log_sum_M = cross_entropy(x_MV, targets_M)
    cross_entropy_dx(loss_M, x_MV, targets_M, log_sum_M)
