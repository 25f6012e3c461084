"""How a kernel is launched, and what of a launch may not choose another binary.

Triton compiles a kernel anew for integer arguments that are 1 or multiples of 16, and for pointers that are not aligned to 16 bytes. Two
binaries may add in two orders, so whatever varies with the batch must not choose between them: counts of rows, segments and places stand
in a kernel's `do_not_specialize`, and `steady` gives every operand one alignment. What belongs to the model (columns, K, N) may choose.

Multiplications are never fused with additions unless the source says so (`enable_fp_fusion` off; Triton's default changes between
versions).

`recorded` notes launches in place of making them: the ahead-of-time harness compiles exactly what the host functions would launch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from .tiles import Tile, architecture_of, tile

INTERPRETER_ARCHITECTURE = 90  # whose tiles the interpreter runs with


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch that was noted and not made."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class _Recorder:
    """Where launches go while somebody records; None else."""

    architecture: int | None = None
    launches: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, stages: int = 1, **constants: Any) -> None:
    """Nothing; runs `kernel` once per cell of the grid. An empty grid is not launched. `constants` are its constexprs, by name."""
    if _Recorder.launches is not None:
        options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
        _Recorder.launches.append(Launch(kernel, grid, arguments, {**constants, **options}))
    elif min(grid) > 0:
        with torch.cuda.device_of(next(a for a in arguments if isinstance(a, Tensor))):
            kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=False)


def tile_for(op: str, x: Tensor) -> Tile:
    """The table's entry of an op for operands like x, on the device where x lies."""
    if _Recorder.architecture is not None:
        return tile(op, x.dtype, _Recorder.architecture)
    return tile(op, x.dtype, INTERPRETER_ARCHITECTURE if x.is_cpu else architecture_of(x.device))


def steady(x: Tensor) -> Tensor:
    """x contiguous at an address that is a multiple of 16: x itself, or a copy where it is not so."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()


def blocks(length: int, size: int) -> int:
    """How many blocks of `size` cover `length`."""
    return triton.cdiv(length, size)


@contextmanager
def recorded(architecture: int) -> Iterator[list[Launch]]:
    """The launches that would be made inside on a device of this architecture; none is made. For CPU tensors, one thread."""
    _Recorder.architecture, _Recorder.launches = architecture, []
    try:
        yield _Recorder.launches
    finally:
        _Recorder.architecture, _Recorder.launches = None, None
