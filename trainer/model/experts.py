"""The MLP of a layer: one wide SwiGLU, or a mixture of experts behind a router with shared experts inside its normaliser.

Routed experts are one grouped product over rows read through an index list; the shared ones, which every row takes, are one MLP as wide as
all of them, each share of it scaled by its weight. Nothing is dropped, nothing added out of order. Source of the equations:
transformers.models.inkling `InklingMoE`.

Letters: T rows, D columns, E experts, S shared, k chosen, W width of an expert, P places.
"""

import torch
from torch import Tensor, nn

from ... import kernels
from ...kernels import Ragged
from .layers import Linear
from .spec import ModelSpec


class DenseMlp(nn.Module):
    """down(silu(gate x) · up x) · scale."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up, self.down = Linear(spec.hidden, 2 * spec.dense_width), Linear(spec.dense_width, spec.hidden)
        self.scale = nn.Parameter(torch.empty(1))

    def forward(self, x_TD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_TD).chunk(2, dim=-1)
        return self.down(kernels.swiglu(gate, up)) * self.scale.to(x_TD.dtype)


class Router(nn.Module):
    """Chooses experts and weighs them. All of it is fp32; `bias` [E] moves the choice and is moved by the trainer, not by gradients."""

    bias: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.top_k, self.route_scale = spec.experts_per_row, spec.route_scale
        self.weight = nn.Parameter(torch.empty(spec.experts + spec.shared_experts, spec.hidden))
        self.scale = nn.Parameter(torch.empty(1))
        self.register_buffer("bias", torch.zeros(spec.experts))

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of all experts [T, E + S], the chosen [T, k], and the weights [T, k + S] of these and the shared."""
        logits = kernels.linear(x_TD.float(), self.weight)
        chosen, weights = kernels.route(logits, self.bias, self.top_k, self.route_scale, self.scale)
        return logits, chosen, weights


class RoutedExperts(nn.Module):
    """gate_up [E, 2 W, D], down [E, D, W]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(spec.experts, 2 * spec.expert_width, spec.hidden))
        self.down = nn.Parameter(torch.empty(spec.experts, spec.hidden, spec.expert_width))

    def forward(self, x_TD: Tensor, chosen_Tk: Tensor, weights_Tk: Tensor) -> Tensor:
        places = kernels.expert_places(chosen_Tk, self.gate_up.shape[0])
        gate, up = kernels.grouped_linear(x_TD, self.gate_up.to(x_TD.dtype), places, by_token=True).chunk(2, dim=-1)
        y_PD = kernels.grouped_linear(kernels.swiglu(gate, up), self.down.to(x_TD.dtype), places, by_token=False)
        return kernels.combine(y_PD, weights_Tk, places)


class SharedExperts(nn.Module):
    """gate_up [S · 2 W, D] with the gates of all before the ups of all; down [D, S · W]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.shared = spec.shared_experts
        self.gate_up = Linear(spec.hidden, 2 * self.shared * spec.expert_width)
        self.down = Linear(self.shared * spec.expert_width, spec.hidden)

    def forward(self, x_TD: Tensor, weights_TS: Tensor) -> Tensor:
        gate, up = self.gate_up(x_TD).chunk(2, dim=-1)
        activated = kernels.swiglu(gate, up).unflatten(-1, (self.shared, -1))
        return self.down((activated * weights_TS.to(x_TD.dtype)[..., None]).flatten(1))


class Mixture(nn.Module):
    """Router, routed and shared experts."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.router, self.routed, self.shared = Router(spec), RoutedExperts(spec), SharedExperts(spec)

    def forward(self, x_TD: Tensor, rows: Ragged, counted_T: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The rows' [T, D]; how often counted rows chose each expert, int64 [E]; and their `uneven` sum, fp32."""
        logits, chosen, weights = self.router(x_TD)
        top_k = self.router.top_k
        y_TD = self.routed(x_TD, chosen, weights[:, :top_k].contiguous()) + self.shared(x_TD, weights[:, top_k:])
        counts, load = uneven(logits[:, : self.router.bias.shape[0]], chosen, rows, counted_T)
        return y_TD, counts, load


def uneven(logits_TE: Tensor, chosen_Tk: Tensor, rows: Ragged, counted_T: Tensor | None) -> tuple[Tensor, Tensor]:
    """How often each expert was chosen, int64 [E]; and the sum over counted rows of how unevenly their document loads the experts.

    A document's unevenness is (E / k) Σ_e f_e · P_e: f the share of its counted rows that chose e, P the mean of their normalised scores.
    It is 1 for an even load, and its gradient pushes scores of crowded experts down. Source: DeepSeek-V3, arXiv 2412.19437, eq. 17 to 20.
    """
    experts, documents = logits_TE.shape[1], rows.num_segments
    document_T = torch.repeat_interleave(torch.arange(documents), torch.tensor(rows.lengths)).to(logits_TE.device)
    if counted_T is not None:
        kept = torch.nonzero(counted_T)[:, 0]
        if not len(kept):
            return chosen_Tk.new_zeros(experts), logits_TE.new_zeros(())
        logits_TE, chosen_Tk, document_T = logits_TE[kept], chosen_Tk[kept], document_T[kept]
    flat = (document_T[:, None] * experts + chosen_Tk).flatten()
    counts_DE = torch.bincount(flat, minlength=documents * experts).view(documents, experts)
    scores_TE = kernels.sigmoid(logits_TE)
    shares_TE = scores_TE / scores_TE.sum(-1, keepdim=True)
    sums_DE = logits_TE.new_zeros(documents, experts).index_add(0, document_T, shares_TE)
    rows_D1 = torch.bincount(document_T, minlength=documents)[:, None].clamp(min=1)
    load = (counts_DE / rows_D1 * sums_DE).sum() * (experts / chosen_Tk.shape[1])
    return counts_DE.sum(0), load
