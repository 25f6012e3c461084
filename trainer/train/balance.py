"""Even loads without a loss: after each step an expert chosen less than the mean gets a larger bias, one chosen more a smaller.

    bias_e += rate · sign(mean count - count_e), then less their mean

The bias moves the choice alone, never a weight. Source: arXiv 2408.15664 (auxiliary-loss-free balancing); centred as in torchtitan.
"""

import torch
from torch import Tensor

from ..model import InteractionModel


@torch.no_grad()
def move_biases(model: InteractionModel, counts_LE: Tensor, rate: float) -> None:
    """Nothing; moves every router's bias once, by the counts of one whole optimizer step (all batches and ranks)."""
    for router, counts_E in zip(model.routers(), counts_LE.double(), strict=True):
        step_E = torch.sign(counts_E.mean() - counts_E) * rate
        router.bias += (step_E - step_E.mean()).to(router.bias)


def crowding(counts_LE: Tensor) -> float:
    """The largest load of an expert over the mean load, of the layer where that is worst; 1 is even."""
    counts = counts_LE.double()
    mean = counts.mean(-1)
    return float((counts.amax(-1) / mean.clamp(min=1e-9)).max()) if len(counts) and bool((mean > 0).all()) else 1.0
