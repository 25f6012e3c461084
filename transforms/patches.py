"""Pictures as 40×40 RGB patches, row by row, and back; and what a model sees of them.

In: a picture uint8 [H, W, 3]. Out: patches uint8 [rows, cols, 40, 40, 3], right and bottom edges padded with 0; a pair of pictures gives
uint8 [rows, cols, 2, 40, 40, 3]. Two tilings: `plain` has ceil(W / 40) columns; `inkling` has W // 40 + 1, as the open model, so that a
width divisible by 40 gets a column of padding only. Padding is known by its place, never by its value: `normalise` puts there the
-1 that the open model puts before it normalises (`inkling`), or leaves it black (`plain`).
Nothing here resizes: `PictureSpec` sizes are applied where pictures are decoded. The lossless PNG of pairs is schemas/tall_png.py's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import InputError
from ..schemas.spec import PictureSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # Source: openai/CLIP `clip/clip.py`
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def grid(height_px: int, width_px: int, spec: PictureSpec) -> tuple[int, int]:
    """Rows and columns of patches of a picture of this size. Source of `inkling`: transformers `image_processing_inkling.py`."""
    if height_px < 1 or width_px < 1:
        raise InputError(f"a picture has at least one pixel, found {width_px}×{height_px}")
    cols = width_px // spec.patch_px + 1 if spec.tiling == "inkling" else -(-width_px // spec.patch_px)
    return -(-height_px // spec.patch_px), cols


def cut(picture: NDArray[np.uint8], spec: PictureSpec) -> NDArray[np.uint8]:
    """Patches uint8 [rows, cols, 40, 40, 3] of a picture uint8 [H, W, 3], padded with 0. Raises InputError for anything else."""
    return cut_all((picture,), spec)[:, :, 0]


def cut_all(pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], spec: PictureSpec) -> NDArray[np.uint8]:
    """Patches uint8 [rows, cols, N, 40, 40, 3] of N pictures of one size, as `cut` makes them: a pair for two."""
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape != (*pictures[0].shape[:2], 3):
            raise InputError(f"a picture is uint8 [H, W, 3], found {picture.dtype} {list(picture.shape)}", hint="convert it to 8-bit RGB")
    height_px, width_px, _ = pictures[0].shape
    (rows, cols), px = grid(height_px, width_px, spec), spec.patch_px
    cut = np.empty((rows, cols, len(pictures), px, px, 3), np.uint8)
    for number, picture in enumerate(pictures):
        if (rows * px, cols * px) != (height_px, width_px):
            padded = np.zeros((rows * px, cols * px, 3), np.uint8)
            padded[:height_px, :width_px] = picture
            picture = padded
        cut[:, :, number] = picture.reshape(rows, px, cols, px, 3).swapaxes(1, 2)
    return cut


def join(patches: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """The picture [height_px, width_px, 3] whose patches [rows, cols, 40, 40, 3] these are, in either tiling: `cut` undone exactly."""
    rows, cols, patch_px = patches.shape[:3]
    if not (0 < height_px <= rows * patch_px and 0 < width_px <= cols * patch_px):
        raise InputError(f"{rows}×{cols} patches of {patch_px} pixels hold no picture of {width_px}×{height_px}")
    padded = patches.swapaxes(1, 2).reshape(rows * patch_px, cols * patch_px, 3)
    return np.ascontiguousarray(padded[:height_px, :width_px])


def normalise(pairs: NDArray[np.uint8], height_px: int, width_px: int, spec: PictureSpec) -> NDArray[np.float32]:
    """What the model sees of pairs uint8 [..., rows, cols, 2, 40, 40, 3]: float32 of the same shape, (pixel / 255 - mean) / std of CLIP.

    Computed as (pixel - 255·mean) / (255·std), the order that gives the open model's bits, with -1 for the pixel where `inkling` pads.
    `height_px` and `width_px` are the picture's; pairs of another grid raise InputError.
    """
    rows, cols = grid(height_px, width_px, spec)
    expected = (rows, cols, 2, spec.patch_px, spec.patch_px, 3)
    if pairs.dtype != np.uint8 or pairs.shape[-6:] != expected:
        found = f"{pairs.dtype} {list(pairs.shape)}"
        raise InputError(f"pairs of {width_px}×{height_px} pictures, {spec.tiling} tiling, are uint8 {list(expected)}, found {found}")
    pixels = pairs.astype(np.float32)
    if spec.tiling == "inkling":
        is_picture = cut(np.ones((height_px, width_px, 3), np.uint8), spec)[:, :, None].astype(bool)
        pixels = np.where(is_picture, pixels, np.float32(-1))
    mean, std = np.array(CLIP_MEAN, np.float32), np.array(CLIP_STD, np.float32)
    return (pixels - mean * np.float32(255)) / (std * np.float32(255))
