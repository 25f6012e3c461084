"""Own mel of a window's speaking ticks, each computed once and kept as long as the window is.

It is most of what a batch costs: 0.1 ms a tick. What a tick still hears of the one before lies in the same record, for windows overlap by a
tick of own speech; before a session's first tick there is nothing.
"""

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import FRAME_SAMPLES, TICK_FRAMES
from ...schemas.spec import OwnMelSpec
from ...transforms import own
from ...transforms.mel import mono_float32


def prepare(spec: OwnMelSpec) -> None:
    """Makes the tables that own mel needs, which takes a second the first time."""
    own.encode_mel(np.zeros(FRAME_SAMPLES, np.int16), spec)


class OwnSpeech:
    """The own speech of one window: int16 [T + 1, 3200] in, mel out, by tick of the window, the one beyond its end too."""

    def __init__(self, own_pcm: NDArray[np.int16], spec: OwnMelSpec) -> None:
        self._pcm, self._spec = own_pcm, spec
        self._known: dict[int, NDArray[np.float16]] = {}

    def mel16(self, ticks_S: NDArray[np.integer]) -> NDArray[np.float16]:
        """Own mel float16 [S, 4 frames, sub-frames, 80] of these ticks, which rise. Frame j of a tick lies in [.., j]."""
        wanted = ticks_S.tolist()
        missing = np.array([tick for tick in wanted if tick not in self._known], int)
        for run in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1) if len(missing) else ():
            self._known.update(zip(run.tolist(), self._of_run(int(run[0]), int(run[-1]) + 1), strict=True))
        shape = (TICK_FRAMES, FRAME_SAMPLES // self._spec.hop_samples, self._spec.num_bands)
        return np.stack([self._known[tick] for tick in wanted]) if wanted else np.zeros((0, *shape), np.float16)

    def _of_run(self, start: int, stop: int) -> NDArray[np.float16]:
        """Own mel of ticks [start, stop): the bits of the whole session's, by law 1."""
        state = own.start(self._spec)
        if start:
            state = own.OwnMelState(tail_S=mono_float32(self._pcm[start - 1][-len(state.tail_S) :]))
        mel_IB, _ = own.step(self._pcm[start:stop].reshape(-1), state, self._spec)
        return own.by_frame(mel_IB, self._spec).reshape(stop - start, TICK_FRAMES, -1, self._spec.num_bands)
