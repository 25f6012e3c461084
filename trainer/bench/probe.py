"""The transformer that a user would write in an afternoon, as the peer that a training step is measured beside: plain torch, no law.

Dense, pre-norm, SDPA with a materialised bias per head, GELU MLP of four times the width; heard frames by a bag, one decision a tick. Sizes
and task are those of a probe of how much turn-taking a tiny model learns: 4 layers, 128 wide, 4 heads, 6 rows a tick.

Letters: B documents, K ticks, T rows, D columns, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...schemas.spec import NUM_BANDS, DmelSpec

TICK_ROWS = 6


class DenseLayer(nn.Module):
    """Attention and MLP, each added to the stream."""

    def __init__(self, columns: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.RMSNorm(columns), nn.RMSNorm(columns)])
        self.inward, self.outward = nn.Linear(columns, 3 * columns, bias=False), nn.Linear(columns, columns, bias=False)
        self.up, self.down = nn.Linear(columns, 4 * columns), nn.Linear(4 * columns, columns)
        self.slopes_H = nn.Parameter(torch.linspace(0.5, 6.0, heads))

    def forward(self, x_BTD: Tensor, distance_TT: Tensor) -> Tensor:
        rows = x_BTD.shape[1]
        parts = self.inward(self.norms[0](x_BTD)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        bias_HTT = -distance_TT.clamp(min=0) * torch.exp2(-self.slopes_H)[:, None, None]
        bias_HTT = bias_HTT.masked_fill(distance_TT < 0, -1e9).expand(len(x_BTD), -1, -1, -1)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_HTT).transpose(1, 2).reshape(len(x_BTD), rows, -1)
        x_BTD = x_BTD + self.outward(read)
        return x_BTD + self.down(F.gelu(self.up(self.norms[1](x_BTD))))


class Probe(nn.Module):
    """Codes [B, K, 4, 80] and what was done [B, K] in, two logits a tick out."""

    def __init__(self, columns: int = 128, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.bag = nn.Embedding(NUM_BANDS * DmelSpec().num_codes, columns)
        self.ids = nn.Embedding(3, columns)
        self.layers = nn.ModuleList(DenseLayer(columns, heads) for _ in range(layers))
        self.norm, self.decision = nn.RMSNorm(columns), nn.Linear(columns, 2)

    def forward(self, codes: Tensor, done: Tensor) -> Tensor:
        heard = self.bag(codes + torch.arange(NUM_BANDS) * DmelSpec().num_codes).sum(-2)
        asks = self.ids(torch.full_like(done, 2))[:, :, None]
        x_BTD = torch.cat([heard, asks, self.ids(done)[:, :, None]], dim=2).flatten(1, 2)
        place = torch.arange(x_BTD.shape[1])
        distance_TT = (place[:, None] - place).float()
        for layer in self.layers:
            x_BTD = layer(x_BTD, distance_TT)
        return self.decision(self.norm(x_BTD).unflatten(1, (-1, TICK_ROWS))[:, :, 4])

    @property
    def active(self) -> int:
        """Parameters of the layers, which every row is multiplied with."""
        return sum(parameter.numel() for parameter in self.layers.parameters())
