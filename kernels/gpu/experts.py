"""The Triton form of products with one weight per expert, and of the sum of a token's experts. A row's bits depend on that row and the
weights alone.

`expert_places` sorts (token, slot) pairs by expert, stably and without waiting for the device; groups are not filled up. One launch then
makes every expert's product: a program finds its expert from the groups' starts, reads its rows through the list of tokens or in place,
and multiplies them as a linear layer does, with its tiles and in its order: a place's row has the bits of `linear`. Training and a few
tokens launch one binary; how many programs, and which find nothing to do, is all that differs.

Backward: dx by the same walk with the weights the other way round, then summed per token slot by slot; dw per expert over its rows in
order. `combine` multiplies, then adds, from the first slot to the last. No atomics: every element has one writer.

Letters: T tokens, k slots of a token, E experts, P places (T · k), K columns in, N columns out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import dot
from .launch import blocks, launch, steady, tile_for

GROUP = 8  # blocks of columns that are walked together, so that the programs of one expert share its weight in L2


def places(chosen_Tk: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """token_P, place_Tk and starts [E + 1], all int64, of `ExpertPlaces`. Experts beyond the last go unnoticed."""
    experts_P, order_P = torch.sort(chosen_Tk.reshape(-1), stable=True)
    place_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(order_P.shape[0], device=order_P.device))
    starts = torch.searchsorted(experts_P, torch.arange(num_experts + 1, dtype=experts_P.dtype, device=experts_P.device))
    return order_P // chosen_Tk.shape[1], place_P.view(chosen_Tk.shape), starts


@triton.jit
def _expert_rows(starts, i_tile, E: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr):
    """The expert of a tile of BM rows, and the tile's first place and its group's last, half-open; no rows for tiles beyond the last."""
    o_e = tl.arange(0, BE)
    b_start, b_stop = tl.load(starts + o_e, mask=o_e < E, other=0), tl.load(starts + o_e + 1, mask=o_e < E, other=0)  # [BE]
    tiles = tl.cdiv(b_stop - b_start, BM)
    ends = tl.cumsum(tiles, 0)
    mine = (ends > i_tile) & (ends - tiles <= i_tile)  # of one expert at most
    expert = tl.sum(tl.where(mine, o_e, 0), 0)
    first = tl.sum(tl.where(mine, b_start + (i_tile - (ends - tiles)) * BM, 0), 0)
    return expert.to(tl.int64), first, tl.sum(tl.where(mine, b_stop, 0), 0)


@triton.jit
def _expert_product(
    x, w, tokens, starts, y, num_tiles, num_columns, length, w_step, w_column,
    BY_TOKEN: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Block of y [P, num_columns]: rows of x [rows, length] · their expert's w; the last two counts are strides of w in elements."""
    i_group = tl.program_id(0) // (GROUP * num_tiles)
    i_in_group = tl.program_id(0) % (GROUP * num_tiles)
    group_columns = tl.minimum(tl.cdiv(num_columns, BN) - i_group * GROUP, GROUP)
    expert, first, stop = _expert_rows(starts, i_in_group // group_columns, E, BE, BM)
    if first < stop:
        o_p, o_k = first + tl.arange(0, BM), tl.arange(0, BK)
        o_n = (i_group * GROUP + i_in_group % group_columns) * BN + tl.arange(0, BN)
        m_p, m_n = o_p < stop, o_n < num_columns
        o_x = tl.load(tokens + o_p, mask=m_p, other=0) if BY_TOKEN else o_p
        p_x = x + o_x[:, None] * length + o_k[None, :]
        p_w = w + expert * length * num_columns + o_k.to(tl.int64)[:, None] * w_step + o_n.to(tl.int64)[None, :] * w_column
        total = tl.zeros((BM, BN), tl.float32)
        for start in range(0, length, BK):
            m_k = o_k < length - start
            b_x = tl.load(p_x, mask=m_p[:, None] & m_k[None, :], other=0.0)  # [BM, BK]
            b_w = tl.load(p_w, mask=m_k[:, None] & m_n[None, :], other=0.0)  # [BK, BN]
            total = dot(b_x, b_w, total)
            p_x += BK
            p_w += BK * w_step
        tl.store(y + o_p[:, None] * num_columns + o_n[None, :], total.to(y.dtype.element_ty), mask=m_p[:, None] & m_n[None, :])


@triton.jit(do_not_specialize=["num_tiles"])
def experts_kernel(
    x, w, tokens, starts, y, num_tiles, K, N,
    BY_TOKEN: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """y [P, N] = x · w [E, N, K]ᵀ of each place's expert."""
    _expert_product(x, w, tokens, starts, y, num_tiles, N, K, 1, K, BY_TOKEN, E, BE, BM, BN, BK, GROUP)


@triton.jit(do_not_specialize=["num_tiles"])
def experts_dx_kernel(
    dy, w, starts, dx, num_tiles, K, N,
    E: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """dx [P, K] = dy [P, N] · w [E, N, K] of each place's expert."""
    _expert_product(dy, w, starts, starts, dx, num_tiles, K, N, K, 1, False, E, BE, BM, BN, BK, GROUP)


@triton.jit
def experts_dw_kernel(
    dy, x, tokens, starts, dw, K, N, BY_TOKEN: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):  # fmt: skip
    """dw [E, N, K] = dyᵀ · x over the places of each expert from the first to the last; zero for one that has none."""
    i_block, expert = tl.program_id(0), tl.program_id(1)
    o_n = i_block // tl.cdiv(K, BN) * BM + tl.arange(0, BM)
    o_k = i_block % tl.cdiv(K, BN) * BN + tl.arange(0, BN)
    m_n, m_k = o_n < N, o_k < K
    first, stop = tl.load(starts + expert), tl.load(starts + expert + 1)
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(first, stop, BK):
        o_p = start + tl.arange(0, BK)
        m_p = o_p < stop
        o_x = tl.load(tokens + o_p, mask=m_p, other=0) if BY_TOKEN else o_p
        b_dy = tl.load(dy + o_n[:, None] + o_p[None, :] * N, mask=m_n[:, None] & m_p[None, :], other=0.0)  # [BM, BK]
        b_x = tl.load(x + o_x[:, None] * K + o_k[None, :], mask=m_p[:, None] & m_k[None, :], other=0.0)  # [BK, BN]
        total = dot(b_dy, b_x, total)
    p_dw = dw + (expert.to(tl.int64) * N + o_n[:, None]) * K + o_k[None, :]
    tl.store(p_dw, total.to(dw.dtype.element_ty), mask=m_n[:, None] & m_k[None, :])


@triton.jit(do_not_specialize=["num_tokens"])
def combine_kernel(
    y, weights, places, total, num_tokens, N, SLOTS: tl.constexpr, WEIGHED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """total [T, N] = Σ weights · y over a token's slots in order; the bare sum if not WEIGHED."""
    o_t, o_n = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN)
    m_t = o_t < num_tokens
    m_tn = m_t[:, None] & (o_n < N)[None, :]
    b_total = tl.zeros((BM, BN), tl.float32)
    for slot in tl.static_range(SLOTS):
        o_p = tl.load(places + o_t * SLOTS + slot, mask=m_t, other=0)  # [BM]
        b_y = tl.load(y + o_p[:, None] * N + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)  # [BM, BN]
        if WEIGHED:
            b_y *= tl.load(weights + o_t * SLOTS + slot, mask=m_t, other=0.0)[:, None]
        b_total += b_y
    tl.store(total + o_t[:, None] * N + o_n[None, :], b_total.to(total.dtype.element_ty), mask=m_tn)


@triton.jit(do_not_specialize=["num_tokens"])
def combine_dy_kernel(
    d_total, y, weights, places, dy, d_weights, num_tokens, N, SLOTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Of one slot of some tokens: dy [P, N] = weight · d_total, and d_weights [T, k] = d_total · y, lanes first and then across them."""
    o_t, slot = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM), tl.program_id(1)
    m_t = o_t < num_tokens
    o_p = tl.load(places + o_t * SLOTS + slot, mask=m_t, other=0)  # [BM]
    b_weight = tl.load(weights + o_t * SLOTS + slot, mask=m_t, other=0.0)  # [BM]
    b_products = tl.zeros((BM, BN), tl.float32)
    for start in range(0, N, BN):
        o_n = start + tl.arange(0, BN)
        m_tn = m_t[:, None] & (o_n < N)[None, :]
        b_d = tl.load(d_total + o_t[:, None] * N + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)  # [BM, BN]
        b_products += b_d * tl.load(y + o_p[:, None] * N + o_n[None, :], mask=m_tn, other=0.0).to(tl.float32)
        tl.store(dy + o_p[:, None] * N + o_n[None, :], (b_d * b_weight[:, None]).to(dy.dtype.element_ty), mask=m_tn)
    tl.store(d_weights + o_t * SLOTS + slot, tl.sum(b_products, 1), mask=m_t)


def grouped_product(x_MK: Tensor, w_ENK: Tensor, token_P: Tensor, starts: Tensor, by_token: bool) -> Tensor:
    """Each place's row times its expert's weight, [P, N]."""
    y_PN = x_MK.new_empty(token_P.shape[0], w_ENK.shape[1])
    sizes, num_tiles = _sizes(x_MK, w_ENK, token_P.shape[0])
    launch(
        experts_kernel, (num_tiles * blocks(w_ENK.shape[1], sizes["BN"]),),
        steady(x_MK), steady(w_ENK), token_P, starts, y_PN, num_tiles, w_ENK.shape[2], w_ENK.shape[1], BY_TOKEN=by_token, **sizes,
    )  # fmt: skip
    return y_PN


def grouped_product_dx(dy_PN: Tensor, w_ENK: Tensor, place_Tk: Tensor, starts: Tensor, by_token: bool) -> Tensor:
    """The gradient of x: of rows in place order [P, K], or of tokens [T, K]."""
    dx_PK = dy_PN.new_empty(dy_PN.shape[0], w_ENK.shape[2])
    sizes, num_tiles = _sizes(dy_PN, w_ENK, dy_PN.shape[0])
    launch(
        experts_dx_kernel, (num_tiles * blocks(w_ENK.shape[2], sizes["BN"]),),
        steady(dy_PN), steady(w_ENK), starts, dx_PK, num_tiles, w_ENK.shape[2], w_ENK.shape[1], **sizes,
    )  # fmt: skip
    return combine(dx_PK, None, place_Tk) if by_token else dx_PK


def grouped_product_dw(dy_PN: Tensor, x_MK: Tensor, token_P: Tensor, starts: Tensor, by_token: bool) -> Tensor:
    """The gradient of w, [E, N, K]."""
    num_experts, N, K = starts.shape[0] - 1, dy_PN.shape[1], x_MK.shape[1]
    dw_ENK, size = x_MK.new_empty(num_experts, N, K), tile_for("linear", x_MK)
    launch(
        experts_dw_kernel, (blocks(N, size.rows) * blocks(K, size.columns), num_experts),
        steady(dy_PN), steady(x_MK), token_P, starts, dw_ENK, K, N,
        BY_TOKEN=by_token, BM=size.rows, BN=size.columns, BK=size.inner, warps=size.warps, stages=size.stages,
    )  # fmt: skip
    return dw_ENK


def combine(y_PN: Tensor, weights_Tk: Tensor | None, place_Tk: Tensor) -> Tensor:
    """Each token's results, times its weights if given, added from the first slot to the last: [T, N] in the dtype of y."""
    (num_tokens, slots), N, size = place_Tk.shape, y_PN.shape[1], tile_for("combine", y_PN)
    total_TN = y_PN.new_empty(num_tokens, N)
    launch(
        combine_kernel, (blocks(num_tokens, size.rows), blocks(N, size.columns)),
        steady(y_PN), place_Tk if weights_Tk is None else steady(weights_Tk), place_Tk, total_TN, num_tokens, N,
        SLOTS=slots, WEIGHED=weights_Tk is not None, BM=size.rows, BN=size.columns, warps=size.warps,
    )  # fmt: skip
    return total_TN


def combine_backward(d_TN: Tensor, y_PN: Tensor, weights_Tk: Tensor, place_Tk: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of y and of the weights."""
    (num_tokens, slots), size = place_Tk.shape, tile_for("combine", y_PN)
    dy_PN, dw_Tk = torch.empty_like(y_PN), torch.empty_like(weights_Tk)
    launch(
        combine_dy_kernel, (blocks(num_tokens, size.rows), slots),
        steady(d_TN), steady(y_PN), steady(weights_Tk), place_Tk, dy_PN, dw_Tk, num_tokens, y_PN.shape[1],
        SLOTS=slots, BM=size.rows, BN=size.columns, warps=size.warps,
    )  # fmt: skip
    return dy_PN, dw_Tk


def _sizes(x: Tensor, w_ENK: Tensor, num_places: int) -> tuple[dict[str, int], int]:
    """Constants and options of an expert product, and how many tiles of rows there may be at most, however the experts were chosen."""
    size, num_experts = tile_for("linear", x), w_ENK.shape[0]
    num_tiles = (num_places + (size.rows - 1) * min(num_experts, num_places)) // size.rows
    sizes = {"BM": size.rows, "BN": size.columns, "BK": size.inner, "GROUP": GROUP, "warps": size.warps, "stages": size.stages}
    return {**sizes, "E": num_experts, "BE": triton.next_power_of_2(num_experts)}, num_tiles


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`."""
    x_TK, w_ENK, weights_Tk = torch.zeros(num_rows, 64, dtype=dtype), torch.zeros(256, 128, 64, dtype=dtype), torch.zeros(num_rows, 8)
    token_P, place_Tk, starts = places(torch.zeros(num_rows, 8, dtype=torch.int64), 256)
    y_PN = grouped_product(x_TK, w_ENK, token_P, starts, True)
    grouped_product(y_PN[:, :64], w_ENK, token_P, starts, False)
    for by_token, x_MK in ((True, x_TK), (False, y_PN[:, :64])):
        grouped_product_dx(y_PN, w_ENK, place_Tk, starts, by_token)
        grouped_product_dw(y_PN, x_MK, token_P, starts, by_token)
    combine_backward(combine(y_PN, weights_Tk, place_Tk), y_PN, weights_Tk, place_Tk)
