"""What every op asks before it computes: the one check of devices and dtypes, and the one choice between the CPU form and the Triton form.

CPU tensors take the CPU form, CUDA tensors the Triton form (gpu/, imported when the first of them comes). Nothing else chooses: no
environment variable, no size, no fallback.
"""

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16)


def by_triton(op: str, *tensors: Tensor) -> bool:
    """Whether the Triton form computes this call; refuses what the law does not cover, so that nobody gets other bits without knowing.

    Raises:
        ValueError: tensors on two devices, or on one that no form was written for; floats other than fp32 and bf16; a call under
            `torch.autocast`, which would round operands behind the op's back.
    """
    device = tensors[0].device
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(f"{op} takes tensors of one device; got {device} and {tensor.device}")
        if tensor.dtype not in FLOATS and tensor.is_floating_point():
            raise ValueError(f"{op} computes in float32 and bfloat16; got {tensor.dtype}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"{op} keeps its order of addition on the CPU and on CUDA devices; got a tensor on {device}")
    if torch.is_autocast_enabled(device.type):
        raise ValueError(f"{op} was called under torch.autocast, which changes dtypes inside it; cast parameters and inputs yourself")
    return triton_computes(device)


def triton_computes(device: torch.device) -> bool:
    """Whether ops on this device are the Triton forms' business. (Tests that run these in Triton's interpreter, on CPU tensors, put another
    answer in this place; nothing else does.)
    """
    return device.type == "cuda"


def needs_graph(*tensors: Tensor) -> bool:
    """Whether anybody may ask for a gradient: without that, ops skip autograd's bookkeeping, 6 µs a call (a third of a small product)."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
