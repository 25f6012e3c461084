"""A run, from wherever it stands to its last step.

    open corpora → model → newest checkpoint → [ batches → step → evaluate → row → checkpoint ] …

Killed at any moment, it goes on from the newest checkpoint as if nothing had happened: rows of later steps are cut and written again. One
loop for one process and for many: `scale` puts the parameters where they shall live before the optimizer is made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from time import monotonic, perf_counter
from typing import Any, Protocol

import torch

from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ..data import Batch, Loader, Mixture, Place
from ..model import InteractionModel, ModelSpec
from ..scale.sharding import initialise, prepare
from ..scale.start import World
from . import checkpoint, ranks
from .alone import alone
from .checkpoint import Best
from .evaluate import Evaluation
from .metrics import Metrics, held_out_row, row_of
from .optimizer import adamw
from .run_folder import RunFolder
from .schedule import factor
from .spec import TrainSpec
from .step import gather, take

ALONE = World(0, 1, torch.device("cpu"))


class Ended(Enum):
    """Why a run stopped."""

    DONE = "done"
    ASKED = "asked to stop"


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a run stands: steps that are done, and why it stopped there."""

    step: int
    ended: Ended


class Audience(Protocol):
    """Who follows a run."""

    def tell(self, sentence: str) -> None: ...

    def step(self, row: dict[str, Any]) -> None: ...


def train(
    spec: TrainSpec,
    folder: RunFolder,
    audience: Audience,
    *,
    asked_to_stop: Callable[[], bool] = lambda: False,
    world: World = ALONE,
) -> Stand:
    """The run, brought to `spec.pace.steps`, or as far as it was let. Weights are in its newest checkpoint.

    Args:
        asked_to_stop: looked at after every step; then the run is saved and left.
        world: the processes that train together, each in a call of this function with the same arguments.

    Raises:
        InputError: another corpus or config than the run's.
        Busy: another process trains it.
        NotFinite: a loss or gradient is not; the checkpoint before it stays.
    """
    if spec.pace.threads:
        torch.set_num_threads(spec.pace.threads)
    folder.started_with()  # refuses a folder of something else before anything is written into it
    mixture = Mixture.of(folder.open_corpora(spec), spec.data, weights=[c.weight for c in spec.corpora], tokenizer_path=spec.pace.tokenizer)
    refuse_small(spec.model, mixture.layout)
    with alone(folder.path, audience.tell):
        return _resumed(spec, folder, audience, asked_to_stop, mixture, world).go()


def _resumed(
    spec: TrainSpec, folder: RunFolder, audience: Audience, asked_to_stop: Callable[[], bool], mixture: Mixture, world: World
) -> "_Run":
    """The run at its newest checkpoint, or at its beginning; this start is written into the folder."""
    started = folder.started_with()
    found = checkpoint.newest(folder.checkpoints, audience.tell)
    if started is not None:
        step = 0 if found is None else checkpoint.read(found).step
        spec.refuse_another(TrainSpec.of(started, where=str(folder.config)), step=step, where=str(folder.config))

    with torch.device("meta"):
        model = InteractionModel(spec.model, dtype=getattr(torch, spec.dtype), recompute=spec.pace.recompute)
    model = initialise(prepare(model, world, expert_ranks=spec.pace.expert_ranks), spec.seed)
    optimizer = adamw(model, spec.optimizer)
    step, place, best = 0, mixture.start(), None
    if found is not None:
        saved = checkpoint.load(found, model, optimizer)
        step, place, best = saved.step, saved.place, saved.best
        mixture.check(place)
        audience.tell(f"goes on after step {step}, from {found.name}")
    elif started is not None and folder.rows():
        audience.tell(f"{folder.checkpoints}: no checkpoint to go on from, the run begins again")
    if ranks.rank() == 0:
        folder.write_start(spec, mixture)
        if found is not None:
            checkpoint.link(folder.checkpoints, step, best)  # a kill may have come before them
        for warning in (folder.write_environment(step, world.device), folder.cut_metrics(step)):
            if warning:
                audience.tell(warning)
    return _Run(spec, folder, audience, asked_to_stop, mixture, model, optimizer, step, place, best, world.device)


def refuse_small(model: ModelSpec, layout: LayoutSpec) -> None:
    """Nothing if the model has a row for every id of the layout. Raises InputError with both numbers."""
    ids = layout.ids.model_dump()
    largest = max(*ids.pop("slots"), *ids.values())
    if model.vocabulary <= largest:
        raise InputError(
            f"model.vocabulary is {model.vocabulary}, the corpus has ids up to {largest}", hint=f"--set model.vocabulary={largest + 1}"
        )


