"""The lossless PNG of a window's picture pairs: a pair side by side, pairs one below the other, so that a person can look at it.

In: pairs uint8 [P, rows, cols, 2, 40, 40, 3], at most 256 MiB of them. Out: one RGB PNG, P·rows·40 pixels high, 2·cols·40 wide. Equal pairs
give equal bytes; another Pillow, or its zlib, may compress the same pixels to other bytes. No pairs give one black pixel, since a PNG
cannot be empty. Letters: P picture pairs.
"""

import math
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from .errors import CorpusError, InputError
from .spec import MAX_WINDOW_BYTES, PATCH_PX

PAIR_AXES = (2, PATCH_PX, PATCH_PX, 3)
PNG_LEVEL = 3  # half the time of the usual 6, and the same size within 1% on film (measured)


def to_png(pairs: NDArray[np.uint8]) -> bytes:
    """The PNG of pairs uint8 [P, rows, cols, 2, 40, 40, 3]. Raises InputError for another dtype or shape, or more than 256 MiB."""
    from PIL import Image

    if pairs.dtype != np.uint8 or pairs.ndim != 7 or pairs.shape[3:] != PAIR_AXES:
        raise InputError(f"pairs are uint8 [P, rows, cols, 2, 40, 40, 3], found {pairs.dtype} {list(pairs.shape)}")
    if pairs.size > MAX_WINDOW_BYTES:
        raise InputError(f"{list(pairs.shape)} pairs are more than 256 MiB", hint="keep fewer or smaller pictures in a window")
    height_px, width_px = _size_px(pairs.shape[:3])
    tall = np.zeros((height_px, width_px, 3), np.uint8)
    if pairs.size:
        tall[:] = pairs.transpose(0, 1, 4, 3, 2, 5, 6).reshape(height_px, width_px, 3)
    written = BytesIO()
    Image.fromarray(tall).save(written, "PNG", compress_level=PNG_LEVEL)
    return written.getvalue()


def from_png(data: bytes, grid: tuple[int, int, int], *, where: str) -> NDArray[np.uint8]:
    """The pairs uint8 [P, rows, cols, 2, 40, 40, 3] that `to_png` wrote; `grid` is (P, rows, cols).

    The size is known beforehand, so a file that declares another is refused before a pixel is decoded, and Pillow's own limit on pixels,
    which our tall pictures would meet, is not asked. Raises CorpusError naming `where`: not a whole RGB PNG of exactly that size.
    """
    from PIL.PngImagePlugin import PngImageFile  # and not Image.open, which guesses formats and warns of, or refuses, many pixels

    if min(grid) < 0 or math.prod((*grid, *PAIR_AXES)) > MAX_WINDOW_BYTES:
        raise CorpusError(f"{where}: {grid[0]} pairs of {grid[1]}×{grid[2]} patches are no window's pictures")
    height_px, width_px = _size_px(grid)
    try:
        with PngImageFile(BytesIO(data)) as image:
            found = (image.mode, *image.size)
            if found != ("RGB", width_px, height_px):
                raise CorpusError(f"{where}: {found[0]} {found[1]}×{found[2]}, expected RGB {width_px}×{height_px}")
            tall = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's ways to say that a PNG is damaged
        raise CorpusError(f"{where}: cannot be decoded: {error}") from error
    if 0 in grid:
        return np.zeros((*grid, *PAIR_AXES), np.uint8)
    num_pairs, rows, cols = grid
    return np.ascontiguousarray(tall.reshape(num_pairs, rows, PATCH_PX, 2, cols, PATCH_PX, 3).transpose(0, 1, 4, 3, 2, 5, 6))


def _size_px(grid: Sequence[int]) -> tuple[int, int]:
    """Height and width of the PNG of `grid` pairs."""
    num_pairs, rows, cols = grid
    return (num_pairs * rows * PATCH_PX, 2 * cols * PATCH_PX) if 0 not in grid else (1, 1)
