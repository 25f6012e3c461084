"""Inputs of a few rows at a time: what a sampler has in hand, as the model takes it. Each is the next piece of one document."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kernels import ragged
from ...schemas.clock import TICK_FRAMES
from ...schemas.errors import InputError
from ...schemas.layout import NUM_SLOTS, LayoutSpec
from ...schemas.spec import NUM_BANDS, PATCH_PX, DmelSpec
from ..model import Inputs
from ..model.flow import SUB_FRAMES

NUM_CODES = DmelSpec().num_codes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Perceived:
    """What came in during tick k: P(k), quotas kept already.

    Attributes:
        heard: uint8 [4, 80], dMel codes.
        patches, patch_px: uint8 [P, 2, 40, 40, 3] of the tick's picture pair, row by row, and uint8 [P, 2], how much of each is picture.
        typed: ids.
        background: (slot, ids, whether it is complete) of each result that arrives.
    """

    heard: NDArray[np.uint8]
    patches: NDArray[np.uint8] | None = None
    patch_px: NDArray[np.uint8] | None = None
    typed: Sequence[int] = ()
    background: Sequence[tuple[int, Sequence[int], bool]] = ()


def of_ids(ids: Sequence[int]) -> Inputs:
    """Rows embedded by id."""
    return _inputs(list(ids))


def of_frame(codes: NDArray[np.uint8], layout: LayoutSpec) -> Inputs:
    """Rows of own speech, uint8 [n, 4, 80]."""
    return _inputs([layout.ids.own] * len(codes), own_rows=range(len(codes)), own_codes=codes)


def of_tick(perceived: Perceived, layout: LayoutSpec) -> Inputs:
    """P(k). Raises InputError for what the layout does not allow in a tick."""
    ids_of = layout.ids
    _refuse_strange(perceived)
    ids: list[int] = []
    patch_rows = range(0)
    if perceived.patches is not None and len(perceived.patches):
        ids.append(ids_of.picture)
        patch_rows = range(1, 1 + len(perceived.patches))
        ids += [ids_of.patch] * len(perceived.patches)
    heard_rows = range(len(ids), len(ids) + TICK_FRAMES)
    ids += [ids_of.heard] * TICK_FRAMES
    if len(perceived.typed) > layout.typed_quota:
        raise InputError(f"{len(perceived.typed)} typed ids in one tick, {layout.typed_quota} are allowed", hint="queue the rest")
    if perceived.typed:
        ids += [ids_of.typed, *perceived.typed]
    for slot, text, complete in perceived.background:
        if len(text) > layout.background_quota:
            raise InputError(f"{len(text)} ids of slot {slot} in one tick, {layout.background_quota} are allowed", hint="queue the rest")
        ids += [ids_of.background, ids_of.slots[slot], *text, *([ids_of.end] if complete else [])]
    return _inputs(
        ids,
        heard_rows=heard_rows,
        heard_codes=perceived.heard,
        patch_rows=patch_rows,
        patches=perceived.patches,
        patch_px=perceived.patch_px,
    )


def _refuse_strange(perceived: Perceived) -> None:
    """Nothing for arrays of the right shapes and dtypes, codes below 16, and slots that there are; else raises InputError."""
    heard, patches, patch_px = perceived.heard, perceived.patches, perceived.patch_px
    if heard.shape != (TICK_FRAMES, NUM_BANDS) or heard.dtype != np.uint8 or heard.max() >= NUM_CODES:
        raise InputError(
            f"a tick hears uint8 [{TICK_FRAMES}, {NUM_BANDS}] of codes below {NUM_CODES}, found {heard.dtype} {list(heard.shape)}"
            f"{f' up to {heard.max()}' if heard.size else ''}"
        )
    if patches is not None and (patches.shape[1:] != (2, PATCH_PX, PATCH_PX, 3) or patches.dtype != np.uint8):
        raise InputError(f"patches are uint8 [P, 2, {PATCH_PX}, {PATCH_PX}, 3], found {patches.dtype} {list(patches.shape)}")
    if patch_px is not None and (patches is None or patch_px.shape != (len(patches), 2) or patch_px.dtype != np.uint8):
        raise InputError(f"patch_px is uint8 [P, 2], one row a patch, found {patch_px.dtype} {list(patch_px.shape)}")
    for slot, _, _ in perceived.background:
        if not 0 <= slot < NUM_SLOTS:
            raise InputError(f"there are background slots 0 … {NUM_SLOTS - 1}, found {slot}")


def _inputs(
    ids: list[int],
    *,
    heard_rows: range = range(0),
    heard_codes: NDArray[np.uint8] | None = None,
    own_rows: range = range(0),
    own_codes: NDArray[np.uint8] | None = None,
    patch_rows: range = range(0),
    patches: NDArray[np.uint8] | None = None,
    patch_px: NDArray[np.uint8] | None = None,
) -> Inputs:
    num_patches = len(patch_rows)
    if num_patches and patch_px is None:
        patch_px = np.full((num_patches, 2), PATCH_PX, np.uint8)
    return Inputs(
        rows=ragged([len(ids)]),
        ids=torch.tensor(ids, dtype=torch.int64),
        heard_rows=_rows(heard_rows),
        heard_codes=_codes(heard_codes, (0, NUM_BANDS)),
        own_rows=_rows(own_rows),
        own_codes=_codes(own_codes, (0, SUB_FRAMES, NUM_BANDS)),
        patch_rows=_rows(patch_rows),
        patches=_codes(patches if num_patches else None, (0, 2, PATCH_PX, PATCH_PX, 3)),
        patch_px=_codes(patch_px if num_patches else None, (0, 2)),
    )


def _rows(rows: range) -> Tensor:
    return torch.arange(rows.start, rows.stop)


def _codes(codes: NDArray[np.uint8] | None, empty: tuple[int, ...]) -> Tensor:
    return torch.zeros(empty, dtype=torch.uint8) if codes is None else torch.from_numpy(np.ascontiguousarray(codes))
