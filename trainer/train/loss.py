"""What one batch adds to the step's losses: sums, to be divided by weights that are summed over the whole optimizer step.

    text   Σ w · cross-entropy of the next id                          ÷ Σ w
    flow   Σ w · mean over draws and the frame's 320 values of (v - (x₁ - ε))²  ÷ Σ w        FORMAT.md section 4: which rows, which w
    load   Σ over counted rows of how unevenly their document loads the experts  ÷ how many

So gradients do not depend on how a step is cut into batches and ranks, but for rounding. Noise and times are counter-based, keyed by
document and epoch: no batch changes another's.

Letters: F rows that learn a frame, X = 320 values of it, K draws.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import cross_entropy, philox
from ..data import Batch
from ..model import Inputs, InteractionModel

NOISE, TIME = "flow-noise", "flow-time"


class Weights(NamedTuple):
    """What the sums are divided by; of batches, they add up."""

    text: float
    flow: float
    load: float


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """fp32 scalars with their graphs, and the experts' counts, int64 [L, E]."""

    text: Tensor
    flow: Tensor
    load: Tensor
    counts_LE: Tensor


def weights(batch: Batch) -> Weights:
    """The weights of one batch."""
    return Weights(float(batch.text_weights.double().sum()), float(batch.flow_weights.double().sum()), float(batch.loud.sum()))


def sums(model: InteractionModel, batch: Batch, *, draws: int, seed: int) -> Sums:
    """The sums of one batch. Rows of weight 0 are not computed.

    Args:
        draws: (time, noise) pairs for each frame that is learned.
        seed: of the run; noise and times hang on it.
    """
    output = model(Inputs.of(batch))
    learned = torch.nonzero(batch.text_weights)[:, 0]
    losses = text_losses(model, output.hidden_TD[batch.text_rows[learned]], batch.text_targets[learned])
    flow = flow_losses(model, output.hidden_TD, batch, draws=draws, seed=seed)
    return Sums((losses * batch.text_weights[learned]).sum(), flow, output.load, output.counts_LE)


def text_losses(model: InteractionModel, hidden_TD: Tensor, targets_T: Tensor) -> Tensor:
    """Cross-entropy of each row, fp32 [T]."""
    return cross_entropy(model.text_logits(hidden_TD), targets_T)


def flow_losses(model: InteractionModel, hidden_TD: Tensor, batch: Batch, *, draws: int, seed: int) -> Tensor:
    """The weighted sum over the batch's frames, fp32."""
    learned = torch.nonzero(batch.flow_weights)[:, 0]
    rows, weight_F, speech_FX = batch.flow_rows[learned], batch.flow_weights[learned], batch.flow_targets[learned].flatten(1)
    condition_FW = model.flow.condition(hidden_TD[rows])
    total = speech_FX.new_zeros(())
    for draw in range(draws):
        noise_FX, time_F = noise(batch, rows, speech_FX.shape[1], draw=draw, seed=seed)
        point_FX = torch.lerp(noise_FX, speech_FX, time_F[:, None])
        velocity_FX = model.flow.velocity_given(condition_FW, point_FX, time_F)
        total = total + ((velocity_FX - (speech_FX - noise_FX)).square().mean(-1) * weight_F).sum()
    return total / draws


def noise(batch: Batch, rows_F: Tensor, values: int, *, draw: int, seed: int) -> tuple[Tensor, Tensor]:
    """Standard normals [F, X] and times [F] in (0, 1) of these rows, which rise: functions of document, epoch, position and draw."""
    starts = batch.offsets[:-1]
    document_F = torch.searchsorted(batch.offsets, rows_F, right=True) - 1
    normals, times = [batch.flow_targets.new_zeros(0, values)], [batch.flow_targets.new_zeros(0)]
    for document in torch.unique_consecutive(document_F).tolist():
        segment = batch.segments[document]
        positions = rows_F[document_F == document] - starts[document]
        normals.append(philox.normals(philox.key(NOISE, seed, segment.epoch, segment.key), positions, values, draw))
        times.append(philox.uniforms(philox.key(TIME, seed, segment.epoch, segment.key), positions, 1, draw)[:, 0])
    return torch.cat(normals), torch.cat(times)
