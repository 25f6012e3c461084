"""The model: rows in, hidden rows out; text by the unembedding, own speech by the flow head. One `forward` for trainer and sampler.

Letters: T rows, D columns, V vocabulary, L layers with experts, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .block import Block
from .embedding import Embedding
from .experts import Mixture, Router
from .flow import FlowHead
from .inputs import Inputs
from .layers import Linear, RmsNorm
from .spec import ModelSpec
from .state import ConvState, State


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What one forward gives.

    Attributes:
        hidden_TD: rows after the last norm, in the model's dtype.
        counts_LE: int64, how often counted rows chose each expert; layers with experts only.
        load: fp32 scalar, the sum over these layers and counted rows of `experts.uneven`, divided by L.
        convs: the convolutions' next states, one per layer.
    """

    hidden_TD: Tensor
    counts_LE: Tensor
    load: Tensor
    convs: tuple[ConvState, ...]


class InteractionModel(nn.Module):
    """See the module. Parameters are fp32 and empty until `initialise` or a checkpoint fills them.

    Attributes:
        dtype: of the rows: float32 or bfloat16. Routers, convolutions and the flow head compute in fp32 in both.
        recompute: whether backward computes a block's forward again instead of keeping what it needs.
    """

    def __init__(self, spec: ModelSpec, *, dtype: torch.dtype = torch.float32, recompute: bool = False) -> None:
        super().__init__()
        self.spec, self.dtype, self.recompute = spec, dtype, recompute
        self.embedding = Embedding(spec)
        self.blocks = nn.ModuleList(Block(spec, layer) for layer in range(spec.layers))
        self.norm = RmsNorm(spec.hidden, spec.norm_eps)
        self.unembedding = Linear(spec.hidden, spec.vocabulary)
        self.flow = FlowHead(spec)

    def forward(self, inputs: Inputs, state: State | None = None) -> Output:
        """Hidden rows of these inputs: of whole documents, or with `state` of documents' next pieces, whose keys are written to it."""
        x_TD = self.embedding(inputs, self.dtype)
        counts, loads, convs = [], [], []
        for number, block in enumerate(self.blocks):
            arguments = (x_TD, inputs.rows, inputs.counted, None if state is None else state.layers[number])
            if self.recompute and torch.is_grad_enabled():
                x_TD, count, load, conv = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x_TD, count, load, conv = block(*arguments)
            convs.append(conv)
            if len(count):
                counts.append(count)
                loads.append(load)
        counts_LE = torch.stack(counts) if counts else x_TD.new_zeros(0, self.spec.experts, dtype=torch.int64)
        load = torch.stack(loads).sum() / len(loads) if loads else x_TD.new_zeros((), dtype=torch.float32)
        return Output(self.norm(x_TD), counts_LE, load, tuple(convs))

    def text_logits(self, hidden_TD: Tensor) -> Tensor:
        """Logits [T, V] of hidden rows, in their dtype."""
        return self.unembedding(hidden_TD / self.spec.logit_divisor)

    def routers(self) -> list[Router]:
        """The routers, in order of layers; row l of `counts_LE` is about the l-th."""
        return [block.mlp.router for block in self.blocks if isinstance(block.mlp, Mixture)]
