"""Mel magnitudes of a stream, with the same bits however the stream is cut. The machinery under `dmel` and `own`.

In: mono samples at the spec's rate, in pieces of any length. Out: one row of bands for every hop of `spec.hop_samples`; row i sees the
`fft_window_samples` before (i + 1)·hop and nothing later (zeros before the start). No logarithm here: what a row becomes is the caller's.

Why the bits hold (law 1): scipy's rfft gives a row the same bits in any company; the projection is a sparse matrix, which adds each band's
bins in order of frequency, one row at a time (a dense `magnitude @ bank.T` changes with the number of rows: measured, a third of them); the
rest is elementwise. Arithmetic is float64. The constants are rounded to 36 bits: more than a code can see, less than a SIMD level can move.
Costs: 0.2 ms a second of audio with the dMel spec, 0.5 with own mel's. Memory: int16 again as float32, a block of rows, what is returned.

Letters: S samples, F rows, W samples of an FFT window, K frequencies, B bands.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from ..schemas.errors import InputError
from ..schemas.spec import DmelSpec, OwnMelSpec

BLOCK_ROWS = 40  # what stays in a core's second-level cache: 16 to 40 rows are 1.7 times as fast as 64 (measured); no bit depends on it


@dataclass(frozen=True, slots=True, eq=False)
class MelState:
    """What later rows still need of the past. Never changed: whoever holds an older one can go back to it."""

    tail_S: NDArray[np.float32]  # the last [W - hop … W - 1] samples; W - hop zeros at the start


State = TypeVar("State", bound=MelState)


def first_tail(spec: DmelSpec | OwnMelSpec) -> NDArray[np.float32]:
    """The zeros [W - hop] that stand before a stream's first sample."""
    tail_S = np.zeros(spec.fft_window_samples - spec.hop_samples, np.float32)
    tail_S.flags.writeable = False
    return tail_S


def step(
    samples: NDArray[Any], state: State, spec: DmelSpec | OwnMelSpec, keep: Callable[[NDArray[np.float64]], NDArray[Any]]
) -> tuple[NDArray[Any], State]:
    """What `keep` makes of the rows that end inside `samples`, and the state for the next piece.

    Args:
        samples: float32 or int16 [S], any S; see `mono_float32`.
        keep: from float64 mel magnitudes [F, B], at least `mel_floor`, to F rows of anything, row by row. It is called for blocks of rows.

    Raises:
        InputError: samples of another dtype or shape, or not finite.
    """
    samples_S, tail_S = mono_float32(samples), state.tail_S
    piece_samples = BLOCK_ROWS * spec.hop_samples
    kept = []
    for start in range(0, max(len(samples_S), 1), piece_samples):
        joined_S = np.concatenate([tail_S, samples_S[start : start + piece_samples]])
        num_rows = (len(joined_S) - spec.fft_window_samples) // spec.hop_samples + 1
        kept.append(keep(_bands(joined_S, num_rows, spec)))
        tail_S = joined_S[num_rows * spec.hop_samples :].copy()
    tail_S.flags.writeable = False
    return np.concatenate(kept), replace(state, tail_S=tail_S)


def finish(state: State, spec: DmelSpec | OwnMelSpec, keep: Callable[[NDArray[np.float64]], NDArray[Any]]) -> NDArray[Any]:
    """What `keep` makes of the row that the stream's end leaves incomplete, padded with zeros: 1 row, or 0 where nothing is left over."""
    left_over = len(state.tail_S) - (spec.fft_window_samples - spec.hop_samples)
    return step(np.zeros(-left_over % spec.hop_samples, np.float32), state, spec, keep)[0]


def mono_float32(samples: NDArray[Any]) -> NDArray[np.float32]:
    """The samples as finite float32 [S]; int16 is divided by 32768, exactly. Raises InputError for anything else."""
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype not in (np.float32, np.int16):
        found = f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(
            f"samples must be mono float32 or int16 [S], found {found}", hint="mix to one channel and convert, without clipping"
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    if not np.isfinite(samples).all():
        first = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise InputError(
            f"samples must be finite, found {samples[first]} at sample {first} of this piece", hint="the source is damaged there"
        )
    return samples


@lru_cache(maxsize=8)
def fft_window(spec: DmelSpec | OwnMelSpec) -> NDArray[np.float64]:
    """The periodic Hann window [W]."""
    half_turn_W = np.arange(spec.fft_window_samples) / spec.fft_window_samples
    return rounded(np.sin(np.pi * half_turn_W) ** 2)


@lru_cache(maxsize=8)
def bank(spec: DmelSpec | OwnMelSpec) -> scipy.sparse.csr_array:
    """The Slaney mel filterbank [B, K] with Slaney's area norm. Source: `librosa.filters.mel`."""
    from librosa.filters import mel  # here, because it takes a second to import

    weights_BK = mel(
        sr=spec.sample_rate_hz, n_fft=num_fft(spec), n_mels=spec.num_bands, fmax=spec.max_hz, htk=False, norm="slaney", dtype=np.float64
    )
    return scipy.sparse.csr_array(rounded(weights_BK))


def num_fft(spec: DmelSpec | OwnMelSpec) -> int:
    """Points of the transform; the samples of a window stand at its start, zeros after them."""
    return spec.num_fft if isinstance(spec, OwnMelSpec) else spec.fft_window_samples


def _bands(joined_S: NDArray[np.float32], num_rows: int, spec: DmelSpec | OwnMelSpec) -> NDArray[np.float64]:
    """Mel magnitudes [num_rows, B] of the windows that start at joined_S[0], [hop], [2·hop], …"""
    if num_rows == 0:
        return np.empty((0, spec.num_bands))
    stride = joined_S.strides[0]
    frames_FW = np.lib.stride_tricks.as_strided(
        joined_S, (num_rows, spec.fft_window_samples), (spec.hop_samples * stride, stride), writeable=False
    )
    spectrum_FK = scipy.fft.rfft(frames_FW * fft_window(spec), num_fft(spec), axis=1, overwrite_x=True)
    squares = spectrum_FK.view(np.float64)
    np.square(squares, out=squares)  # in place here and below: a block stays in the cache
    power_FK = squares[:, ::2] + squares[:, 1::2]
    magnitude_FK = np.sqrt(np.maximum(power_FK, spec.power_floor, out=power_FK), out=power_FK)
    mel_FB = np.ascontiguousarray((bank(spec) @ magnitude_FK.T).T)  # the order in memory is the order in a file
    return np.maximum(mel_FB, spec.mel_floor, out=mel_FB)


def rounded(constants: NDArray[np.float64]) -> NDArray[np.float64]:
    """The constants to 36 bits, read-only: the last bits of a sine or a logarithm differ between SIMD levels and releases.

    None of the constants here lies within 32 last bits of an edge of that grid (a test says so); at 40 bits some lie within one.
    """
    fraction, exponent = np.frexp(constants)
    values = np.ldexp(np.rint(np.ldexp(fraction, 36)), exponent - 36)
    values.flags.writeable = False
    return values
