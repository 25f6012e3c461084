"""What every op asks before it computes. The one place that knows which devices and dtypes the ops have a law-keeping form for."""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)


def cpu_only(op: str, *tensors: Tensor) -> None:
    """Nothing; refuses what the law does not cover, so that nobody gets other bits without knowing.

    Raises:
        ValueError: a tensor that is not on the CPU; floats other than fp32 and bf16; a call under `torch.autocast`, which would round
            operands behind the op's back.
    """
    for tensor in tensors:
        if not tensor.is_cpu:
            raise ValueError(f"{op} keeps its order of addition on the CPU only; got a tensor on {tensor.device}")
        if tensor.dtype not in FLOATS and tensor.is_floating_point():
            raise ValueError(f"{op} computes in float32 and bfloat16; got {tensor.dtype}")
    if torch.is_autocast_enabled("cpu"):
        raise ValueError(f"{op} was called under torch.autocast, which changes dtypes inside it; cast parameters and inputs yourself")


def needs_graph(*tensors: Tensor) -> bool:
    """Whether anybody may ask for a gradient: without that, ops skip autograd's bookkeeping, 6 µs a call (a third of a small product)."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
