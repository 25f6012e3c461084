"""Decoded pictures as RGB arrays of one size: display rotation and flips, pixel aspect, colour matrix and range applied, never enlarged.

In: libav frames of any pixel format. Out: uint8 [H, W, 3]. The size is that of the first picture; a later one of another size is fitted
into that box, centred on black, enlarged where it must be: the scene keeps its scale when a call's resolution falls.

libswscale's AREA with full chroma: without FULL_CHR_H_INT it is 1.8 of 255 too dark on average (white becomes 253), with it the error is
rounding. Planes, not packed pixels: the same values, and only for planes libswscale has SIMD with full chroma (0.30 ms instead of 0.54 for
640×480 to 320×240). One thread, bit-exact: the same bytes on any worker.
"""

import errno
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from ...schemas.errors import MediaError
from ...schemas.spec import PictureSpec

_SCALING = Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720  # untagged pictures of fewer lines are BT.601


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to hold a picture: transpose first, then flip."""

    is_transposed: bool = False
    flips_rows: bool = False
    flips_cols: bool = False

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The picture [H, W, 3] as it is to be looked at."""
        if self.is_transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.flips_rows else 1, :: -1 if self.flips_cols else 1]


def turn_of(frame: av.VideoFrame) -> Turn:
    """How the frame's display matrix turns it, to the nearest quarter. Source: libavutil/display.h: (x, y) → (ax + cy, bx + dy)."""
    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
            if abs(c) > abs(a):
                return Turn(is_transposed=True, flips_rows=b < 0, flips_cols=c < 0)
            return Turn(flips_rows=d < 0, flips_cols=a < 0)
    return Turn()


def shown_size(frame: av.VideoFrame, pixel_aspect: Fraction, turn: Turn) -> tuple[Fraction, Fraction]:
    """(height, width) in square pixels, turned. Of the two ways to square a pixel, the one that enlarges nothing."""
    height, width = Fraction(frame.height), Fraction(frame.width)
    if pixel_aspect > 1:
        height /= pixel_aspect
    else:
        width *= pixel_aspect
    return (width, height) if turn.is_transposed else (height, width)


def fit(size: tuple[Fraction, Fraction], box: tuple[int, int], may_enlarge: bool = False) -> tuple[int, int]:
    """(height, width) of a picture of this size fitted inside the box, aspect kept, rounded half to even, at least 1 each."""
    scale = min(Fraction(box[0]) / size[0], Fraction(box[1]) / size[1])
    if not may_enlarge:
        scale = min(scale, Fraction(1))
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


class RgbScaler:
    """Pictures of one stream at one size. It owns a libswscale context, which is set up once for each kind of frame.

    Attributes:
        size_px: (height, width) of every picture it gives.
    """

    def __init__(self, first: av.VideoFrame, pixel_aspect: Fraction, spec: PictureSpec) -> None:
        size = shown_size(first, pixel_aspect, turn_of(first))
        self.size_px = fit(size, (spec.max_height_px, spec.max_width_px))
        self._first = size
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame, pixel_aspect: Fraction) -> NDArray[np.uint8]:
        """The picture, uint8 [H, W, 3] of `size_px`. Raises MediaError `no_conversion` for one that `can_convert` knows nothing of."""
        turn = turn_of(frame)
        size = shown_size(frame, pixel_aspect, turn)
        height, width = self.size_px if size == self._first else fit(size, self.size_px, may_enlarge=True)
        try:
            scaled = _scaled(self._reformatter, frame, *((width, height) if turn.is_transposed else (height, width)))
        except av.FFmpegError as error:
            if error.errno == errno.ENOMEM:
                raise  # the machine's fault
            message = f"a picture of {frame.width}×{frame.height} in {frame.format.name} cannot become RGB ({error.strerror})"
            raise MediaError(message, reason="no_conversion") from None
        picture = turn.apply(np.asarray(scaled.to_ndarray(), np.uint8))
        if (height, width) == self.size_px:
            return np.ascontiguousarray(picture)
        canvas = np.zeros((*self.size_px, 3), np.uint8)
        top, left = (self.size_px[0] - height) // 2, (self.size_px[1] - width) // 2
        canvas[top : top + height, left : left + width] = picture
        return canvas


@cache
def can_convert(pixel_format: str, colour_matrix: int) -> bool:
    """Whether libswscale makes RGB of such pictures: of no YCgCo, ICtCp or constant-luminance BT.2020, of which it lacks the matrices."""
    try:
        probe = av.VideoFrame(16, 16, pixel_format)
        probe.colorspace = colour_matrix
        _scaled(VideoReformatter(), probe, 16, 16)
    except av.FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise
        return False
    return True


def _scaled(reformatter: VideoReformatter, frame: av.VideoFrame, height: int, width: int) -> av.VideoFrame:
    return reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="gbrp",
        src_colorspace=_colour_matrix(frame),
        dst_color_range=ColorRange.JPEG,
        interpolation=_SCALING,
        threads=1,
    )


def _colour_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix to assume; None where the frame says, or has none to say."""
    if frame.format.is_rgb or frame.colorspace != _UNSPECIFIED:
        return None
    return Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
