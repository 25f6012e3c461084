"""Small media files with known truth, made in memory with PyAV: `from media_makers import clap_film, clap_sound, sound_file`.

The *clap* is a chirp that starts at an exact time, and a light that goes on in the picture shown then: black before, white from it
on. Times are exact fractions of seconds on the recording's own clock; a stream may start later than the other.
"""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray

CHIRP_SECONDS = Fraction(6, 100)
_FORMATS = {"wavpack": "s16p", "tta": "s16"}  # their encoders would take 8 bits
VIDEO_TICKS = 90_000  # per second: every frame rate in use is exact


def chirp(rate_hz: int) -> NDArray[np.float32]:
    """60 ms that climb from 400 to 3600 Hz, at once at full strength; the same sound at every rate."""
    t = np.arange(int(CHIRP_SECONDS * rate_hz)) / rate_hz
    return (0.8 * np.cos(2 * np.pi * (400 * t + 3200 / (2 * float(CHIRP_SECONDS)) * t * t))).astype(np.float32)


def clap_sound(rate_hz: int, seconds: Fraction, at: Fraction) -> NDArray[np.float32]:
    """Silence of `seconds` with a chirp that starts `at` seconds after its beginning."""
    samples = np.zeros(int(seconds * rate_hz), np.float32)
    first, sound = round(at * rate_hz), chirp(rate_hz)
    samples[first : first + len(sound)] = sound
    return samples


def onset(samples_S: NDArray[np.float32], rate_hz: int = 16_000) -> int:
    """Where the chirp starts in a recording: the lag of the greatest correlation with it."""
    return int(np.argmax(np.correlate(samples_S.astype(np.float64), chirp(rate_hz).astype(np.float64), "valid")))


def sound_file(
    container: str,
    codec: str,
    samples_CS: NDArray[np.float32],
    rate_hz: int,
    *,
    start: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
    bit_rate: int = 96_000,
) -> bytes:
    """A file with one audio stream. `samples_CS` float32 [channels, n] or [n]."""

    def packets(file: OutputContainer) -> list[av.Packet]:
        return _audio_packets(file, codec, np.atleast_2d(samples_CS), rate_hz, start, bit_rate)

    return _written(container, options or {}, packets)


def film_file(
    container: str,
    codec: str,
    pictures: Sequence[NDArray[np.uint8]],
    times: Sequence[Fraction],
    *,
    sound: tuple[str, NDArray[np.float32], int, Fraction] | None = None,
    pixel_aspect: Fraction | None = None,
    rotation: int = 0,
    is_mirrored: bool = False,
    tags: tuple[int, int] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """A file with a video stream, and an audio stream where `sound` gives (codec, samples, rate, start).

    Args:
        pictures: uint8 [H, W, 3], one for each time.
        times: presentation times, ascending; multiples of 1/90000 s.
        rotation, is_mirrored: display matrix: degrees counter-clockwise, then a flip from left to right.
        tags: (colour matrix, range) as libav numbers them: the pictures are encoded so and say so.
    """

    def packets(file: OutputContainer) -> list[av.Packet]:
        video = file.add_stream(codec, rate=25, options={"crf": "8"} if codec == "libx264" else {})
        video.height, video.width, _ = pictures[0].shape
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, VIDEO_TICKS)
        if codec.startswith("libvpx"):
            video.bit_rate = 400_000
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation or is_mirrored:
            video.set_display_rotation(rotation, hflip=is_mirrored)
        if tags is not None:
            video.codec_context.colorspace, video.codec_context.color_range = tags
        heard = _audio_packets(file, sound[0], np.atleast_2d(sound[1]), sound[2], sound[3], 96_000) if sound else []
        return sorted([*heard, *_video_packets(video, pictures, times, tags)], key=lambda packet: packet.dts * packet.time_base)

    return _written(container, options or {}, packets)


def clap_film(
    container: str,
    video_codec: str,
    audio_codec: str,
    *,
    times: Sequence[Fraction],
    light: int,
    rate_hz: int = 48_000,
    audio_start: Fraction = Fraction(0),
    options: dict[str, str] | None = None,
) -> bytes:
    """A film of 64×48 whose light goes on in picture number `light`, and whose sound claps at that picture's time."""
    dark, bright = np.full((48, 64, 3), 16, np.uint8), np.full((48, 64, 3), 235, np.uint8)
    sound = clap_sound(rate_hz, times[-1] - audio_start + Fraction(1, 3), times[light] - audio_start)
    pictures = [dark if k < light else bright for k in range(len(times))]
    return film_file(container, video_codec, pictures, times, sound=(audio_codec, sound, rate_hz, audio_start), options=options)


