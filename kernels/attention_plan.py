"""How a ragged batch's attention is cut into products of one shape: tiles of queries against pages of keys. Indices only, no arithmetic
on rows.

A tile is up to `tile_rows` new rows of one segment, all heads; it meets the blocks from the oldest that its first row may see to the one
of its last row. Tiles that meet about the same number of blocks form a chunk, which is computed at once; a chunk's blocks are aligned at
the newest, so that its last block is where every tile's last row stands. No bit depends on any of this. A plan depends on the table and
the window alone: it is made once and serves every layer that has these. It costs 0.1 ms for an append, 1 to 3 ms for 2,048 rows.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .pages import PAGE_ROWS, PageTable

CHUNK_ROWS = 8192  # rows of all heads and blocks of one chunk, 64 scores each: 2 MiB, so that they stay in the cache
FEW_PRODUCTS = 16  # calls with fewer products than this take several blocks at once


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Products of one call: blocks `block_start` … `block_stop` of a chunk's tiles from `first_tile` on.

    Attributes:
        num_pages: blocks times tiles.
        page: the first of the call's pages, counted among the plan's used ones, in the order block, tile;
        pages: int64, all of them, where they are not consecutive.
    """

    block_start: int
    block_stop: int
    first_tile: int
    num_pages: int
    page: int
    pages: Tensor | None

    @property
    def num_blocks(self) -> int:
        return self.block_stop - self.block_start


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Tiles `tile_start` … `tile_stop` of a plan, each against its newest `num_blocks` blocks.

    Attributes:
        tile_start, tile_stop, num_blocks: as above; tiles that have fewer blocks come first. phases: per tile, the position of its row 0
            counted from the start of its newest block; one entry if all agree. At most 64 - tile_rows,
            negative where a tile begins in an older block.
        hidden: (block, bool [tiles or 1, 1, tile_rows, 64]), True where a query must not look; blocks without an entry are seen whole.
        calls: in ascending order of block.
    """

    tile_start: int
    tile_stop: int
    num_blocks: int
    phases: tuple[int, ...]
    hidden: tuple[tuple[int, Tensor], ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionPlan:
    """The chunks of a batch.

    Attributes:
        tile_rows, num_tiles: of all chunks.
        place_T: int64 [T], where each row stands among the tiles' rows.
        used: int64, the pages that are read, by number; None when they are 0 … num_used - 1.
        chunks: in order of tiles.
    """

    tile_rows: int
    num_tiles: int
    place_T: Tensor
    used: Tensor | None
    num_used: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class _Tile:
    """New rows `start` … `stop` (positions) of a segment, blocks `oldest` … `newest` (inclusive)."""

    segment: int
    start: int
    stop: int
    oldest: int
    newest: int
    tile_rows: int

    @property
    def num_blocks(self) -> int:
        return self.newest - self.oldest + 1

    @property
    def phase(self) -> int:
        """Where row 0 stands from the newest block's start: the first new row, or earlier if the tile would reach past the block."""
        return min(self.start - self.newest * PAGE_ROWS, PAGE_ROWS - self.tile_rows)


@lru_cache(maxsize=64)
def attention_plan(table: PageTable, window: int | None, tile_rows: int, heads: int, kv_heads: int) -> AttentionPlan:
    """The plan for new rows that see the `window` newest positions (their own included; None: all).

    Raises:
        ValueError: a block that a row may see has no page any more.
    """
    tiles = sorted(_tiles(table, window, tile_rows), key=lambda tile: tile.num_blocks)
    listed = [np.array(pages, np.int64) for pages in table.pages]
    first_tile_blocks = [min(t.oldest for t in tiles if t.segment == s) for s in range(len(listed))]
    read = [
        pages[oldest - first : table.last_block(s) - first + 1]
        for s, (pages, oldest, first) in enumerate(zip(listed, first_tile_blocks, table.first_blocks, strict=True))
    ]
    used = np.unique(np.concatenate(read)) if read else np.empty(0, np.int64)
    local = [np.searchsorted(used, pages) for pages in listed]
    chunks, start = [], 0
    while start < len(tiles):
        stop = _chunk_stop(tiles, start, tile_rows * heads)
        chunks.append(_chunk(tiles[start:stop], start, local, table.first_blocks, window, kv_heads))
        start = stop
    place_T = np.empty(table.rows.num_rows, np.int64)
    for number, tile in enumerate(tiles):
        row = table.rows.row_starts[tile.segment] + tile.start - table.rows.positions[tile.segment]
        slot = number * tile_rows + tile.start - tile.newest * PAGE_ROWS - tile.phase
        place_T[row : row + tile.stop - tile.start] = np.arange(slot, slot + tile.stop - tile.start)
    is_prefix = len(used) == 0 or used[-1] == len(used) - 1
    return AttentionPlan(
        tile_rows, len(tiles), torch.from_numpy(place_T), None if is_prefix else torch.from_numpy(used), len(used), tuple(chunks)
    )


