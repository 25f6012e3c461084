"""Pieces of sound laid at session samples, read front to back: silence that is not real wherever nothing was laid.

Holds what was laid and not yet read, nothing else: a gap of an hour costs no memory.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray


class Tape:
    """Write ascending, read ascending.

    Attributes:
        laid: everything before this session sample is final.
        cursor: the session sample that is read next.
        peak: largest absolute value laid.
    """

    def __init__(self) -> None:
        self.laid = self.cursor = 0
        self.peak = 0.0
        self._pieces: deque[tuple[int, NDArray[np.float32]]] = deque()
        self._holes: deque[tuple[int, int]] = deque()
        self._closed = False

    def skip_to(self, sample: int) -> None:
        """Nothing is laid before this session sample."""
        assert sample >= self.laid, f"laid up to {self.laid} already, cannot go back to {sample}"
        self.laid = sample

    def lay(self, samples_S: NDArray[np.float32]) -> None:
        """Appends sound where the last one ended."""
        if not len(samples_S):
            return
        self.peak = max(self.peak, float(samples_S.max()), -float(samples_S.min()))
        if not self._closed:
            self._pieces.append((self.laid, samples_S))
        self.laid += len(samples_S)

    def make_hole(self, start: int, stop: int) -> None:
        """What is or will be laid in these session samples is not real. Holes come in ascending order."""
        if not self._closed:
            self._holes.append((start, stop))

    def read(self, num_samples: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The next samples float32 [n], and which of them are real, bool [n]. Read only what is final, or will never be laid."""
        assert not self._closed, "read after close: the rest has been thrown away"
        start, stop = self.cursor, self.cursor + num_samples
        samples, is_real = np.zeros(num_samples, np.float32), np.zeros(num_samples, bool)
        while self._pieces and self._pieces[0][0] < stop:
            at, piece = self._pieces.popleft()
            here = piece[: stop - at]
            samples[at - start : at - start + len(here)] = here
            is_real[at - start : at - start + len(here)] = True
            if len(here) < len(piece):
                self._pieces.appendleft((stop, piece[len(here) :]))
        while self._holes and self._holes[0][0] < stop:
            hole_start, hole_stop = self._holes.popleft()
            is_real[max(hole_start - start, 0) : max(hole_stop - start, 0)] = False
            if hole_stop > stop:
                self._holes.appendleft((stop, hole_stop))
        self.cursor = stop
        return samples, is_real

    def close(self) -> None:
        """Throws away what was not read, and all that comes: from now on only `laid` and `peak` are kept."""
        self._closed = True
        self._pieces.clear()
        self._holes.clear()
