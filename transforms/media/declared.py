"""What a container says about a stream's length, where that can be held against what was decoded.

Half an MP3, MKV or Opus file decodes without any error, so the claim is the only witness. A claim counts only if the container itself
makes it: a length that libav estimates from a bit rate, or reads off the last timestamp it finds (MPEG-TS, ADTS, AC-3, AMR), is none.
Neither is one that no recording has (negative, or beyond a year): it is noted as absurd and believed in nothing.
"""

import re
import struct
from fractions import Fraction
from typing import NamedTuple

from av.container import InputContainer
from av.stream import Stream

from .containers import Source, open_bytes

_EXACT = {"w64", "aiff", "au", "caf", "nistsphere", "ogg", "wv", "tta", "ape", "mpc", "mpc8", "avi"}  # stream.duration is a claim
_TIMES = {"mov", "matroska", "ogg", "flv", "avi"}  # a length of time; the others count samples
_UNKNOWN_BYTES = 0x7FFFF000  # writers into a pipe put such sizes where they do not know
_MAX_PRIMING = Fraction(1, 5)
MAX_SECONDS = 86_400 * 366  # as in the manifest and in transcripts
_CLOCK = re.compile(r"(\d{1,20}):(\d{1,20}):(\d{1,20}(?:\.\d{1,20})?)", re.ASCII)
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255


class Claim(NamedTuple):
    """What the container says.

    Attributes:
        units: PCM samples or pictures; -1 where it does not say.
        includes_gaps: the units were told as a length of time, of which gaps in the stream are part.
        stop: end of the stream on the container's clock, in seconds; None where it does not say.
        truncated: the file's end is missing, though nobody can say how much.
        absurd: it says a length that no recording has, which counts as not saying.
    """

    units: int = -1
    includes_gaps: bool = False
    stop: Fraction | None = None
    truncated: bool = False
    absurd: bool = False


def claim(container: InputContainer, stream: Stream, first: Fraction | None, priming: Fraction, alone: bool, source: Source) -> Claim:
    """The claim about one audio or video stream.

    Args:
        first: time of the stream's first presented sample or picture; None where there is none.
        priming: how far before it the first packet lies.
        alone: whether it is the file's only audio or video stream, so that the file's duration is its own.
    """
    name = container.format.name.split(",")[0]
    span = None if stream.duration is None else stream.duration * Fraction(stream.time_base)
    stop = None
    if name == "mov":
        if stream.frames and span is not None:
            stop = (stream.start_time or 0) * Fraction(stream.time_base) + span
        else:
            span = None  # fragmented: libav's duration is of what it has seen, and may count the stream's start
    elif name == "matroska":
        stop = _clock_text_seconds(stream.metadata.get("DURATION", "")) or (_seconds(container) if alone else None)
        # the tag is written before the codec's delay is taken off; a first packet further away was lost, not primed
        span = None if stop is None or first is None else max(stop - first - (priming if priming < _MAX_PRIMING else 0), Fraction(0))
    elif name == "flv":
        span = _seconds(container) if alone else None
    elif name == "wav":
        span = _wav_seconds(source, span)
    elif name == "mp3":
        span = span if _has_frame_count(source) else None
    elif name == "flac":
        span = span if _flac_samples(stream) else None
    elif name not in _EXACT:
        span = None
    truncated = name == "ogg" and not _ogg_is_complete(source)
    absurd = any(said is not None and not least <= said <= MAX_SECONDS for said, least in ((span, 0), (stop, -MAX_SECONDS)))
    if absurd:
        span = stop = None
    if stream.type == "video":
        return Claim(_num_pictures(stream) if name in ("mov", "avi") else -1, False, stop, truncated, absurd)
    units = -1 if span is None else round(span * stream.codec_context.sample_rate)
    return Claim(units, name in _TIMES, stop, truncated, absurd)


def _num_pictures(stream: Stream) -> int:
    """Pictures of the index that the edit list leaves; -1 without an index (fragmented files)."""
    return sum(not entry.is_discard for entry in stream.index_entries) if stream.frames else -1


def _seconds(container: InputContainer) -> Fraction | None:
    return None if container.duration is None else Fraction(container.duration, 1_000_000)


def _clock_text_seconds(text: str) -> Fraction | None:
    """`00:00:02.010000000`, Matroska's per-stream tag."""
    found = _CLOCK.fullmatch(text)
    return 3600 * int(found[1]) + 60 * int(found[2]) + Fraction(found[3]) if found else None


def _flac_samples(stream: Stream) -> int:
    """Total samples in STREAMINFO, 36 bits; 0 means unknown. Source: RFC 9639, section 8.2."""
    info = stream.codec_context.extradata or b""
    return int.from_bytes(info[13:18], "big") & 0xF_FFFF_FFFF


def _wav_seconds(source: Source, libav: Fraction | None) -> Fraction | None:
    """The length in a RIFF header's `data` chunk; libav quietly cuts it down to the file's. None where the writer did not know it."""
    with open_bytes(source) as file:
        riff, bytes_per_second = file.read(12), 0
        if riff[:4] != b"RIFF":
            return libav  # RF64 and big-endian relatives: libav's word
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"fmt ":
                bytes_per_second = struct.unpack_from("<I", file.read(size)[:12].ljust(12, b"\0"), 8)[0]
                file.seek(size & 1, 1)
            elif name == b"data":
                return Fraction(size, bytes_per_second) if bytes_per_second and 0 < size < _UNKNOWN_BYTES else None
            else:
                file.seek(size + (size & 1), 1)
    return libav


def _has_frame_count(source: Source) -> bool:
    """Whether an MP3 says its number of frames, in a Xing, Info or VBRI header in its first frame, behind an ID3 tag."""
    with open_bytes(source) as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            file.seek(10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]))
        else:
            file.seek(0)
        start = file.read(2048)
    for tag in (b"Xing", b"Info"):
        at = start.find(tag)
        if at >= 0 and at + 8 <= len(start):
            return bool(start[at + 7] & 1)
    return b"VBRI" in start


def _ogg_is_complete(source: Source) -> bool:
    """Whether the last page says that it is the last, and is whole. Source: RFC 3533, section 6."""
    with open_bytes(source) as file:
        size = file.seek(0, 2)
        file.seek(max(size - _OGG_PAGE_BYTES, 0))
        tail = file.read(_OGG_PAGE_BYTES)
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return False
    return bool(page[5] & 4)
