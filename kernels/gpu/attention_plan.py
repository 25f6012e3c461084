"""Which rows of a batch make up a tile of queries, and which tiles meet a block of keys: a page table as arrays on the device.

A tile is the rows at positions t0 … t0 + rows - 1 of one document, t0 a multiple of `rows`, as far as they are new. So a row's place in
its tile, its tile's place in a page and its loops follow from the row's position alone, and so does all of its arithmetic. Made once a
table, window and size; it serves every layer that has these.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..pages import PAGE_ROWS, PageTable


@dataclass(frozen=True, slots=True, eq=False)
class TilePlan:
    """The tiles of a batch, in its order.

    Attributes:
        tiles: int64 [tiles, 5]: position t0 of a tile's first place; the batch's row there (of a place that is not new: where it would be);
            the first and the last row that are new, half-open; where its document's block 0 would stand in `pages`.
        pages: int32, all documents' pages, one list behind the other.
    """

    tiles: Tensor
    pages: Tensor


@lru_cache(maxsize=64)
def tile_plan(table: PageTable, window: int | None, rows: int, device: torch.device) -> TilePlan:
    """The plan of tiles of `rows` positions, a divisor of 64.

    Raises:
        ValueError: a block that a row may see has no page any more.
    """
    tiles, pages_before = [np.empty((0, 5), np.int64)], 0
    for s, position in enumerate(table.rows.positions):
        oldest = _oldest(position, window)
        if oldest < table.first_blocks[s]:
            raise ValueError(f"segment {s} sees block {oldest} of its document, whose pages begin with block {table.first_blocks[s]}")
        start, row_start, row_stop = _starts(table, s, rows), table.rows.row_starts[s], table.rows.row_starts[s + 1]
        row = row_start + start - position
        pages_at = np.full_like(start, pages_before - table.first_blocks[s])
        tiles.append(np.stack([start, row, np.maximum(row, row_start), np.minimum(row + rows, row_stop), pages_at], 1))
        pages_before += len(table.pages[s])
    pages = np.array([page for pages in table.pages for page in pages], np.int32)
    return TilePlan(torch.from_numpy(np.concatenate(tiles)).to(device), torch.from_numpy(pages).to(device))


@lru_cache(maxsize=64)
def block_plan(table: PageTable, window: int | None, rows: int, device: torch.device) -> Tensor:
    """int64 [blocks, 4], each block that a row may see: number in its document, page, and the plan's tiles that may see it, half-open."""
    blocks, tiles_before = [np.empty((0, 4), np.int64)], 0
    for s, position in enumerate(table.rows.positions):
        start, block = _starts(table, s, rows), np.arange(_oldest(position, window), table.last_block(s) + 1)
        first = np.searchsorted(start + rows, block * PAGE_ROWS, side="right")  # the first tile that ends behind the block's start
        reach = start[-1] if window is None else (block + 1) * PAGE_ROWS + window - 2  # the last position that sees the block
        stop = np.searchsorted(start, np.broadcast_to(reach, block.shape), side="right")
        page = np.array(table.pages[s], np.int64)[block - table.first_blocks[s]]
        blocks.append(np.stack([block, page, tiles_before + first, tiles_before + stop], 1))
        tiles_before += len(start)
    return torch.from_numpy(np.concatenate(blocks)).to(device)


def _starts(table: PageTable, segment: int, rows: int) -> NDArray[np.int64]:
    """Positions of a segment's tiles."""
    position = table.rows.positions[segment]
    return np.arange(position // rows * rows, position + table.rows.lengths[segment], rows)


def _oldest(position: int, window: int | None) -> int:
    """The first block of which the row at a position sees anything."""
    return 0 if window is None else max(0, position - window + 1) // PAGE_ROWS
