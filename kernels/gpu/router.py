"""The Triton form of the router: which experts, and their weights. Everything about a row depends on that row alone.

One program takes a row, all experts at once. The choice is k rounds of "the largest score, of equals the smallest index". The softmax adds
over all columns in one tree, those not chosen as zeros. fp32 throughout.

Letters: T rows, E routed experts, S shared experts, L = E + S, k chosen.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arithmetic import log_sigmoid, sigmoid
from .launch import launch, steady, tile_for


@triton.jit
def _weights(b_logits, taken):
    """softmax of log σ(logits) over the columns taken, 0 elsewhere."""
    b_log = tl.where(taken, log_sigmoid(b_logits), float("-inf"))
    b_exp = tl.where(taken, tl.exp(b_log - tl.max(b_log, 0)), 0.0)
    return b_exp / tl.sum(b_exp, 0)


@triton.jit
def route_kernel(logits, bias, chosen, weights, E, L, k: tl.constexpr, S: tl.constexpr, BL: tl.constexpr):
    """chosen [T, k] and weights [T, k + S], of one row."""
    i_t = tl.program_id(0).to(tl.int64)
    o_l = tl.arange(0, BL)
    m_l = o_l < L
    b_logits = tl.load(logits + i_t * L + o_l, mask=m_l, other=0.0)  # [BL]
    b_bias = tl.load(bias + o_l, mask=o_l < E, other=0.0)  # [BL]
    left = tl.where(o_l < E, sigmoid(b_logits) + b_bias, float("-inf"))
    rank = tl.full((BL,), k, tl.int32)  # the slot that a column was chosen for
    for slot in tl.static_range(k):
        best = tl.min(tl.where(left == tl.max(left, 0), o_l, BL), 0)
        best = tl.minimum(best, E - 1)  # of NaN nobody is the largest: still an expert
        tl.store(chosen + i_t * k + slot, best.to(tl.int64))
        rank = tl.where(o_l == best, slot, rank)
        left = tl.where(o_l == best, float("-inf"), left)
    b_weights = _weights(b_logits, (rank < k) | ((o_l >= E) & m_l))
    for slot in tl.static_range(k):
        tl.store(weights + i_t * (k + S) + slot, tl.sum(tl.where(rank == slot, b_weights, 0.0), 0))
    for shared in tl.static_range(S):
        tl.store(weights + i_t * (k + S) + k + shared, tl.sum(tl.where(o_l == E + shared, b_weights, 0.0), 0))


@triton.jit
def route_dx_kernel(logits, chosen, d_weights, d_logits, E, L, k: tl.constexpr, S: tl.constexpr, BL: tl.constexpr):
    """The gradient of the logits [T, L], 0 where nothing was chosen, of one row."""
    i_t = tl.program_id(0).to(tl.int64)
    o_l = tl.arange(0, BL)
    m_l = o_l < L
    b_logits = tl.load(logits + i_t * L + o_l, mask=m_l, other=0.0)  # [BL]
    taken = (o_l >= E) & m_l
    b_dw = tl.zeros((BL,), tl.float32)
    for slot in tl.static_range(k):
        here = o_l == tl.load(chosen + i_t * k + slot)
        b_dw = tl.where(here, tl.load(d_weights + i_t * (k + S) + slot), b_dw)
        taken = taken | here
    for shared in tl.static_range(S):
        b_dw = tl.where(o_l == E + shared, tl.load(d_weights + i_t * (k + S) + k + shared), b_dw)
    b_weights = _weights(b_logits, taken)
    slope = b_weights * (b_dw - tl.sum(b_weights * b_dw, 0)) * sigmoid(-b_logits)
    tl.store(d_logits + i_t * L + o_l, tl.where(taken, slope, 0.0), mask=m_l)


def route(logits_TL: Tensor, bias_E: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The chosen experts, int64 [T, k] from best to worst, and the softmax weights, fp32 [T, k + S], before any scale."""
    logits_TL, bias_E = steady(logits_TL), steady(bias_E)
    num_rows, num_logits = logits_TL.shape
    shared = num_logits - bias_E.shape[0]
    chosen_Tk = logits_TL.new_empty(num_rows, top_k, dtype=torch.int64)
    weights_Tk = logits_TL.new_empty(num_rows, top_k + shared)
    sizes = _sizes(logits_TL, top_k, shared)
    launch(route_kernel, (num_rows,), logits_TL, bias_E, chosen_Tk, weights_Tk, bias_E.shape[0], num_logits, **sizes)
    return chosen_Tk, weights_Tk


def route_dx(d_weights_Tk: Tensor, logits_TL: Tensor, chosen_Tk: Tensor) -> Tensor:
    """The gradient of the logits, of that of the weights."""
    d_weights_Tk, logits_TL, chosen_Tk = steady(d_weights_Tk), steady(logits_TL), steady(chosen_Tk)
    (num_rows, num_logits), top_k = logits_TL.shape, chosen_Tk.shape[1]
    shared = d_weights_Tk.shape[1] - top_k
    d_logits_TL = torch.empty_like(logits_TL)
    operands = (logits_TL, chosen_Tk, d_weights_Tk, d_logits_TL, num_logits - shared, num_logits)
    launch(route_dx_kernel, (num_rows,), *operands, **_sizes(logits_TL, top_k, shared))
    return d_logits_TL


def _sizes(logits_TL: Tensor, top_k: int, shared: int) -> dict[str, int]:
    return {"k": top_k, "S": shared, "BL": triton.next_power_of_2(logits_TL.shape[1]), "warps": tile_for("router", logits_TL).warps}


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: the router is fp32 whatever the model is."""
    if dtype == torch.float32:
        logits_TL, bias_E = torch.zeros(num_rows, 258), torch.zeros(256)
        chosen_Tk, weights_Tk = route(logits_TL, bias_E, 6)
        route_dx(weights_Tk, logits_TL, chosen_Tk)
