"""The memory of an engine: for every layer a pool of pages of keys and one of values, all given out when a session opens.

A session that may have R rows owns ⌈R / 64⌉ pages of every global layer, and of every windowed layer a ring of as many as its window and
its uncommitted rows can touch: block b lies on page ring[b mod n]. So nothing is allocated, moved or evicted while sessions run, and one
that could not finish is refused when it asks to open.

Letters: N pages, G key/value heads, D columns of a head.
"""

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from ...kernels import PAGE_ROWS
from ...schemas.strict import Strict
from ..model import ModelSpec


class Limits(Strict):
    """What an engine keeps at most.

    Attributes:
        sessions: open at once.
        rows: of all sessions together: each is rounded up to pages of 64.
        uncommitted_rows: of one session; a tick is about 20 rows, with pictures up to some hundred.
        idle_seconds: after which `reap` closes a session.
    """

    sessions: PositiveInt = 16
    rows: PositiveInt = 262_144
    uncommitted_rows: PositiveInt = 1024
    idle_seconds: float = Field(300.0, gt=0)


def global_pages(rows: int) -> int:
    """Pages that a session of so many rows owns in every global layer."""
    return -(-rows // PAGE_ROWS)


def ring_pages(spec: ModelSpec, rows: int, limits: Limits) -> int:
    """Pages that it owns in every windowed layer: the window before the first uncommitted row, these rows, and a page for the edges."""
    return min(global_pages(rows), -(-(spec.window - 1 + limits.uncommitted_rows) // PAGE_ROWS) + 1)


def session_bytes(spec: ModelSpec, rows: int, limits: Limits, dtype: torch.dtype) -> int:
    """Memory of one session: pages of keys and values, and the fp32 states of the convolutions."""
    total = 0
    for layer in range(spec.layers):
        pages = global_pages(rows) if spec.is_global(layer) else ring_pages(spec, rows, limits)
        columns = spec.num_heads(layer)[1] * spec.head_dim
        total += 2 * pages * PAGE_ROWS * columns * dtype.itemsize
        total += 4 * (spec.conv_taps - 1) * (2 * columns + 2 * spec.hidden)
    return total


class Pools:
    """The pages of all layers; page p of a windowed layer belongs to whoever holds p of the ring pages."""

    def __init__(self, spec: ModelSpec, limits: Limits, dtype: torch.dtype) -> None:
        num_global = global_pages(limits.rows) + limits.sessions  # each session's last page may be partly empty
        num_ring = min(num_global, limits.sessions * ring_pages(spec, limits.rows, limits))
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        for layer in range(spec.layers):
            pages = num_global if spec.is_global(layer) else num_ring
            shape = (pages, spec.num_heads(layer)[1], PAGE_ROWS, spec.head_dim)
            self.keys.append(torch.empty(shape, dtype=dtype))  # empty: nothing is read that was not written
            self.values.append(torch.empty(shape, dtype=dtype))
        self.free_global, self.free_ring = list(range(num_global))[::-1], list(range(num_ring))[::-1]

    def take(self, num_global: int, num_ring: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Pages of global layers and of windowed ones; None when there are not enough."""
        if num_global > len(self.free_global) or num_ring > len(self.free_ring):
            return None
        return tuple(self.free_global.pop() for _ in range(num_global)), tuple(self.free_ring.pop() for _ in range(num_ring))

    def give_back(self, pages: tuple[int, ...], ring: tuple[int, ...]) -> None:
        """Nothing; others may have them."""
        self.free_global += pages
        self.free_ring += ring
