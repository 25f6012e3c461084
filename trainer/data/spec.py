"""What the order and the contents of training sequences depend on, besides the corpora. Every field is in the digest."""

from typing import Annotated, Literal

from pydantic import Field

from ...schemas.strict import Strict

Chance = Annotated[float, Field(ge=0, le=1)]


class DataSpec(Strict):
    """How corpora become training sequences. Number of workers, ranks and sequences to a step are not here: they change nothing.

    Attributes:
        sequence_tokens: rows of a sequence, give or take half a tick at each end: all of them together have no gap.
        document_ticks: consecutive windows of a view are joined up to this length, then shuffled. Cut at windows' edges, so a longer
            window stays whole; sequences cut again where they are full.
        split: the split that is read.
        views: names of the views to take, () for all.
        sides: `all`: a session comes once an epoch for each of its views; `one`: from one side, drawn anew every epoch.
        drop_pictures, drop_typed, drop_background: how likely what was shown, typed or returned is left out of a whole document.
        cut_played: how likely a speaking tick is cut, as if somebody had barged in: FORMAT.md section 5, *Played*.
        prologue: text at the start of every document.
    """

    seed: int = Field(0, ge=0)
    sequence_tokens: int = Field(4096, ge=64)
    document_ticks: int = Field(600, ge=1)
    split: str = "train"
    views: tuple[str, ...] = ()
    sides: Literal["all", "one"] = "all"
    drop_pictures: Chance = 0.0
    drop_typed: Chance = 0.0
    drop_background: Chance = 0.0
    cut_played: Chance = 0.02
    prologue: str = ""