def _tiles(table: PageTable, window: int | None, tile_rows: int) -> list[_Tile]:
    tiles = []
    for s, (position, length) in enumerate(zip(table.rows.positions, table.rows.lengths, strict=True)):
        for start in range(position, position + length, tile_rows):
            stop = min(start + tile_rows, position + length)
            oldest = 0 if window is None else max(0, (start - window + 1) // PAGE_ROWS)
            if oldest < table.first_blocks[s]:
                raise ValueError(f"segment {s} sees block {oldest} of its document, whose pages begin with block {table.first_blocks[s]}")
            tiles.append(_Tile(s, start, stop, oldest, (stop - 1) // PAGE_ROWS, tile_rows))
    return tiles


def _chunk_stop(tiles: list[_Tile], start: int, rows: int) -> int:
    """The first tile that does not belong to the chunk that begins with tile `start`: it would be too large, or most of it empty."""
    stop = start + 1
    while (
        stop < len(tiles)
        and (stop + 1 - start) * tiles[stop].num_blocks * rows <= CHUNK_ROWS
        and tiles[stop].num_blocks <= max(2 * tiles[start].num_blocks, 4)
    ):
        stop += 1
    return stop


def _chunk(
    tiles: list[_Tile], tile_start: int, local: list[NDArray[np.int64]], first_blocks: tuple[int, ...], window: int | None, kv_heads: int
) -> Chunk:
    num_blocks = tiles[-1].num_blocks
    pages_tb = np.zeros((len(tiles), num_blocks), np.int64)
    for t, tile in enumerate(tiles):
        first = first_blocks[tile.segment]
        pages_tb[t, num_blocks - tile.num_blocks :] = local[tile.segment][tile.oldest - first : tile.newest - first + 1]
    at_once = max(1, FEW_PRODUCTS // (len(tiles) * kv_heads))
    calls, block = [], 0
    while block < num_blocks:
        first_tile = next(t for t, tile in enumerate(tiles) if tile.num_blocks >= num_blocks - block)
        stop = min(block + at_once, num_blocks) if first_tile == 0 else block + 1
        numbers = pages_tb[first_tile:, block:stop].T.flatten()
        consecutive = bool((np.diff(numbers) == 1).all())
        calls.append(Call(block, stop, first_tile, len(numbers), int(numbers[0]), None if consecutive else torch.from_numpy(numbers)))
        block = stop
    phases = tuple(tile.phase for tile in tiles)
    if len(set(phases)) == 1:
        phases = phases[:1]
    hidden = []
    for block in range(num_blocks):
        masks = [_hidden(phase, num_blocks - 1 - block, window, tiles[0].tile_rows) for phase in phases]
        if any(mask is not None for mask in masks):
            seen = torch.zeros(tiles[0].tile_rows, PAGE_ROWS, dtype=torch.bool)
            hidden.append((block, torch.stack([seen if mask is None else mask for mask in masks])[:, None]))
    return Chunk(tile_start, tile_start + len(tiles), num_blocks, phases, tuple(hidden), tuple(calls))


@lru_cache(maxsize=4096)
def _hidden(phase: int, blocks_back: int, window: int | None, tile_rows: int) -> Tensor | None:
    """Where queries of a tile at this phase must not look in the block so many before its newest; None if they may look anywhere."""
    nearest, farthest = blocks_back * PAGE_ROWS + phase - (PAGE_ROWS - 1), blocks_back * PAGE_ROWS + phase + tile_rows - 1
    if nearest >= 0 and (window is None or farthest < window):
        return None
    distance = torch.arange(phase, phase + tile_rows)[:, None] + blocks_back * PAGE_ROWS - torch.arange(PAGE_ROWS)
    return (distance < 0) if window is None else (distance < 0) | (distance >= window)
