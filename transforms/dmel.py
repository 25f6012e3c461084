"""dMel: 50 ms of what is heard as 80 codes of 0–15, the open model's audio token. In any pieces, live or from a file, the same bytes.

In: mono samples at 16 kHz, float32 or int16. Out: uint8 [F, 80], frame i from samples [800(i - 1), 800(i + 1)), zeros before the session.
`encode` is `step` and `finish` over the whole recording: there is one code path. About 5000 times real time on one core.

A code is the nearest of 16 centres to log10 of a mel magnitude. Here the magnitude is compared instead with the 15 powers of ten between
the centres, computed once to fifty digits: the same answer without a logarithm, whose last bit differs between SIMD levels.

The open model's own code works in float32. Its codes equal these but where float32 itself cannot decide: next to a boundary, and in bands
some 100 dB below the loudest of the same frame (bare tones, sweeps). Nothing here depends on a recording as a whole, unlike the gain that
`tml-renderers` gives a quiet one.

Letters: S samples, F frames, B bands.
"""

from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..schemas.spec import DmelSpec
from . import mel

REFERENCE = DmelSpec()  # the open model's constants


@dataclass(frozen=True, slots=True, eq=False)
class DmelState(mel.MelState):
    """The [800 … 1599] samples that later frames still need."""


def start(spec: DmelSpec = REFERENCE) -> DmelState:
    """The state before the session's first sample."""
    return DmelState(tail_S=mel.first_tail(spec))


def step(samples: NDArray[Any], state: DmelState, spec: DmelSpec = REFERENCE) -> tuple[NDArray[np.uint8], DmelState]:
    """Codes uint8 [F, B] of the frames that end inside `samples` (float32 or int16 [S], any S), and the state for the next piece.

    Raises:
        InputError: samples of another dtype or shape, or not finite.
    """
    return mel.step(samples, state, spec, partial(quantise, spec=spec))


def finish(state: DmelState, spec: DmelSpec = REFERENCE) -> NDArray[np.uint8]:
    """Codes uint8 [0 or 1, B] of the frame that the end leaves incomplete, padded with zeros."""
    return mel.finish(state, spec, partial(quantise, spec=spec))


def encode(samples: NDArray[Any], spec: DmelSpec = REFERENCE) -> NDArray[np.uint8]:
    """Codes uint8 [ceil(S / 800), B] of a whole recording, float32 or int16 [S] at 16 kHz. Raises InputError as `step` does."""
    codes_FB, state = step(samples, start(spec), spec)
    return np.concatenate([codes_FB, finish(state, spec)])


def silence(spec: DmelSpec = REFERENCE) -> NDArray[np.uint8]:
    """The codes uint8 [B] of a frame of digital silence after digital silence. They are not zeros: the power floor is audible."""
    return encode(np.zeros(spec.hop_samples, np.float32), spec)[0]


def centres(spec: DmelSpec = REFERENCE) -> NDArray[np.float64]:
    """What the codes 0, 1, … stand for, float64 [num_codes], in log10 of a mel magnitude."""
    return np.linspace(spec.min_log10, spec.max_log10, spec.num_codes)


def decode(codes: NDArray[np.uint8], spec: DmelSpec = REFERENCE) -> NDArray[np.float32]:
    """The centres of codes of any shape, float32, for plots: the middle of what each code may have been."""
    return centres(spec).astype(np.float32)[codes]


@lru_cache(maxsize=8)
def thresholds(spec: DmelSpec = REFERENCE) -> NDArray[np.float64]:
    """The 15 magnitudes, ascending, that a mel magnitude must exceed for codes 1, 2, …: exact for every float64.

    Between centres i and i + 1 lies b = min + (max - min)·(2i + 1) / (2·(num_codes - 1)); each threshold is the largest float64 that is not
    above 10^b. The lower code wins a tie, as in an argmin over distances.
    """
    low, high = Fraction(spec.min_log10), Fraction(spec.max_log10)
    found = []
    with localcontext() as context:
        context.prec = 50
        for i in range(spec.num_codes - 1):
            boundary = low + (high - low) * (2 * i + 1) / (2 * (spec.num_codes - 1))
            exact = Decimal(10) ** (Decimal(boundary.numerator) / Decimal(boundary.denominator))
            nearest = float(exact)
            found.append(nearest if Decimal(nearest) <= exact else float(np.nextafter(nearest, 0)))
    values = np.array(found)
    values.flags.writeable = False
    return values


def quantise(magnitudes: NDArray[np.float64], spec: DmelSpec = REFERENCE) -> NDArray[np.uint8]:
    """Codes uint8 of mel magnitudes of any shape (not their logarithms): how many thresholds each exceeds."""
    return np.searchsorted(thresholds(spec), magnitudes, side="left").astype(np.uint8)
