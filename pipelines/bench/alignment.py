"""How far sound lies from the picture of the same moment: a beep and a flash of a synthetic film, each found on the session's clock.

The beep is found by correlation with itself, the flash by looking at pictures; the truth of the film is not asked.
"""

import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from ...schemas.spec import FeatureSpec
from ...transforms.media.decode import Fault, PictureFrame, pictures, probe
from ...transforms.media.place import AudioTrack
from ..synth.mix import clap_pcm
from ..synth.write import make

WHITE, NUM_LINES = 200, 200  # a flash is at least so white, of 255, in so many lines from the top
REACH = SAMPLE_RATE_HZ // 4  # the beep is looked for so far from the flash


def clap_errors() -> list[int]:
    """Samples (16 kHz) from each flash of the demo film to its beep; + is a beep too late."""
    spec = FeatureSpec()
    with tempfile.TemporaryDirectory(prefix="microturn-bench-") as folder:
        made = make(Path(folder), layout="demo")
        film = Path(folder) / next(path for truth in made.truths for path in truth["size_bytes"] if path.endswith(".mp4"))
        with open(film, "rb") as file:
            held = probe(file, spec.limits)
            ticks = made.num_samples // TICK_SAMPLES
            flashes = _flashes(pictures(file, 0, spec.limits), held.zero)
            sound = AudioTrack.open(file, held, 0, file_start=Fraction(0), spec=spec, channel=1)
            samples_S, _ = sound.read(ticks * TICK_SAMPLES)
            sound.close()
    return [_beep(samples_S, flash) - flash for flash in flashes]


def _flashes(shots: Iterable[PictureFrame | Fault], zero: Fraction) -> list[int]:
    """The session samples of white pictures that follow one that is not."""
    found, was_white = [], False
    for shot in shots:
        if isinstance(shot, Fault) or shot.pts is None:
            continue
        is_white = float(shot.frame.to_ndarray(format="gray")[:NUM_LINES].mean()) > WHITE
        if is_white and not was_white:
            found.append(round((shot.pts * shot.time_base - zero) * SAMPLE_RATE_HZ))
        was_white = is_white
    return found


def _beep(samples_S: NDArray[np.float32], around: int) -> int:
    """The sample at which the beep begins, near `around`."""
    beep_S = clap_pcm(SAMPLE_RATE_HZ).astype(np.float64)
    first = max(around - REACH, 0)
    near_S = samples_S[first : around + REACH + len(beep_S)].astype(np.float64)
    return first + int(np.argmax(np.correlate(near_S, beep_S, mode="valid")))
