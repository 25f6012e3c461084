"""The processes of a run: which this is, and sums over all of them. Without torch.distributed there is one, and nothing is sent."""

import torch
from torch import Tensor, distributed


def rank() -> int:
    """This process among the run's."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """How many processes the run has."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """The tensor, added up over all ranks, on each of them. Order of addition is the backend's; sums of counts are exact."""
    if distributed.is_initialized() and world() > 1:
        sent = values.clone() if distributed.get_backend() != "nccl" else values.clone().cuda()  # NCCL adds up on GPUs only
        distributed.all_reduce(sent)
        return sent.to(values.device)
    return values


def anywhere(flag: bool) -> bool:
    """Whether it is true on any rank."""
    return bool(summed(torch.tensor([int(flag)])).item())


def mesh_of(tensor: Tensor) -> object:
    """The ranks that share the tensor, as a DeviceMesh; None if it is whole. Without an import: DTensor takes most of a second."""
    return getattr(tensor, "device_mesh", None)
