"""What the bench builds from: the same conversations as wav, FLAC, AAC, Opus, MP3, and as video.

In: a folder of recordings, `microturn synth`'s or any other. Out: for each codec a folder with every recording encoded in it, and the
sessions of it. Where more hours are wanted than were recorded, recordings are taken again: the same packets in another file with another
comment, so that it is another recording and costs as much to build.
"""

import shutil
import wave
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ...schemas.errors import InputError
from ...schemas.manifest import Session
from ..input.inputs import read_sessions
from ..synth.write import make

VIDEO = "video"
SOUND = {  # codec → file ending, libav's encoder, bits per second of two channels (0: lossless)
    "wav": ("wav", "pcm_s16le", 0),
    "flac": ("flac", "flac", 0),
    "aac": ("m4a", "aac", 128_000),
    "opus": ("opus", "libopus", 64_000),
    "mp3": ("mp3", "libmp3lame", 128_000),
}
CODECS = (*SOUND, VIDEO)
MADE_HOURS, SESSION_HOURS = 0.2, 0.1  # what is made is repeated beyond that
GRAIN = 4.0  # of 255, standard deviation of what a camera adds to every pixel: a drawn picture without it costs nothing to decode
_AAC_OPTIONS = {"aac_coder": "fast"}  # three times as fast to encode; the same to decode


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """The recordings in one codec.

    Attributes:
        root: where the paths of the sessions start.
        paths: the recordings, each once.
        seconds: of conversation: of the longest stream of every session.
        size_bytes: of the recordings.
    """

    codec: str
    root: Path
    sessions: tuple[Session, ...]
    paths: tuple[str, ...]
    seconds: float
    size_bytes: int


def encode(
    sessions: Sequence[Session], root: Path, out: Path, codec: str, *, hours: float = 0, size_px: tuple[int, int] | None = None
) -> Material:
    """Every session in this codec, in the folder `out`; `size_px` (width, height) makes films of that size, None copies them. With `hours`
    sessions are repeated, or left out, until so many are there.

    Raises:
        InputError: no session with pictures for `video`; sound that is not one stream of a file, at one rate.
    """
    taken = [session for session in sessions if codec != VIDEO or any(stream.kind == "video" for stream in session.streams)]
    if not taken:
        raise InputError("no session has pictures", hint="leave `video` out of --codecs")
    out.mkdir(parents=True, exist_ok=True)
    done: list[Session] = []
    paths: list[str] = []
    encoded: dict[str, tuple[Path, float]] = {}  # recording → the file it was encoded in first, its seconds
    seconds = 0.0
    while seconds < hours * 3600 or (not hours and len(done) < len(taken)):
        number = len(done)
        session = taken[number % len(taken)]
        names: dict[str, str] = {}
        lengths = [0.0]
        for path in dict.fromkeys(stream.path for stream in session.streams if codec == VIDEO or stream.kind == "audio"):
            ending = SOUND[codec][0] if codec in SOUND else "mp4"
            names[path] = f"{number:05d}-{len(names)}.{ending}"
            target = out / names[path]
            if path in encoded:
                first, length = encoded[path]
                copy(first, target, number)
            else:
                length = film(root / path, target, size_px) if codec == VIDEO else transcode(root / path, target, codec)
                encoded[path] = target, length
            lengths.append(length)
        done.append(_renamed(session, names, root, number, codec))
        paths += names.values()
        seconds += max(lengths)
    size = sum((out / path).stat().st_size for path in paths)
    return Material(codec=codec, root=out, sessions=tuple(done), paths=tuple(paths), seconds=seconds, size_bytes=size)


def recordings(input_: str, scratch: Path, hours: float, tell: Callable[[str], None]) -> tuple[Sequence[Session], Path]:
    """The sessions of a folder, or of films of up to a tenth of an hour that `microturn synth` makes in `scratch`; and where their paths
    start."""
    if not input_:
        length = min(hours, MADE_HOURS)
        tell(f"microturn synth, {length:g} h")
        make(scratch, layout="video", hours=length, sessions=max(1, round(length / SESSION_HOURS)))
        input_ = str(scratch)
    given = read_sessions(input_, False, tell, numbered=False)
    return given.sessions, Path(given.root)


