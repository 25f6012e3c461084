"""The model that serves: the trainer's, its weights rounded once instead of at every append.

A trainer keeps fp32 masters and rounds each weight where it is used (layers.py). In half precision a sampler would do that anew for every
few rows: micro takes 58 ms of CPU for an append of one row that way, 27 without, and 72 or 52 for 20 rows. Rounding is the same whenever
it is done, so no bit depends on it, and weights take half the memory.
"""

import torch

from ..model import FlowHead, InteractionModel
from ..model.experts import Router
from ..model.layers import ShortConv

STAY_FP32 = (Router, ShortConv, FlowHead)  # in a model of any dtype


def served(model: InteractionModel) -> InteractionModel:
    """The model itself, in eval mode, where nothing is to be rounded; else one with rounded weights that shares what stays fp32.

    The latter does not follow when the former is trained on.
    """
    if model.embedding.table.dtype == model.dtype:
        return model.eval()
    kept = {id(tensor) for module in model.modules() if isinstance(module, STAY_FP32) for tensor in module.parameters()}
    with torch.device("meta"):
        serving = InteractionModel(model.spec, dtype=model.dtype)
    weights = {
        name: tensor.detach() if id(tensor) in kept else tensor.detach().to(model.dtype) for name, tensor in model.named_parameters()
    }
    serving.load_state_dict(weights | dict(model.named_buffers()), assign=True)
    return serving.eval().requires_grad_(False)
