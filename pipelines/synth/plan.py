"""Which sessions are made: name, layout, length, rates, room, picture clock, all drawn from the seed and the session's number alone.

So a session is the same however many are made with it: asking for more hours only adds sessions.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, Literal

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.errors import InputError
from ..wording.counted import counted
from .scene import even
from .screen import PictureClock
from .voices import VoiceKind

Layout = Literal["stereo", "tracks", "video", "mixed", "demo"]
SessionLayout = Literal["stereo", "tracks", "video"]
MIXED: tuple[SessionLayout, ...] = ("stereo", "tracks", "video")
DEFAULT_HOURS = 0.05
MAX_HOURS = 100_000
SESSION_SECONDS = (10, 70)  # lengths are drawn between, so that some sessions make two windows
DEMO_SECONDS: dict[SessionLayout, int] = {"video": 66, "tracks": 20}
TRACK_RATES_HZ = ((16_000, 48_000), (24_000, 16_000), (48_000, 24_000), (8_000, 16_000))
PICTURE_RATES = (Fraction(25), Fraction(30000, 1001), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamPlan:
    """One track of a session; the names are the manifest's. `num_samples` counts the session clock."""

    id: str
    path: str
    kind: Literal["audio", "video"]
    participant: str
    num_samples: int
    rate_hz: int = 0
    channel: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One session to make.

    Attributes:
        index: its number, from 0; voices, rates and scene follow from it and the seed.
        num_samples: length on the session clock, even.
        room_db: hiss of the room; None is digital silence.
        essential_first: one event of each kind is played before chance decides.
    """

    name: str
    index: int
    seed: int
    voice: VoiceKind
    layout: SessionLayout
    num_samples: int
    group: str
    room_db: int | None
    streams: tuple[StreamPlan, ...]
    clock: PictureClock | None = None
    essential_first: bool = False

    @property
    def participants(self) -> tuple[str, str]:
        """Assistant and user."""
        return ("alice", "bob") if self.layout == "tracks" else ("assistant", "user")

    def track(self, who: int) -> StreamPlan:
        """The audio stream in which participant `who` is heard."""
        return next(s for s in self.streams if s.kind == "audio" and s.participant == self.participants[who])

    def rate_hz(self, who: int) -> int:
        return self.track(who).rate_hz

    @property
    def num_pictures(self) -> int:
        """Pictures that are over before the session is."""
        return 0 if self.clock is None else max(0, self.clock.at_or_after(self.num_samples) - 1)

    def recipe(self) -> dict[str, Any]:
        """What the session was made from: a finished session with an equal recipe is not made again."""
        keys = ("index", "seed", "voice", "layout", "num_samples", "group", "essential_first")
        return {"generator": 1} | {key: getattr(self, key) for key in keys}


def plans(seed: int, voice: VoiceKind, layout: Layout, hours: float | None, sessions: int | None) -> list[Plan]:
    """The sessions to make, in order.

    `hours` alone: as many sessions of 10 to 70 s as reach it (`mixed`: at least one of each layout). `sessions` alone: that many. Both:
    each lasts hours ÷ sessions. Neither: 0.05 hours. `demo` is two sessions of fixed length.

    Raises:
        InputError: lengths that make no conversation.
    """
    if layout == "demo":
        if hours is not None or sessions is not None:
            raise InputError("the layout `demo` has two sessions of 66 and 20 s: it takes neither hours nor a number of sessions")
        return [_plan(seed, i, voice, name, length * SAMPLE_RATE_HZ, demo=True) for i, (name, length) in enumerate(DEMO_SECONDS.items())]
    if hours is not None and not 0 < hours <= MAX_HOURS:
        raise InputError(f"hours must be above 0 and at most {MAX_HOURS}, got {hours}")
    if sessions is not None and sessions < 1:
        raise InputError(f"sessions must be at least 1, got {sessions}")
    each = None if hours is None or sessions is None else even(hours * 3600 * SAMPLE_RATE_HZ / sessions)
    if each is not None and each < 4 * SAMPLE_RATE_HZ:
        raise InputError(
            f"{hours} hours in {counted(sessions, 'session')} make {each / SAMPLE_RATE_HZ:.1f} s each; a conversation needs 4",
            hint="ask for fewer sessions",
        )
    return list(_until(_endless(seed, voice, MIXED if layout == "mixed" else (layout,), each), sessions, hours, layout))


def _endless(seed: int, voice: VoiceKind, cycle: tuple[SessionLayout, ...], each: int | None) -> Iterator[Plan]:
    for index in count():
        length = each or even(random.Random(f"length {seed} {index}").uniform(*SESSION_SECONDS) * SAMPLE_RATE_HZ)
        yield _plan(seed, index, voice, cycle[index % len(cycle)], length)


def _until(found: Iterator[Plan], sessions: int | None, hours: float | None, layout: Layout) -> Iterator[Plan]:
    wanted = even((DEFAULT_HOURS if hours is None else hours) * 3600 * SAMPLE_RATE_HZ)
    at_least = sessions or (len(MIXED) if layout == "mixed" else 1)
    total = 0
    for number, plan in enumerate(found):
        if number >= at_least and (sessions is not None or total >= wanted):
            return
        total += plan.num_samples
        yield plan


def _plan(seed: int, index: int, voice: VoiceKind, layout: SessionLayout, num_samples: int, *, demo: bool = False) -> Plan:
    rng = random.Random(f"plan {seed} {index}")
    name = f"{layout}-{index:05d}"
    room_db = rng.choice([None, -66, -72])
    clock = None
    if layout == "stereo":
        streams = [
            StreamPlan(
                id=f"{who}-audio",
                path=f"{name}.wav",
                kind="audio",
                participant=who,
                num_samples=num_samples,
                rate_hz=24_000,
                channel=channel,
            )
            for channel, who in enumerate(("assistant", "user"))
        ]
    elif layout == "tracks":
        rates_hz = (24_000, 16_000) if demo else rng.choice(TRACK_RATES_HZ)
        lengths = (num_samples, num_samples - even(rng.choice([0, 0, 0.2]) * SAMPLE_RATE_HZ))  # a recorder that was stopped first
        streams = [
            StreamPlan(id=f"{who}-audio", path=f"{name}/{who}.wav", kind="audio", participant=who, num_samples=length, rate_hz=rate)
            for who, rate, length in zip(("alice", "bob"), rates_hz, lengths, strict=True)
        ]
    else:
        clock = PictureClock(rate=PICTURE_RATES[0 if demo else index // len(MIXED) % 3], first=0 if demo else rng.choice([0, 0, 6]))
        streams = [
            StreamPlan(
                id=f"{who}-audio",
                path=f"{name}.mp4",
                kind="audio",
                participant=who,
                num_samples=num_samples,
                rate_hz=48_000,
                channel=channel,
            )
            for channel, who in enumerate(("assistant", "user"))
        ]
        streams.append(StreamPlan(id="user-video", path=f"{name}.mp4", kind="video", participant="user", num_samples=num_samples))
    return Plan(
        name=name,
        index=index,
        seed=seed,
        voice=voice,
        layout=layout,
        num_samples=num_samples,
        group=f"synth-{seed}-{index // len(MIXED):05d}",
        room_db=room_db,
        streams=tuple(streams),
        clock=clock,
        essential_first=demo,
    )
