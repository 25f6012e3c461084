r"""What the camera sees: the user, whose mouth opens with his voice, the shapes, a door, a flash at each clap, the tick in binary.

    ┌──────────────────────────────────────┐   320 × 240 in tiles of 40: at the left the shapes, each in a tile of its own, one column
    │ ● ▲             .---.                │   filled after the other; in the middle the user; at the right the door. The bottom row holds
    │ ● ▲            ( o o )        ┌───┐  │   16 squares: the number of the tick in which the picture begins, most significant bit
    │ ●              ( --- )        │   │  │   first, white = 1. A flash is the whole picture white, but for that row, and lasts two
    │ ■               \___/         │   │  │   pictures.
    │  ▫ ▫ ▫ ▫ ▫ ▫ ▫ ▫ ▪ ▪ ▫ ▪ ▫ ▫ ▪ ▪     │
    └──────────────────────────────────────┘

Pictures are drawn once per sight as YUV planes and reused; a picture costs a copy of 115 kB.
"""

import random
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ...schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from .scene import Sight, even

WIDTH_PX, HEIGHT_PX, TILE_PX = 320, 240, 40
NUM_BITS, BIT_PX, BIT_PITCH_PX, BIT_TOP_PX = 16, 16, 20, 212
NUM_MOUTHS = 4
FLASH_PICTURES = 2
RGB = {
    "red": (214, 40, 40), "orange": (244, 140, 40), "yellow": (240, 220, 70), "green": (60, 170, 80), "blue": (40, 90, 210),
    "purple": (140, 60, 170), "pink": (250, 150, 200), "black": (20, 20, 20),
    "grey": (150, 150, 150), "teal": (90, 160, 160), "brown": (150, 115, 85), "violet": (165, 150, 205), "olive": (150, 155, 95),
}  # fmt: skip
VARIABLE_JITTER_SAMPLES = 240  # variable rate: pictures come 40 ms apart and up to 15 ms late


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureClock:
    """When pictures are taken.

    Attributes:
        rate: pictures a second, 25 or 30000/1001; None is a variable rate around 25.
        first: pictures that the camera missed before it started: the first has number 0 but the time of this one.
    """

    rate: Fraction | None
    first: int = 0

    @property
    def time_base(self) -> Fraction:
        """Seconds per unit of a PTS."""
        return Fraction(1, SAMPLE_RATE_HZ) if self.rate is None else Fraction(1, self.rate.numerator)

    def pts(self, picture: int) -> int:
        """Presentation time of a picture in units of `time_base`; rises with the picture."""
        number = picture + self.first
        if self.rate is None:
            return 640 * number + (random.Random(number).randrange(0, VARIABLE_JITTER_SAMPLES, 2) if number else 0)
        return number * self.rate.denominator

    def sample(self, picture: int) -> Fraction:
        """The same, exactly, in samples of the session clock."""
        return self.pts(picture) * self.time_base * SAMPLE_RATE_HZ

    def at_or_after(self, sample: int) -> int:
        """The first picture not before `sample`."""
        spacing = Fraction(640) if self.rate is None else SAMPLE_RATE_HZ / self.rate
        picture = max(0, int(sample / spacing) - self.first - 1)
        while self.sample(picture) < sample:
            picture += 1
        return picture

    def snap(self, sample: int) -> int:
        """The even sample nearest to the time of the first picture not before `sample`."""
        return even(self.sample(self.at_or_after(sample)))


def draw(sight: Sight, mouth: int, tick: int, flash: bool) -> NDArray[np.uint8]:
    """One picture as YUV 4:2:0 planes, uint8 [360, 320]: BT.601, limited range. `mouth` is 0 (closed) to 3."""
    planes = (_white() if flash else _stage_planes(sight.wall, sight.table, sight.door, mouth)).copy()
    planes[HEIGHT_PX - TILE_PX : HEIGHT_PX] = _counter(tick)
    return planes


def mouth_of(rms: float) -> int:
    """How wide the mouth opens at this loudness (int16 steps)."""
    return int(np.searchsorted((150.0, 900.0, 2200.0), rms, side="right"))


def rgb_picture(sight: Sight, mouth: int) -> NDArray[np.uint8]:
    """The same sight as RGB [240, 320, 3], without the counter."""
    picture = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    picture[:] = RGB[sight.wall]
    picture[HEIGHT_PX - TILE_PX :] = RGB["black"]
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    picture[(y >= 158) & (y < 200) & (np.abs(x - 160) < 34 + (y - 158) // 3)] = (70, 80, 110)
    picture[((x - 160) / 38) ** 2 + ((y - 98) / 56) ** 2 < 1] = (224, 178, 148)
    for eye in (145, 175):
        picture[(x - eye) ** 2 + (y - 84) ** 2 < 20] = RGB["black"]
    picture[((x - 160) / 17) ** 2 + ((y - 124) / (2 + 5 * mouth)) ** 2 < 1] = (120, 30, 40)
    picture[80:200, 246:314] = (90, 60, 35)
    picture[86:200, 252:308] = (250, 240, 190) if sight.door else (140, 95, 55)
    cells = [(row, column) for column in range(3) for row in range(5)]
    things = [(shape, colour) for shape, colour, count in sight.table for _ in range(count)]
    for (row, column), (shape, colour) in zip(cells, things, strict=False):
        tile = picture[row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
        tile[_shape(shape)] = RGB[colour]
    return picture


@lru_cache(maxsize=8)
def _shape(shape: str) -> NDArray[np.bool_]:
    y, x = np.mgrid[:TILE_PX, :TILE_PX] - (TILE_PX - 1) / 2
    if shape == "circle":
        return x**2 + y**2 < 16**2
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) < 14
    if shape == "triangle":
        return (y < 14) & (y > -15) & (np.abs(x) < (y + 15) * 0.6)
    return np.minimum(np.abs(x), np.abs(y)) + 0.35 * np.maximum(np.abs(x), np.abs(y)) < 6.2  # a star of four points


@lru_cache(maxsize=64)
def _stage_planes(wall: str, table: tuple, door: bool, mouth: int) -> NDArray[np.uint8]:
    return _to_yuv(rgb_picture(Sight(start=0, wall=wall, table=table, door=door), mouth))


@lru_cache(maxsize=1)
def _white() -> NDArray[np.uint8]:
    return _to_yuv(np.full((HEIGHT_PX, WIDTH_PX, 3), 255, np.uint8))


def _to_yuv(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    frame = av.VideoFrame.from_ndarray(picture, "rgb24")
    planes = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG).to_ndarray()
    return planes.astype(np.uint8, copy=False)


@lru_cache(maxsize=16)
def _counter(tick: int) -> NDArray[np.uint8]:
    """The bottom row's luma [40, 320]; its chroma is drawn with the stage, and is nearly grey."""
    row = np.full((TILE_PX, WIDTH_PX), 32, np.uint8)
    top = BIT_TOP_PX - (HEIGHT_PX - TILE_PX)
    for i in range(NUM_BITS):
        left = i * BIT_PITCH_PX + 2
        row[top : top + BIT_PX, left : left + BIT_PX] = 235 if tick >> (NUM_BITS - 1 - i) & 1 else 70
    return row


def tick_of(sample: Fraction) -> int:
    """The tick in which a picture at this time begins, as its counter shows it (modulo 2^16)."""
    return int(sample // TICK_SAMPLES) % (1 << NUM_BITS)
