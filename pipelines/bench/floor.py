"""The floor: the same files decoded by PyAV, brought to what a model hears and sees, and thrown away. One process, one thread.

Sound becomes float32 at 16 kHz, every channel kept, for each channel is a person; pictures are scaled to the size of the spec, as many as
the spec keeps. Nothing is placed, checked or written: no build can cost less.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from ...schemas.spec import PictureSpec


def sound(root: Path, paths: Sequence[str]) -> float:
    """Decodes and resamples every file's sound; gives its seconds."""
    num_samples = 0
    for path in paths:
        with av.open(str(root / path)) as container:
            stream = container.streams.audio[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            to_16k = av.AudioResampler(format="fltp", layout=stream.layout, rate=SAMPLE_RATE_HZ)
            for frame in container.decode(stream):
                for piece in to_16k.resample(frame):
                    num_samples += piece.to_ndarray().shape[1]
            num_samples += sum(piece.to_ndarray().shape[1] for piece in to_16k.resample(None))
    return num_samples / SAMPLE_RATE_HZ


def pictures(root: Path, paths: Sequence[str], spec: PictureSpec) -> float:
    """Decodes every picture and scales those that the spec keeps, two to a pair; gives the seconds from the first to the last."""
    seconds = 0.0
    half = Fraction(TICK_SAMPLES // 2, SAMPLE_RATE_HZ)
    for path in paths:
        with av.open(str(root / path)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            scaler, first, at, last = VideoReformatter(), None, Fraction(0), Fraction(0)
            deadline = half
            kept = None
            for frame in container.decode(stream):
                at = frame.pts * frame.time_base
                first = at if first is None else first
                while at - first >= deadline:  # the picture before this one is the latest at the deadline
                    if kept is not None:
                        scaled(scaler, kept, spec)
                    in_pair = (deadline / half) % 2 == 1
                    deadline += half if in_pair else half * (2 * spec.every_ticks - 1)
                kept, last = frame, at
            seconds += float(last - first) if first is not None else 0.0
    return seconds


def scaled(scaler: VideoReformatter, frame: av.VideoFrame, spec: PictureSpec) -> None:
    """Scales a picture into the spec's box."""
    scale = min(Fraction(spec.max_width_px, frame.width), Fraction(spec.max_height_px, frame.height), Fraction(1))
    size = {"width": max(round(frame.width * scale), 1), "height": max(round(frame.height * scale), 1)}
    scaler.reformat(frame, **size, format="rgb24", interpolation="AREA", threads=1).to_ndarray()
