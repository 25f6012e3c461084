"""Experts that live on several ranks: each owns some of a layer's experts, and rows travel to them and back.

    1. sort (row, slot) pairs by expert           4. the owner multiplies what came, expert by expert
    2. tell every owner how many rows come        5. results go home the way they came
    3. send the rows                              6. home adds a row's results slot by slot, as one process does

Forward only moves data, and a row's product does not depend on its company (law 3): so its bits are those of one process. Backward takes
the same ways back, and an owner's gradient is the sum over the rows of all ranks of its group.

Cost: a row travels once for each expert that it chose, there and back, and again in backward.

Letters: T rows here, k chosen of each, R = T · k pairs here, A pairs that arrived, D columns, E experts, L of them here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from ... import kernels
from ...kernels import ExpertPlaces
from ...schemas.errors import InputError
from ..model.experts import RoutedExperts


class TravellingExperts(nn.Module):
    """What RoutedExperts computes, with parameters of the same names and shapes that are sharded on their first axis over `mesh`."""

    def __init__(self, experts: RoutedExperts, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh, self.group = mesh, mesh.get_group()
        self.num_experts = experts.gate_up.shape[0]
        if self.num_experts % mesh.size():
            raise InputError(f"{self.num_experts} experts on {mesh.size()} ranks", hint="choose a divisor of the number of experts")
        self.gate_up, self.down = (_sharded(weight, mesh) for weight in (experts.gate_up, experts.down))

    def forward(self, x_TD: Tensor, chosen_Tk: Tensor, weights_Tk: Tensor) -> Tensor:
        gate_up_L, down_L = _here(self.gate_up), _here(self.down)
        home = sorted_pairs(chosen_Tk, self.num_experts)
        sent_E = torch.bincount(chosen_Tk.flatten(), minlength=self.num_experts)
        came_PL = self._exchanged_counts(sent_E)
        sent, came = sent_E.view(self.mesh.size(), -1).sum(1).tolist(), came_PL.sum(1).tolist()

        x_AD = _Travel.apply(x_TD[home.token_P], sent, came, self.group)
        experts_here = torch.arange(came_PL.shape[1], device=x_TD.device)
        expert_A1 = experts_here.repeat(len(came)).repeat_interleave(came_PL.flatten())[:, None]
        places = kernels.expert_places(expert_A1, len(experts_here)) if len(expert_A1) else _nobody(experts_here)
        gate, up = kernels.grouped_linear(x_AD, gate_up_L.to(x_AD.dtype), places, by_token=True).chunk(2, dim=-1)
        y_PD = kernels.grouped_linear(kernels.swiglu(gate, up), down_L.to(x_AD.dtype), places, by_token=False)
        y_RD = _Travel.apply(y_PD[places.place_Tk[:, 0]], came, sent, self.group)
        return kernels.combine(y_RD, weights_Tk, home)

    def _exchanged_counts(self, sent_E: Tensor) -> Tensor:
        """int64 [ranks, L]: how many rows each rank sends to each of the experts here."""
        came_PL = torch.empty(self.mesh.size(), self.num_experts // self.mesh.size(), dtype=torch.int64, device=sent_E.device)
        distributed.all_to_all_single(came_PL.view(-1), sent_E, group=self.group)
        return came_PL


def sorted_pairs(chosen_Tk: Tensor, num_experts: int) -> ExpertPlaces:
    """The pairs by expert, in one expert by row and slot, nothing filled in; so owners are contiguous too."""
    chosen_R = chosen_Tk.flatten()
    order_R = torch.argsort(chosen_R, stable=True)
    place_R = torch.empty_like(order_R)
    place_R[order_R] = torch.arange(len(order_R), device=order_R.device)
    starts = torch.bincount(chosen_R, minlength=num_experts).cumsum(0).tolist()
    return ExpertPlaces(order_R // chosen_Tk.shape[1], place_R.view(chosen_Tk.shape), (0, *starts))


def _nobody(experts: Tensor) -> ExpertPlaces:
    """The places of no rows, for so many experts."""
    return ExpertPlaces(experts[:0], experts[:0, None], (0,) * (len(experts) + 1))


def _sharded(weight: nn.Parameter, mesh: DeviceMesh) -> nn.Parameter:
    if weight.is_meta:
        here = weight.chunk(mesh.size())[mesh.get_local_rank()]
        return nn.Parameter(DTensor.from_local(here, mesh, [Shard(0)], run_check=False))
    return nn.Parameter(distribute_tensor(weight.detach(), mesh, [Shard(0)], src_data_rank=None))


def _here(weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    return weight.to_local()


class _Travel(Function):
    """Rows to other ranks: `sent[p]` of them, in order, to rank p; `came[p]` from it. Gradients take the way back."""

    @staticmethod
    def forward(ctx, x_RD: Tensor, sent: Sequence[int], came: Sequence[int], group: ProcessGroup) -> Tensor:
        ctx.sent, ctx.came, ctx.group = sent, came, group
        return _travelled(x_RD, sent, came, group)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_AD: Tensor) -> tuple[Tensor, None, None, None]:
        return _travelled(dy_AD, ctx.came, ctx.sent, ctx.group), None, None, None


def _travelled(x_RD: Tensor, sent: Sequence[int], came: Sequence[int], group: ProcessGroup) -> Tensor:
    y_AD = x_RD.new_empty(sum(came), x_RD.shape[1])
    distributed.all_to_all_single(y_AD, x_RD.contiguous(), list(came), list(sent), group=group)
    return y_AD
