"""Several corpora as one endless stream of sequences: whose turn it is, and where each of them stands.

Of every `BLOCK` sequences each corpus has its share, exact to one; which of them are whose is drawn by counters. Every corpus runs through
epochs of its own. The state is `Place`: a few integers, from which any number of workers and ranks goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...schemas.errors import InputError
from ...schemas.layout import NUM_SLOTS, LayoutSpec, Slot
from ...schemas.strict import Strict, canonical_json, sha256_hex
from ...transforms import tokenizer
from . import chance
from .corpus import OpenCorpus
from .order import EpochOrder, Piece, Stretches, stretches
from .spec import DataSpec

BLOCK = 1000  # sequences among which the shares hold
Count = Annotated[int, Field(ge=0)]


class Cursor(Strict):
    """Where a corpus stands: the sequence that it gives next."""

    epoch: Count = 0
    position: Count = 0


class Place(Strict):
    """Where a run stands: all that a loader's state is.

    Attributes:
        order: digest of what the order depends on (`Mixture.digest`).
        taken: sequences given so far, by all ranks together.
        cursors: one for each corpus.
    """

    order: str
    taken: Count
    cursors: tuple[Cursor, ...]


class Taken(tuple[int, list[Piece]]):
    """(number of the corpus, pieces): one sequence to be made."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Corpora that one model is trained on, with their shares of its tokens.

    Attributes:
        shares: sequences of each corpus among `BLOCK`.
        prologue_ids: the spec's prologue as the layout's tokenizer has it.
        most_rows: no sequence can have more rows.
    """

    corpora: tuple[OpenCorpus, ...]
    shares: tuple[int, ...]
    spec: DataSpec
    prologue_ids: tuple[int, ...]
    most_rows: int
    stretches: tuple[Stretches, ...]

    @property
    def layout(self) -> LayoutSpec:
        """The layout of all of them."""
        return self.corpora[0].layout
