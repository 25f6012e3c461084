"""Joining the processes that torchrun started: gloo between CPUs, NCCL between GPUs. Without torchrun there is one, and nothing is joined.

torchrun --nproc-per-node 2 -m microturn train RUN …
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ...schemas.errors import InputError

TIMEOUT = timedelta(minutes=10)  # the first product of a shape is tried out, and ranks do not wait for that at the same moments
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


@dataclass(frozen=True, slots=True)
class World:
    """The processes of a run.

    Attributes:
        rank, size: which this is of how many.
        device: what this one computes on.
    """

    rank: int
    size: int
    device: torch.device


def start(device: str = "cpu") -> World:
    """This process in its world, after all have met.

    Args:
        device: `cpu` or `cuda`, of all processes; of a machine's GPUs, each process takes the one of its local rank.

    Raises:
        InputError: another device, or an environment that is torchrun's only in part.
    """
    if device not in BACKENDS:
        raise InputError(f"no training on {device!r}", hint=f"there are: {', '.join(BACKENDS)}")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in os.environ]
    here = torch.device(device, int(os.environ.get("LOCAL_RANK", 0))) if device == "cuda" else torch.device(device)
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return World(0, 1, here)
    if missing:
        raise InputError(f"RANK is set but {', '.join(missing)} is not", hint="start with torchrun, or unset RANK")
    if here.type == "cuda":
        torch.cuda.set_device(here)
    if not distributed.is_initialized():
        distributed.init_process_group(BACKENDS[device], timeout=TIMEOUT)
    return World(distributed.get_rank(), distributed.get_world_size(), here)


def finish() -> None:
    """Nothing; leaves the others. Every rank calls it, after its last exchange."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def lay_out(world: World, expert_ranks: int = 1) -> DeviceMesh:
    """The ranks as a mesh ("fsdp", "ep"): neighbours in `ep` share the experts of a layer.

    The mesh is explicit: without one, FSDP2 takes a GPU that it sees, whatever backend was joined.

    Raises:
        InputError: a world that `expert_ranks` does not divide.
    """
    if expert_ranks < 1 or world.size % expert_ranks:
        raise InputError(f"{expert_ranks} ranks to an expert group, of {world.size} in all", hint="choose a divisor")
    return init_device_mesh(world.device.type, (world.size // expert_ranks, expert_ranks), mesh_dim_names=("fsdp", "ep"))
