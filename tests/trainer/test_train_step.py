"""One step: the same however it is cut; biases by counts; nothing changed by numbers that are none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from microturn.trainer.data import Batch, DataSpec, Loader, Mixture, OpenCorpus
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.train import checkpoint
from microturn.trainer.train.loss import sums, weights
from microturn.trainer.train.optimizer import OptimizerSpec, adamw
from microturn.trainer.train.spec import LossSpec
from microturn.trainer.train.step import NotFinite, Stepped, gather, take
from runs import SIZES
from tensors import same_bits, threads
from torch import Tensor

SEQUENCES = 4
LOSSES = LossSpec(flow_draws=2, load_share=0.01, bias_rate=0.125)  # a power of two: the biases' sums are exact


@pytest.fixture(scope="module")
def mixture(folder: Path) -> Mixture:
    return Mixture.of([OpenCorpus.open(str(folder))], DataSpec(seed=5, sequence_tokens=256, document_ticks=30))


def cut(mixture: Mixture, batch_sequences: int) -> list[Batch]:
    """The first step of the run, in batches of so many sequences."""
    return gather(iter(Loader(mixture, step_sequences=SEQUENCES, batch_sequences=batch_sequences)))


class Trained:
    """A tiny model with its optimizer. Its flow head speaks: untrained it says nothing, and half of its gradients are zero."""

    def __init__(self, *, recompute: bool = False) -> None:
        self.model = initialise(InteractionModel(ModelSpec.parse(SIZES, where="test"), recompute=recompute), 7)
        with torch.no_grad():
            self.model.flow.velocity.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
        self.optimizer = adamw(self.model, OptimizerSpec(lr=0.01))

    def step(self, batches: Sequence[Batch], *, clip_norm: float | None = 1.0) -> Stepped:
        with threads(1):
            return take(self.model, self.optimizer, batches, LOSSES, step=1, rate=0.01, clip_norm=clip_norm, seed=3)

    def state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in checkpoint.state_of(self.model, self.optimizer).items()}


def test_a_step_is_the_same_however_it_is_cut(mixture):
    one, four = Trained(), Trained()
    whole, parts = one.step(cut(mixture, SEQUENCES)), four.step(cut(mixture, 1))
    for name in ("loss", "text", "flow", "load", "grad_norm"):
        assert getattr(whole, name) == pytest.approx(getattr(parts, name), rel=1e-5), name
    assert torch.equal(whole.counts_LE, parts.counts_LE) and whole.rows == parts.rows and whole.weights == pytest.approx(parts.weights)
    moments = [(a, b) for (name, a), b in zip(one.state().items(), four.state().values(), strict=True) if name.startswith("exp_avg.")]
    assert len(moments) > 30 and all(torch.allclose(a, b, rtol=1e-3, atol=1e-7) for a, b in moments)


def test_a_mean_of_the_batches_means_would_be_another_loss(mixture):
    """Negative control: the weights of the batches are far enough apart for the law above to mean something."""
    trained, batches = Trained(), cut(mixture, 1)
    with torch.no_grad():
        means = [float(sums(trained.model, batch, draws=2, seed=3).text) / weights(batch).text for batch in batches]
    assert trained.step(batches).text != pytest.approx(sum(means) / len(means), rel=1e-4)


def test_the_loss_is_the_sum_of_its_parts(mixture):
    stepped = Trained().step(cut(mixture, 2))
    assert stepped.loss == pytest.approx(stepped.text + LOSSES.flow_share * stepped.flow + LOSSES.load_share * stepped.load)
    assert min(stepped.text, stepped.flow, stepped.load) > 0.5


def test_recomputing_changes_no_bit(mixture):
    kept, again = Trained(), Trained(recompute=True)
    kept.step(cut(mixture, 2))
    again.step(cut(mixture, 2))
    assert all(same_bits(a, b) for a, b in zip(kept.state().values(), again.state().values(), strict=True))


def test_biases_move_by_the_counts_of_the_whole_step(mixture):
    trained = Trained()
    counts_LE = trained.step(cut(mixture, 1)).counts_LE
    assert counts_LE.sum() == 2 * 2 * sum(int(batch.loud.sum()) for batch in cut(mixture, 1))  # layers × experts of a row
    for router, counts_E in zip(trained.model.routers(), counts_LE, strict=True):
        step_E = 0.125 * torch.sign(counts_E.double().mean() - counts_E)
        assert router.bias.tolist() == (step_E - step_E.mean()).tolist() and router.bias.abs().max() > 0


def test_forward_and_backward_change_nothing(mixture):
    trained = Trained()
    before = trained.state()
    for batch in cut(mixture, 2):
        sums(trained.model, batch, draws=1, seed=3).text.backward()
    assert all(same_bits(a, b) for a, b in zip(before.values(), trained.state().values(), strict=True))


def test_a_loss_that_is_not_finite_stops_before_anything_is_changed(mixture):
    trained, batches = Trained(), cut(mixture, 1)
    trained.step(batches)
    before = trained.state()
    poisoned = next(n for n, batch in enumerate(batches) if n and batch.flow_weights.any())
    batches[poisoned] = replace(batches[poisoned], flow_targets=torch.full_like(batches[poisoned].flow_targets, float("nan")))
    with pytest.raises(NotFinite) as stopped:
        trained.step(batches)
    assert all(same_bits(a, b) for a, b in zip(before.values(), trained.state().values(), strict=True))
    assert "step 1: the loss" in str(stopped.value) and "step 0" in str(stopped.value) and "optimizer.lr" in stopped.value.hint
    assert all(segment.key in str(stopped.value) for segment in batches[poisoned].segments)


def test_a_gradient_that_is_not_finite_stops_before_anything_is_changed(mixture):
    trained, batches = Trained(), cut(mixture, 1)
    before = trained.state()
    trained.model.unembedding.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFinite, match="the gradient is not finite"):
        trained.step(batches)
    assert all(same_bits(a, b) for a, b in zip(before.values(), trained.state().values(), strict=True))


def test_a_large_gradient_is_clipped_to_the_norm(mixture):
    """With one step of momentum behind it, the moments are (1 - beta1) of the clipped gradient."""
    trained = Trained()
    norm = trained.step(cut(mixture, 2), clip_norm=0.25).grad_norm
    kept = torch.cat([t.flatten() for name, t in trained.state().items() if name.startswith("exp_avg.")]).norm()
    assert norm > 0.5 and float(kept) == pytest.approx(0.1 * 0.25, rel=1e-3)


def test_a_step_in_which_nobody_speaks_has_no_flow_loss_and_counts(mixture):
    silent = [replace(batch, flow_weights=torch.zeros_like(batch.flow_weights)) for batch in cut(mixture, 2)]
    trained = Trained()
    stepped = trained.step(silent)
    assert stepped.flow == 0 and stepped.weights.flow == 0 and stepped.text > 0
    assert {float(state["step"]) for state in trained.optimizer.state.values()} == {1.0}


def test_a_batch_that_teaches_nothing_adds_nothing(mixture):
    """What a rank gets that has no sequence left."""
    batches = cut(mixture, 2)
    zeros = {name: torch.zeros_like(getattr(batches[0], name)) for name in ("text_weights", "flow_weights", "loud")}
    nothing = replace(batches[0], place=None, **zeros)
    with_it, without = Trained(), Trained()
    a, b = with_it.step([nothing, *batches]), without.step(batches)
    assert (a.loss, a.weights, a.grad_norm) == (b.loss, b.weights, b.grad_norm)
