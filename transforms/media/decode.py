"""Containers to timestamped blocks: what the session's tracks read. The door of everything that knows libav.

In: a path or a binary file object. Out: `AudioBlock`s of float32 PCM and decoded pictures, both with the container's own timestamps, and a
`Fault` wherever a packet could not be decoded: nothing is lost silently. Nothing here rounds a time, resamples, scales or mixes.

What libav presents is taken as presented: priming is skipped and edit lists are applied there (checked by tests: media/test_clap.py).
What it does not trim is the padding at the end of an AAC, Opus or MP3 stream in mp4, m4a or mov: its last samples are marked `padding`.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import NamedTuple, cast

import av
import numpy as np
from numpy.typing import NDArray

from ...schemas.spec import LimitSpec
from .containers import Fault, Source, decoded, open_media, pick
from .probe import MediaProbe, StreamProbe, probe
from .subtitles import Cue, subtitles

__all__ = [
    "AudioBlock", "Cue", "Fault", "MediaProbe", "PictureFrame", "Source", "StreamProbe", "audio_blocks", "open_media", "pictures", "probe",
    "subtitles",
]  # fmt: skip

_OFFSET_AND_SCALE = {"u8": (128, 128), "s16": (0, 1 << 15), "s32": (0, 1 << 31), "flt": (0, 1), "dbl": (0, 1)}
_EDIT_UNIT = Fraction(1, 500)  # edit lists count in 1/600 or 1/1000 s
_HELD_BLOCKS = 2  # more padding than two codec frames is none: then the container's duration is wrong


class AudioBlock(NamedTuple):
    """Some consecutive samples of every channel, as one decoder call gave them. C channels, S samples.

    Attributes:
        pts: presentation time of the first sample in units of `time_base` seconds; None where the container has none.
        time_base: the same object for every block of a stream.
        rate_hz: of this block; may change in mid-stream, as may C.
        samples_CS: float32, integers divided by their full scale.
        padding: so many samples at the block's end are the encoder's, not the recording's.
    """

    pts: int | None
    time_base: Fraction
    rate_hz: int
    samples_CS: NDArray[np.float32]
    padding: int = 0


class PictureFrame(NamedTuple):
    """A decoded picture, not yet converted.

    Attributes:
        pts: presentation time in units of `time_base` seconds; None where the container has none.
        pixel_aspect: width of a pixel over its height; 1 where nothing is said.
    """

    pts: int | None
    time_base: Fraction
    frame: av.VideoFrame
    pixel_aspect: Fraction


def audio_blocks(source: Source, index: int, limits: LimitSpec) -> Generator[AudioBlock | Fault, None, None]:
    """The PCM of audio stream `index`, block by block, with faults where they happened. Closing the iterator closes the file."""
    with open_media(source, limits) as container:
        stream = cast(av.AudioStream, pick(container, "audio", index, source))
        time_base = Fraction(stream.time_base)
        to_float = _FloatPcm()
        held: deque[AudioBlock] = deque()
        num_held = _HELD_BLOCKS if container.format.name.startswith("mov") else 0
        packet_stop = None
        for item in decoded(container, [stream], limits):
            if isinstance(item, Fault):
                yield from _drain(held)
                yield item
                continue
            packet, frames = item
            if packet.size and packet.pts is not None and packet.duration:
                packet_stop = packet.pts + packet.duration
            for frame in frames:
                if not 0 < frame.sample_rate <= limits.max_rate_hz or frame.layout.nb_channels > limits.max_channels:
                    yield from _drain(held)
                    yield Fault("limit_format", f"{frame.sample_rate} Hz, {frame.layout.nb_channels} channels in mid-stream")
                    return
                held.append(AudioBlock(_pts(frame), time_base, frame.sample_rate, to_float(frame)))
                if len(held) > num_held:
                    yield held.popleft()
        if held:
            yield from _without_padding(list(held), stream, packet_stop)


def pictures(source: Source, index: int, limits: LimitSpec) -> Generator[PictureFrame | Fault, None, None]:
    """The pictures of video stream `index` in order of presentation, with faults where they happened. Closing it closes the file."""
    with open_media(source, limits) as container:
        stream = cast(av.VideoStream, pick(container, "video", index, source))
        time_base = Fraction(stream.time_base)
        for item in decoded(container, [stream], limits):
            if isinstance(item, Fault):
                yield item
                continue
            for frame in item.frames:
                yield PictureFrame(_pts(frame), time_base, frame, Fraction(stream.sample_aspect_ratio or 1))


def _pts(frame: av.AudioFrame | av.VideoFrame) -> int | None:
    return frame.pts if frame.pts is not None else frame.dts


def _drain(held: deque[AudioBlock]) -> Iterator[AudioBlock]:
    while held:
        yield held.popleft()


def _without_padding(held: list[AudioBlock], stream: av.AudioStream, packet_stop: int | None) -> list[AudioBlock]:
    """The last blocks of an mp4, m4a or mov, with the samples marked that lie beyond the end that the container gives.

    It gives two: the last packet's duration, which is exact where it is shorter than what was decoded, and the edit list, in the movie's
    units, often milliseconds. The earlier one holds, unless their difference is only the edit list's rounding.
    """
    last, lengths = held[-1], [block.samples_CS.shape[1] for block in held]
    if last.pts is None:
        return held
    decoded_stop = last.pts * last.time_base + Fraction(lengths[-1], last.rate_hz)
    stop = decoded_stop
    if stream.duration:
        stop = min(stop, ((stream.start_time or 0) + stream.duration) * last.time_base)
    if packet_stop is not None and packet_stop * last.time_base < decoded_stop and packet_stop * last.time_base - stop <= _EDIT_UNIT:
        stop = packet_stop * last.time_base
    excess = math.floor((decoded_stop - stop) * last.rate_hz)
    if not 0 < excess < sum(lengths):
        return held
    for at in range(len(held) - 1, -1, -1):
        padding = min(excess, lengths[at])
        held[at] = held[at]._replace(padding=padding)
        excess -= padding
    return held


class _FloatPcm:
    """Frames of any sample format as float32 [C, S]; full scale is 1."""

    def __init__(self) -> None:
        self._packed: av.AudioResampler | None = None

    def __call__(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        kind, channels = frame.format.name.removesuffix("p"), frame.layout.nb_channels
        if kind not in _OFFSET_AND_SCALE or (frame.format.is_planar and channels > 7):
            # PyAV knows no 64-bit integers, and looks for planes until it finds a null, which libav's table of eight does not end with
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
