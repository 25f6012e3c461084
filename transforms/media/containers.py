"""Media files as libav sees them: opened safely, streams counted per kind, packets decoded with every fault in its place.

In: a local path or a binary file object, seekable. Out: an open PyAV container, and frames with faults between them. Knows libav, knows
nothing of sessions. It does not look at a file's name: what a file is, is decided by its bytes alone, and equal bytes give equal streams.

Hostile files: libav gets a nameless reader and may open nothing else; demuxers that lead to other files or to the network (playlists,
concat lists, SDP, image patterns) and raw video, which has no timestamps, are not in `FORMATS`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import BinaryIO, Literal, NamedTuple, NoReturn

import av
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream

from ...schemas.errors import MediaError
from ...schemas.spec import LimitSpec

Source = str | os.PathLike | BinaryIO
Kind = Literal["audio", "video", "text"]

FORMATS = (
    "aac", "ac3", "aiff", "amr", "amrnb", "amrwb", "ape", "asf", "ass", "au", "avi", "caf", "eac3", "flac", "flv", "loas", "matroska",
    "mov", "mp3", "mpc", "mpc8", "mpeg", "mpegts", "mxf", "nistsphere", "nut", "ogg", "srt", "tta", "voc", "w64", "wav", "webvtt", "wv",
)  # fmt: skip
_MAX_STUMBLES = 16  # a demuxer that fails so often without a packet in between does not get past the spot
BUFFER_BYTES = 1 << 18  # a call into Python per read of this size costs nothing


# A packet and what came out of the decoder for it: any number of frames. The last packet of a stream is empty and flushes.
Decoded = tuple[av.Packet, list]


class Fault(NamedTuple):
    """A place in a stream where something could not be decoded. `reason` is the ledger's word for it."""

    reason: str
    message: str


class ByteReader:
    """A file object for libav: no name to guess by, and a position of its own, so that several containers may share one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = self._file.seek(self._at + offset if whence == os.SEEK_CUR else offset, os.SEEK_END if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        return self._at


@contextmanager
def open_bytes(source: Source) -> Iterator[ByteReader]:
    """A reader at the file's first byte. A file object is the caller's to close. An OSError passes through untouched."""
    with open(source, "rb") if isinstance(source, str | os.PathLike) else nullcontext(source) as file:
        yield ByteReader(file)


@contextmanager
def open_media(source: Source, limits: LimitSpec | None = None) -> Iterator[InputContainer]:
    """The container in `source`, open until the block is left.

    Raises:
        MediaError: `empty_file`; `not_media` where libav finds nothing it can play.
        OSError: a missing file, a failing disk: the machine's faults, untouched.
    """
    limits = limits or LimitSpec()
    with open_bytes(source) as reader:
        if not reader.read(1):
            raise MediaError(f"{name_of(source)}: the file is empty", reason="empty_file", hint="copy it again, or leave it out")
        reader.seek(0)
        options = {
            "format_whitelist": ",".join(FORMATS),
            "protocol_whitelist": "none",
            "max_pixels": str(limits.max_pixels),
            "threads": "1",  # one core a worker; libav's own look at the streams would start a thread per core
        }
        try:
            container = av.open(reader, mode="r", options=options, io_open=_refuse, metadata_errors="replace", buffer_size=BUFFER_BYTES)
        except av.FFmpegError as error:  # ENOMEM too: it is what libav calls a size that a damaged header asks for
            raise MediaError(
                f"{name_of(source)}: not a recording that can be opened ({error.strerror})",
                reason="not_media",
                hint="`ffprobe` says what the file is; a truncated mp4 has lost its index, and a file without a header cannot be guessed",
            ) from None
        with container:
            yield container


def streams_of(container: InputContainer, kind: Kind) -> list[Stream]:
    """The streams of one kind, in the container's order. Cover art is not video; for `text`, every subtitle stream counts."""
    type_ = "subtitle" if kind == "text" else kind
    return [s for s in container.streams if s.type == type_ and not s.disposition & Disposition.attached_pic]


def pick(container: InputContainer, kind: Kind, index: int, source: Source) -> Stream:
    """Stream `index` of its kind. Raises MediaError: `no_such_stream`, `no_decoder`."""
    streams = streams_of(container, kind)
    if index >= len(streams):
        found = f"{len(streams)} of that kind" if streams else "none of that kind"
        raise MediaError(
            f"{name_of(source)}: no {kind} stream {index}, found {found}",
            reason="no_such_stream",
            hint="streams are counted from 0 within their kind",
        )
    if streams[index].codec_context is None:
        raise MediaError(f"{name_of(source)}, {kind} stream {index}: libav has no decoder for it", reason="no_decoder")
    return streams[index]


def decoded(container: InputContainer, streams: Sequence[Stream], limits: LimitSpec) -> Iterator[Decoded | Fault]:
    """Packets of `streams` with their frames, in the container's order; where a packet fails there is a Fault, and decoding goes on.

    More than `limits.max_corrupt_packets` faults, or a demuxer that no longer moves, end it: the last item is then `limit_corrupt_packets`.
    """
    for stream in container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all  # what nobody reads is skipped, not read
    for stream in streams:
        stream.codec_context.thread_type = "NONE"  # a worker has one core; results are equal either way
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    num_faults = num_stumbles = 0
    packets = container.demux(*streams)
    packet = None
    while True:
        try:
            for packet in packets:
                num_stumbles = 0
                yield packet, packet.decode()
                packet = None  # from here on it is the demuxer that fails
            return
        except IndexError:
            if packet is None:  # PyAV also flushes streams that appeared in mid-file, which it does not know; ours have been flushed by now
                return
            raise
        except av.FFmpegError as error:  # libav's word about the content; a failing disk raises a plain OSError
            num_faults += 1
            num_stumbles += packet is None
            if num_faults > limits.max_corrupt_packets or num_stumbles > _MAX_STUMBLES:
                yield Fault("limit_corrupt_packets", f"{num_faults} packets could not be read or decoded; the rest is left out")
                return
            if packet is None:  # the demuxer stumbled: it goes on behind the spot
                packets = container.demux(*streams)
            fault, packet = Fault("corrupt_packet", f"{error.strerror or type(error).__name__}{_place(packet)}"), None
            yield fault


def name_of(source: Source) -> str:
    """The file's own name, for messages: no folder, so that no path of this machine reaches an output."""
    path = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", "")
    return os.path.basename(path) if isinstance(path, str) and path else "recording"


def _place(packet: av.Packet | None) -> str:
    if packet is None:
        return ""
    return f" in a packet of {packet.size} bytes" + ("" if packet.pts is None else f" at {float(packet.pts * packet.time_base):.3f} s")


def _refuse(url: str, flags: int, options: dict) -> NoReturn:
    raise MediaError(f"the file leads to another one ({url[:80]!r}), which is not followed", reason="not_media")
