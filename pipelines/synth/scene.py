"""A conversation as data: who says what when, what sounds, what can be seen, what is typed and looked up. Seeded; no audio is made here.

`Stage` is where the exchanges of `exchanges.py` are played: it keeps the clock, draws gaps, and knows what stands on the table. Two
people talk: participant 0 is the assistant, participant 1 the user. All times are even samples of the 16 kHz session clock (voices.py
says why), half-open.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

from ...schemas.clock import SAMPLE_RATE_HZ
from .grammar import Thing
from .voices import Line, Span, Tune, Voice

ASSISTANT, USER = 0, 1
MS = SAMPLE_RATE_HZ // 1000
CLAP_SAMPLES = 80 * MS  # the beep's length; the flash begins with it
LEAD_IN_SAMPLES, TAIL_SAMPLES = 400 * MS, 300 * MS  # nobody speaks in the first and the last moment


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A line at its place. `num_words` is smaller than the line's when the speaker was cut off: the rest was never spoken."""

    who: int
    start: int
    line: Line
    spans: tuple[Span, ...]
    num_words: int
    manner: Literal["turn", "backchannel", "interruption"] = "turn"

    @property
    def stop(self) -> int:
        return self.start + self.spans[self.num_words - 1].stop

    def word_start(self, word: int) -> int:
        return self.start + self.spans[word].start


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """A sound that is no word: a laugh, or the beep of a clap (in the user's microphone)."""

    who: int
    kind: Literal["laugh", "clap"]
    start: int
    stop: int
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Happening:
    """An event as in the manifest: text typed, a result from the background, a request or its end."""

    kind: Literal["typed", "background", "delegate", "cancel"]
    at: int
    who: int
    text: str = ""
    slot: int = 0
    complete: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What the picture shows from `start` until the next sight.

    Attributes:
        wall: colour of the background.
        table: (shape, colour, count), at most three, in the order in which they appeared.
        door: whether the door stands open.
    """

    start: int
    wall: str
    table: tuple[Thing, ...] = ()
    door: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One session, complete: sorted by start, nobody speaks over himself, everything lies inside [0, num_samples)."""

    num_samples: int
    said: tuple[Said, ...]
    noises: tuple[Noise, ...]
    happenings: tuple[Happening, ...]
    sights: tuple[Sight, ...]
    exchanges: tuple[str, ...]


def even(samples: float | Fraction) -> int:
    """The nearest even number of samples."""
    return 2 * round(samples / 2)


