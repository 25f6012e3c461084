"""Several corpora as one endless stream of sequences: whose turn it is, and where each of them stands.

Of every `BLOCK` sequences each corpus has its share, exact to one; which of them are whose is drawn by counters. Every corpus runs through
epochs of its own. The state is `Place`: a few integers, from which any number of workers and ranks goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...schemas.clock import TICK_FRAMES
from ...schemas.errors import InputError
from ...schemas.layout import NUM_SLOTS, LayoutSpec
from ...schemas.strict import Strict, canonical_json, sha256_hex
from ...transforms.tokens import tokenizer
from . import chance
from .corpus import OpenCorpus
from .order import EpochOrder, Piece, Stretches, stretches
from .spec import DataSpec

BLOCK = 1000  # sequences among which the shares hold
Count = Annotated[int, Field(ge=0)]


class Cursor(Strict):
    """Where a corpus stands: the epoch, and how many tokens of it are taken. A sequence may end one epoch and begin the next."""

    epoch: Count = 0
    token: Count = 0


class Place(Strict):
    """Where a run stands: all that a loader's state is.

    Attributes:
        order: digest of all that the order depends on (`Mixture.digest`).
        taken: sequences given so far, by all ranks together.
        cursors: one for each corpus.
    """

    order: str
    taken: Count
    cursors: tuple[Cursor, ...]


class Turn(NamedTuple):
    """One sequence to be made, of one corpus: (an epoch's order, start, stop) of each part of the stream, nearly always a single one."""

    corpus: int
    parts: tuple[tuple[EpochOrder, int, int], ...]

    def pieces(self) -> list[Piece]:
        """What it is made from."""
        return [piece for order, start, stop in self.parts for piece in order.pieces(start, stop)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Corpora that one model is trained on.

    Attributes:
        shares: sequences of each corpus among `BLOCK`.
        prologue_ids: the spec's prologue in the layout's ids.
        digest: of the spec, the shares and every corpus' content.
    """

    corpora: tuple[OpenCorpus, ...]
    shares: tuple[int, ...]
    spec: DataSpec
    prologue_ids: tuple[int, ...]
    stretches: tuple[Stretches, ...]
    digest: str

    @classmethod
    def of(
        cls, corpora: Sequence[OpenCorpus], spec: DataSpec, *, weights: Sequence[float] | None = None, tokenizer_path: str = ""
    ) -> "Mixture":
        """The corpora with their weights (equal ones by default): shares of the sequences, and so of the tokens.

        `tokenizer_path` is the tokenizer.json of a `file` layout; it is needed for a prologue only.
        Raises InputError where corpora do not go together, a weight is none, or a tick may be larger than a sequence.
        """
        weights = [1.0] * len(corpora) if weights is None else list(weights)
        if not corpora or len(weights) != len(corpora):
            raise InputError(f"{len(corpora)} corpora with {len(weights)} weights", hint="give each corpus one weight")
        for other in corpora[1:]:
            _refuse_unlike(corpora[0], other)
        layout = corpora[0].layout
        ids = tuple(tokenizer.load(layout, tokenizer_path or None).encode(spec.prologue)) if spec.prologue else ()
        if (largest := max(map(largest_tick, corpora)) + 1 + len(ids)) > spec.sequence_tokens:
            raise InputError(
                f"sequence_tokens is {spec.sequence_tokens}, one tick may have {largest} tokens with what opens a document",
                hint=f"take at least {4 * largest}",
            )
        shares = _shares(weights)
        content = [[corpus.identity["content"], corpus.split] for corpus in corpora]
        return cls(
            corpora=tuple(corpora),
            shares=shares,
            spec=spec,
            prologue_ids=ids,
            stretches=tuple(stretches(corpus.index, spec, where=corpus.name) for corpus in corpora),
            digest=sha256_hex(canonical_json([spec.digest(), list(shares), content])),
        )

    @property
    def layout(self) -> LayoutSpec:
        """The layout that all of them have."""
        return self.corpora[0].layout

    @property
    def most_rows(self) -> int:
        """No sequence has more rows than this: both of its edges may move by half a tick, and a document goes on in it."""
        return self.spec.sequence_tokens + max(map(largest_tick, self.corpora)) + 1 + len(self.prologue_ids)

    def start(self) -> Place:
        """The beginning of a run."""
        return Place(order=self.digest, taken=0, cursors=(Cursor(),) * len(self.corpora))

    def check(self, place: Place) -> None:
        """Nothing if the place is one of this order. Raises InputError naming both digests."""
        if place.order != self.digest or len(place.cursors) != len(self.corpora):
            raise InputError(
                f"this place belongs to the order {place.order} of {len(place.cursors)} corpora, this one is {self.digest} of "
                f"{len(self.corpora)}",
                hint="corpora, weights, seed and all that is in DataSpec must be those that the run was started with",
            )

    def order(self, corpus: int, epoch: int) -> EpochOrder:
        """One epoch of one corpus. It is kept by nobody: ask once."""
        return EpochOrder(self.stretches[corpus], self.spec, epoch, num_prologue=len(self.prologue_ids))

    def walk(self, place: Place, *, epochs: int | None = None) -> "Walk":
        """The turns from this place on, without end or through `epochs` epochs, the last sequence then being what is left.

        Raises InputError for a place of another order, and for several corpora with `epochs`: their epochs do not end together.
        """
        self.check(place)
        if epochs is not None and len(self.corpora) > 1:
            raise InputError(
                f"{len(self.corpora)} corpora, read for {epochs} epochs: theirs do not end together", hint="read them one by one"
            )
        return Walk(self, place, epochs)


class Walk:
    """Turns: iterate it. `place` is where it stands, after the turns that it has given."""

    def __init__(self, mixture: Mixture, place: Place, epochs: int | None) -> None:
        self._mixture, self._taken, self._cursors = mixture, place.taken, list(place.cursors)
        self._last_epoch = None if epochs is None else place.cursors[0].epoch + epochs
        self._orders: list[EpochOrder | None] = [None] * len(self._cursors)

    @property
    def place(self) -> Place:
        """What to resume from."""
        return Place(order=self._mixture.digest, taken=self._taken, cursors=tuple(self._cursors))

    def __iter__(self) -> "Walk":
        return self

    def __next__(self) -> Turn:
        block, within = divmod(self._taken, BLOCK)
        corpus = int(_owners(self._mixture.shares, self._mixture.spec.seed, block)[within])
        epoch, token = self._cursors[corpus].epoch, self._cursors[corpus].token
        missing = self._mixture.spec.sequence_tokens
        parts = []
        while missing and epoch != self._last_epoch:
            order = self._orders[corpus] = self._orders[corpus] or self._mixture.order(corpus, epoch)
            taken = min(missing, order.num_tokens - token)
            parts.append((order, token, token + taken))
            missing, token = missing - taken, token + taken
            if token == order.num_tokens:
                epoch, token, self._orders[corpus] = epoch + 1, 0, None
        if not parts:
            raise StopIteration
        self._cursors[corpus] = Cursor(epoch=epoch, token=token)
        self._taken += 1
        return Turn(corpus, tuple(parts))


def largest_tick(corpus: OpenCorpus) -> int:
    """More tokens than this no tick has, by the corpus' pictures and the layout's quotas; a session's first has G(-1) too."""
    spec, layout = corpus.spec.pictures, corpus.layout
    rows, cols = (-(-size // spec.patch_px) for size in (spec.max_height_px, spec.max_width_px))
    shown = 1 + rows * (cols + (spec.tiling == "inkling")) if corpus.index.picture_tokens_W.any() else 0
    returned = NUM_SLOTS * (2 + layout.background_quota + 1)
    performed = 1 + layout.say_quota + 1 + TICK_FRAMES
    return shown + TICK_FRAMES + 1 + layout.typed_quota + returned + 2 * performed


@lru_cache(maxsize=4)
def _owners(shares: tuple[int, ...], seed: int, block: int) -> NDArray[np.uint32]:
    """Which corpus each sequence of a block belongs to."""
    owners = np.repeat(np.arange(len(shares), dtype=np.uint32), shares)
    drawn = chance.words(chance.key("mixture", seed, 0, ""), np.arange(BLOCK), block & 0xFFFFFFFF, block >> 32)
    return owners[np.argsort(drawn[:, 0], kind="stable")]


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Whole shares of BLOCK, largest remainders first. Raises InputError for a weight that is none or too small for one."""
    if not all(weight > 0 and np.isfinite(weight) for weight in weights):
        raise InputError(f"weights are positive numbers, found {list(weights)}")
    exact = [weight * BLOCK / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    for number in sorted(range(len(exact)), key=lambda k: shares[k] - exact[k])[: BLOCK - sum(shares)]:
        shares[number] += 1
    if 0 in shares:
        raise InputError(f"a weight of {weights[shares.index(0)]} among {sum(weights)} is less than one sequence in {BLOCK}")
    return tuple(shares)


def _refuse_unlike(one: OpenCorpus, other: OpenCorpus) -> None:
    """Raises InputError where one model cannot read both."""
    for what, a, b in (
        ("layout", one.identity["layout_spec"], other.identity["layout_spec"]),
        ("dmel", one.spec.dmel, other.spec.dmel),
        ("pictures.tiling", one.spec.pictures.tiling, other.spec.pictures.tiling),
    ):
        if a != b:
            raise InputError(f"{one.name} and {other.name} differ in {what}: {a} and {b}", hint="build them with one spec and tokenizer")
