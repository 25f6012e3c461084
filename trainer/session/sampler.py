"""Ticks performed: after P(k) is perceived, text, control and speech of G(k) are sampled, every number of chance counter-based.

A row's noise hangs on the seed, the document's key and the row's position: not on batches, appends, aborts or the time of day. So a tick
that is undone and sampled again says the same, and the trainer's forward over the finished document, with the same noise, says it too.

G(k) stays uncommitted until `played` tells how many of its four frames were heard; what was not played is not remembered (FORMAT.md,
section 5, *Played*). Talks of a batch go in step: all decide their text, then those that speak make their frames.

Letters: T talks, D columns, V vocabulary, X = 320 values of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ...kernels import log_softmax, philox
from ...schemas.clock import TICK_FRAMES
from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import NUM_BANDS
from ...schemas.strict import Strict
from ...transforms import own
from ..model import Inputs
from ..model.flow import SUB_FRAMES
from ..model.inputs import continued
from ..speech.frames import frames_of, noise_of
from .engine import Engine, Session
from .grammar import Grammar, Said, text_ids
from .rows import Perceived, of_frame, of_ids, of_tick

TEXT = "text"
Heard = tuple[list[Inputs], frozenset[int]]  # P(k), and the slots whose results it completes


class Sampling(Strict):
    """How chance is used.

    Attributes:
        temperature: of text and control; 0 takes the likeliest.
        noise: deviation of the noise that frames start from.
    """

    seed: int = Field(0, ge=0)
    temperature: float = Field(1.0, ge=0)
    noise: float = Field(1.0, gt=0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Performed:
    """G(k).

    Attributes:
        ids: text and control, without `<perform>` and without the last, `<speak>` or `<silent>`.
        speaks: which of these two it was.
        mel16: own mel float16 [4, 4, 80] of its frames; None in silence.
    """

    ids: tuple[int, ...]
    speaks: bool
    mel16: NDArray[np.float16] | None


@dataclass(eq=False)
class Talk:
    """One conversation that is being sampled.

    Attributes:
        pieces: the inputs of every append so far, in order; together they are the document.
        pending: rows that are decided but not computed yet: they go in front of the next P(k).
        performed: G(k), until it is known what was played of it.
        ends: rows of the session after `<perform>` and after each id of text and control that followed.
        busy_slots: background slots that were delegated to, and have neither ended nor been cancelled.
    """

    session: Session
    pieces: list[Inputs] = field(default_factory=list)
    pending: list[Inputs] = field(default_factory=list)
    performed: Performed | None = None
    ends: list[int] = field(default_factory=list)
    busy_slots: frozenset[int] = frozenset()

    def document(self) -> Inputs:
        """Everything so far as one whole document, what is pending too: what a trainer would be given."""
        return continued([*self.pieces, *self.pending])


class Sampler:
    """Performs ticks on an engine's sessions."""

    def __init__(
        self, engine: Engine, layout: LayoutSpec, sampling: Sampling | None = None, *, tokenizer_json: str | Path | None = None
    ) -> None:
        """`tokenizer_json` is needed for a `file` layout: it says which ids are text."""
        self.engine, self.layout, self.sampling = engine, layout, sampling or Sampling()
        self.grammar = Grammar(layout, engine.model.spec.vocabulary, text_ids(layout, tokenizer_json))

    def begin(self, key: str, *, rows: int, prologue_ids: Sequence[int] = ()) -> Talk:
        """A talk before its first tick. `rows` is what it may ever have."""
        return Talk(self.engine.open(key, rows=rows), pending=[of_ids([self.layout.ids.bos, *prologue_ids])])

    @torch.no_grad()
    def perform(self, talks: Sequence[Talk], perceived: Sequence[Perceived | None]) -> list[Performed]:
        """G(k) of each talk after what it perceived in tick k; None instead of it gives G(-1), which comes before the first tick.

        A tick of which nobody told what was played was played whole. Whatever is raised, no talk has heard or said anything of this tick.
        """
        ticks = [self._tick(talk, seen) for talk, seen in zip(talks, perceived, strict=True)]
        for talk in talks:
            if talk.performed is not None:
                self.played(talk, TICK_FRAMES)
        before = [(talk, len(talk.pieces), talk.pending, talk.busy_slots) for talk in talks]
        try:
            said, speaking = self._say(talks, ticks)
            frames = self._speak([talks[t] for t in speaking], list(speaking.values()))
        except BaseException:  # nothing has happened, whatever it was
            for talk, pieces, pending, busy_slots in before:
                if talk.session.is_open:
                    self.engine.abort(talk.session)
                del talk.pieces[pieces:]
                talk.pending, talk.busy_slots = pending, busy_slots
            raise
        mels = dict(zip(speaking, frames, strict=True))
        performed = []
        for t, (talk, ids) in enumerate(zip(talks, said, strict=True)):
            talk.performed = Performed(ids=tuple(ids[:-1]), speaks=t in speaking, mel16=mels.get(t))
            performed.append(talk.performed)
        return performed

    def played(self, talk: Talk, frames: int) -> tuple[int, ...]:
        """The ids of G(k) that were not said after all, now that `frames` of its four were played; the tick is final.

        Raises InputError when there is no tick to be played, or more was played than there was.
        """
        performed = talk.performed
        if performed is None or not 0 <= frames <= TICK_FRAMES:
            raise InputError(f"{frames} frames played of session {talk.session.key!r}, which has {'a' if performed else 'no'} tick to play")
        unsaid: tuple[int, ...] = ()
        if performed.speaks and frames == 0:  # back to what has consequences: the last control pair, else `<perform>`
            control = [n for n, id_ in enumerate(performed.ids, 1) if id_ in self.layout.ids.slots]
            kept = control[-1] if control else 0
            unsaid = performed.ids[kept:]
            self._return_to(talk, talk.ends[kept])
            talk.pending = [of_ids([self.layout.ids.silent])]
        elif performed.speaks and frames < TICK_FRAMES:
            self._return_to(talk, talk.ends[-1] + 1 + frames)  # `<speak>` and the frames
            talk.pending = [of_frame(np.zeros((TICK_FRAMES - frames, SUB_FRAMES, NUM_BANDS), np.uint8), self.layout)]
        self.engine.commit(talk.session)
        talk.performed = None
        return unsaid

    def end(self, talk: Talk) -> None:
        """Nothing; the session is closed."""
        self.engine.close(talk.session)

    def _append(self, talks: Sequence[Talk], pieces: Sequence[Inputs]) -> Tensor:
        """Hidden rows [T, D] of the last new row of each."""
        hidden = self.engine.append([(talk.session, piece) for talk, piece in zip(talks, pieces, strict=True)])
        for talk, piece in zip(talks, pieces, strict=True):
            talk.pieces.append(piece)
        return torch.stack([rows[-1] for rows in hidden])

    def _return_to(self, talk: Talk, rows: int) -> None:
        self.engine.roll_back(talk.session, rows)
        total = sum(piece.rows.num_rows for piece in talk.pieces)
        while total > rows:
            total -= talk.pieces.pop().rows.num_rows

    def _tick(self, talk: Talk, seen: Perceived | None) -> Heard:
        """P(k) as inputs, and the slots whose results it completes."""
        if seen is None:
            if talk.pieces:
                raise InputError(f"session {talk.session.key!r} has begun: only its first tick has nothing perceived before it")
            return [], frozenset()
        return [of_tick(seen, self.layout)], frozenset(slot for slot, _, complete in seen.background if complete)

    def _say(self, talks: Sequence[Talk], ticks: Sequence[Heard]) -> tuple[list[list[int]], dict[int, Tensor]]:
        """Ids of text and control of each talk, then `<speak>`, which is computed, or `<silent>`, which is pending.

        And the hidden row [D] of each `<speak>`, by number of its talk.
        """
        pieces = []
        for talk, (tick, completed) in zip(talks, ticks, strict=True):
            pieces.append(continued([*talk.pending, *tick, of_ids([self.layout.ids.perform])]))
            talk.pending, talk.busy_slots = [], talk.busy_slots - completed
        hidden_TD = self._append(talks, pieces)
        said: list[list[int]] = [[] for _ in talks]
        states = [Said()] * len(talks)
        for talk in talks:
            talk.ends = [talk.session.rows]
        speaking: dict[int, Tensor] = {}
        going = list(range(len(talks)))
        while going:
            masks = [self.grammar.allowed(states[t], talks[t].busy_slots) for t in going]
            positions = [talks[t].session.rows - 1 for t in going]
            keys = [talks[t].session.key for t in going]
            chosen = choose(self.engine.model.text_logits(hidden_TD), torch.stack(masks), keys, positions, self.sampling)
            computed = []
            for t, id_ in zip(going, chosen, strict=True):
                said[t].append(id_)
                states[t] = self.grammar.after(states[t], id_)
                if id_ == self.layout.ids.silent:
                    talks[t].pending = [of_ids([id_])]
                else:
                    computed.append(t)
            if computed:
                hidden_TD = self._append([talks[t] for t in computed], [of_ids([said[t][-1]]) for t in computed])
            going, rows = [], []
            for n, t in enumerate(computed):
                if said[t][-1] == self.layout.ids.speak:
                    speaking[t] = hidden_TD[n]
                else:
                    talks[t].ends.append(talks[t].session.rows)
                    going.append(t)
                    rows.append(n)
            hidden_TD = hidden_TD[rows]
        for talk, state in zip(talks, states, strict=True):
            talk.busy_slots = state.busy(talk.busy_slots)
        return said, speaking

    def _speak(self, talks: Sequence[Talk], hidden: Sequence[Tensor]) -> list[NDArray[np.float16]]:
        """The four frames [4, 4, 80] of each talk, whose `<speak>` has this hidden row; its last frame is pending."""
        if not talks:
            return []
        hidden_TD, made = torch.stack(list(hidden)), []
        for frame in range(TICK_FRAMES):
            positions = [talk.session.rows - 1 for talk in talks]
            noise_TX = noise_of([talk.session.key for talk in talks], positions, self.sampling.seed) * self.sampling.noise
            made.append(frames_of(self.engine.model.flow, hidden_TD, noise_TX))
            rows = [of_frame(codes[None], self.layout) for codes in own.codes(made[-1])]
            if frame < TICK_FRAMES - 1:
                hidden_TD = self._append(talks, rows)
            else:
                for talk, row in zip(talks, rows, strict=True):
                    talk.pending = [row]
        return list(np.stack(made, axis=1))


def choose(logits_TV: Tensor, allowed_TV: Tensor, keys: Sequence[str], positions: Sequence[int], sampling: Sampling) -> list[int]:
    """The id sampled at each row: the largest of log-probability ÷ temperature + Gumbel noise among those allowed, the first of equals."""
    scores_TV = log_softmax(logits_TV)
    if sampling.temperature:
        noise = [
            philox.gumbels(philox.key(TEXT, sampling.seed, 0, key), torch.tensor([position]), logits_TV.shape[1])
            for key, position in zip(keys, positions, strict=True)
        ]
        scores_TV = scores_TV / sampling.temperature + torch.cat(noise)
    return scores_TV.masked_fill(~allowed_TV, float("-inf")).argmax(-1).tolist()
