"""Frames that are taken together: nothing but speed may depend on it, whatever is wrong with a file."""

from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from bits import same_bits
from media_makers import clap_sound, sound_file
from microturn.schemas.spec import FeatureSpec
from microturn.transforms.media import decode, place
from microturn.transforms.media.decode import AudioBlock, Fault, audio_blocks, probe
from microturn.transforms.media.pcm import JOINED_SAMPLES
from microturn.transforms.media.place import AudioTrack

SPEC = FeatureSpec()
RATE_HZ = 48_000
KINDS = [
    ("wav", "pcm_s16le"), ("wav", "pcm_f32le"), ("wav", "pcm_u8"), ("wav", "pcm_f64le"), ("flac", "flac"), ("mp3", "libmp3lame"),
    ("ogg", "libopus"), ("ipod", "aac"), ("matroska", "aac"), ("mpegts", "aac"), ("matroska", "libopus"), ("mov", "pcm_s24le"),
]  # fmt: skip


def recording(container: str, codec: str) -> bytes:
    """Four seconds of two channels."""
    return sound_file(container, codec, np.stack([clap_sound(RATE_HZ, Fraction(4), Fraction(at, 4)) for at in (3, 7)]), RATE_HZ)


def damaged(data: bytes) -> bytes:
    """Rubbish at three places, none of them where a container keeps its index."""
    broken = bytearray(data)
    for at in (2, 3, 5):
        start = len(broken) * at // 16
        broken[start : start + 300] = bytes(range(256)) + bytes(44)
    return bytes(broken)


def track(data: bytes, channel: int | None, gain: int = 1):
    """All samples, which are real, and what the track reports."""
    held = AudioTrack.open(
        BytesIO(data), probe(BytesIO(data), SPEC.limits), 0, file_start=Fraction(0), spec=SPEC, channel=channel, gain=gain
    )
    samples, real = held.read(5 * 16_000)
    return samples, real, held.report()


@pytest.fixture
def apart(monkeypatch):
    """Calls a function with every frame a block, and every piece resampled by itself."""

    def call(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(decode, "JOINED_SAMPLES", 1)
            patch.setattr(place, "RESAMPLED_PIECES", 1)
            return function(*arguments)

    return call


@pytest.mark.parametrize("change", [bytes, damaged], ids=["whole", "damaged"])
@pytest.mark.parametrize("container, codec", KINDS)
def test_a_track_does_not_depend_on_which_frames_are_taken_together(apart, container, codec, change):
    data = change(recording(container, codec))
    for channel in (None, 1):
        together, one_by_one = track(data, channel), apart(track, data, channel)
        assert same_bits(together[0], one_by_one[0]) and same_bits(together[1], one_by_one[1])
        assert together[2] == one_by_one[2] and together[2].decoded > 0


def test_damage_is_booked_by_the_piece_wherever_it_lies(apart):
    sound = np.stack([clap_sound(RATE_HZ, Fraction(4), Fraction(1))] * 2)
    sound[0, 20_000:60_000] = np.nan
    sound[0, 70_000:70_001] = np.inf
    sound[0, 100_000:110_000] = 1e30
    data = sound_file("wav", "pcm_f32le", sound, RATE_HZ)
    together, one_by_one = track(data, 0), apart(track, data, 0)
    assert same_bits(together[0], one_by_one[0]) and same_bits(together[1], one_by_one[1]) and together[2] == one_by_one[2]
    assert sum(drop.units for drop in together[2].dropped) == 50_001 and max(drop.events for drop in together[2].dropped) > 3


@pytest.mark.parametrize("container, codec", KINDS)
def test_joined_frames_are_the_frames_one_after_another(apart, container, codec):
    data = recording(container, codec)
    joined, frames = list(audio_blocks(BytesIO(data), 0, SPEC.limits)), apart(list, audio_blocks(BytesIO(data), 0, SPEC.limits))
    again = [frame for block in joined for frame in (block.apart() if block.frames else [block])]
    assert len(frames) == len(again) and not any(isinstance(item, Fault) for item in joined)
    assert len(joined) < len(frames) or (container, codec) == ("matroska", "aac")  # whose times are whole milliseconds: no run
    for a, b in zip(again, frames, strict=True):
        assert a[:3] == b[:3] and a.padding == b.padding and same_bits(a.samples_CS, b.samples_CS)
    longest = max(frame.samples_CS.shape[1] for frame in frames)
    assert max(block.samples_CS.shape[1] for block in joined) < JOINED_SAMPLES + longest


def test_a_block_of_frames_falls_apart_at_their_times():
    block = AudioBlock(7, Fraction(1, 1000), 48_000, np.zeros((1, 480), np.float32), frames=(96, 144, 240))
    assert [(frame.pts, frame.samples_CS.shape) for frame in block.apart()] == [(7, (1, 96)), (9, (1, 144)), (12, (1, 240))]
