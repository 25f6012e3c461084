"""One optimizer step: all its batches, on all ranks, as if they were one.

    1. the batches of the step, from the loader                     4. the norm of the gradient, clipped
    2. the weights that sums are divided by, over batches and ranks 5. AdamW at the step's learning rate
    3. sums ÷ weights, backward, batch after batch                  6. routers' biases, from the counts of the whole step

Nothing is changed before a loss and a gradient that are finite. Gradients of ranks are *sums*: whoever shards the parameters must add
gradients, not average them (FSDP2: `set_gradient_divide_factor(1.0)`). Where parameters live is no business of this file.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import perf_counter

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from ...schemas.errors import MicroturnError
from ..data import Batch
from ..model import InteractionModel
from ..scale.sharding import local
from .balance import move_biases
from .loss import Weights, sums, weights
from .optimizer import fill_missing
from .ranks import anywhere, summed
from .spec import LossSpec

MAX_NAMED = 8
REMEDY = "a lower optimizer.lr or a longer schedule.warmup_steps helps; the newest checkpoint is from before this step"


class NotFinite(MicroturnError):
    """A loss or gradient is not finite; weights are those of the step before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """What a step was.

    Attributes:
        loss: text + flow_share · flow + load_share · load.
        text, flow, load: each sum ÷ its weight; 0 where there was no weight.
        weights: what they were divided by.
        grad_norm: before clipping.
        counts_LE: int64, how often each expert was chosen.
        rows, ticks: of all ranks.
        forward_s, backward_s, update_s: seconds of wall clock on this rank.
    """

    loss: float
    text: float
    flow: float
    load: float
    weights: Weights
    grad_norm: float
    counts_LE: Tensor
    rows: int
    ticks: int
    forward_s: float
    backward_s: float
    update_s: float


def gather(batches: Iterator[Batch]) -> list[Batch]:
    """The batches of the next step; the last has the place. Raises StopIteration where the loader ends."""
    step = [next(batches)]
    while step[-1].place is None:
        step += islice(batches, 1)
    return step


def take(
    model: InteractionModel,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    spec: LossSpec,
    *,
    step: int,
    rate: float,
    clip_norm: float | None,
    seed: int,
) -> Stepped:
    """The step, taken. Raises NotFinite, with nothing changed.

    Args:
        step: its number, for words only.
        rate: the learning rate of this step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own = [weights(batch) for batch in batches]
    counted = [float(batch.num_rows) for batch in batches], [float(batch.num_ticks) for batch in batches]
    totals = summed(torch.tensor([sum(column) for column in (*zip(*own, strict=True), *counted)], dtype=torch.float64)).tolist()
    whole, rows, ticks = Weights(*totals[:3]), int(totals[3]), int(totals[4])

    optimizer.zero_grad(set_to_none=True)
    parts = torch.zeros(3, dtype=torch.float64)
    counts_LE, forward_s, backward_s = torch.zeros((), dtype=torch.int64), 0.0, 0.0
    for batch in batches:
        started = perf_counter()
        made = sums(model, batch, draws=spec.flow_draws, seed=seed)
        text, flow, load = (
            part / weight if weight else part * 0.0 for part, weight in zip((made.text, made.flow, made.load), whole, strict=True)
        )
        loss = text + spec.flow_share * flow + spec.load_share * load
        went_forward = perf_counter()
        loss.backward()
        backward_s += perf_counter() - went_forward
        forward_s += went_forward - started
        here = torch.stack([text.detach(), flow.detach(), load.detach()]).double().cpu()
        _refuse_infinite(bool(here.isfinite().all()), "the loss", step, [batch])
        parts += here
        counts_LE = counts_LE + made.counts_LE.cpu()

    started = perf_counter()
    fill_missing(parameters)
    grads = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    norm = summed(get_total_norm(grads).double().square()).sqrt()  # every element lives on one rank
    _refuse_infinite(math.isfinite(float(norm)), "the gradient", step, batches)
    if clip_norm is not None:
        for grad in grads:
            grad.mul_(clip_factor(float(norm), clip_norm))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    counts_LE = summed(counts_LE)
    move_biases(model, counts_LE, spec.bias_rate)
    text_, flow_, load_ = summed(parts).tolist()
    return Stepped(
        loss=text_ + spec.flow_share * flow_ + spec.load_share * load_,
        text=text_,
        flow=flow_,
        load=load_,
        weights=whole,
        grad_norm=float(norm),
        counts_LE=counts_LE,
        rows=rows,
        ticks=ticks,
        forward_s=forward_s,
        backward_s=backward_s,
        update_s=perf_counter() - started,
    )


def clip_factor(norm: float, clip_norm: float) -> float:
    """What gradients of this norm are multiplied with, so that it is at most `clip_norm`."""
    return min(1.0, clip_norm / (norm + 1e-6))


def _refuse_infinite(is_finite: bool, what: str, step: int, batches: Sequence[Batch]) -> None:
    """Raises NotFinite on every rank if it is so on any; the rank that has it names the documents."""
    if not anywhere(not is_finite):
        return
    segments = [segment for batch in batches for segment in batch.segments if segment.key]
    names = list(dict.fromkeys(f"{s.key}, ticks {s.first_tick} to {s.first_tick + s.num_ticks}" for s in segments))
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    where = "on another rank" if is_finite else f"with {'; '.join(names[:MAX_NAMED])}{more}"
    raise NotFinite(f"step {step}: {what} is not finite {where}; the weights are those of step {step - 1}", hint=REMEDY)
