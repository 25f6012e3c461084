"""One layer: x += conv(attention(norm(x))); x += conv(mlp(norm(x))). Nothing here is mutated but a sampler's pools of pages."""

import torch
from torch import Tensor, nn

from ...kernels import Ragged
from .attention import Attention
from .experts import DenseMlp, Mixture
from .layers import RmsNorm, ShortConv
from .spec import ModelSpec
from .state import ConvState, LayerState


class Block(nn.Module):
    """See the module. `mlp` is a DenseMlp or a Mixture."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = RmsNorm(spec.hidden, spec.norm_eps), RmsNorm(spec.hidden, spec.norm_eps)
        self.attention = Attention(spec, layer)
        self.mlp = DenseMlp(spec) if spec.is_dense(layer) else Mixture(spec)
        self.attention_conv, self.mlp_conv = ShortConv(spec.hidden, spec.conv_taps), ShortConv(spec.hidden, spec.conv_taps)

    def forward(
        self, x_TD: Tensor, rows: Ragged, counted_T: Tensor | None, state: LayerState | None
    ) -> tuple[Tensor, Tensor, Tensor, ConvState]:
        """The rows' [T, D]; counts int64 [E] and unevenness of the experts (none of a dense layer: [0], 0); the next states."""
        past = (None, None) if state is None or state.convs is None else (state.convs.attention, state.convs.mlp)
        y_TD, (next_keys, next_values) = self.attention(self.attention_norm(x_TD), rows, state)
        y_TD, next_attention = self.attention_conv(y_TD, rows, past[0])
        x_TD = x_TD + y_TD
        if isinstance(self.mlp, Mixture):
            y_TD, counts, load = self.mlp(self.mlp_norm(x_TD), rows, counted_T)
        else:
            y_TD, counts, load = (
                self.mlp(self.mlp_norm(x_TD)),
                x_TD.new_zeros(0, dtype=torch.int64),
                x_TD.new_zeros((), dtype=torch.float32),
            )
        y_TD, next_mlp = self.mlp_conv(y_TD, rows, past[1])
        return x_TD + y_TD, counts, load, ConvState(next_keys, next_values, next_attention, next_mlp)