@dataclass(slots=True)
class Stage:
    """The scene while it is played. Exchanges call the verbs; the clock only moves forward.

    Attributes:
        floor: when the latest turn ends; the next is placed after it.
        seen: whether there is a picture; without one the user says what he puts on the table.
        snap: moves a time to the next picture, so that a flash is a picture and its beep starts with it; the identity without one.
        next_slot: the background slot that the next request takes.
    """

    rng: random.Random
    voices: tuple[Voice, Voice]
    seen: bool
    sight: Sight
    snap: Callable[[int], int]
    floor: int = LEAD_IN_SAMPLES
    said: list[Said] = field(default_factory=list)
    noises: list[Noise] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)
    next_slot: int = 0

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def between(self, low_ms: int, high_ms: int) -> int:
        """A duration in even samples."""
        return even(self.rng.uniform(low_ms, high_ms) * MS)

    def answer_gap(self) -> int:
        """How long someone thinks: log-normal around 220 ms, never under 120: what depends on a question comes after it."""
        return even(min(max(self.rng.lognormvariate(0, 0.45) * 220, 120), 1400) * MS)

    def reply_gap(self) -> int:
        """Between turns that do not wait for content: log-normal around 200 ms; one in five starts before the other has ended."""
        if self.chance(0.2):
            return -self.between(80, 320)
        return even(min(self.rng.lognormvariate(0, 0.6) * 200, 1500) * MS)

    def free(self, who: int) -> int:
        """When this participant's own last sound ends."""
        return max([0, *(s.stop for s in self.said if s.who == who), *(n.stop for n in self.noises if n.who == who)])

    def say(self, who: int, text: str, *, gap: int | None = None, tune: Tune = "fall") -> Said:
        """The line, `gap` samples after the floor (drawn as between turns when left out): now the floor ends with it."""
        gap = self.reply_gap() if gap is None else gap
        if gap < 0 and self.said:  # an early start covers at most the last third of what it overlaps
            gap = -min(-gap, even((self.said[-1].stop - self.said[-1].start) / 3))
        seen = self.sight.start + 200 * MS if self.sight.start else 0  # what is new is seen before it is spoken about
        said = self.place(who, text, at=max(self.floor + gap, self.free(who) + 60 * MS, seen), tune=tune)
        self.floor = max(self.floor, said.stop)
        return said

    def go_on(self, who: int, text: str, *, pause: int | None = None, tune: Tune = "fall") -> Said:
        """Another line of the same turn, after a pause that is part of it (under 0.5 s)."""
        return self.say(who, text, gap=self.between(120, 420) if pause is None else pause, tune=tune)

    def place(
        self, who: int, text: str, *, at: int, tune: Tune = "fall", manner: Literal["turn", "backchannel", "interruption"] = "turn"
    ) -> Said:
        """The line at an exact time; the floor stays where it is."""
        assert at >= self.free(who), "nobody speaks over himself"
        line = Line(text, tune)
        spans = self.voices[who].spans(line)
        said = Said(who=who, start=at, line=line, spans=spans, num_words=len(spans), manner=manner)
        self.said.append(said)
        return said

    def hum(self, who: int, inside: list[Said]) -> bool:
        """A backchannel while the lines `inside` are being said. False, and nothing, when they leave no room for one."""
        text = self.rng.choice(["Mm-hm.", "Okay.", "Right."])
        length = self.voices[who].spans(Line(text))[-1].stop
        start, stop = inside[0].start + 200 * MS, inside[-1].stop - 120 * MS - length
        at = even(start + (stop - start) * self.rng.uniform(0.4, 0.95))
        if stop < start or at < self.free(who) + 60 * MS:
            return False
        self.place(who, text, at=at, manner="backchannel")
        return True

    def cut(self, who: int, at: int) -> None:
        """This participant breaks off at the end of the word that sounds at `at`; what was to come later is not said."""
        self.said = [self._broken_off(said, at) if said.who == who else said for said in self.said if said.who != who or said.start < at]
        self.floor = max(said.stop for said in self.said)

    @staticmethod
    def _broken_off(said: Said, at: int) -> Said:
        kept = next((i + 1 for i, span in enumerate(said.spans) if said.start + span.stop >= at), said.num_words)
        return replace(said, num_words=min(kept, said.num_words))

    def make_noise(self, who: int, kind: Literal["laugh", "clap"], at: int) -> Noise:
        """A laugh or a clap; the floor ends with it at the earliest."""
        seed = self.rng.randrange(1 << 30)
        length = CLAP_SAMPLES if kind == "clap" else len(self.voices[who].laugh(seed, SAMPLE_RATE_HZ))
        noise = Noise(who=who, kind=kind, start=at, stop=at + length, seed=seed)
        self.noises.append(noise)
        self.floor = max(self.floor, noise.stop)
        return noise

    def happen(
        self,
        kind: Literal["typed", "background", "delegate", "cancel"],
        at: int,
        who: int,
        text: str = "",
        slot: int = 0,
        complete: bool = False,
    ) -> None:
        self.happenings.append(Happening(kind=kind, at=at, who=who, text=text, slot=slot, complete=complete))

    def show(self, at: int, *, table: tuple[Thing, ...] | None = None, door: bool | None = None) -> None:
        """The picture changes at `at`: what stands on the table, or the door."""
        self.sight = replace(
            self.sight, start=at, table=self.sight.table if table is None else table, door=self.sight.door if door is None else door
        )
        self.sights.append(self.sight)

    def last(self) -> int:
        """The last moment at which anything happens."""
        return max(
            [self.floor, *(s.stop for s in self.said), *(n.stop for n in self.noises), *(h.at for h in self.happenings), self.sight.start]
        )