def copy(source: Path, target: Path, number: int) -> None:
    """Writes the file's packets into another file, whose comment is this number."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        written.metadata["comment"] = str(number)
        kept = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = kept[packet.stream.index]
                written.mux(packet)


def transcode(source: Path, target: Path, codec: str) -> float:
    """Writes the file's sound in this codec at its own rate and channels; gives its seconds."""
    _, encoder, bits_per_second = SOUND[codec]
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        if len(read.streams.audio) != 1:
            raise InputError(f"{source.name}: {len(read.streams.audio)} streams of sound, the bench takes files with one")
        sound: Any = read.streams.audio[0]
        rate_hz = 48_000 if encoder == "libopus" else sound.rate
        options = _AAC_OPTIONS if encoder == "aac" else {}
        stream: Any = written.add_stream(encoder, rate=rate_hz, layout=sound.layout.name, options=options)
        if bits_per_second:
            stream.bit_rate = bits_per_second * sound.layout.nb_channels // 2
        stream.codec_context.thread_count = 1
        to_pcm = av.AudioResampler(format="s16", layout=sound.layout.name, rate=rate_hz)
        num_samples = 0
        for frame in _pcm(read, sound, to_pcm):
            fresh = av.AudioFrame.from_ndarray(frame.to_ndarray(), "s16", sound.layout.name)
            fresh.sample_rate, fresh.pts = rate_hz, num_samples
            num_samples += frame.samples
            written.mux(stream.encode(fresh))
        written.mux(stream.encode(None))
    return num_samples / rate_hz


def film(source: Path, target: Path, size_px: tuple[int, int] | None) -> float:
    """Writes the film at this size (width, height) with a camera's grain, its sound as it is; a copy for None. Gives its seconds."""
    if size_px is None:
        shutil.copyfile(source, target)
    else:
        with av.open(str(source)) as read, av.open(str(target), "w") as written:
            _film(read, written, size_px)
    with av.open(str(target)) as read:
        return read.duration / av.time_base if read.duration else 0.0


def _film(read: Any, written: Any, size_px: tuple[int, int]) -> None:
    width, height = size_px
    pictures, sounds = read.streams.video[0], read.streams.audio
    drawn = written.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "26"})
    drawn.width, drawn.height, drawn.pix_fmt = width, height, "yuv420p"
    drawn.time_base = drawn.codec_context.time_base = pictures.time_base
    drawn.codec_context.gop_size, drawn.codec_context.thread_count = 50, 1
    kept = {sound.index: written.add_stream_from_template(sound) for sound in sounds}
    chance = np.random.default_rng(0)
    grain = [np.rint(chance.normal(0, GRAIN, (height, width))).astype(np.int16) for _ in range(8)]
    scaler, number = VideoReformatter(), 0
    for packet in read.demux(pictures, *sounds):
        if packet.stream.type == "audio":
            if packet.dts is not None:
                packet.stream = kept[packet.stream.index]
                written.mux(packet)
            continue
        for frame in packet.decode():
            planes = scaler.reformat(frame, width=width, height=height, format="yuv420p", interpolation="BILINEAR").to_ndarray()
            planes[:height] = np.clip(planes[:height] + grain[number % len(grain)], 0, 255)
            fresh = av.VideoFrame.from_ndarray(planes, "yuv420p")
            fresh.pts, fresh.time_base = frame.pts, frame.time_base
            written.mux(drawn.encode(fresh))
            number += 1
    written.mux(drawn.encode(None))


def _pcm(container: Any, sound: Any, to_pcm: av.AudioResampler) -> Iterator[av.AudioFrame]:
    for frame in container.decode(sound):
        frame.pts = None
        yield from to_pcm.resample(frame)
    yield from to_pcm.resample(None)


def write_wav(path: Path, rate_hz: int, samples_SC: NDArray[np.int16]) -> None:
    """PCM16."""
    with wave.open(str(path), "wb") as file:
        file.setparams((samples_SC.shape[1], 2, rate_hz, 0, "NONE", "not compressed"))
        file.writeframes(samples_SC.tobytes())


def _renamed(session: Session, names: dict[str, str], root: Path, number: int, codec: str) -> Session:
    """The session with its streams and transcripts where they lie now, without what is in no file of it."""
    streams = tuple(
        s.model_copy(update={"path": names[s.path]}) for s in session.streams if s.path in names and (codec == VIDEO or s.kind == "audio")
    )
    transcripts = tuple(t.model_copy(update={"path": str((root / t.path).resolve())}) for t in session.transcripts)
    return session.model_copy(update={"id": f"{codec}-{number:05d}", "streams": streams, "transcripts": transcripts, "group": ""})
