"""Ticks without audio after a session's end, for text that outlasts the speech. Arrays are the media members of a record."""

from collections.abc import Iterator, Mapping

import numpy as np

from ...schemas.clock import TICK_FRAMES
from .. import dmel

Arrays = Mapping[str, np.ndarray]

TICK_AXIS = {"activity": 1, "heard_dmel": 1, "heard_pcm": 1, "heard_valid": 1, "own_pcm": 0, "own_valid": 0}


def lengthen(arrays: Arrays, ticks: int, tail_codes_HB: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays with `ticks` more ticks in which nothing is heard, shown or voiced.

    `tail_codes_HB`, uint8 [H, 80], are the codes of the first frame after the end: its window still hears the last 50 ms.
    """
    longer = dict(arrays)
    for name, axis in TICK_AXIS.items():
        if arrays[name].shape[axis]:  # PCM that is not kept stays empty
            longer[name] = np.pad(arrays[name], [(0, ticks if number == axis else 0) for number in range(arrays[name].ndim)])
    codes = np.tile(dmel.silence(), (len(tail_codes_HB), ticks, TICK_FRAMES, 1))
    codes[:, 0, 0] = tail_codes_HB
    longer["heard_dmel"] = np.concatenate([arrays["heard_dmel"], codes], axis=1)
    return longer


def pieces(arrays: Arrays, window_ticks: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """(first tick, arrays) of windows of at most `window_ticks` ticks. Own speech keeps its one tick beyond each window."""
    num_ticks = arrays["heard_valid"].shape[1]
    for start in range(0, num_ticks, window_ticks):
        stop = min(start + window_ticks, num_ticks)
        piece = {}
        for name, axis in TICK_AXIS.items():
            extra = 1 if name.startswith("own_") else 0
            piece[name] = arrays[name][(slice(None),) * axis + (slice(start, stop + extra),)]
        inside = (arrays["picture_tick"] >= start) & (arrays["picture_tick"] < stop)
        piece["patches"], piece["picture_pts"] = arrays["patches"][inside], arrays["picture_pts"][inside]
        piece["picture_tick"] = (arrays["picture_tick"][inside] - start).astype(np.uint16)
        yield start, piece
