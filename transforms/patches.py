"""Pictures as 40×40 RGB patches, row by row, and back; and what a model sees of them.

In: a picture uint8 [H, W, 3]. Out: patches uint8 [rows, cols, 40, 40, 3], right and bottom edges padded with 0; a pair of pictures gives
uint8 [rows, cols, 2, 40, 40, 3]. Two tilings: `plain` has ceil(W / 40) columns; `inkling` has W // 40 + 1, as the open model, so that a
width divisible by 40 gets a column of padding only. Padding is known by its place, never by its value: `normalise` puts there the
-1 that the open model puts before it normalises (`inkling`), or leaves it black (`plain`).
The lossless PNG of a window's pairs is one tall picture: a pair side by side, pairs one below the other, so that a person can look at it.
Nothing here resizes: `PictureSpec` sizes are applied where pictures are decoded.
"""

import math
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ..schemas.errors import CorpusError, InputError
from ..schemas.spec import PictureSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # Source: openai/CLIP `clip/clip.py`
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PNG_LEVEL = 3  # half the time of the usual 6, and the same size within 1% on film (measured)
MAX_PAIRS_BYTES = 256 << 20  # of a window's pairs, decoded: FORMAT.md section 2 refuses a spec with more


def grid(height_px: int, width_px: int, spec: PictureSpec) -> tuple[int, int]:
    """Rows and columns of patches of a picture of this size. Source of `inkling`: transformers `image_processing_inkling.py`."""
    if height_px < 1 or width_px < 1:
        raise InputError(f"a picture has at least one pixel, found {width_px}×{height_px}")
    cols = width_px // spec.patch_px + 1 if spec.tiling == "inkling" else -(-width_px // spec.patch_px)
    return -(-height_px // spec.patch_px), cols


def cut(picture: NDArray[np.uint8], spec: PictureSpec) -> NDArray[np.uint8]:
    """Patches uint8 [rows, cols, 40, 40, 3] of a picture uint8 [H, W, 3], padded with 0. Raises InputError for anything else."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise InputError(f"a picture is uint8 [H, W, 3], found {picture.dtype} {list(picture.shape)}", hint="convert it to 8-bit RGB")
    height_px, width_px, _ = picture.shape
    rows, cols = grid(height_px, width_px, spec)
    padded = np.zeros((rows * spec.patch_px, cols * spec.patch_px, 3), np.uint8)
    padded[:height_px, :width_px] = picture
    return np.ascontiguousarray(padded.reshape(rows, spec.patch_px, cols, spec.patch_px, 3).swapaxes(1, 2))


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


def to_png(pairs: NDArray[np.uint8]) -> bytes:
    """A lossless RGB PNG of pairs uint8 [P, rows, cols, 2, 40, 40, 3]: P·rows·40 pixels high, 2·cols·40 wide.

    Equal pairs give equal bytes; another Pillow, or its zlib, may compress the same pixels to other bytes. No pairs give one black pixel,
    since a PNG cannot be empty.

    Raises:
        InputError: pairs of another shape or dtype, or of more than 256 MiB.
    """
    from PIL import Image

    if pairs.dtype != np.uint8:
        raise InputError(f"pairs are uint8, found {pairs.dtype}")
    height_px, width_px = _tall_size(pairs.shape)
    tall = np.zeros((height_px, width_px, 3), np.uint8)
    if pairs.size:
        tall[:] = pairs.transpose(0, 1, 4, 3, 2, 5, 6).reshape(height_px, width_px, 3)
    written = BytesIO()
    Image.fromarray(tall).save(written, "PNG", compress_level=PNG_LEVEL)
    return written.getvalue()


def from_png(data: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The pairs uint8 `shape` [P, rows, cols, 2, 40, 40, 3] that `to_png` wrote.

    The size is known beforehand, so a file that declares another is refused before a pixel is decoded, and Pillow's own limit on pixels,
    which our tall pictures would meet, is not asked.

    Raises:
        InputError: a shape that is not one of pairs, or of more than 256 MiB.
        CorpusError: data that is not a whole RGB PNG of exactly that size.
    """
    from PIL.PngImagePlugin import PngImageFile  # and not Image.open, which guesses formats and warns of, or refuses, many pixels

    height_px, width_px = _tall_size(shape)
    try:
        with PngImageFile(BytesIO(data)) as image:
            found = (image.mode, *image.size)
            if found != ("RGB", width_px, height_px):
                raise CorpusError(
                    f"the PNG of {list(shape)} pairs must be RGB {width_px}×{height_px}, found {found[0]} {found[1]}×{found[2]}"
                )
            tall = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's ways to say that a PNG is damaged
        raise CorpusError(f"the PNG of {list(shape)} pairs cannot be decoded: {error}") from error
    if 0 in shape:
        return np.zeros(shape, np.uint8)
    num_pairs, rows, cols, _, patch_px, _, _ = shape
    return np.ascontiguousarray(tall.reshape(num_pairs, rows, patch_px, 2, cols, patch_px, 3).transpose(0, 1, 4, 3, 2, 5, 6))


def _tall_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width in pixels of the PNG of pairs of this shape."""
    if len(shape) != 7 or min(shape) < 0 or shape[3] != 2 or shape[4] != shape[5] or shape[6] != 3:
        raise InputError(f"pairs are [P, rows, cols, 2, 40, 40, 3], found {list(shape)}")
    if math.prod(shape) > MAX_PAIRS_BYTES:
        raise InputError(
            f"{list(shape)} pairs are more than {MAX_PAIRS_BYTES >> 20} MiB", hint="keep fewer or smaller pictures in a window"
        )
    if 0 in shape:
        return 1, 1
    num_pairs, rows, cols, _, patch_px, _, _ = shape
    return num_pairs * rows * patch_px, 2 * cols * patch_px
