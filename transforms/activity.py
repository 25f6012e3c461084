"""Voice activity: PCM frames of one stream in, one 0 or 1 per 50 ms frame out.

A frame is active when its energy stands far enough above a tracked noise floor and not too far below a tracked peak, with hysteresis. The
floor makes the rule independent of the room, the peak keeps out the other speaker's bleed, and both follow the gain.

Exact: an energy is an integer below 2**53 held in float64, a threshold an IEEE product of it, a decision a comparison. So neither
chunking nor the SIMD level changes a bit. It is a label, never an input, and yet causal. It is no detector of speech: laughter, coughs and
doors are active too, and so are the first seconds of a session in loud noise (`early_floor_db`). An hour takes about 0.1 s.

Letters: F frames given, S samples of a frame (800), E frames of them that hold sound, H frames of sound remembered, T ticks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..schemas.clock import FRAME_SAMPLES, TICK_FRAMES
from ..schemas.spec import ActivitySpec

_FULL_SCALE = float(FRAME_SAMPLES**2 * 32_768**2)  # the energy that is 0 dB
_BLOCK_FRAMES = 256  # 1.6 MB of float64: stays in cache, 1.5 times as fast as thousands


@dataclass(frozen=True, slots=True)
class ActivityState:
    """What later frames still need of the earlier ones."""

    past_H: NDArray[np.float64]  # energies of the last frames that held sound, oldest first; NaN where there were none yet
    active: bool  # whether the last frame was active
    squares: int  # sum of the squares of all samples so far, exact: what a level is made from


def start(spec: ActivitySpec) -> ActivityState:
    """The state before a session's first frame."""
    return ActivityState(_read_only(np.full(_num_remembered(spec), np.nan)), False, 0)


def step(
    pcm_FS: NDArray[np.int16], valid_F: NDArray[np.bool_] | NDArray[np.integer], state: ActivityState, spec: ActivitySpec
) -> tuple[NDArray[np.uint8], ActivityState]:
    """Activity uint8 [F], 1 or 0, of whole frames int16 [F, 800], and the state for the next call.

    `valid_F` is non-zero where a frame holds any real sample. A frame that holds none, or whose samples are all equal (digital silence, at
    whatever offset), is never active, ends what was active, and leaves floor and peak as they are: they outlast a gap in the recording
    and the zeros of a gated channel.

    Raises:
        ValueError: if the shapes or the dtype are others.
    """
    if pcm_FS.dtype != np.int16 or pcm_FS.ndim != 2 or pcm_FS.shape[1] != FRAME_SAMPLES or valid_F.shape != pcm_FS.shape[:1]:
        raise ValueError(f"expected int16 [F, {FRAME_SAMPLES}] and [F], got {pcm_FS.dtype} {pcm_FS.shape} and {valid_F.shape}")
    energy_F, squares = _energy(pcm_FS)
    sound_F = (valid_F != 0) & (energy_F > 0)
    energy_E = energy_F[sound_F]
    known = np.concatenate([state.past_H, energy_E])
    on_E, off_E = _thresholds(known, len(energy_E), spec)

    verdict_F = np.full(len(energy_F), -1, np.int8)  # 1 starts, -1 ends, 0 leaves as it was
    verdict_F[sound_F] = (energy_E >= on_E).astype(np.int8) - (energy_E < off_E)
    last_F = np.maximum.accumulate(np.where(verdict_F != 0, np.arange(len(verdict_F)), -1))  # the last frame with a verdict
    active_F = np.where(last_F >= 0, verdict_F[last_F] > 0, state.active).astype(np.uint8)
    past_H = known[len(known) - len(state.past_H) :]
    is_active = bool(active_F[-1]) if len(active_F) else state.active
    return active_F, ActivityState(_read_only(past_H.copy()), is_active, state.squares + squares)


def by_tick(active_F: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Activity uint8 [T] of ticks: 1 where any of the tick's four frames is active. Frames that a last tick lacks count as inactive."""
    if missing := -len(active_F) % TICK_FRAMES:
        active_F = np.pad(active_F, (0, missing))
    return active_F.reshape(-1, TICK_FRAMES).max(axis=1)


def _energy(pcm_FS: NDArray[np.int16]) -> tuple[NDArray[np.float64], int]:
    """800·Σx² − (Σx)² of each frame, 800² times the variance of its samples, and Σx² of all: every term of the former an integer below
    2**51, the sum of a block below 2**48, so exact in any order."""
    energy_F, total = np.empty(len(pcm_FS)), 0
    for first in range(0, len(pcm_FS), _BLOCK_FRAMES):
        x_FS = pcm_FS[first : first + _BLOCK_FRAMES].astype(np.float64)
        squares_F = np.einsum("fs,fs->f", x_FS, x_FS)
        energy_F[first : first + _BLOCK_FRAMES] = FRAME_SAMPLES * squares_F - x_FS.sum(axis=1) ** 2
        total += int(squares_F.sum())
    return energy_F, total


def _thresholds(known: NDArray[np.float64], num_new: int, spec: ActivitySpec) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The energies at which each of the last `num_new` frames of `known` starts and stops being active."""
    first = len(known) - num_new
    for_floor = known[first - spec.floor_frames + 1 :]
    floor_E = _windowed(np.fmin, for_floor, spec.floor_frames)
    early_E = np.isnan(for_floor[:num_new])  # the first of the frame's window is still before the session
    floor_E = np.where(early_E, np.minimum(floor_E, _FULL_SCALE * _ratio(spec.early_floor_db)), floor_E)
    steady = _windowed(np.minimum, known[first - spec.peak_frames - spec.peak_hold_frames + 2 :], spec.peak_hold_frames)  # NaN stays NaN
    peak_E = _windowed(np.fmax, steady, spec.peak_frames)
    least = _FULL_SCALE * _ratio(spec.min_level_db)
    on_E = np.fmax(np.maximum(floor_E * _ratio(spec.above_floor_db), least), peak_E * _ratio(-spec.below_peak_db))  # fmax: no peak yet
    return on_E, np.maximum(on_E * _ratio(-spec.release_db), least)


def _windowed(pick: Callable, x: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """`pick` (an associative, idempotent ufunc) over each run of `width` values of x: len(x) - width + 1 of them, in log2(width) passes."""
    span = 1
    while span < width:
        shift = min(span, width - span)  # two runs of `span` that overlap or touch are one of span + shift
        x = pick(x[:-shift], x[shift:])
        span += shift
    return x


def _ratio(db: float) -> float:
    """10^(dB/10), rounded to float32 so that the last bit of a platform's `pow` does not show."""
    return float(np.float32(10.0 ** (db / 10.0)))


def _num_remembered(spec: ActivitySpec) -> int:
    return max(spec.floor_frames, spec.peak_frames + spec.peak_hold_frames - 1) - 1


def _read_only(array: NDArray[np.float64]) -> NDArray[np.float64]:
    array.setflags(write=False)
    return array
