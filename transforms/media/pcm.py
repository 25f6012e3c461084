"""Decoded audio frames as float32 arrays: one array for many frames that follow each other, since a call for each costs more than its work.

Which frames are taken together changes nothing but speed: a block tells the lengths of its frames, and frames that libav stamps as one run
(to the unit, by the count of samples) lie in it as they lay in the stream. A frame with another rate, format, channels or time starts anew.
"""

from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

JOINED_SAMPLES = 65_536  # a run this long is a block: a second or two, and what place.py resamples at once
_OFFSET_AND_SCALE = {"u8": (128, 128), "s16": (0, 1 << 15), "s32": (0, 1 << 31), "flt": (0, 1), "dbl": (0, 1)}
_MAX_PLANES = 7  # PyAV looks for planes until it finds a null, which libav's table of eight does not end with


FrameKind = tuple[int, str, int]  # rate in Hz, format, channels


class AudioBlock(NamedTuple):
    """Some consecutive samples of every channel, of one frame of the decoder or of several. C channels, S samples.

    Attributes:
        pts: presentation time of the first sample in units of `time_base` seconds; None where the container has none.
        time_base: the same object for every block of a stream.
        rate_hz: of this block; may change in mid-stream, as may C.
        samples_CS: float32, integers divided by their full scale.
        padding: so many samples at the block's end are the encoder's, not the recording's; only a block of one frame has any.
        frames: samples of each frame, where there are several: each one's time is that of the first, by the count of samples.
    """

    pts: int | None
    time_base: Fraction
    rate_hz: int
    samples_CS: NDArray[np.float32]
    padding: int = 0
    frames: tuple[int, ...] = ()

    def apart(self) -> "list[AudioBlock]":
        """The frames of the block, each as a block of its own."""
        found, start, unit = [], 0, self.time_base * self.rate_hz  # samples to a unit
        for length in self.frames:
            pts = None if self.pts is None else self.pts + int(start / unit)
            found.append(AudioBlock(pts, self.time_base, self.rate_hz, self.samples_CS[:, start : start + length]))
            start += length
        return found


def kind_of(frame: av.AudioFrame) -> FrameKind:
    """What the frames of one block have in common."""
    return frame.sample_rate, frame.format.name, frame.layout.nb_channels


def timestamp(frame: av.AudioFrame | av.VideoFrame) -> int | None:
    """The frame's presentation time, else its decoding time, in units of its stream; None where it has neither."""
    return frame.pts if frame.pts is not None else frame.dts


class Joiner:
    """Frames of one stream in, blocks out. Offer a frame with `takes`; where it is refused, take `block` and `start` with it.

    Attributes:
        num_samples: that wait.
    """

    def __init__(self, time_base: Fraction) -> None:
        self.num_samples = 0
        self._time_base = time_base
        self._to_float = _FloatPcm()
        self._fifo: av.AudioFifo | None = None
        self._kind: FrameKind | None = None  # of what the fifo was made for
        self._first: int | None = None
        self._frames: list[int] = []
        self._per_unit = self._next = 0  # time is counted in integers of a common fraction of a second
        self._alone: AudioBlock | None = None

    def takes(self, frame: av.AudioFrame, kind: FrameKind) -> bool:
        """Whether the frame goes on where the last one ended; then it waits with it."""
        pts = frame.pts
        if not self._frames or pts is None or pts * self._per_unit != self._next or kind != self._kind:
            return False
        self._add(frame)
        return True

    def start(self, frame: av.AudioFrame, kind: FrameKind) -> None:
        """The frame waits; nothing else may."""
        pts = timestamp(frame)
        if pts is None or not _is_joinable(kind):
            self._alone, self.num_samples = self.single(frame), frame.samples
            return
        if kind != self._kind:
            self._fifo, self._kind = av.AudioFifo(), kind
        self._first, self._per_unit = pts, self._time_base.numerator * kind[0]
        self._next = pts * self._per_unit
        self._add(frame)

    def block(self) -> AudioBlock:
        """What waits."""
        self.num_samples = 0
        if self._alone is not None:
            alone, self._alone = self._alone, None
            return alone
        frames, self._frames = tuple(self._frames), []
        samples_CS = self._to_float(self._fifo.read())
        return AudioBlock(self._first, self._time_base, self._kind[0], samples_CS, frames=frames if len(frames) > 1 else ())

    def single(self, frame: av.AudioFrame) -> AudioBlock:
        """A block of this frame alone; what waits goes on waiting."""
        return AudioBlock(timestamp(frame), self._time_base, frame.sample_rate, self._to_float(frame))

    def _add(self, frame: av.AudioFrame) -> None:
        num_samples = frame.samples
        frame.pts = None  # the fifo would compare it in floating point
        self._fifo.write(frame)
        self._frames.append(num_samples)
        self.num_samples += num_samples
        self._next += num_samples * self._time_base.denominator


def _is_joinable(kind: FrameKind) -> bool:
    _, name, channels = kind
    return name.removesuffix("p") in _OFFSET_AND_SCALE and channels <= _MAX_PLANES


class _FloatPcm:
    """Frames of any sample format as float32 [C, S]; full scale is 1."""

    def __init__(self) -> None:
        self._packed: av.AudioResampler | None = None

    def __call__(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        kind, channels = frame.format.name.removesuffix("p"), frame.layout.nb_channels
        if kind not in _OFFSET_AND_SCALE or (frame.format.is_planar and channels > _MAX_PLANES):  # PyAV knows no 64-bit integers
            self._packed = self._packed or av.AudioResampler(format="dbl" if kind == "s64" else kind)
            (frame,) = self._packed.resample(frame)
            kind = frame.format.name
        offset, scale = _OFFSET_AND_SCALE[kind]
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is dropped as such
            samples = samples.astype(np.float32, copy=False)
        if offset:
            samples -= np.float32(offset)
        return samples if scale == 1 else samples * np.float32(1 / scale)
