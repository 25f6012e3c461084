"""Which parameters are gathered together, and in which dtype: FSDP2 over all ranks, experts over their own part of the mesh.

    group (one all-gather, one reduce-scatter)         gathered in
    embedding · each block · unembedding · root        the model's dtype
    each router · each short convolution · flow head   fp32: what must stay fp32 has a group of its own

Masters, gradients and moments are fp32 shards. Casting a shard and gathering it gives the bits of casting the whole: forward bits are those
of one process. Gradients are *added* over ranks, never averaged: losses are divided by weights of all ranks already. Left to itself FSDP2
divides by the number of ranks.

Everything is sharded again after every forward, so that between steps parameters are what the optimizer holds.

Ranks meet different rows, so one may have no picture where another has: what it has not used gets a gradient of zero, or the two would
exchange tensors of different lengths.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ..model import FlowHead, InteractionModel
from ..model.experts import Mixture, Router
from ..model.initial import first_value
from ..model.layers import ShortConv
from .expert_parallel import TravellingExperts
from .start import World, lay_out

FP32 = MixedPrecisionPolicy(param_dtype=None, reduce_dtype=torch.float32, cast_forward_inputs=False)
OWN_GROUPS = (Router, ShortConv, FlowHead)
ALL = "all"


def prepare(model: InteractionModel, world: World, *, expert_ranks: int = 1) -> InteractionModel:
    """The model, ready to train in this world: sharded if there is anybody to share with; a model on `meta` has memory, its values any.

    Values that a model has are kept; every rank must have the same.

    Raises:
        InputError: `expert_ranks` that does not divide the ranks, or the experts.
    """
    was_meta = any(parameter.is_meta for parameter in model.parameters())
    if world.size > 1:
        shard(model, lay_out(world, expert_ranks))
    return model.to_empty(device=world.device) if was_meta else model.to(world.device)


def shard(model: InteractionModel, mesh: DeviceMesh) -> InteractionModel:
    """The model, its parameters DTensors.

    Args:
        mesh: ("fsdp", "ep"), of all ranks. Experts are cut over `ep`, then over `fsdp`; everything else over both as one.
    """
    everyone = mesh["fsdp", "ep"]._flatten(ALL)
    policy = MixedPrecisionPolicy(param_dtype=model.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if mesh["ep"].size() > 1:
        for module in list(model.modules()):
            if isinstance(module, Mixture):
                travelling = TravellingExperts(module.routed, mesh["ep"])
                module.routed = fully_shard(travelling, mesh=mesh["fsdp"], mp_policy=policy)  # type: ignore[assignment]
    for module in list(model.modules()):
        if isinstance(module, OWN_GROUPS):
            fully_shard(module, mesh=everyone, mp_policy=FP32)
    for module in (model.embedding, *model.blocks, model.unembedding):
        fully_shard(module, mesh=everyone, mp_policy=policy)
    fully_shard(model, mesh=everyone, mp_policy=policy, reshard_after_forward=True)  # else an evaluation leaves it gathered
    for method in ("condition", "velocity_given"):  # the loss calls them, not `forward`
        register_fsdp_forward_method(model.flow, method)
    add_gradients(model)
    # no op of ours writes into the result of another, so a result that is a view is as good as any
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    return model


def add_gradients(model: nn.Module, divide_by: float = 1.0) -> None:
    """Nothing; gradients are from now on added over ranks, then divided by `divide_by`."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(divide_by)
            module.set_reduce_scatter_unused_params(True, recurse=False)


@torch.no_grad()
def initialise(model: InteractionModel, seed: int) -> InteractionModel:
    """The model with its first weights: on any number of ranks those of one process, parameter by parameter.

    Each rank draws the whole of one parameter at a time, then keeps its part.
    """
    for name, parameter in model.named_parameters():
        value = first_value(name, parameter.shape, seed, model.spec.layers)
        local(parameter).copy_(part_of(value, parameter))
    for router in model.routers():
        router.bias.zero_()
    return model


def part_of(value: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of a whole value of the parameter."""
    if not isinstance(parameter, DTensor):
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()


def local(tensor: Tensor) -> Tensor:
    """The part of it that is here."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
