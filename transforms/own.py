"""The finer mel of own speech, which the flow head learns to make, and the codes by which it re-enters the model (FORMAT.md section 5).

In: own samples at 16 kHz, float32 or int16. Out: *own mel*, float16 [sub-frames, 80], four sub-frames of 12.5 ms to a frame; sub-frame i is
made from samples [200(i + 1) - 800, 200(i + 1)), zeros before the session. Float64 inside, the same bits in any pieces, about 1800 times
real time. *Own codes* are made from own mel only, by comparison, so that loader and sampler cannot differ. They are not dMel codes.

Letters: S samples, I sub-frames, F frames, B bands.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.clock import FRAME_SAMPLES
from ..schemas.errors import InputError
from ..schemas.spec import OwnMelSpec
from . import mel

REFERENCE = OwnMelSpec()
HEAD_SCALE = np.float32(0.8)
HEAD_SHIFT = np.float32(3)


@dataclass(frozen=True, slots=True, eq=False)
class OwnMelState(mel.MelState):
    """The [600 … 799] samples that later sub-frames still need."""


def start(spec: OwnMelSpec = REFERENCE) -> OwnMelState:
    """The state before the session's first sample."""
    return OwnMelState(tail_S=mel.first_tail(spec))


def step(samples: NDArray[Any], state: OwnMelState, spec: OwnMelSpec = REFERENCE) -> tuple[NDArray[np.float16], OwnMelState]:
    """Own mel float16 [I, B] of the sub-frames that end inside `samples` (float32 or int16 [S], any S), and the state for the next piece.

    Raises:
        InputError: samples of another dtype or shape, or not finite.
    """
    return mel.step(samples, state, spec, partial(_log_mel, spec=spec))


def finish(state: OwnMelState, spec: OwnMelSpec = REFERENCE) -> NDArray[np.float16]:
    """Own mel float16 [0 or 1, B] of the sub-frame that the end leaves incomplete, padded with zeros."""
    return mel.finish(state, spec, partial(_log_mel, spec=spec))


def encode_mel(samples: NDArray[Any], spec: OwnMelSpec = REFERENCE) -> NDArray[np.float16]:
    """Own mel float16 [ceil(S / 200), B] of a whole recording, float32 or int16 [S] at 16 kHz. Raises InputError as `step` does."""
    mel_IB, state = step(samples, start(spec), spec)
    return np.concatenate([mel_IB, finish(state, spec)])


def by_frame(mel16: NDArray[Any], spec: OwnMelSpec = REFERENCE) -> NDArray[Any]:
    """The view [F, 4, B] of own mel or own codes [4F, B]. Raises InputError for sub-frames that do not fill the last frame."""
    per_frame = FRAME_SAMPLES // spec.hop_samples
    if len(mel16) % per_frame:
        raise InputError(
            f"{len(mel16)} sub-frames do not fill frames of {per_frame}",
            hint=f"pad the samples with zeros to a multiple of {FRAME_SAMPLES}",
        )
    return mel16.reshape(-1, per_frame, *mel16.shape[1:])


def codes(mel16: NDArray[np.float16], spec: OwnMelSpec = REFERENCE) -> NDArray[np.uint8]:
    """Own codes uint8 of own mel of any shape: how many of the 15 thresholds each value exceeds.

    A look-up in the table of all 65,536 half-precision numbers: nothing is rounded when it is used, and a NaN has code 0.

    Raises:
        InputError: own mel that is not float16, since its codes would not be those of what is stored.
    """
    if mel16.dtype != np.float16:
        raise InputError(
            f"own codes are made from float16 own mel, found {mel16.dtype}", hint="round it with `from_head` or astype(np.float16)"
        )
    return _code_table(spec)[mel16.view(np.uint16)]


def to_head(mel16: NDArray[Any]) -> NDArray[np.float32]:
    """The flow head's space, float32 of any shape: 0.8·(mel + 3), in float32 in this order."""
    return HEAD_SCALE * (mel16.astype(np.float32) + HEAD_SHIFT)


def from_head(head: NDArray[np.float32], spec: OwnMelSpec = REFERENCE) -> NDArray[np.float16]:
    """Own mel float16 of the head's output of any shape: 1.25·x − 3 in float32, clamped, rounded to half precision once."""
    mel32 = np.float32(1.25) * head.astype(np.float32) - HEAD_SHIFT
    return np.clip(mel32, np.float32(spec.min_log10), np.float32(spec.max_log10)).astype(np.float16)


def _log_mel(mel_IB: NDArray[np.float64], spec: OwnMelSpec) -> NDArray[np.float16]:
    return np.clip(np.log10(mel_IB), spec.min_log10, spec.max_log10).astype(np.float16)


@lru_cache(maxsize=8)
def _code_table(spec: OwnMelSpec) -> NDArray[np.uint8]:
    every_half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    table = np.zeros(1 << 16, np.uint8)
    for n in range(spec.num_codes - 1):
        table += every_half > np.float32(spec.first_threshold + spec.threshold_step * n)
    table.flags.writeable = False
    return table
