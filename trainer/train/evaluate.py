"""Held-out losses: the same sequences of another split, the same noise, every time; beside them what a model that hears nothing would have.

    text   nats a token, weighted as in training      beside: the ids' frequencies in the training split
    flow   mean square of a velocity's value          beside: a Gaussian for each of a frame's 320 values, by its mean and variance there

The Gaussian's loss has a closed form. With x₁ ~ N(μ, σ²), ε ~ N(0, 1) and x_t = (1 - t) ε + t x₁, the best guess of v = x₁ - ε by x_t
leaves Var(v | x_t) = σ² / (t² σ² + (1 - t)²), whose mean over t in (0, 1) is π σ / 2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from ...schemas.errors import InputError
from ..data import Batch, Loader, Mixture, OpenCorpus
from ..model import InteractionModel
from . import ranks
from .loss import sums, weights
from .spec import TrainSpec

PLAIN = {"cut_played": 0.0, "drop_pictures": 0.0, "drop_typed": 0.0, "drop_background": 0.0}  # what is held out is taken as it was recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Means over held-out sequences; `loss` is added up as in training, but for router load."""

    loss: float
    text: float
    flow: float


@dataclass(frozen=True, slots=True)
class Floor:
    """What is reached without hearing anything."""

    text: float
    flow: float


class Evaluation:
    """The held-out batches of this rank, kept in memory; `floor` is computed once."""

    def __init__(self, spec: TrainSpec, mixture: Mixture, tell: Callable[[str], None]) -> None:
        """Corpora without the split, or without what training takes of a corpus in it, take no part, and are told."""
        self._spec = spec
        self._batches: list[Batch] = []
        for corpus in mixture.corpora:
            self._batches += _held_out(spec, corpus, tell)
        self.floor = _floor(spec, mixture, self._batches) if self._batches else None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look at; the same on every rank."""
        return not self._batches

    def __call__(self, model: InteractionModel) -> HeldOut:
        """The losses of the model as it is."""
        totals = torch.zeros(4, dtype=torch.float64)
        with torch.no_grad():
            for batch in self._batches:
                here = batch.to(next(model.parameters()).device)
                made, weight = sums(model, here, draws=self._spec.losses.flow_draws, seed=self._spec.seed), weights(batch)
                totals += torch.tensor([float(made.text), float(made.flow), weight.text, weight.flow], dtype=torch.float64)
        text, flow, text_weight, flow_weight = ranks.summed(totals).tolist()
        text, flow = text / max(text_weight, 1e-9), flow / max(flow_weight, 1e-9)
        return HeldOut(loss=text + self._spec.losses.flow_share * flow, text=text, flow=flow)


def _held_out(spec: TrainSpec, corpus: OpenCorpus, tell: Callable[[str], None]) -> list[Batch]:
    """This rank's batches of the first held-out sequences of a corpus."""
    split = spec.pace.evaluate_split
    try:
        held = OpenCorpus.open(corpus.name, split=split, started_with=corpus.identity)
    except InputError as error:
        tell(f"{error}: nothing of it is held out; `microturn build --split train=0.95,{split}=0.05` would")
        return []
    data = spec.data.model_copy(update={"split": split, "seed": 0, **PLAIN})
    try:
        held_out = Mixture.of([held], data, tokenizer_path=spec.pace.tokenizer)
    except InputError as error:
        tell(f"split {split!r}: {error}: nothing of it is held out")
        return []
    loader = Loader(held_out, step_sequences=ranks.world(), rank=ranks.rank(), world=ranks.world(), epochs=1, on_damage=spec.pace.on_damage)
    return list(islice(loader, -(-spec.pace.evaluate_sequences // ranks.world())))


def _floor(spec: TrainSpec, mixture: Mixture, held: Sequence[Batch]) -> Floor:
    """The floors, of frequencies and variances in the first training sequences: as many as are held out. All ranks read the same."""
    counts_V = torch.ones(spec.model.vocabulary, dtype=torch.float64)  # add one: an id that was never seen is not impossible
    count, mean_X, square_X = 0, torch.zeros(()), torch.zeros(())
    loader = Loader(mixture, step_sequences=1, on_damage=spec.pace.on_damage)
    for batch in islice(loader, spec.pace.evaluate_sequences):
        counts_V.index_add_(0, batch.text_targets, batch.text_weights.double())
        frames_FX = batch.flow_targets[batch.flow_weights > 0].flatten(1).double()
        count += len(frames_FX)
        mean_X = mean_X + frames_FX.sum(0)
        square_X = square_X + frames_FX.square().sum(0)
    nats_V = -torch.log(counts_V / counts_V.sum())
    text = torch.tensor([0.0, 0.0], dtype=torch.float64)
    for batch in held:
        weight = batch.text_weights.double()
        text += torch.stack([(nats_V[batch.text_targets] * weight).sum(), weight.sum()])
    nats, weight_sum = ranks.summed(text).tolist()
    deviation = float((square_X / count - (mean_X / count).square()).clamp(min=0).sqrt().mean()) if count else 0.0
    return Floor(nats / max(weight_sum, 1e-9), math.pi / 2 * deviation)
