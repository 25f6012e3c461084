"""The same equations in plain torch, without any order of addition kept: what the law's price is measured against, and a negative control.

    with plain():
        model(inputs)        # the same module, weights and dtype; F.linear, SDPA with the bias as mask, conv1d, index_add
        Cached(model, rows=2048).append(inputs)      # a document that grows: one long cache of keys and values per layer

A batch of whole documents, or one growing document; a windowed layer's cache keeps everything and reads its window.

Letters: T new rows, N all rows, U of them that may be read, H heads, G key/value heads, D columns of a head, R and E of the bias.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import kernels
from ...kernels import PAGE_ROWS, ExpertPlaces, PageTable, Ragged, page_table, ragged
from ..model import Inputs, InteractionModel, State
from ..model.state import ConvState, LayerState
from ..session.serving import served


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
        "lay_out": lambda rows_TGD, table: rows_TGD.transpose(0, 1),
        "write": _write,
        "attention": _attention,
        "log_softmax": lambda logits: F.log_softmax(logits.float(), -1),
        "cross_entropy": lambda logits, targets: F.cross_entropy(logits.float(), targets, reduction="none"),
    }
    with patch.multiple(kernels, **forms):
        yield


class Cached:
    """One document that grows by appends, inside `plain()`.

    Attributes:
        rows: so far.
    """

    def __init__(self, model: InteractionModel, rows: int) -> None:
        self.model, self.rows = served(model), 0
        spec = model.spec
        shapes = [(spec.num_heads(layer)[1], rows, spec.head_dim) for layer in range(spec.layers)]
        self.caches = [(torch.zeros(shape, dtype=model.dtype), torch.zeros(shape, dtype=model.dtype)) for shape in shapes]
        self.convs: tuple[ConvState, ...] | None = None

    @torch.no_grad()
    def append(self, inputs: Inputs, *, keep: bool = True) -> Tensor:
        """The new rows [T, D]; unless `keep`, the document is afterwards as if nobody had asked."""
        rows = ragged([inputs.rows.num_rows], [self.rows])
        table = page_table(rows, [range(-(-(self.rows + rows.num_rows) // PAGE_ROWS))])  # its pages are not looked at
        convs = self.convs or (None,) * len(self.caches)
        layers = tuple(LayerState(table, keys, values, conv) for (keys, values), conv in zip(self.caches, convs, strict=True))
        output = self.model(replace(inputs, rows=rows), State(layers))
        if keep:
            self.rows, self.convs = self.rows + rows.num_rows, output.convs
        return output.hidden_TD


def _bag(codes_RN: Tensor, table_VD: Tensor) -> Tensor:
    columns = codes_RN.shape[1]
    return F.embedding_bag(codes_RN.long() + torch.arange(columns) * (table_VD.shape[0] // columns), table_VD, mode="sum")


def _short_conv(x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor | None = None) -> tuple[Tensor, Tensor]:
    past, pieces, states = w_CK.shape[1] - 1, [], []
    for segment, piece_TC in enumerate(x_TC.split(list(rows.lengths))):
        piece32_TC = piece_TC.float()
        seen_UC = F.pad(piece32_TC, (0, 0, past, 0)) if state_SHC is None else torch.cat([state_SHC[segment], piece32_TC])
        pieces.append(F.conv1d(seen_UC.T[None], w_CK[:, None], groups=len(w_CK))[0].T + piece32_TC)
        states.append(seen_UC[-past:])
    return torch.cat(pieces).to(x_TC.dtype), torch.stack(states)


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
    return torch.cat([F.linear(rows, w_ENK[expert]) for expert, rows in enumerate(x_PK.split(lengths)) if len(rows)])


def _combine(y_PN: Tensor, weights_Tk: Tensor, places: ExpertPlaces) -> Tensor:
    weighted = y_PN * weights_Tk.flatten()[places.place_Tk, None].to(y_PN.dtype)
    return y_PN.new_zeros(len(weights_Tk), y_PN.shape[1]).index_add(0, places.token_P, weighted)


def _write(rows_TGD: Tensor, cache_GND: Tensor, table: PageTable) -> None:
    (start,), (length,) = table.rows.positions, table.rows.lengths
    cache_GND[:, start : start + length] = rows_TGD.transpose(0, 1)


def _attention(
    q_THD: Tensor, keys_GND: Tensor, values_GND: Tensor, relative_THR: Tensor, profiles_RE: Tensor, table: PageTable, *, scale: float,
    window: int | None,
) -> Tensor:  # fmt: skip
    """Keys and values are those of all new rows of whole documents (`lay_out`), or of everything so far of one that grows."""
    lengths, positions, pieces = list(table.rows.lengths), table.rows.positions, []
    for s, (q, r) in enumerate(zip(q_THD.split(lengths), relative_THR.split(lengths), strict=True)):
        start, stop = positions[s], positions[s] + lengths[s]
        first, place = 0 if window is None else max(0, start - window + 1), table.rows.row_starts[s]
        distance_TU = torch.arange(start, stop)[:, None] - torch.arange(first, stop)
        k_GUD, v_GUD = (x[:, place + first : place + stop] for x in (keys_GND, values_GND))
        pieces.append(_read(q.transpose(0, 1), k_GUD, v_GUD, r, profiles_RE, distance_TU, scale, window))
    return torch.cat(pieces)


def _read(
    q_HTD: Tensor, k_GUD: Tensor, v_GUD: Tensor, relative_THR: Tensor, profiles_RE: Tensor, distance_TU: Tensor, scale: float,
    window: int | None,
) -> Tensor:  # fmt: skip
    extent = profiles_RE.shape[1]
    hidden_TU = distance_TU < 0 if window is None else (distance_TU < 0) | (distance_TU >= window)
    nearest_HTU = distance_TU.clamp(0, extent - 1).expand(len(q_HTD), -1, -1)
    bias_HTU = (relative_THR @ profiles_RE).transpose(0, 1).gather(-1, nearest_HTU)
    bias_HTU = bias_HTU.masked_fill(distance_TU >= extent, 0.0).masked_fill(hidden_TU, float("-inf"))
    y = F.scaled_dot_product_attention(q_HTD[None], k_GUD[None], v_GUD[None], attn_mask=bias_HTU[None], scale=scale, enable_gqa=True)
    return y[0].transpose(0, 1)
