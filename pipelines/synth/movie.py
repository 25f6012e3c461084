"""A session as MP4: H.264 pictures on their clock, AAC sound, muxed second by second. The same pictures and sound give the same bytes."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from .mix import BLOCK_SAMPLES
from .plan import Plan
from .scene import USER, Scene
from .screen import FLASH_PICTURES, HEIGHT_PX, WIDTH_PX, PictureClock, draw, mouth_of, tick_of

ENCODERS = ("libx264", "libopenh264", "mpeg4")  # the first that this build of libav has
# mbtree off: with it (preset veryfast) 6 of 150 encodings of equal pictures differed, in a heap full of rubbish; without it 0 of 750
X264_OPTIONS = {"preset": "superfast", "mbtree": "0", "crf": "24", "bf": "0"}
AUDIO_BITS_PER_SECOND = 96_000
KEY_PICTURES = 50  # one key picture in so many
MOVIE_TIMESCALE = (
    "240000"  # a late start is written in these units: whole at 25, 30000/1001 and 48000 Hz; the default, milliseconds, shifts pictures
)


def write_movie(path: Path, plan: Plan, scene: Scene, both_NC: Iterator[NDArray[np.int16]]) -> None:
    """Writes `path` from blocks of one second of sound, int16 [samples, 2] at the plan's rate; the right channel moves the mouth."""
    clock, rate_hz = plan.clock, plan.rate_hz(USER)
    assert clock is not None, "only a session with a picture clock is a movie"
    flashes = {clock.at_or_after(n.start - 1) + i for n in scene.noises if n.kind == "clap" for i in range(FLASH_PICTURES)}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", "movie_timescale": MOVIE_TIMESCALE}) as container:
        video, audio = _video_stream(container, clock), _audio_stream(container, rate_hz)
        picture = sight = 0
        for second, block_NC in enumerate(both_NC):
            first = second * BLOCK_SAMPLES
            stop = first + len(block_NC) * SAMPLE_RATE_HZ // rate_hz
            while picture < plan.num_pictures and (sample := clock.sample(picture)) < stop:
                while sight + 1 < len(scene.sights) and scene.sights[sight + 1].start <= sample + 1:
                    sight += 1
                at = int(sample - first) * rate_hz // SAMPLE_RATE_HZ
                mouth = mouth_of(_rms(block_NC[at : at + rate_hz // 25, USER]))
                frame = av.VideoFrame.from_ndarray(draw(scene.sights[sight], mouth, tick_of(sample), picture in flashes), "yuv420p")
                frame.pts, frame.time_base = clock.pts(picture), clock.time_base
                container.mux(video.encode(frame))
                picture += 1
            sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(block_NC.reshape(1, -1)), "s16", "stereo")
            sound.sample_rate, sound.pts = rate_hz, first * rate_hz // SAMPLE_RATE_HZ
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _rms(x: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.mean(x.astype(np.float32) ** 2))) if len(x) else 0.0


def _video_stream(container: OutputContainer, clock: PictureClock) -> VideoStream:
    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    stream = container.add_stream(encoder, rate=clock.rate or 25, options=X264_OPTIONS if encoder == "libx264" else {})
    assert isinstance(stream, VideoStream)
    stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
    context = stream.codec_context
    stream.time_base = context.time_base = clock.time_base
    context.gop_size = KEY_PICTURES
    context.thread_count = 1  # x264 decides bits by the number of its threads
    context.color_range, context.colorspace = 1, 6  # limited range, BT.601 (SMPTE 170M)
    context.color_primaries = context.color_trc = 6
    return stream


def _audio_stream(container: OutputContainer, rate_hz: int) -> AudioStream:
    stream = container.add_stream("aac", rate=rate_hz, layout="stereo", options={"aac_coder": "fast"})  # three times as fast as the default
    stream.bit_rate = AUDIO_BITS_PER_SECOND
    stream.codec_context.thread_count = 1
    return stream
