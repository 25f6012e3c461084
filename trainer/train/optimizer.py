"""AdamW over the parameters of a model: which decay, and the state that a checkpoint holds.

Weight decay is for matrices that multiply rows. Norms, scales, taps of convolutions, attention's profiles and every table of embeddings are
left alone: a table's row that is not looked up must not shrink.
"""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW

from ...schemas.strict import Strict
from .ranks import mesh_of

MOMENTS = ("exp_avg", "exp_avg_sq")
UNDECAYED = ("table", "profiles", "scale")  # the last part of a parameter's name


class OptimizerSpec(Strict):
    """AdamW.

    Attributes:
        lr: the full learning rate; see ScheduleSpec.
        clip_norm: gradients whose norm over all parameters is larger are scaled down to it; None never.
    """

    lr: float = Field(2e-3, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip_norm: float | None = Field(1.0, gt=0)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay is for this parameter."""
    *before, leaf = name.split(".")
    return parameter.ndim > 1 and leaf not in UNDECAYED and not (before and before[-1].endswith("conv"))


def adamw(model: nn.Module, spec: OptimizerSpec) -> AdamW:
    """The optimizer, with moments of zero in place for every parameter: so there is always something to load a checkpoint into."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    alike: dict[tuple[bool, object], list[Tensor]] = {}  # one group may not mix meshes: its tensors are updated together
    for name, parameter in named:
        alike.setdefault((decays(name, parameter), mesh_of(parameter)), []).append(parameter)
    groups = [{"params": params, "weight_decay": spec.weight_decay if decayed else 0.0} for (decayed, _), params in alike.items()]
    optimizer = AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), eps=spec.eps, foreach=True)
    for _, parameter in named:
        optimizer.state[parameter] = {"step": torch.tensor(0.0)} | {moment: torch.zeros_like(parameter) for moment in MOMENTS}
    return optimizer


def moments(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    """The moments by name, as they are, not copied."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for moment in MOMENTS
    }


def set_steps(optimizer: AdamW, steps: int) -> None:
    """Nothing; the optimizer counts on from so many steps. All parameters take part in every step, so there is one count."""
    for state in optimizer.state.values():
        state["step"].fill_(float(steps))


def fill_missing(parameters: Iterable[Tensor]) -> None:
    """Nothing; a parameter that no row of the step has met (no picture, nobody speaking) gets a gradient of zero, as in any larger step
    where it met none: so the moments do not depend on how a step is cut, and all ranks hold the same list."""
    for parameter in parameters:
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
