"""What a media file holds, without decoding more than each stream's first frame: kinds, rates, sizes, starts, claimed lengths.

The file's zero is its earliest presented sample or picture: what everything in the file is placed against (FORMAT.md section 2).
A stream whose start lies further behind than the limit is not searched for; its `first` is None, as is that of a stream without frames.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from av.container import InputContainer
from av.stream import Discard, Stream

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import MediaError
from ...schemas.spec import LimitSpec
from .containers import Fault, Kind, Source, decoded, name_of, open_media, streams_of
from .declared import Claim, claim


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamProbe:
    """One stream of a file.

    Attributes:
        kind: `audio`, `video` or `text`.
        index: within its kind, from 0; cover art is not counted.
        codec: libav's name of it, "" where libav cannot decode it.
        rate_hz, channels: of audio; 0 otherwise.
        width_px, height_px: of video as coded, before rotation and pixel aspect; 0 otherwise.
        first: presentation time of the first sample or picture, seconds on the container's clock; None for text, and where none was found.
        declared: PCM samples or pictures that the container says there are; -1 where it does not say (an estimate is no saying).
        includes_gaps: `declared` was told as a length of time, of which gaps in the stream are part.
        stop: where the container says the stream ends, seconds on its clock; None where it does not say.
        truncated: the file's end is missing, by the container's own rules.
        absurd: it says a length that no recording has; `declared` and `stop` are as if it said nothing.
    """

    kind: Kind
    index: int
    codec: str
    rate_hz: int = 0
    channels: int = 0
    width_px: int = 0
    height_px: int = 0
    first: Fraction | None = None
    declared: int = -1
    includes_gaps: bool = False
    stop: Fraction | None = None
    truncated: bool = False
    absurd: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaProbe:
    """One file. `zero` is the earliest `first` of its audio and video streams, 0 where there is none."""

    streams: tuple[StreamProbe, ...]
    zero: Fraction

    def stream(self, kind: Kind, index: int) -> StreamProbe:
        """Stream `index` of its kind. Raises MediaError `no_such_stream`."""
        for stream in self.streams:
            if (stream.kind, stream.index) == (kind, index):
                return stream
        found = sum(stream.kind == kind for stream in self.streams)
        raise MediaError(
            f"no {kind} stream {index}: the file has {found}", reason="no_such_stream", hint="counted from 0 within their kind"
        )


def probe(source: Source, limits: LimitSpec) -> MediaProbe:
    """The streams of a file and its zero.

    Raises:
        MediaError: `empty_file`, `not_media`, `no_streams`, `limit_streams`.
    """
    with open_media(source, limits) as container:
        if len(container.streams) > limits.max_streams:
            message = f"{name_of(source)}: {len(container.streams)} streams, the limit is {limits.max_streams}"
            raise MediaError(message, reason="limit_streams")
        heard = [s for kind in ("audio", "video") for s in streams_of(container, kind)]
        texts = streams_of(container, "text")
        if not heard and not texts:
            raise MediaError(f"{name_of(source)}: no audio, video or text in it", reason="no_streams")
        firsts = _first_times(container, [s for s in heard if _is_within(s, limits)], limits)
        streams = []
        for kind in ("audio", "video"):
            for index, stream in enumerate(streams_of(container, kind)):
                first = firsts.get(stream.index, _NOWHERE)
                said = claim(container, stream, *first, len(heard) == 1, source) if stream.codec_context else Claim()
                streams.append(_describe(stream, kind, index, first.time, said))
        streams += [_describe(stream, "text", index, None, Claim()) for index, stream in enumerate(texts)]
        return MediaProbe(streams=tuple(streams), zero=min((first.time for first in firsts.values()), default=Fraction(0)))


def check_limits(stream: StreamProbe, limits: LimitSpec) -> None:
    """Nothing, for a stream that may be decoded. Raises MediaError: `no_decoder`, `limit_rate`, `limit_channels`, `limit_pixels`."""
    place, pixels = f"{stream.kind} stream {stream.index}", stream.width_px * stream.height_px
    if not stream.codec:
        raise MediaError(f"{place}: libav has no decoder for it", reason="no_decoder")
    if stream.kind == "audio" and not 0 < stream.rate_hz <= limits.max_rate_hz:
        raise MediaError(f"{place}: {stream.rate_hz} Hz, the limit is {limits.max_rate_hz}", reason="limit_rate")
    if stream.channels > limits.max_channels:
        raise MediaError(f"{place}: {stream.channels} channels, the limit is {limits.max_channels}", reason="limit_channels")
    if pixels > limits.max_pixels:
        raise MediaError(f"{place}: {stream.width_px}×{stream.height_px} pixels, the limit is {limits.max_pixels}", reason="limit_pixels")


class _First(NamedTuple):
    """Time of a stream's first frame, and by how much its first packet lies before it: what libav skipped as priming."""

    time: Fraction | None
    priming: Fraction


_NOWHERE = _First(None, Fraction(0))


def _first_times(container: InputContainer, streams: list[Stream], limits: LimitSpec) -> dict[int, _First]:
    """Stream index → its start, for those that have a frame within the limit."""
    firsts: dict[int, _First] = {}
    packet_starts: dict[int, Fraction] = {}
    longest = Fraction(limits.max_start_samples, SAMPLE_RATE_HZ)
    for item in decoded(container, streams, limits) if streams else ():
        if isinstance(item, Fault):
            continue
        packet, frames = item
        stream = packet.stream
        if stream.index in firsts:
            continue
        if packet.pts is not None:
            at = packet_starts.setdefault(stream.index, packet.pts * Fraction(stream.time_base))
            if firsts and at - min(first.time for first in firsts.values()) > longest:
                break
        times = [t for t in (frame.pts if frame.pts is not None else frame.dts for frame in frames) if t is not None]
        if times:
            time = min(times) * Fraction(stream.time_base)
            firsts[stream.index] = _First(time, max(time - packet_starts.get(stream.index, time), Fraction(0)))
            stream.discard = Discard.all  # the demuxer skips the rest of it
        if len(firsts) == len(streams):
            break
    return firsts


def _is_within(stream: Stream, limits: LimitSpec) -> bool:
    if stream.codec_context is None:
        return False
    try:
        check_limits(_describe(stream, "audio" if stream.type == "audio" else "video", 0, None, Claim()), limits)
    except MediaError:
        return False
    return True


def _describe(stream: Stream, kind: Kind, index: int, first: Fraction | None, said: Claim) -> StreamProbe:
    context = stream.codec_context
    is_audio, is_video = (context is not None and kind == k for k in ("audio", "video"))
    return StreamProbe(
        kind=kind,
        index=index,
        codec=context.name if context else "",
        rate_hz=context.sample_rate if is_audio else 0,
        channels=context.layout.nb_channels if is_audio else 0,
        width_px=context.width if is_video else 0,
        height_px=context.height if is_video else 0,
        first=first,
        declared=said.units,
        includes_gaps=said.includes_gaps,
        stop=said.stop,
        truncated=said.truncated,
        absurd=said.absurd,
    )
