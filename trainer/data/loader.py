"""Batches of a mixture in its one order: any number of worker processes and ranks, resumed from a `Place`.

    for batch in Loader(mixture, step_sequences=8, place=place):
        …                               # forward, backward
        if batch.place is not None:     # the step is complete: optimizer step; save batch.place with the weights
            …

A step is `step_sequences` consecutive sequences, whoever makes them. Rank r of R takes the r-th run of ⌈step_sequences / R⌉ of them, in
batches of `batch_sequences`. A rank that would have fewer gets sequences that hold an opening and teach nothing, so that all ranks make
equally many passes.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from ...schemas.errors import InputError, MicroturnError
from . import own_speech
from .batch import Batch, of_documents
from .document import Document, Making, nothing
from .making import Damage, Sequences
from .mixture import Mixture, Place
from .order import Piece


class _Order(NamedTuple):
    """A batch to be made: (corpus, pieces) of each sequence, and the place after its step if it is the step's last."""

    sequences: tuple[tuple[int, tuple[Piece, ...]], ...]
    place: Place | None


class _Batches(Dataset):
    """Makes the batches that are asked for, in every worker. An error of ours comes back as a value, so that it keeps its words."""

    def __init__(self, mixture: Mixture, *, skip_damaged: bool) -> None:
        self._sequences = Sequences(mixture, skip_damaged=skip_damaged)
        own_speech.prepare(mixture.layout.own_mel)  # here, so that forked workers need not
        self._nothing = nothing(Making(layout=mixture.layout, spec=mixture.spec, prologue_ids=mixture.prologue_ids))

    def __getitem__(self, order: _Order) -> Batch | MicroturnError:
        documents: list[Document] = []
        corpora: list[int] = []
        damaged: list[Damage] = []
        try:
            for corpus, pieces in order.sequences:
                made, missing = self._sequences.make(corpus, pieces)
                documents += made or [self._nothing]
                corpora += [corpus] * max(1, len(made))
                damaged += missing
        except MicroturnError as error:
            return error
        return of_documents(documents, corpora, num_sequences=len(order.sequences), place=order.place, damaged=damaged)


class _Sampler:
    """What DataLoader asks for the next order."""

    def __init__(self, orders: Callable[[], Iterator[_Order]]) -> None:
        self._orders = orders

    def __iter__(self) -> Iterator[_Order]:
        return self._orders()


class Loader:
    """Endless batches, or those of some epochs; iterating again begins at `place` again.

    Attributes:
        rows, sequences: given so far by this rank: rows / (sequences × sequence_tokens) is how full they are.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        step_sequences: int,
        batch_sequences: int = 1,
        place: Place | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        epochs: int | None = None,
        on_damage: Literal["error", "skip"] = "error",
    ) -> None:
        """The loader of one rank.

        Args:
            step_sequences: sequences of an optimizer step, over all ranks.
            batch_sequences: sequences of a batch, at most.
            workers: processes that make batches; 0 makes them where they are asked for.
            prefetch: batches that each worker makes ahead.
            epochs: after how many of them iteration ends; None never ends. For one corpus only.
            on_damage: `error` stops at a damaged window; `skip` leaves its ticks out and tells in `Batch.damaged`.

        Raises:
            InputError: a place of another order; numbers that make no step.
        """
        if min(step_sequences, batch_sequences, world) < 1 or not 0 <= rank < world:
            raise InputError(
                f"rank {rank} of {world}, {step_sequences} sequences a step in batches of {batch_sequences}: none of it is a step"
            )
        self._mixture, self._place = mixture, place or mixture.start()
        mixture.check(self._place)
        self._step, self._batch, self._rank, self._world = step_sequences, batch_sequences, rank, world
        self._workers, self._prefetch = workers, prefetch
        self._epochs, self._on_damage = epochs, on_damage
        self._damaged: dict[tuple[int, int], Damage] = {}
        self.rows = self.sequences = 0

    @property
    def damaged(self) -> tuple[Damage, ...]:
        """Windows that were damaged so far, each once."""
        return tuple(self._damaged.values())

    def __iter__(self) -> Iterator[Batch]:
        making = _Batches(self._mixture, skip_damaged=self._on_damage == "skip")
        loader = DataLoader(
            making,
            sampler=_Sampler(self._orders),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=self._prefetch if self._workers else None,
            generator=torch.Generator(),  # its own: DataLoader draws a seed, and the run's generator is not its business
        )
        for made in loader:
            if isinstance(made, MicroturnError):
                raise made
            for damage in made.damaged:
                self._damaged[damage[:2]] = damage
            self.rows += made.num_rows
            self.sequences += made.num_sequences
            yield made

    def _orders(self) -> Iterator[_Order]:
        walk = self._mixture.walk(self._place, epochs=self._epochs)
        while step := list(islice(walk, self._step)):
            share = -(-len(step) // self._world)
            mine = [(turn.corpus, tuple(turn.pieces())) for turn in step[self._rank * share : (self._rank + 1) * share]]
            mine += [(0, ())] * (share - len(mine))
            for start in range(0, share, self._batch):
                is_last = start + self._batch >= share
                yield _Order(tuple(mine[start : start + self._batch]), walk.place if is_last else None)
