"""What a rank computes of a case, kept in a file for the tests: `python scale_cases.py OUT CASE …`; and the same by one process.

A case is `dtype-ep-what`: `plain`; `again`, with recompute; `wrong`, with gradients averaged; `saved`, which also writes a checkpoint. Or
`first-ep`, first weights; or `idle`, an owner to whom no row comes.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from handmade import SPEC as FOUR_LAYERS
from handmade import model_of
from made_batches import made_batch
from microturn.trainer.data import Batch
from microturn.trainer.model import Inputs, InteractionModel
from microturn.trainer.scale.expert_parallel import TravellingExperts
from microturn.trainer.scale.sharding import OWN_GROUPS, add_gradients, initialise, local, prepare
from microturn.trainer.scale.start import World, finish, lay_out, start
from microturn.trainer.train.loss import Weights, sums, weights
from tensors import randn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SPEC = FOUR_LAYERS.model_copy(update={"layers": 3})  # dense and windowed, mixed and global, mixed and windowed
VOCABULARY = SPEC.vocabulary


def batches(size: int = 2) -> list[Batch]:
    """One for each rank, unlike in everything: the second has neither pictures nor frames to learn."""
    made = [made_batch(1, (41, 30), vocabulary=VOCABULARY), made_batch(2, (50,), pictures=False, speaks=False, vocabulary=VOCABULARY)]
    return made + [made_batch(number, (20 + number,), vocabulary=VOCABULARY) for number in range(3, size + 1)]


def add_up(model: InteractionModel, mine: Sequence[Batch], everyones: Sequence[Batch]) -> float:
    """The loss of these batches, whose gradients are left on the model."""
    whole = Weights(*(sum(column) for column in zip(*map(weights, everyones), strict=True)))
    total = 0.0
    for batch in mine:
        made = sums(model, batch, draws=2, seed=3)
        loss = made.text / whole.text + made.flow / whole.flow + 0.1 * made.load / whole.load
        loss.backward()
        total += loss.item()
    return total


def alone(dtype: str, size: int = 2) -> dict[str, Any]:
    """Hidden rows of every batch, gradients, and loss, of one process."""
    model = model_of(SPEC, dtype=DTYPES[dtype])
    with torch.no_grad():
        hidden = [model(Inputs.of(batch)).hidden_TD for batch in batches(size)]
    loss = add_up(model, batches(size), batches(size))
    return {"hidden": hidden, "loss": loss, "gradients": {name: whole(p.grad, p) for name, p in model.named_parameters()}}


def of_rank(case: str, world: World, out: Path) -> dict[str, Any]:
    """The same of this rank, its gradients whole; and the dtypes that modules of their own groups computed with."""
    dtype, ep, what = case.split("-")
    model = model_of(SPEC, dtype=DTYPES[dtype], recompute=what == "again")
    model = prepare(model, world, expert_ranks=int(ep))
    if what == "wrong":
        add_gradients(model, divide_by=world.size)
    seen: dict[str, set[torch.dtype]] = {}
    for name, module in model.named_modules():
        if isinstance(module, (*OWN_GROUPS, nn.Linear)) or name.endswith(("attention.inward", "mlp.routed", "flow.velocity")):
            module.register_forward_pre_hook(_note(seen.setdefault(name, set())))
    mine = batches(world.size)[world.rank]
    with torch.no_grad():
        hidden = model(Inputs.of(mine)).hidden_TD
    all_sharded = all(isinstance(parameter, DTensor) for parameter in model.parameters())
    loss = add_up(model, [mine], batches(world.size))
    if what == "saved":
        dcp.save(model.state_dict(), checkpoint_id=str(out / case))
    return {
        "hidden": hidden,
        "loss": loss,
        "seen": seen,
        "all_sharded": all_sharded,
        "held": sum(local(parameter).numel() for parameter in model.parameters()),
        "gradients": {name: whole(p.grad, p) for name, p in model.named_parameters()},
    }


def first_weights(world: World, ep: int) -> dict[str, Tensor]:
    """Parameters of a model that began on `meta`."""
    with torch.device("meta"):
        model = InteractionModel(SPEC)
    model = initialise(prepare(model, world, expert_ranks=ep), 5)
    return {name: whole(parameter.detach(), parameter) for name, parameter in model.named_parameters()}


def idle(world: World) -> dict[str, Tensor]:
    """What travelling experts and those at home make of rows that all choose experts of rank 0; and this rank's largest gradient."""
    experts = model_of(SPEC).blocks[1].mlp.routed
    travelling = TravellingExperts(experts, lay_out(world, world.size)["ep"])
    x_TD = randn(world.rank, 7, SPEC.hidden).requires_grad_()
    chosen_Tk, weights_Tk = torch.tensor([[2, 0, 3]] * 7), randn(9, 7, 3)
    away, home = (module(x_TD, chosen_Tk, weights_Tk) for module in (travelling, experts))
    away.sum().backward()
    largest = max(float(local(parameter.grad).abs().max()) for parameter in travelling.parameters())
    return {"away": away.detach(), "home": home.detach(), "largest": torch.tensor(largest)}


def whole(x: Tensor | None, like: Tensor) -> Tensor:
    """The whole tensor, on every rank; zeros where there is none."""
    if x is None:
        return torch.zeros(like.shape)
    return x.full_tensor() if isinstance(x, DTensor) else x


def _note(dtypes: set[torch.dtype]) -> Callable[..., None]:
    """A hook that notes what is there when forward begins: FSDP's own hook has gathered by then."""

    def hook(module: nn.Module, *_: Any) -> None:
        dtypes.update(parameter.dtype for parameter in module.parameters())

    return hook


def main(out: Path, cases: Sequence[str]) -> None:
    world = start()
    for case in cases:
        kind, _, ep = case.partition("-")
        made = idle(world) if kind == "idle" else first_weights(world, int(ep)) if kind == "first" else of_rank(case, world, out)
        torch.save(made, out / f"{case}.{world.rank}.pt")
    finish()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
