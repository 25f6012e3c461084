"""Products with one weight per expert, and the sum of a token's experts in a fixed order. No row's bits depend on how many rows its
expert got.

Three steps: `expert_places` lays the (token, slot) pairs out by expert; `grouped_linear` multiplies every expert's group, reading tokens
through an index list or rows in place; `combine` adds a token's results slot by slot. Nothing is scattered with addition, nothing has a
capacity.

A group is filled to a multiple of 4 (few rows) or 8 with copies of a real row, whose results nobody reads, so that most groups are shapes
that `product` may call as they are; what it may not, it takes in tiles. So each row equals the tiled product of that row and its expert's
weight.

That is the CPU form; the Triton form (gpu/experts.py) fills nothing, and its tiles are those of its `linear`.

Letters: T tokens, k slots of a token, E experts, P places, K columns in, N columns out.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton, needs_graph
from .products import FEW_ROWS, product


@dataclass(frozen=True, slots=True, eq=False)
class ExpertPlaces:
    """Who stands where, sorted by expert and in one expert by token and slot.

    Attributes:
        token_P: int64 [P], the token whose row a place reads.
        place_Tk: int64 [T, k], the place of each token's slots; each place of a real row occurs once.
        starts: [E + 1]; expert e has the places `starts[e]` … `starts[e + 1]`, half-open, filling included. Where Triton computes, int64 on
            the device: nobody waits for it, and nothing is filled.
    """

    token_P: Tensor
    place_Tk: Tensor
    starts: tuple[int, ...] | Tensor


def naive_grouped_linear(x_TK: Tensor, w_ENK: Tensor, chosen_Tk: Tensor) -> Tensor:
    """Per token and slot, x · wᵀ of the chosen expert: float64 [T, k, N]."""
    return torch.einsum("tk,tsnk->tsn", x_TK.double(), w_ENK.double()[chosen_Tk])


def naive_combine(y_TkN: Tensor, weights_Tk: Tensor) -> Tensor:
    """The weighted sum over slots, in float64."""
    return (y_TkN.double() * weights_Tk.double()[..., None]).sum(1)


def expert_places(chosen_Tk: Tensor, num_experts: int) -> ExpertPlaces:
    """Places for every (token, slot), given each slot's expert as int64 [T, k] below `num_experts`.

    To run shared experts in the same products, append their ids to every token's chosen ones.

    Raises:
        ValueError: an expert beyond the last (on a GPU that is not noticed: it would mean waiting for it).
    """
    if by_triton("expert_places", chosen_Tk):
        from .gpu import experts as triton_form

        return ExpertPlaces(*triton_form.places(chosen_Tk, num_experts))
    slots = chosen_Tk.shape[1]
    expert_R = chosen_Tk.numpy().reshape(-1)
    count_E = np.bincount(expert_R, minlength=num_experts)
    if len(count_E) != num_experts:
        raise ValueError(f"expert_places: a chosen expert is {len(count_E) - 1}, there are {num_experts}")
    step_E = np.where(count_E < FEW_ROWS, 4, np.maximum(8, 1 << (np.frexp(count_E)[1] - 5)))
    start_E = np.concatenate([[0], np.cumsum(-(-count_E // step_E) * step_E)])
    order_R = np.argsort(expert_R, kind="stable")
    first_R = np.repeat(start_E[:-1] - (np.cumsum(count_E) - count_E), count_E)  # from a rank among the sorted to a place
    sorted_place_R = np.arange(len(order_R)) + first_R
    place_R = np.empty(len(order_R), np.int64)
    place_R[order_R] = sorted_place_R
    token_P = np.repeat(order_R[np.minimum(np.cumsum(count_E) - count_E, max(len(order_R) - 1, 0))] // slots, np.diff(start_E))
    token_P[sorted_place_R] = order_R // slots  # the rest repeats its group's first token
    return ExpertPlaces(torch.from_numpy(token_P), torch.from_numpy(place_R).view(chosen_Tk.shape), tuple(start_E.tolist()))


def grouped_linear(x_MK: Tensor, w_ENK: Tensor, places: ExpertPlaces, *, by_token: bool) -> Tensor:
    """Each place's row times its expert's weight: [P, N], in the dtype of both.

    Args:
        x_MK: tokens [T, K], read through the list of places, when `by_token`; else rows in place order [P, K], as this function returns
            them. w_ENK: contiguous.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    by_triton("grouped_linear", x_MK, w_ENK, places.token_P)
    num_rows = places.place_Tk.shape[0] if by_token else places.token_P.shape[0]
    fits = w_ENK.ndim == 3 and x_MK.shape == (num_rows, w_ENK.shape[2]) and len(places.starts) == w_ENK.shape[0] + 1
    if not fits or x_MK.dtype != w_ENK.dtype or not w_ENK.is_contiguous():
        raise ValueError(
            f"grouped_linear takes x [{num_rows}, K] and a contiguous weight [{len(places.starts) - 1}, N, K] of one dtype, not"
            f" {tuple(x_MK.shape)} {x_MK.dtype} and {tuple(w_ENK.shape)} {w_ENK.dtype}"
        )
    if needs_graph(x_MK, w_ENK):
        return _GroupedLinear.apply(x_MK, w_ENK, places, by_token)
    return _grouped_product(x_MK, w_ENK, places, by_token)


