"""Which rows of a batch belong to which document, and where in their documents they stand. The one description every ragged op reads.

T rows are those of S segments, one after the other; each segment is the newest piece of one document. A packed training sequence is the
ragged batch of its documents from empty states; a sampler's batch is that of its appends. Nothing is computed across segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows `row_starts[s]` … `row_starts[s + 1]` (half-open) belong to segment s.

    Attributes:
        row_starts: [S + 1] ascending, from 0 to T; no segment is empty.
        positions: [S] of each segment's first row in its document: how many rows the document had before.
    """

    row_starts: tuple[int, ...]
    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = [stop - start for start, stop in zip(self.row_starts, self.row_starts[1:], strict=False)]
        if self.row_starts[:1] != (0,) or len(self.positions) != len(lengths) or min(lengths, default=1) < 1:
            raise ValueError(f"row_starts {self.row_starts} are not those of {len(self.positions)} non-empty segments")
        if min(self.positions, default=0) < 0:
            raise ValueError(f"positions {self.positions} must not be negative")

    @property
    def num_rows(self) -> int:
        return self.row_starts[-1]

    @property
    def num_segments(self) -> int:
        return len(self.positions)

    @property
    def lengths(self) -> tuple[int, ...]:
        """[S] rows of each segment."""
        return tuple(stop - start for start, stop in zip(self.row_starts, self.row_starts[1:], strict=False))


def ragged(lengths: Sequence[int], positions: Sequence[int] | None = None) -> Ragged:
    """The description of segments of these lengths, each at its position in its document; without positions, whole documents from their
    start.
    """
    return Ragged((0, *accumulate(lengths)), tuple(positions) if positions is not None else (0,) * len(lengths))


CPU = torch.device("cpu")


@lru_cache(maxsize=64)
def positions_of(rows: Ragged, device: torch.device = CPU) -> Tensor:
    """int64 [T]: each row's position in its document, on the device."""
    pieces = [torch.arange(position, position + n) for position, n in zip(rows.positions, rows.lengths, strict=True)]
    return (torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)).to(device)


@lru_cache(maxsize=64)
def rows_within(rows: Ragged, device: torch.device = CPU) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per row how many of its segment come before and after it, and the segment: int32 [T]; the segments' starts, int64 [S + 1]."""
    lengths_S, starts_S = torch.tensor(rows.lengths, dtype=torch.int64), torch.tensor(rows.row_starts)
    segment_T = torch.repeat_interleave(torch.arange(rows.num_segments), lengths_S)
    before_T = torch.arange(rows.num_rows) - starts_S[segment_T]
    after_T = lengths_S[segment_T] - 1 - before_T
    before_T, after_T, segment_T = (x.to(torch.int32).to(device) for x in (before_T, after_T, segment_T))
    return before_T, after_T, segment_T, starts_S.to(device)
