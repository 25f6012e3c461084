"""The Triton form of the short convolution and its gradients. A row's bits depend on itself and the rows of its document before it.

Order: the CPU form's (oldest tap first, the residual last, never fused), one row and channel at a time, so even the bits are those of the
CPU. Where an earlier row would lie before the segment, the state is read. The taps' gradient adds over rows in two stages (see rows.py).

Letters: T rows, C channels, S segments, K taps, H = K - 1 rows of state, P parts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocks, launch, steady, tile_for
from .rows import PART_ROWS, column_sums


@triton.jit
def _seen(x, state, o_t, o_c, age, segment, back, m_tc, C, H: tl.constexpr):
    """The rows `back` places before rows o_t, of the segment or of its state: fp32 [BT, BC]. `age`: rows of the segment before o_t."""
    at = age - back
    p_x = x + (o_t - back)[:, None] * C + o_c[None, :]
    p_state = state + (segment.to(tl.int64) * H + H + at)[:, None] * C + o_c[None, :]
    now = tl.load(p_x, mask=m_tc & (at >= 0)[:, None], other=0.0).to(tl.float32)
    past = tl.load(p_state, mask=m_tc & (at < 0)[:, None], other=0.0)
    return tl.where((at >= 0)[:, None], now, past)


@triton.jit(do_not_specialize=["num_rows"])
def short_conv_kernel(
    x, taps, state, age_T, segment_T, y, num_rows, C, K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """y = x + Σ taps · rows, oldest first."""
    o_t, o_c = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT), tl.program_id(1) * BC + tl.arange(0, BC)
    m_t, m_c = o_t < num_rows, o_c < C
    m_tc = m_t[:, None] & m_c[None, :]
    age, segment = tl.load(age_T + o_t, mask=m_t, other=0), tl.load(segment_T + o_t, mask=m_t, other=0)
    total = tl.zeros((BT, BC), tl.float32)
    for tap in tl.static_range(K):
        b_tap = tl.load(taps + o_c * K + tap, mask=m_c, other=0.0)  # [BC]
        b_x = _seen(x, state, o_t, o_c, age, segment, K - 1 - tap, m_tc, C, K - 1)
        if tap == 0:
            total = b_x * b_tap[None, :]
        else:
            total += b_x * b_tap[None, :]
    total += b_x  # the newest: the row itself
    tl.store(y + o_t[:, None] * C + o_c[None, :], total.to(y.dtype.element_ty), mask=m_tc)


@triton.jit
def next_state_kernel(x, state, starts, new_state, C, H: tl.constexpr, BC: tl.constexpr):
    """The last H rows of what segment and state hold together, fp32 [S, H, C]. One program per segment and block of channels."""
    i_s = tl.program_id(0).to(tl.int64)
    o_c = tl.program_id(1) * BC + tl.arange(0, BC)
    m_c = o_c < C
    start, stop = tl.load(starts + i_s), tl.load(starts + i_s + 1)
    for row in tl.static_range(H):
        at = tl.zeros((BC,), tl.int64) + (stop - H + row)  # among x's rows; a vector, as masks are
        now = tl.load(x + at * C + o_c, mask=m_c & (at >= start), other=0.0).to(tl.float32)
        past = tl.load(state + (i_s * H + row + stop - start) * C + o_c, mask=m_c & (at < start), other=0.0)
        tl.store(new_state + (i_s * H + row) * C + o_c, tl.where(at >= start, now, past), mask=m_c)


@triton.jit(do_not_specialize=["num_rows"])
def short_conv_dx_kernel(
    dy, taps, left_T, dx, num_rows, C, K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """dx = dy + Σ taps · dy of later rows of the segment; `left_T` counts these."""
    o_t, o_c = tl.program_id(0).to(tl.int64) * BT + tl.arange(0, BT), tl.program_id(1) * BC + tl.arange(0, BC)
    m_t, m_c = o_t < num_rows, o_c < C
    m_tc = m_t[:, None] & m_c[None, :]
    left = tl.load(left_T + o_t, mask=m_t, other=0)
    total = tl.load(dy + o_t[:, None] * C + o_c[None, :], mask=m_tc, other=0.0).to(tl.float32)  # [BT, BC]
    for tap in tl.static_range(K):
        b_tap = tl.load(taps + o_c * K + tap, mask=m_c, other=0.0)  # [BC]
        ahead = K - 1 - tap
        p_later = dy + (o_t + ahead)[:, None] * C + o_c[None, :]
        later = tl.load(p_later, mask=m_tc & (left >= ahead)[:, None], other=0.0).to(tl.float32)  # [BT, BC]
        total += later * b_tap[None, :]
    tl.store(dx + o_t[:, None] * C + o_c[None, :], total.to(dx.dtype.element_ty), mask=m_tc)


@triton.jit(do_not_specialize=["num_rows"])
def short_conv_dw_kernel(
    dy, x, state, age_T, segment_T, parts, num_rows, C, K: tl.constexpr, PART: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """parts [P, C, K]: the sums of dy · (the row each tap met) over PART rows each."""
    i_part, i_c = tl.program_id(0).to(tl.int64), tl.program_id(1)
    o_c = i_c * BC + tl.arange(0, BC)
    m_c = o_c < C
    for tap in tl.static_range(K):
        total = tl.zeros((BT, BC), tl.float32)
        for start in range(0, PART, BT):
            o_t = i_part * PART + start + tl.arange(0, BT)
            m_t = o_t < num_rows
            m_tc = m_t[:, None] & m_c[None, :]
            age, segment = tl.load(age_T + o_t, mask=m_t, other=0), tl.load(segment_T + o_t, mask=m_t, other=0)
            b_x = _seen(x, state, o_t, o_c, age, segment, K - 1 - tap, m_tc, C, K - 1)
            b_dy = tl.load(dy + o_t[:, None] * C + o_c[None, :], mask=m_tc, other=0.0).to(tl.float32)  # [BT, BC]
            total += b_dy * b_x
        tl.store(parts + (i_part * C + o_c) * K + tap, tl.sum(total, 0), mask=m_c)


def short_conv(x_TC: Tensor, w_CK: Tensor, state_SHC: Tensor, places: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """The convolved rows in the dtype of x, and the new state.

    Args:
        places: per row how many of its segment come before and after it, and the segment, int32 [T]; the segments' starts, int64 [S + 1].
    """
    age_T, _, segment_T, starts_S = places
    x_TC, w_CK, state_SHC = steady(x_TC), steady(w_CK), steady(state_SHC)
    num_rows, channels = x_TC.shape
    y_TC, new_state_SHC = torch.empty_like(x_TC), torch.empty_like(state_SHC)
    grid, sizes, warps = _blocks(x_TC)
    operands = (x_TC, w_CK, state_SHC, age_T, segment_T, y_TC, num_rows, channels)
    launch(short_conv_kernel, grid, *operands, K=w_CK.shape[1], warps=warps, **sizes)
    launch(
        next_state_kernel, (state_SHC.shape[0], grid[1]), x_TC, state_SHC, starts_S, new_state_SHC, channels,
        H=w_CK.shape[1] - 1, BC=sizes["BC"], warps=warps,
    )  # fmt: skip
    return y_TC, new_state_SHC


def short_conv_slopes(
    dy_TC: Tensor, x_TC: Tensor, w_CK: Tensor, state_SHC: Tensor, places: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of x and of the taps."""
    age_T, left_T, segment_T, _ = places
    dy_TC, x_TC, w_CK, state_SHC = steady(dy_TC), steady(x_TC), steady(w_CK), steady(state_SHC)
    (num_rows, channels), taps = x_TC.shape, w_CK.shape[1]
    grid, sizes, warps = _blocks(x_TC)
    dx_TC = torch.empty_like(x_TC)
    launch(short_conv_dx_kernel, grid, dy_TC, w_CK, left_T, dx_TC, num_rows, channels, K=taps, warps=warps, **sizes)
    parts_PW = x_TC.new_empty(blocks(num_rows, PART_ROWS), channels * taps, dtype=torch.float32)
    operands = (dy_TC, x_TC, state_SHC, age_T, segment_T, parts_PW, num_rows, channels)
    launch(short_conv_dw_kernel, (parts_PW.shape[0], grid[1]), *operands, K=taps, PART=PART_ROWS, warps=warps, **sizes)
    return dx_TC, column_sums(parts_PW, w_CK.dtype).view_as(w_CK)


def _blocks(x_TC: Tensor) -> tuple[tuple[int, int], dict[str, int], int]:
    size = tile_for("convolution", x_TC)
    block_columns = min(triton.next_power_of_2(x_TC.shape[1]), size.columns)
    return (blocks(x_TC.shape[0], size.rows), blocks(x_TC.shape[1], block_columns)), {"BT": size.rows, "BC": block_columns}, size.warps


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`."""
    x_TC, w_CK, state_SHC = torch.zeros(num_rows, 128, dtype=dtype), torch.zeros(128, 4), torch.zeros(1, 3, 128)
    row_T, starts_S = torch.zeros(num_rows, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    places = (row_T, row_T, row_T, starts_S)
    y_TC, _ = short_conv(x_TC, w_CK, state_SHC, places)
    short_conv_slopes(y_TC, x_TC, w_CK, state_SHC, places)
