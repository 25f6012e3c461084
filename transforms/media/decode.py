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

from ...schemas.spec import LimitSpec
from .containers import Fault, Source, decoded, open_media, pick
from .pcm import JOINED_SAMPLES, AudioBlock, FrameKind, Joiner, kind_of, timestamp
from .probe import MediaProbe, StreamProbe, probe
from .subtitles import Cue, subtitles

__all__ = [
    "AudioBlock", "Cue", "Fault", "MediaProbe", "PictureFrame", "Source", "StreamProbe", "audio_blocks", "open_media", "pictures", "probe",
    "subtitles",
]  # fmt: skip

_EDIT_UNIT = Fraction(1, 500)  # edit lists count in 1/600 or 1/1000 s
_SQUARE = Fraction(1)
_HELD_FRAMES = 2  # more padding than two codec frames is none: then the container's duration is wrong


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
        joiner = Joiner(time_base)
        held: deque[tuple[av.AudioFrame, FrameKind]] = deque()
        num_held = _HELD_FRAMES if container.format.name.startswith("mov") else 0
        last_packet = known = None
        for item in decoded(container, [stream], limits):
            if isinstance(item, Fault):
                yield from _drain(joiner, held)
                yield item
                continue
            packet, frames = item
            if packet.size:
                last_packet = packet
            for frame in frames:
                kind = kind_of(frame)
                if kind != known:
                    rate_hz, _, channels = kind
                    if not (0 < rate_hz <= limits.max_rate_hz and channels <= limits.max_channels):
                        yield from _drain(joiner, held)
                        yield Fault("limit_format", f"{rate_hz} Hz, {channels} channels in mid-stream")
                        return
                    known = kind
                if num_held:
                    held.append((frame, kind))
                    if len(held) <= num_held:
                        continue
                    frame, kind = held.popleft()
                if not joiner.takes(frame, kind):
                    if joiner.num_samples:
                        yield joiner.block()
                    if frame.samples:
                        joiner.start(frame, kind)
                if joiner.num_samples >= JOINED_SAMPLES:
                    yield joiner.block()
        if joiner.num_samples:
            yield joiner.block()
        if held:
            yield from _without_padding([joiner.single(frame) for frame, _ in held], stream, _stop_of(last_packet))


def pictures(source: Source, index: int, limits: LimitSpec) -> Generator[PictureFrame | Fault, None, None]:
    """The pictures of video stream `index` in order of presentation, with faults where they happened. Closing it closes the file."""
    with open_media(source, limits) as container:
        stream = cast(av.VideoStream, pick(container, "video", index, source))
        time_base = Fraction(stream.time_base)
        for item in decoded(container, [stream], limits):
            if isinstance(item, Fault):
                yield item
                continue
            for frame in item[1]:
                yield PictureFrame(timestamp(frame), time_base, frame, stream.sample_aspect_ratio or _SQUARE)


def _drain(joiner: Joiner, held: deque[tuple[av.AudioFrame, FrameKind]]) -> Iterator[AudioBlock]:
    if joiner.num_samples:
        yield joiner.block()
    while held:
        yield joiner.single(held.popleft()[0])


def _stop_of(packet: av.Packet | None) -> int | None:
    """Where the packet ends, in units of its stream; None where it does not say."""
    return packet.pts + packet.duration if packet is not None and packet.pts is not None and packet.duration else None


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
