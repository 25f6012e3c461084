"""Law 3, measured: on this machine, with this model and these documents, how many rows differ between the trainer's forward and a sampler.

Every check computes both sides here and now and compares bits, row by row. What is compared is the hidden row behind the last norm, from
which logits and speech are functions; sampled sessions are compared in ids and own mel too. Zero is the only good number.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels.selfcheck import as_integers
from ...schemas.clock import TICK_FRAMES
from ...schemas.layout import LayoutSpec
from ..model import Inputs, InteractionModel
from ..model.inputs import joined
from ..speech.frames import frames_of, noise_of
from .engine import Engine, Session
from .grammar import Said
from .pools import Limits
from .rows import Perceived
from .sampler import Performed, Sampler, Sampling, Talk, choose
from .serving import served
from .snapshot import Snapshot

ROWS_PER_TICK = 30  # of a session without pictures, at most


@dataclass(frozen=True, slots=True)
class Check:
    """One way in which a sampler may differ from the trainer: how many rows were compared, and how many did."""

    name: str
    rows: int
    differing: int


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A document of a corpus: its key and its rows."""

    key: str
    inputs: Inputs


class Alignment:
    """The checks of one model on some documents. Chance is in the cuts and companies only, and hangs on `seed`.

    `prologue_ids` stand behind BOS in every document that the model was trained on: sampled sessions begin so, too.
    """

    def __init__(self, model: InteractionModel, documents: Sequence[Given], *, seed: int = 0, prologue_ids: Sequence[int] = ()) -> None:
        self.model, self.documents, self.chance = model.eval(), documents, random.Random(seed)
        self.serving = served(self.model)
        self.prologue_ids = tuple(prologue_ids)
        self.longest = max(document.inputs.rows.num_rows for document in documents)
        with torch.no_grad():
            self.hidden = [model(document.inputs).hidden_TD for document in documents]

    def packed(self) -> Check:
        """All documents in one batch, as a training sequence packs them."""
        with torch.no_grad():
            found = self.model(joined([d.inputs for d in self.documents], [0] * len(self.documents))).hidden_TD
        return _check("packed into one batch", [(found, torch.cat(self.hidden))])

    def appended(self, name: str, pairs: int, told: Callable[[], None], *, company: int = 1, threads: int | None = None) -> Check:
        """Random partitions of random documents, `company` sessions at a time; threads as they are, or this many."""
        before, seen = torch.get_num_threads(), []
        torch.set_num_threads(threads or before)
        try:
            for _ in range(pairs):
                engine = self._engine(company)
                chosen = [self.chance.randrange(len(self.documents)) for _ in range(company)]
                sessions = [engine.open(str(n), rows=self._rows(d)) for n, d in enumerate(chosen)]
                seen += self._run(engine, list(zip(sessions, chosen, strict=True)))
                told()
        finally:
            torch.set_num_threads(before)
        return _check(name, seen)

    def undone(self, pairs: int, told: Callable[[], None]) -> Check:
        """Before each append, another document's rows are appended and rolled back or aborted."""
        seen = []
        for _ in range(pairs):
            engine, d, other = self._engine(1), *(self.chance.randrange(len(self.documents)) for _ in range(2))
            session = engine.open("0", rows=2 * self.longest)
            for start, stop in self._cuts(self._rows(d)):
                strange = self.chance.randint(1, min(30, self._rows(other)))
                engine.append([(session, self.documents[other].inputs.piece([0], [strange]))])
                engine.abort(session)
                (found,) = engine.append([(session, self.documents[d].inputs.piece([start], [stop]))])
                seen.append((found, self.hidden[d][start:stop]))
                engine.commit(session)
            told()
        return _check("after aborted appends", seen)

    def moved(self, pairs: int, told: Callable[[], None]) -> Check:
        """A session is snapshot in the middle and goes on in another engine."""
        seen = []
        for _ in range(pairs):
            d = self.chance.randrange(len(self.documents))
            inputs, rows = self.documents[d].inputs, self._rows(d)
            at, engine, elsewhere = self.chance.randint(1, rows - 1), self._engine(1), self._engine(1)
            session = engine.open("0", rows=rows)
            engine.append([(session, inputs.piece([0], [at]))])
            engine.commit(session)
            again = Snapshot.of(engine, session, "").restore(elsewhere, "")
            (found,) = elsewhere.append([(again, inputs.piece([at], [rows]))])
            seen.append((found, self.hidden[d][at:]))
            told()
        return _check("after snapshot and restore", seen)

    def sampled(
        self, layout: LayoutSpec, sampling: Sampling, ticks: int, talks: int, told: Callable[[], None], *, tokenizer_json: str = ""
    ) -> list[Check]:
        """Sessions that hear what the documents heard, speak for themselves and are cut short at times; then the trainer's forward over
        what became of them, its choices with the same noise, and its Euler chains.
        """
        rows = len(self.prologue_ids) + ROWS_PER_TICK * (ticks + 2)
        sampler = _Watched(
            Engine(self.serving, Limits(sessions=talks, rows=talks * rows)), layout, sampling, tokenizer_json=tokenizer_json or None
        )
        given = [self.documents[n % len(self.documents)] for n in range(talks)]
        going = [sampler.begin(f"{n}:{document.key}", rows=rows, prologue_ids=self.prologue_ids) for n, document in enumerate(given)]
        kept: dict[int, list[_Tick]] = {n: [] for n in range(talks)}
        for tick in range(-1, ticks):
            busy = [talk.busy_slots for talk in going]
            performed = sampler.perform(going, [None if tick < 0 else _heard(document.inputs, tick) for document in given])
            for n, (talk, done) in enumerate(zip(going, performed, strict=True)):
                played = self.chance.choice([0, 1, 2, 3, *[TICK_FRAMES] * 8])
                if played == TICK_FRAMES or not done.speaks:
                    kept[n].append(_Tick(talk.ends[0] - 1, done, busy[n]))
                sampler.played(talk, played)
            told()
        hidden, ids, mels = [], [], []
        for n, talk in enumerate(going):
            with torch.no_grad():
                whole = self.model(talk.document()).hidden_TD
            watched = sampler.seen[talk.session.key]
            hidden.append((torch.stack(list(watched.values())), whole[list(watched)]))
            for tick_kept in kept[n]:
                ids.append(self._choices(sampler, talk.session.key, whole, tick_kept))
                if tick_kept.performed.mel16 is not None:
                    mels.append(self._frames(sampling, talk.session.key, whole, tick_kept))
        return [_check("sampled: hidden rows", hidden), _check("sampled: ids chosen again", ids), _check("sampled: own mel again", mels)]

    def _choices(self, sampler: Sampler, key: str, whole: Tensor, tick: "_Tick") -> tuple[Tensor, Tensor]:
        """Ids that the trainer's rows give with the same noise and masks, and those that were sampled."""
        ids = sampler.layout.ids
        wanted, said, masks = [*tick.performed.ids, ids.speak if tick.performed.speaks else ids.silent], Said(), []
        for id_ in wanted:
            masks.append(sampler.grammar.allowed(said, tick.busy_slots))
            said = sampler.grammar.after(said, id_)
        positions = list(range(tick.row, tick.row + len(wanted)))
        with torch.no_grad():
            logits = self.model.text_logits(whole[positions])
        found = choose(logits, torch.stack(masks), [key] * len(wanted), positions, sampler.sampling)
        return torch.tensor(found)[:, None], torch.tensor(wanted)[:, None]

    def _frames(self, sampling: Sampling, key: str, whole: Tensor, tick: "_Tick") -> tuple[Tensor, Tensor]:
        """Own mel that Euler chains from the trainer's rows give, all four frames at once, and what was sampled one by one."""
        first = tick.row + len(tick.performed.ids) + 1  # `<speak>`
        positions = list(range(first, first + TICK_FRAMES))
        found = frames_of(self.model.flow, whole[positions], noise_of([key] * TICK_FRAMES, positions, sampling.seed) * sampling.noise)
        assert tick.performed.mel16 is not None
        return torch.from_numpy(found).flatten(1), torch.from_numpy(tick.performed.mel16).flatten(1)

    def _run(self, engine: Engine, who: Sequence[tuple[Session, int]]) -> list[tuple[Tensor, Tensor]]:
        left, seen = {n: self._cuts(self._rows(d)) for n, (_, d) in enumerate(who)}, []
        while any(left.values()):
            here = [n for n in left if left[n] and self.chance.random() < 0.7] or [n for n in left if left[n]]
            spans = [left[n].pop(0) for n in here]
            pieces = [
                (who[n][0], self.documents[who[n][1]].inputs.piece([start], [stop])) for n, (start, stop) in zip(here, spans, strict=True)
            ]
            for n, (start, stop), found in zip(here, spans, engine.append(pieces), strict=True):
                seen.append((found, self.hidden[who[n][1]][start:stop]))
                engine.commit(who[n][0])
        return seen

    def _cuts(self, rows: int) -> list[tuple[int, int]]:
        """Half-open spans that cover `rows`: a few single rows, ticks, or long pieces."""
        cuts: list[tuple[int, int]] = []
        most, start = self.chance.choice([3, 20, 60, 400]), 0
        while start < rows:
            stop = min(rows, start + self.chance.randint(1, most if len(cuts) < 40 else 400))
            cuts.append((start, stop))
            start = stop
        return cuts

    def _rows(self, document: int) -> int:
        return self.documents[document].inputs.rows.num_rows

    def _engine(self, sessions: int) -> Engine:
        return Engine(self.serving, Limits(sessions=sessions, rows=2 * sessions * self.longest, uncommitted_rows=max(1024, self.longest)))


