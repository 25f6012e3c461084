"""The Triton form of activations and their gradients: an element's bits depend on that element alone. Memory-bound; one pass each.

Rows are walked in blocks of columns, so that halves of one wider product can be read in place.

Letters: M rows, D columns.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import arithmetic
from .launch import blocks, launch, steady, tile_for

NAMES = ("sigmoid", "log_sigmoid", "silu", "gelu")


@triton.jit(do_not_specialize=["num_elements"])
def activation_kernel(x, y, num_elements, WHICH: tl.constexpr, B: tl.constexpr):
    """y = f(x), rounded once."""
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    b_x = tl.load(x + o, mask=o < num_elements, other=0.0).to(tl.float32)  # [B]
    if WHICH == "sigmoid":
        b_y = arithmetic.sigmoid(b_x)
    elif WHICH == "log_sigmoid":
        b_y = arithmetic.log_sigmoid(b_x)
    elif WHICH == "silu":
        b_y = arithmetic.silu(b_x)
    else:
        b_y = arithmetic.gelu(b_x)
    tl.store(y + o, b_y.to(y.dtype.element_ty), mask=o < num_elements)


@triton.jit(do_not_specialize=["num_elements"])
def activation_dx_kernel(dy, x, dx, num_elements, WHICH: tl.constexpr, B: tl.constexpr):
    """dx = dy · f'(x)."""
    o = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    b_x = tl.load(x + o, mask=o < num_elements, other=0.0).to(tl.float32)  # [B]
    b_dy = tl.load(dy + o, mask=o < num_elements, other=0.0).to(tl.float32)  # [B]
    if WHICH == "sigmoid":
        slope = arithmetic.sigmoid(b_x) * arithmetic.sigmoid(-b_x)
    elif WHICH == "log_sigmoid":
        slope = arithmetic.sigmoid(-b_x)
    elif WHICH == "silu":
        slope = arithmetic.silu_slope(b_x)
    else:
        slope = arithmetic.gelu_slope(b_x)
    tl.store(dx + o, (b_dy * slope).to(dx.dtype.element_ty), mask=o < num_elements)


@triton.jit(do_not_specialize=["num_rows"])
def swiglu_kernel(gate, up, y, num_rows, gate_row, up_row, D, BM: tl.constexpr, BD: tl.constexpr):
    """y [M, D] = silu(gate) · up; the operands' rows are gate_row and up_row elements apart."""
    o_m, o_d = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.program_id(1) * BD + tl.arange(0, BD)
    m_md = (o_m < num_rows)[:, None] & (o_d < D)[None, :]
    b_gate = tl.load(gate + o_m[:, None] * gate_row + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    b_up = tl.load(up + o_m[:, None] * up_row + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    tl.store(y + o_m[:, None] * D + o_d[None, :], (arithmetic.silu(b_gate) * b_up).to(y.dtype.element_ty), mask=m_md)


@triton.jit(do_not_specialize=["num_rows"])
def swiglu_dx_kernel(dy, gate, up, d_gate, d_up, num_rows, gate_row, up_row, D, BM: tl.constexpr, BD: tl.constexpr):
    """d_gate = dy · up · silu'(gate), d_up = dy · silu(gate)."""
    o_m, o_d = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.program_id(1) * BD + tl.arange(0, BD)
    m_md = (o_m < num_rows)[:, None] & (o_d < D)[None, :]
    b_gate = tl.load(gate + o_m[:, None] * gate_row + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    b_up = tl.load(up + o_m[:, None] * up_row + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    b_dy = tl.load(dy + o_m[:, None] * D + o_d[None, :], mask=m_md, other=0.0).to(tl.float32)  # [BM, BD]
    d_gate += o_m[:, None] * D + o_d[None, :]
    tl.store(d_gate, (arithmetic.silu_slope(b_gate) * b_up * b_dy).to(d_gate.dtype.element_ty), mask=m_md)
    d_up += o_m[:, None] * D + o_d[None, :]
    tl.store(d_up, (arithmetic.silu(b_gate) * b_dy).to(d_up.dtype.element_ty), mask=m_md)


def activation(name: str, x: Tensor) -> Tensor:
    """f(x) in the dtype of x, f one of NAMES."""
    x = steady(x)
    y = torch.empty_like(x)
    _launch_flat(activation_kernel, name, x, y)
    return y


def activation_dx(name: str, dy: Tensor, x: Tensor) -> Tensor:
    """dy · f'(x) in the dtype of x."""
    x = steady(x)
    dx = torch.empty_like(x)
    _launch_flat(activation_dx_kernel, name, steady(dy), x, dx)
    return dx


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up in the dtype of both."""
    y = gate.new_empty(gate.shape)
    _launch_rows(swiglu_kernel, gate, up, y)
    return y


def swiglu_dx(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of gate and up."""
    d_gate, d_up = gate.new_empty(gate.shape), gate.new_empty(gate.shape)
    _launch_rows(swiglu_dx_kernel, gate, up, d_gate, d_up, before=(steady(dy),))
    return d_gate, d_up


def _launch_flat(kernel, which: str, *tensors: Tensor) -> None:
    size = tile_for("elementwise", tensors[0])
    lanes, num_elements = size.rows * size.columns, tensors[0].numel()
    launch(kernel, (blocks(num_elements, lanes),), *tensors, num_elements, WHICH=which, B=lanes, warps=size.warps)


def _launch_rows(kernel, gate: Tensor, up: Tensor, *written: Tensor, before: tuple[Tensor, ...] = ()) -> None:
    size = tile_for("elementwise", gate)
    (gate, gate_row), (up, up_row) = _rows(gate), _rows(up)
    num_rows, columns = gate.shape
    block_columns = min(triton.next_power_of_2(columns), size.columns)
    block_rows = size.rows * size.columns // block_columns
    grid = (blocks(num_rows, block_rows), blocks(columns, block_columns))
    operands = (*before, gate, up, *written, num_rows, gate_row, up_row, columns)
    launch(kernel, grid, *operands, BM=block_rows, BD=block_columns, warps=size.warps)


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """x as [M, D], and the distance of its rows: in place for halves of rows, a copy of anything stranger."""
    if x.ndim == 2 and x.stride(1) == 1 and x.stride(0) >= x.shape[1] and x.data_ptr() % 16 == 0:
        return x, x.stride(0)
    x = steady(x)
    return x.view(-1, x.shape[-1]), x.shape[-1]


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`."""
    x = torch.zeros(num_rows, 128, dtype=dtype)
    for name in NAMES:
        activation_dx(name, activation(name, x), x)
    gate, up = x.chunk(2, dim=-1)
    swiglu_dx(swiglu(gate, up), gate, up)