@dataclass(slots=True)
class _Run:
    """What moves while a run goes on."""

    spec: TrainSpec
    folder: RunFolder
    audience: Audience
    asked_to_stop: Callable[[], bool]
    mixture: Mixture
    model: InteractionModel
    optimizer: torch.optim.AdamW
    step: int
    place: Place
    best: Best | None
    device: torch.device
    saved_step: int = -1
    saved_at: float = 0.0

    def go(self) -> Stand:
        pace = self.spec.pace
        if self.step >= pace.steps:
            return Stand(self.step, Ended.DONE)
        evaluation = Evaluation(self.spec, self.mixture, self.audience.tell) if pace.evaluate_every else None
        loader = Loader(
            self.mixture,
            step_sequences=self.spec.step_sequences,
            batch_sequences=pace.batch_sequences,
            place=self.place,
            rank=ranks.rank(),
            world=ranks.world(),
            workers=pace.workers,
            on_damage=pace.on_damage,
        )
        self.saved_step, self.saved_at = self.step, monotonic()
        metrics = Metrics(self.folder.metrics, self.folder.tensorboard, step=self.step) if ranks.rank() == 0 else None
        try:
            return self._steps(iter(loader), evaluation, metrics)
        finally:
            if metrics is not None:
                metrics.close()

    def _steps(self, batches: Iterator[Batch], evaluation: Evaluation | None, metrics: Metrics | None) -> Stand:
        pace = self.spec.pace
        while self.step < pace.steps:
            began = perf_counter()
            try:
                step_batches = [batch.to(self.device) for batch in gather(batches)]
            except RuntimeError:
                if not self.asked_to_stop():  # Ctrl-C may have reached the workers first: all steps so far are whole
                    raise
                return self._leave(metrics, Ended.ASKED)
            wait_s = perf_counter() - began
            rate = self.spec.optimizer.lr * factor(self.spec.schedule, self.step + 1)
            stepped = take(
                self.model,
                self.optimizer,
                step_batches,
                self.spec.losses,
                step=self.step + 1,
                rate=rate,
                clip_norm=self.spec.optimizer.clip_norm,
                seed=self.spec.seed,
            )
            assert step_batches[-1].place is not None
            self.step, self.place = self.step + 1, step_batches[-1].place
            for damage in (damage for batch in step_batches for damage in batch.damaged):
                self.audience.tell(f"step {self.step}: left out: {damage.message}")
            row = row_of(self.step, stepped, rate=rate, wait_s=wait_s, seconds=perf_counter() - began)
            is_best = self._evaluate(evaluation, row)
            if metrics is not None:
                metrics.append(row)
            self.audience.step(row)
            asked = ranks.anywhere(self.asked_to_stop())
            if is_best or self._is_due() or self.step == pace.steps or asked:
                self._save(metrics)
            if asked and self.step < pace.steps:
                return Stand(self.step, Ended.ASKED)
        return Stand(self.step, Ended.DONE)

    def _evaluate(self, evaluation: Evaluation | None, row: dict[str, Any]) -> bool:
        """Whether this step is the best so far; what was found is in the row."""
        pace = self.spec.pace
        if evaluation is None or evaluation.is_empty or self.step % pace.evaluate_every:
            return False
        held = evaluation(self.model)
        row |= held_out_row(held, evaluation.floor)
        if self.best is not None and held.loss >= self.best.loss:
            return False
        self.best = Best(step=self.step, loss=held.loss)
        return True

    def _is_due(self) -> bool:
        """Whether a checkpoint is due, by steps or by the clock of rank 0."""
        pace = self.spec.pace
        if pace.checkpoint_every and self.step % pace.checkpoint_every == 0:
            return True
        late = bool(pace.checkpoint_minutes) and monotonic() - self.saved_at > 60 * pace.checkpoint_minutes
        return ranks.anywhere(late and ranks.rank() == 0)

    def _save(self, metrics: Metrics | None) -> None:
        if metrics is not None:
            metrics.settle()  # first: rows before a checkpoint are not made again
        checkpoint.write(self.folder.checkpoints, self.model, self.optimizer, step=self.step, place=self.place, best=self.best)
        checkpoint.drop_old(self.folder.checkpoints, self.spec.pace.keep, step=self.step, best=self.best)
        self.saved_step, self.saved_at = self.step, monotonic()

    def _leave(self, metrics: Metrics | None, why: Ended) -> Stand:
        if self.saved_step != self.step:
            self._save(metrics)
        return Stand(self.step, why)
