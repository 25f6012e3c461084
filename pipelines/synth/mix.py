"""The sound of one participant, a second at a time: his lines, laughs and claps at their places, over silence or the hiss of a quiet room.

Memory does not grow with the session: a line is made when its second comes and forgotten when it is over.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ
from .scene import CLAP_SAMPLES, USER, Noise, Said, Scene
from .voices import Voice

BLOCK_SAMPLES = SAMPLE_RATE_HZ  # of the session clock
CUT_FADE_SAMPLES = 80  # 5 ms: where a speaker breaks off, the voice does not click
ROOM_SECONDS = 7  # the hiss repeats after this long


def blocks(scene: Scene, who: int, voice: Voice, rate_hz: int, *, room_db: int | None, num_samples: int) -> Iterator[NDArray[np.int16]]:
    """int16 blocks of one second of participant `who` (the last is shorter), together num_samples · rate / 16000 long.

    Args:
        room_db: RMS of the room's hiss in dB re full scale; None is digital silence.
        num_samples: length of the track on the session clock, even; sound beyond it is cut.
    """
    heard: list[Said | Noise] = [*scene.said, *scene.noises]
    waiting = sorted((x for x in heard if x.who == who), key=lambda x: x.start, reverse=True)
    sounding: list[tuple[int, NDArray[np.int16]]] = []
    room = _room(rate_hz, room_db, who)
    for start in range(0, num_samples, BLOCK_SAMPLES):
        stop = min(start + BLOCK_SAMPLES, num_samples)
        while waiting and waiting[-1].start < stop:
            sound = waiting.pop()
            sounding.append((sound.start * rate_hz // SAMPLE_RATE_HZ, _pcm(sound, voice, rate_hz)))
        first, last = start * rate_hz // SAMPLE_RATE_HZ, stop * rate_hz // SAMPLE_RATE_HZ
        block = (
            np.zeros(last - first, np.int32)
            if room is None
            else np.resize(np.roll(room, -(first % len(room))), last - first).astype(np.int32)
        )
        for at, pcm in sounding:
            low, high = max(at, first), min(at + len(pcm), last)
            if low < high:
                block[low - first : high - first] += pcm[low - at : high - at]
        sounding = [(at, pcm) for at, pcm in sounding if at + len(pcm) > last]
        yield np.clip(block, -32768, 32767).astype(np.int16)


def clap_pcm(rate_hz: int) -> NDArray[np.int16]:
    """The beep: 1 and 2 kHz, loudest at its very first samples."""
    t = np.arange(CLAP_SAMPLES * rate_hz // SAMPLE_RATE_HZ) / rate_hz
    tone = 0.7 * np.cos(2 * np.pi * 1000 * t) + 0.3 * np.cos(2 * np.pi * 2000 * t)
    return np.rint(15000 * tone * np.minimum(1, (CLAP_SAMPLES / SAMPLE_RATE_HZ - t) / 0.01) * np.exp(-t / 0.06)).astype(np.int16)


def _pcm(sound: Said | Noise, voice: Voice, rate_hz: int) -> NDArray[np.int16]:
    if isinstance(sound, Noise):
        return clap_pcm(rate_hz) if sound.kind == "clap" else voice.laugh(sound.seed, rate_hz)
    pcm = voice.pcm(sound.line, rate_hz)
    if sound.num_words == len(sound.spans):
        return pcm
    pcm = pcm[: (sound.stop - sound.start) * rate_hz // SAMPLE_RATE_HZ].copy()
    fade = CUT_FADE_SAMPLES * rate_hz // SAMPLE_RATE_HZ
    pcm[-fade:] = pcm[-fade:] * (np.arange(fade, 0, -1) / fade)
    return pcm


@lru_cache(maxsize=16)
def _room(rate_hz: int, room_db: int | None, who: int) -> NDArray[np.int16] | None:
    """Seven seconds of hiss; the two microphones differ."""
    if room_db is None:
        return None
    noise = np.random.default_rng([rate_hz, -room_db, who == USER]).standard_normal(ROOM_SECONDS * rate_hz)
    return np.rint(noise * 32768 * 10 ** (room_db / 20)).astype(np.int16)
