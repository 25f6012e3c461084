"""Frames of own mel from hidden rows: noise by counter, Euler steps, half-precision mel. The one way in which speech is made.

Letters: F frames, D columns of a hidden row, X = 320 values of a frame.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels import philox
from ...schemas.spec import NUM_BANDS
from ...transforms import own
from ..data import Batch
from ..model import FlowHead, Inputs, InteractionModel
from ..model.flow import FRAME_VALUES, SUB_FRAMES

SPEECH = "speech"
SILENCE = np.float16(-6.2)  # own mel of digital silence, about


def noise_of(keys: Sequence[str], positions: Sequence[int], seed: int) -> Tensor:
    """Standard normals [F, X]: those of the rows at these positions of the documents with these keys."""
    rows = [
        philox.normals(philox.key(SPEECH, seed, 0, key), torch.tensor([position]), FRAME_VALUES)
        for key, position in zip(keys, positions, strict=True)
    ]
    return torch.cat(rows) if rows else torch.zeros(0, FRAME_VALUES)


def frames_of(flow: FlowHead, hidden_FD: Tensor, noise_FX: Tensor) -> NDArray[np.float16]:
    """Own mel float16 [F, 4, 80] that the head makes of these rows and this noise."""
    with torch.no_grad():
        return own.from_head(flow.sample(hidden_FD, noise_FX).numpy()).reshape(-1, SUB_FRAMES, NUM_BANDS)


def retold(model: InteractionModel, batch: Batch, *, seed: int = 0) -> NDArray[np.float16]:
    """Own mel float16 [F, 4, 80] for every row of the batch that learns a frame, in order; what was truly said is the past of each.

    It shows what the head has learned, not what a session would say: there the past is the model's own.
    """
    with torch.no_grad():
        hidden = model.eval()(Inputs.of(batch)).hidden_TD
    document = torch.searchsorted(batch.offsets, batch.flow_rows, right=True) - 1
    positions = (batch.flow_rows - batch.offsets[document]).tolist()
    return frames_of(model.flow, hidden[batch.flow_rows], noise_of([batch.segments[d].key for d in document.tolist()], positions, seed))


def on_the_clock(batch: Batch, mel16: NDArray[np.float16], document: int = 0) -> NDArray[np.float16]:
    """Own mel float16 [16 · (ticks + 1), 80] of one document: its frames of `mel16` where they sound, silence elsewhere."""
    segment, start, stop = batch.segments[document], *batch.offsets[document : document + 2].tolist()
    here = (batch.flow_rows >= start) & (batch.flow_rows < stop)
    tick = batch.ticks[batch.flow_rows[here]].long() + 1 - segment.first_tick  # what is performed after tick k sounds in k + 1
    frame = torch.cat([torch.arange(int(n)) for n in torch.unique_consecutive(tick, return_counts=True)[1]]) if len(tick) else tick
    track = np.full(((segment.num_ticks + 1) * 4, SUB_FRAMES, NUM_BANDS), SILENCE, np.float16)
    track[(tick * 4 + frame).numpy()] = mel16[here.numpy()]
    return track.reshape(-1, NUM_BANDS)
