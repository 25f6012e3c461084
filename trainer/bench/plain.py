"""The same equations in plain torch, without any order of addition kept: what the law's price is measured against, and a negative control.

    with plain():
        model(inputs)          # the same module, weights and dtype; F.linear, SDPA with the bias as mask, conv1d, index_add combine

Whole documents only: there is no state here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import kernels
from ...kernels import ExpertPlaces, PageTable, Ragged


@contextmanager
def plain() -> Iterator[None]:
    """Inside, the model's operations are torch's own."""
    forms: dict[str, Any] = {
        "linear": F.linear,
        "rms_norm": lambda x, weight, eps: F.rms_norm(x, weight.shape, weight, eps),
        "swiglu": lambda gate, up: F.silu(gate) * up,
        "silu": F.silu,
        "gelu": F.gelu,
        "sigmoid": torch.sigmoid,
        "bag": _bag,
        "short_conv": _short_conv,
        "route": _route,
        "expert_places": _expert_places,
        "grouped_linear": _grouped_linear,
        "combine": _combine,
        "lay_out": lambda rows, table: rows,
        "attention": _attention,
    }
    with patch.multiple(kernels, **forms):
        yield


def _bag(codes_RN: Tensor, table_VD: Tensor) -> Tensor:
    columns = codes_RN.shape[1]
    return F.embedding_bag(codes_RN.long() + torch.arange(columns) * (table_VD.shape[0] // columns), table_VD, mode="sum")


def _short_conv(x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor | None = None) -> tuple[Tensor, Tensor]:
    past = w_CK.shape[1] - 1
    pieces = []
    for piece_TC in x_TC.split(list(rows.lengths)):
        x_1CT = F.pad(piece_TC.float().T[None], (past, 0))
        pieces.append(F.conv1d(x_1CT, w_CK[:, None], groups=len(w_CK))[0].T + piece_TC)
    return torch.cat(pieces).to(x_TC.dtype), x_TC.new_zeros(rows.num_segments, past, len(w_CK))


def _route(logits_TE: Tensor, bias_E: Tensor, top_k: int, route_scale: float, global_scale: Tensor) -> tuple[Tensor, Tensor]:
    routed_TE, shared_TS = logits_TE[:, : len(bias_E)], logits_TE[:, len(bias_E) :]
    chosen_Tk = torch.topk(torch.sigmoid(routed_TE.detach()) + bias_E, top_k, sorted=False).indices
    picked = torch.cat([routed_TE.gather(-1, chosen_Tk), shared_TS], -1)
    return chosen_Tk, torch.softmax(F.logsigmoid(picked), -1) * route_scale * global_scale


def _expert_places(chosen_Tk: Tensor, num_experts: int) -> ExpertPlaces:
    """Sorted by expert, without filling: place p holds pair `order[p]`."""
    order = torch.argsort(chosen_Tk.flatten())
    starts = (0, *torch.bincount(chosen_Tk.flatten(), minlength=num_experts).cumsum(0).tolist())
    return ExpertPlaces(order // chosen_Tk.shape[1], order, starts)


def _grouped_linear(x_MK: Tensor, w_ENK: Tensor, places: ExpertPlaces, *, by_token: bool) -> Tensor:
    x_PK = x_MK[places.token_P] if by_token else x_MK
    lengths = [stop - start for start, stop in zip(places.starts, places.starts[1:], strict=False)]
    return torch.cat([F.linear(rows, w_ENK[expert]) for expert, rows in enumerate(x_PK.split(lengths))])


def _combine(y_PN: Tensor, weights_Tk: Tensor, places: ExpertPlaces) -> Tensor:
    weighted = y_PN * weights_Tk.flatten()[places.place_Tk, None].to(y_PN.dtype)
    return y_PN.new_zeros(len(weights_Tk), y_PN.shape[1]).index_add(0, places.token_P, weighted)


def _attention(
    q_THD: Tensor, k_TGD: Tensor, v_TGD: Tensor, relative_THR: Tensor, profiles_RE: Tensor, table: PageTable, *, scale: float,
    window: int | None,
) -> Tensor:  # fmt: skip
    lengths, extent, pieces = list(table.rows.lengths), profiles_RE.shape[1], []
    for q, k, v, r in zip(*(x.split(lengths) for x in (q_THD, k_TGD, v_TGD, relative_THR)), strict=True):
        distance = torch.arange(len(q))[:, None] - torch.arange(len(q))
        bias_HTT = (r @ profiles_RE).transpose(0, 1).gather(-1, distance.clamp(0, extent - 1).expand(q.shape[1], -1, -1))
        hidden = (distance < 0) | (distance >= (window or len(q)))
        bias_HTT = bias_HTT.masked_fill(distance >= extent, 0.0).masked_fill(hidden, float("-inf"))
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HTT[None], scale=scale, enable_gqa=True)
        pieces.append(y[0].transpose(0, 1))
    return torch.cat(pieces)