def combine(y_PN: Tensor, weights_Tk: Tensor, places: ExpertPlaces) -> Tensor:
    """Each token's results times their weights, added from the first slot to the last in fp32, rounded once: [T, N] in the dtype of y.

    Args:
        weights_Tk: fp32.
    """
    by_triton("combine", y_PN, weights_Tk, places.place_Tk)
    if weights_Tk.shape != places.place_Tk.shape or weights_Tk.dtype != torch.float32:
        raise ValueError(f"combine takes fp32 weights {tuple(places.place_Tk.shape)}, not {weights_Tk.dtype} {tuple(weights_Tk.shape)}")
    if needs_graph(y_PN, weights_Tk):
        return _Combine.apply(y_PN, weights_Tk, places)
    return _combined(y_PN, weights_Tk, places)


def _groups(starts: tuple[int, ...]) -> list[tuple[int, slice]]:
    """The experts that got rows, with their places."""
    return [(expert, slice(start, stop)) for expert, (start, stop) in enumerate(pairwise(starts)) if stop > start]


def _grouped_product(x_MK: Tensor, w_ENK: Tensor, places: ExpertPlaces, by_token: bool) -> Tensor:
    if isinstance(places.starts, Tensor):
        from .gpu import experts as triton_form

        return triton_form.grouped_product(x_MK, w_ENK, places.token_P, places.starts, by_token)
    x_PK = x_MK[places.token_P] if by_token else x_MK.contiguous()
    y_PN = x_PK.new_empty(places.starts[-1], w_ENK.shape[1])
    for expert, group in _groups(places.starts):
        product(x_PK[group], w_ENK[expert], out=y_PN[group])
    return y_PN


class _GroupedLinear(Function):
    @staticmethod
    def forward(ctx, x_MK: Tensor, w_ENK: Tensor, places: ExpertPlaces, by_token: bool) -> Tensor:
        ctx.save_for_backward(x_MK, w_ENK)  # not the gathered rows: k times as many
        ctx.places, ctx.by_token = places, by_token
        return _grouped_product(x_MK, w_ENK, places, by_token)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_PN: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_MK, w_ENK = ctx.saved_tensors
        places, dx_MK, dw_ENK = ctx.places, None, None
        if isinstance(places.starts, Tensor):
            from .gpu import experts as triton_form

            if ctx.needs_input_grad[0]:
                dx_MK = triton_form.grouped_product_dx(dy_PN, w_ENK, places.place_Tk, places.starts, ctx.by_token)
            if ctx.needs_input_grad[1]:
                dw_ENK = triton_form.grouped_product_dw(dy_PN, x_MK, places.token_P, places.starts, ctx.by_token)
            return dx_MK, dw_ENK, None, None
        groups = _groups(places.starts)
        if ctx.needs_input_grad[0]:
            dx_MK = x_MK.new_empty(places.starts[-1], x_MK.shape[1])
            for expert, group in groups:
                torch.mm(dy_PN[group], w_ENK[expert], out=dx_MK[group])
            if ctx.by_token:
                dx_MK = _added_by_slot(dx_MK, places.place_Tk).to(x_MK.dtype)
        if ctx.needs_input_grad[1]:
            x_PK = x_MK[places.token_P] if ctx.by_token else x_MK
            dw_ENK = torch.zeros_like(w_ENK)
            for expert, group in groups:
                torch.mm(dy_PN[group].T, x_PK[group], out=dw_ENK[expert])
        return dx_MK, dw_ENK, None, None


class _Combine(Function):
    @staticmethod
    def forward(ctx, y_PN: Tensor, weights_Tk: Tensor, places: ExpertPlaces) -> Tensor:
        ctx.save_for_backward(y_PN, weights_Tk)
        ctx.places = places
        return _combined(y_PN, weights_Tk, places)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_TN: Tensor) -> tuple[Tensor, Tensor, None]:
        y_PN, weights_Tk = ctx.saved_tensors
        if isinstance(ctx.places.starts, Tensor):
            from .gpu import experts as triton_form

            return *triton_form.combine_backward(d_TN, y_PN, weights_Tk, ctx.places.place_Tk), None
        place_Tk = ctx.places.place_Tk
        d_PN = d_TN.float()[ctx.places.token_P]
        dw_Tk = (d_PN * y_PN).sum(-1)[place_Tk]
        weights_P = torch.zeros(len(d_PN))  # the filling has no gradient
        weights_P[place_Tk.flatten()] = weights_Tk.flatten()
        return d_PN.mul_(weights_P[:, None]).to(y_PN.dtype), dw_Tk, None


def _combined(y_PN: Tensor, weights_Tk: Tensor, places: ExpertPlaces) -> Tensor:
    if isinstance(places.starts, Tensor):
        from .gpu import experts as triton_form

        return triton_form.combine(y_PN, weights_Tk, places.place_Tk)
    return _added_by_slot(y_PN, places.place_Tk, weights_Tk).to(y_PN.dtype)


def _added_by_slot(y_PN: Tensor, place_Tk: Tensor, weights_Tk: Tensor | None = None) -> Tensor:
    """fp32 [T, N]: from the first slot to the last, multiply then add; elementwise, so nothing else can be chosen by a library."""
    total_TN = torch.zeros(place_Tk.shape[0], y_PN.shape[1])
    for slot in range(place_Tk.shape[1]):
        term_TN = y_PN[place_Tk[:, slot]].float()
        total_TN += term_TN if weights_Tk is None else term_TN.mul_(weights_Tk[:, slot, None])
    return total_TN
