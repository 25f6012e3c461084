"""The first weights of a model, by seed and name: another layer changes no other parameter, but for the factor √(2 · layers) below.

Products: normal with deviation 1/√inputs, those back into the stream smaller by √(2 · layers); tables, taps and profiles 0.02; norms
and scales 1. The flow head's gates and last product are 0.
"""

import hashlib
import math

import torch
from torch import Tensor

from .model import InteractionModel

SMALL = 0.02
ZEROS = ("flow.velocity.weight", "flow.bypass.weight")


@torch.no_grad()
def initialise(model: InteractionModel, seed: int) -> InteractionModel:
    """The model, its parameters filled and its routers' biases zero."""
    for name, parameter in model.named_parameters():
        parameter.copy_(first_value(name, parameter.shape, seed, model.spec.layers))
    for router in model.routers():
        router.bias.zero_()
    return model


def first_value(name: str, shape: torch.Size, seed: int, layers: int) -> Tensor:
    """The first value, fp32, of the parameter with this name and shape in a model of so many layers."""
    leaf = name.rsplit(".", 2)
    if leaf[-1] == "scale" or "norm" in leaf[-2] or "norms" in name:
        return torch.ones(shape)
    if name in ZEROS:
        return torch.zeros(shape)
    digest = hashlib.sha256(f"microturn-initial-v1\0{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if name.startswith("flow.") and name.endswith("modulation.weight"):
        parts = torch.randn(shape, generator=generator) * (SMALL / math.sqrt(shape[-1]))
        parts[2 * shape[1] :] = 0  # the gates; a last modulation has none
        return parts
    if leaf[-1] in ("table", "profiles") or "conv" in leaf[-2] or name == "unembedding.weight":
        deviation = SMALL
    else:
        deviation = 1 / math.sqrt(shape[-1])
        if any(part in name for part in ("attention.outward", "mlp.down", "routed.down", "shared.down")):
            deviation /= math.sqrt(2 * layers)
    return torch.randn(shape, generator=generator) * deviation