@dataclass(frozen=True, slots=True, eq=False)
class _Tick:
    """G(k) as it was sampled: the row of its `<perform>`, what came, and which slots were busy."""

    row: int
    performed: Performed
    busy_slots: frozenset[int]


class _Watched(Sampler):
    """A sampler that keeps the hidden row of each append's last row, by session and position; what is undone is overwritten."""

    def __init__(self, engine: Engine, layout: LayoutSpec, sampling: Sampling, *, tokenizer_json: str | None) -> None:
        super().__init__(engine, layout, sampling, tokenizer_json=tokenizer_json)
        self.seen: dict[str, dict[int, Tensor]] = {}

    def _append(self, talks: Sequence[Talk], pieces: Sequence[Inputs]) -> Tensor:
        hidden_TD = super()._append(talks, pieces)
        for talk, row in zip(talks, hidden_TD, strict=True):
            self.seen.setdefault(talk.session.key, {})[talk.session.rows - 1] = row
        return hidden_TD

    def _return_to(self, talk: Talk, rows: int) -> None:
        super()._return_to(talk, rows)
        self.seen[talk.session.key] = {position: row for position, row in self.seen[talk.session.key].items() if position < rows}


def _heard(inputs: Inputs, tick: int) -> Perceived:
    frames = inputs.heard_codes[tick * TICK_FRAMES : (tick + 1) * TICK_FRAMES]
    return Perceived(heard=frames.numpy())


def _check(name: str, pairs: Sequence[tuple[Tensor, Tensor]]) -> Check:
    rows = differing = 0
    for found, wanted in pairs:
        assert found.shape == wanted.shape and found.dtype == wanted.dtype
        rows += len(found)
        differing += int((as_integers(found) != as_integers(wanted)).flatten(1).any(1).sum()) if len(found) else 0
    return Check(name, rows, differing)
