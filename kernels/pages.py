"""Keys and values lie in pages of 64 rows, and a page's rows are those of 64 consecutive positions of one document, counted from its start.

That anchor is what makes attention the same for whole documents and appends: block b of a document is rows 64 b … 64 b + 63 wherever its
page lies and however its rows arrived. New rows are written first, then attention reads pages only. A page is zero beyond the last row
written into it, so memory that was never written may hold anything, NaN too: `write` sees to that, and nobody else writes.

Training lays whole documents out on fresh pages (differentiable); a sampler keeps a pool and a table per session. Rows beyond a committed
length may be overwritten by the next append; rows before it never change. Rows are only moved here, never computed with, so one form
serves every device.

Letters: N pages, T new rows, G key/value heads, R = 64 rows of a page, D columns of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .dispatch import by_triton
from .documents import CPU, Ragged

PAGE_ROWS = 64  # the KV block; half a sliding window of 128, and small enough that a short document wastes little


@dataclass(frozen=True, slots=True)
class PageTable:
    """For every segment of a ragged batch, the pages of its document.

    Attributes:
        rows: the batch.
        pages: [S] page numbers of each document, ascending by block, at least to the block of its newest row; more are ignored.
        first_blocks: [S] the block that a document's first listed page holds; 0 unless older pages were given up (sliding windows).
    """

    rows: Ragged
    pages: tuple[tuple[int, ...], ...]
    first_blocks: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.pages) == len(self.first_blocks) == self.rows.num_segments:
            raise ValueError(
                f"{len(self.pages)} lists of pages and {len(self.first_blocks)} first blocks for {self.rows.num_segments} segments"
            )
        for s, (first, pages) in enumerate(zip(self.first_blocks, self.pages, strict=True)):
            start, stop = self.rows.positions[s], self.rows.positions[s] + self.rows.lengths[s]
            if not first * PAGE_ROWS <= start or (first + len(pages)) * PAGE_ROWS < stop:
                raise ValueError(
                    f"segment {s} has pages of blocks {first} … {first + len(pages) - 1}, its new rows are {start} … {stop - 1}"
                )

    def last_block(self, segment: int) -> int:
        """The block of the segment's newest row."""
        return (self.rows.positions[segment] + self.rows.lengths[segment] - 1) // PAGE_ROWS


def page_table(rows: Ragged, pages: Sequence[Sequence[int]], first_blocks: Sequence[int] | None = None) -> PageTable:
    """The table of a sampler's batch."""
    return PageTable(rows, tuple(tuple(p) for p in pages), tuple(first_blocks) if first_blocks is not None else (0,) * len(pages))


@lru_cache(maxsize=64)
def fresh_table(rows: Ragged) -> PageTable:
    """The table of whole documents laid out one after the other on pages 0, 1, 2 …"""
    if any(rows.positions):
        raise ValueError(f"documents at positions {rows.positions} have a past: their pages must be given")
    pages, used = [], 0
    for length in rows.lengths:
        count = -(-length // PAGE_ROWS)
        pages.append(tuple(range(used, used + count)))
        used += count
    return PageTable(rows, tuple(pages), (0,) * rows.num_segments)


def lay_out(rows_TGD: Tensor, table: PageTable) -> Tensor:
    """Fresh pages [N, G, 64, D] holding the rows of whole documents, zero elsewhere. Differentiable; `table` is `fresh_table`'s."""
    by_triton("lay_out", rows_TGD)
    _check(rows_TGD, table)
    _, kv_heads, width = rows_TGD.shape
    num_pages = sum(map(len, table.pages))
    place_U, _ = _places(table, kv_heads, rows_TGD.device)
    flat = rows_TGD.new_zeros(num_pages * kv_heads * PAGE_ROWS, width).index_copy(0, place_U, rows_TGD.reshape(-1, width))
    return flat.view(num_pages, kv_heads, PAGE_ROWS, width)


@torch.no_grad()
def write(rows_TGD: Tensor, pages_NGRD: Tensor, table: PageTable) -> None:
    """Nothing; writes the new rows into a pool's pages and zeros behind them to the end of their last page.

    Raises:
        ValueError: rows or pool of other shapes or dtypes than each other, a pool that is not contiguous, a page it does not have.
    """
    by_triton("write", rows_TGD, pages_NGRD)
    _check(rows_TGD, table)
    _, kv_heads, width = rows_TGD.shape
    if pages_NGRD.shape[1:] != (kv_heads, PAGE_ROWS, width) or pages_NGRD.dtype != rows_TGD.dtype or not pages_NGRD.is_contiguous():
        raise ValueError(
            f"write takes a contiguous pool [N, G, {PAGE_ROWS}, D] with the rows' G, D and dtype, not {tuple(pages_NGRD.shape)}"
            f" {pages_NGRD.dtype} for {tuple(rows_TGD.shape)} {rows_TGD.dtype}"
        )
    place_U, behind = _places(table, kv_heads, rows_TGD.device)
    if max((page for page, _ in behind), default=-1) >= pages_NGRD.shape[0]:
        raise ValueError(f"write: the table names pages beyond the pool's {pages_NGRD.shape[0]}")
    pages_NGRD.view(-1, width).index_copy_(0, place_U, rows_TGD.reshape(-1, width))
    for page, row in behind:
        if row < PAGE_ROWS:
            pages_NGRD[page, :, row:] = 0


def _check(rows_TGD: Tensor, table: PageTable) -> None:
    if rows_TGD.ndim != 3 or rows_TGD.shape[0] != table.rows.num_rows:
        raise ValueError(f"the table speaks of {table.rows.num_rows} rows [T, G, D], got {tuple(rows_TGD.shape)}")


@lru_cache(maxsize=64)
def _places(table: PageTable, kv_heads: int, device: torch.device = CPU) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Where each new row's heads go among all heads' rows of all pages, int64 [T · G] on the device, and each segment's last page with its
    next free row.
    """
    places, behind = [], []
    for s, (position, length) in enumerate(zip(table.rows.positions, table.rows.lengths, strict=True)):
        at = np.arange(position, position + length)
        page = np.array(table.pages[s], np.int64)[at // PAGE_ROWS - table.first_blocks[s]]
        places.append((page[:, None] * kv_heads + np.arange(kv_heads)) * PAGE_ROWS + (at % PAGE_ROWS)[:, None])
        behind.append((int(page[-1]), int(at[-1]) % PAGE_ROWS + 1))
    place_U = torch.from_numpy(np.concatenate(places).flatten() if places else np.empty(0, np.int64))
    return place_U.to(device), tuple(behind)
