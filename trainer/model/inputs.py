"""What the rows of a ragged batch are embedded from: the one form in which trainer and sampler hand rows to the model.

Letters: N rows; H, O, P of them heard frames, own frames, patches; the others are embedded by id.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...kernels import Ragged, ragged
from ..data import Batch


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Inputs:
    """Rows of some documents, each the newest piece of its document.

    Attributes:
        rows: which row belongs to which document, and at which position the piece begins.
        ids: int64 [N]; ids of heard, own and patch rows are not looked at.
        heard_rows, heard_codes: int64 [H], uint8 [H, 80].
        own_rows, own_codes: int64 [O], uint8 [O, 4, 80].
        patch_rows, patches, patch_px: int64 [P], uint8 [P, 2, 40, 40, 3], uint8 [P, 2], the height and width of it that is picture.
        counted: bool [N], the rows whose choice of experts is counted; None for all.
    """

    rows: Ragged
    ids: Tensor
    heard_rows: Tensor
    heard_codes: Tensor
    own_rows: Tensor
    own_codes: Tensor
    patch_rows: Tensor
    patches: Tensor
    patch_px: Tensor
    counted: Tensor | None = None

    @classmethod
    def of(cls, batch: Batch, *, positions: Sequence[int] | None = None) -> "Inputs":
        """The inputs of a loader's batch: whole documents from their start, unless `positions` says how many rows each had before."""
        return cls(
            rows=ragged(batch.offsets.diff().tolist(), positions),
            ids=batch.ids,
            heard_rows=batch.heard_rows,
            heard_codes=batch.heard_codes,
            own_rows=batch.own_rows,
            own_codes=batch.own_codes,
            patch_rows=batch.patch_rows,
            patches=batch.patches,
            patch_px=batch.patch_px,
            counted=batch.loud,
        )

    def piece(self, starts: Sequence[int], stops: Sequence[int]) -> "Inputs":
        """Rows `starts[s]` … `stops[s]` (half-open, counted in segment s) of every segment, as the newest piece of its document.

        Segments of which nothing is taken are left out.
        """
        taken = [(s, start, stop) for s, (start, stop) in enumerate(zip(starts, stops, strict=True)) if stop > start]
        offsets, positions = self.rows.row_starts, self.rows.positions
        device = self.ids.device
        index = torch.cat([torch.arange(offsets[s] + start, offsets[s] + stop, device=device) for s, start, stop in taken])
        place = torch.full((self.rows.num_rows,), -1, device=device)
        place[index] = torch.arange(len(index), device=device)

        def of_kind(rows: Tensor) -> tuple[Tensor, Tensor]:
            order = torch.argsort(place[rows], stable=True)
            order = order[place[rows][order] >= 0]
            return place[rows][order], order

        (heard_rows, heard), (own_rows, own), (patch_rows, patch) = map(of_kind, (self.heard_rows, self.own_rows, self.patch_rows))
        return Inputs(
            rows=ragged([stop - start for _, start, stop in taken], [positions[s] + start for s, start, _ in taken]),
            ids=self.ids[index],
            heard_rows=heard_rows,
            heard_codes=self.heard_codes[heard],
            own_rows=own_rows,
            own_codes=self.own_codes[own],
            patch_rows=patch_rows,
            patches=self.patches[patch],
            patch_px=self.patch_px[patch],
            counted=None if self.counted is None else self.counted[index],
        )


def joined(pieces: Sequence[Inputs], positions: Sequence[int]) -> Inputs:
    """One batch of these pieces of one document each, which begin at these positions."""
    lengths = [piece.rows.num_rows for piece in pieces]
    rows = ragged(lengths, positions)
    starts = rows.row_starts

    def moved(name: str) -> Tensor:
        return torch.cat([getattr(piece, name) + start for piece, start in zip(pieces, starts, strict=False)])

    def joint(name: str) -> Tensor:
        return torch.cat([getattr(piece, name) for piece in pieces])

    counted = [piece.counted for piece in pieces]
    return Inputs(
        rows=rows,
        ids=joint("ids"),
        heard_rows=moved("heard_rows"),
        heard_codes=joint("heard_codes"),
        own_rows=moved("own_rows"),
        own_codes=joint("own_codes"),
        patch_rows=moved("patch_rows"),
        patches=joint("patches"),
        patch_px=joint("patch_px"),
        counted=None if any(mask is None for mask in counted) else torch.cat([mask for mask in counted if mask is not None]),
    )


def continued(pieces: Sequence[Inputs]) -> Inputs:
    """One piece of one document, from pieces of it that follow each other."""
    whole = joined(pieces, [0] * len(pieces))
    return replace(whole, rows=ragged([whole.rows.num_rows], [pieces[0].rows.positions[0]]))
