"""Attention of one layer: one product for queries, keys, values and relative states; short convolutions on keys and values; normed heads;
a learned bias by distance; one product out.

    q, k, v, r = split(x · inᵀ);  k, v = conv(k), conv(v);  q, k = norm(q), norm(k)
    score = q·k / head_dim + r · profiles[distance];  y = softmax(score) v · outᵀ

Source of the equations: transformers.models.inkling `InklingAttention`.

Letters: T rows, D columns of the stream, H query heads, G key/value heads, K columns of a head, R columns of a relative state, E extent.
"""

import torch
from torch import Tensor, nn

from ... import kernels
from ...kernels import Ragged
from .layers import Linear, RmsNorm, ShortConv
from .spec import ModelSpec
from .state import LayerState


class Attention(nn.Module):
    """See the module. `profiles` is [R, E]."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = spec.num_heads(layer)
        self.head_dim, self.bias_columns = spec.head_dim, spec.bias_columns
        self.window = None if spec.is_global(layer) else spec.window
        self.log_floor, self.log_slope = (spec.log_floor, spec.log_slope) if spec.is_global(layer) else (0, 0.0)
        kv_columns = self.kv_heads * self.head_dim
        self.widths = (self.heads * self.head_dim, kv_columns, kv_columns, self.heads * self.bias_columns)
        self.inward = Linear(spec.hidden, sum(self.widths))
        self.key_conv, self.value_conv = ShortConv(kv_columns, spec.conv_taps), ShortConv(kv_columns, spec.conv_taps)
        self.query_norm, self.key_norm = RmsNorm(self.head_dim, spec.norm_eps), RmsNorm(self.head_dim, spec.norm_eps)
        self.profiles = nn.Parameter(torch.empty(self.bias_columns, spec.extent(layer)))
        self.outward = Linear(self.widths[0], spec.hidden)

    def forward(self, x_TD: Tensor, rows: Ragged, state: LayerState | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The rows' [T, D], and the next states of the convolutions of keys and values."""
        past = (None, None) if state is None or state.convs is None else (state.convs.keys, state.convs.values)
        q, k, v, r = self.inward(x_TD).split(self.widths, dim=-1)
        k, next_keys = self.key_conv(k, rows, past[0])
        v, next_values = self.value_conv(v, rows, past[1])
        q_THK = self.query_norm(q.reshape(-1, self.heads, self.head_dim))
        k_TGK = self.key_norm(k.view(-1, self.kv_heads, self.head_dim))
        v_TGK = v.view(-1, self.kv_heads, self.head_dim)
        r_THR = r.reshape(-1, self.heads, self.bias_columns)
        if self.log_floor and max(map(sum, zip(rows.positions, rows.lengths, strict=True))) > self.log_floor:
            q_THK, r_THR = (self._grown(x, rows) for x in (q_THK, r_THR))
        if state is None:
            table = kernels.fresh_table(rows)
            keys, values = kernels.lay_out(k_TGK, table), kernels.lay_out(v_TGK, table)
        else:
            table, keys, values = state.table, state.keys, state.values
            kernels.write(k_TGK, keys, table)
            kernels.write(v_TGK, values, table)
        profiles = self.profiles.to(x_TD.dtype)
        y_THK = kernels.attention(q_THK, keys, values, r_THR, profiles, table, scale=1 / self.head_dim, window=self.window)
        return self.outward(y_THK.flatten(1)), (next_keys, next_values)

    def _grown(self, x_THC: Tensor, rows: Ragged) -> Tensor:
        """Queries or relative states of far positions, made larger by the logarithm of how far they are."""
        far_T = ((kernels.positions_of(rows, x_THC.device) + 1).float() / self.log_floor).clamp(min=1.0)
        return (x_THC.float() * (1.0 + self.log_slope * torch.log(far_T))[:, None, None]).to(x_THC.dtype)