def steady_times(fps: Fraction, count: int, start: Fraction = Fraction(0)) -> list[Fraction]:
    """Times of pictures at a constant rate, to 1/90000 s."""
    return [Fraction(round((start + k / fps) * VIDEO_TICKS), VIDEO_TICKS) for k in range(count)]


def unsteady_times(count: int, seed: int, start: Fraction = Fraction(0)) -> list[Fraction]:
    """Times of pictures 15 to 120 ms apart, as telephones and screens record them, in whole milliseconds."""
    steps = np.random.default_rng(seed).integers(15, 121, count - 1).cumsum().tolist()
    return [start + Fraction(ms, 1000) for ms in (0, *steps)]


def edit_list(data: bytes, track: int, *, media_time: int, duration_ms: int) -> bytes:
    """An mp4 whose `track`-th edit list, of one entry, is made to start at `media_time` (the track's units) and to last so long."""
    at = -1
    for _ in range(track + 1):
        at = data.index(b"elst", at + 1)
    assert struct.unpack(">I", data[at + 8 : at + 12]) == (1,), "an edit list of one entry was expected"
    return data[: at + 12] + struct.pack(">Ii", duration_ms, media_time) + data[at + 20 :]


def riff_wav(
    data: bytes, *, rate_hz: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1, claimed_bytes: int | None = None
) -> bytes:
    """A wav of raw sample bytes, written by hand; its header may claim another length than it has."""
    block = channels * bits // 8
    size = len(data) if claimed_bytes is None else claimed_bytes
    form = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * block, block, bits)
    return (
        b"RIFF"
        + struct.pack("<I", min(size + 36, 2**32 - 1))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def with_garbage(data: bytes, at: float, num_bytes: int, seed: int = 0) -> bytes:
    """The file with some bytes overwritten, from the fraction `at` of its length on."""
    start = int(len(data) * at)
    noise = np.random.default_rng(seed).integers(0, 256, num_bytes, dtype=np.uint8).tobytes()
    return data[:start] + noise + data[start + num_bytes :]


def _written(container: str, options: dict[str, str], packets: Callable[[OutputContainer], list[av.Packet]]) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recording"  # a real file: mp4's faststart reads back what it wrote
        with av.open(str(path), "w", format=container, options=options) as file:
            for packet in packets(file):
                file.mux(packet)
        return path.read_bytes()


def _audio_packets(
    file: OutputContainer, codec: str, samples_CS: NDArray[np.float32], rate_hz: int, start: Fraction, bit_rate: int
) -> list[av.Packet]:
    layout = {1: "mono", 2: "stereo"}.get(len(samples_CS), f"{len(samples_CS)} channels")
    audio = file.add_stream(codec, rate=rate_hz, layout=layout, options={"strict": "-2"})
    if codec in _FORMATS:
        audio.codec_context.format = _FORMATS[codec]
    elif not codec.startswith(("pcm", "flac", "alac")):
        audio.bit_rate = bit_rate
    packets: list[av.Packet] = []
    for first in range(0, samples_CS.shape[1], 4096):
        packed = samples_CS[:, first : first + 4096].T.reshape(1, -1)  # planes beyond the seventh are more than PyAV can hold
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), round(start * rate_hz) + first
        packets += audio.encode(frame)
    return packets + audio.encode(None)


def _video_packets(
    video: av.video.stream.VideoStream, pictures: Sequence[NDArray[np.uint8]], times: Sequence[Fraction], tags: tuple[int, int] | None
) -> list[av.Packet]:
    packets: list[av.Packet] = []
    for picture, time in zip(pictures, times, strict=True):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        if tags is not None:
            frame = frame.reformat(format="yuv420p", dst_colorspace=tags[0], dst_color_range=tags[1])
        frame.time_base, frame.pts = Fraction(1, VIDEO_TICKS), int(time * VIDEO_TICKS)
        packets += video.encode(frame)
    return packets + video.encode(None)
