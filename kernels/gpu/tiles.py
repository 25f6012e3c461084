"""Tile sizes: a checked-in table by op, dtype and architecture. Never by the number of rows, and never tuned while running.

Another tile is another order of addition, so the table is part of the numerics: its digest stands in the fingerprint, and a change of it
is a change of bits. All of an op's calls on one machine use one entry, training and decode alike. A tile of matrix products has at least
64 rows, so that bf16 products of few rows use the same matrix instruction as those of many.

None of these were chosen by measurement: no GPU was at hand. They are ordinary sizes that compile without spilling (`ahead`).
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Tile:
    """How one program of a kernel is shaped.

    Attributes:
        rows, columns: of the block of results that one program makes; powers of two.
        inner: of the axis that is added up, per step; 1 where nothing is.
        warps, stages: warps of a program, and steps whose loads are in flight at once.
    """

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


ARCHITECTURES = (80, 90, 100)
TILES: dict[tuple[str, str, int], Tile] = {
    # products: blocks of the result
    ("linear", "bf16", 80): Tile(128, 128, 32, 8, 3),
    ("linear", "bf16", 90): Tile(128, 128, 64, 8, 4),
    ("linear", "bf16", 100): Tile(128, 128, 64, 8, 4),
    ("linear", "fp32", 80): Tile(128, 64, 16, 8, 3),
    ("linear", "fp32", 90): Tile(128, 64, 16, 8, 3),
    ("linear", "fp32", 100): Tile(128, 64, 16, 8, 3),
    # attention: rows are positions × heads that share keys (gradients: positions of one head), columns keys of a step, inner columns of a
    # head per product
    ("attention", "bf16", 80): Tile(64, 64, 256, 8, 2),
    ("attention", "bf16", 90): Tile(128, 64, 256, 8, 3),
    ("attention", "bf16", 100): Tile(128, 64, 256, 8, 3),
    ("attention, gradients", "bf16", 80): Tile(64, 32, 256, 8, 2),
    ("attention, gradients", "bf16", 90): Tile(64, 64, 256, 8, 2),
    ("attention, gradients", "bf16", 100): Tile(64, 64, 256, 8, 2),
    ("attention, profiles", "bf16", 80): Tile(32, 32, 256, 8, 2),
    ("attention, profiles", "bf16", 90): Tile(64, 64, 256, 8, 2),
    ("attention, profiles", "bf16", 100): Tile(64, 64, 256, 8, 2),
    **{("attention", "fp32", architecture): Tile(64, 16, 16, 8, 1) for architecture in ARCHITECTURES},
    **{("attention, gradients", "fp32", architecture): Tile(16, 16, 32, 8, 1) for architecture in ARCHITECTURES},
    ("attention, profiles", "fp32", 80): Tile(16, 16, 32, 8, 1),
    ("attention, profiles", "fp32", 90): Tile(16, 16, 16, 8, 1),
    ("attention, profiles", "fp32", 100): Tile(16, 16, 32, 8, 1),
    # blocks of rows and columns that are summed along rows (`rows`) or over them (`columns`), or not at all, and the like
    **{
        (op, dtype, architecture): size
        for op, size in {
            "rows": Tile(4, 1024, 1, 8, 1),
            "columns": Tile(32, 64, 1, 4, 1),
            "convolution": Tile(16, 128, 1, 8, 1),
            "elementwise": Tile(2, 1024, 1, 8, 1),
            "vocabulary": Tile(1, 8192, 1, 8, 1),
            "bag": Tile(1, 512, 1, 4, 1),
            "bag, table": Tile(64, 64, 32, 4, 2),
            "combine": Tile(4, 1024, 1, 8, 1),
            "router": Tile(1, 1, 1, 4, 1),
            "noise": Tile(4, 128, 1, 4, 1),
        }.items()
        for dtype in ("bf16", "fp32")
        for architecture in ARCHITECTURES
    },
}
NAMES = {torch.bfloat16: "bf16", torch.float16: "bf16", torch.float32: "fp32"}  # fp16: the interpreter's tests only


def tile(op: str, dtype: torch.dtype, architecture: int) -> Tile:
    """The entry of an op, for operands of this dtype."""
    return TILES[op, NAMES[dtype], architecture]


def architecture_of(device: torch.device) -> int:
    """80, 90 or 100: the column of the table for a CUDA device. Ampere, Ada and the small Blackwells (12.x) share the first.

    Raises:
        ValueError: a device that the table has no column for.
    """
    major, minor = torch.cuda.get_device_capability(device)
    found = {8: 80, 9: 90, 10: 100, 12: 80}.get(major)
    if found is None:
        raise ValueError(f"the tile table has no column for compute capability {major}.{minor} ({torch.cuda.get_device_name(device)})")
    return found
