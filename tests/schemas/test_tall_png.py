"""The PNG of picture pairs: exact both ways, a picture for people, and nothing else than what it must be."""

from io import BytesIO

import numpy as np
import pytest
from bits import same_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import CorpusError, InputError
from microturn.schemas.tall_png import from_png, to_png

grids = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


def pairs_of(grid, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*grid, 2, 40, 40, 3), np.uint8)


@given(grid=grids)
@example(grid=(0, 0, 0))  # a view that sees nothing
@example(grid=(0, 6, 8))
@settings(deadline=None, max_examples=30)
def test_a_png_gives_its_pairs_back(grid):
    pairs = pairs_of(grid)
    data = to_png(pairs)
    assert same_bits(from_png(data, grid, where="w"), pairs)
    assert data == to_png(pairs.copy(order="F"))  # equal pairs, equal bytes


def test_a_png_is_a_picture_a_person_can_look_at(tmp_path):
    from PIL import Image

    pairs = pairs_of((2, 2, 3))
    (tmp_path / "pairs.png").write_bytes(to_png(pairs))
    seen = np.asarray(Image.open(tmp_path / "pairs.png"))
    assert seen.shape == (160, 240, 3)
    for p, row, col, side in np.ndindex(2, 2, 3, 2):
        y, x = 80 * p + 40 * row, 120 * side + 40 * col
        assert np.array_equal(seen[y : y + 40, x : x + 40], pairs[p, row, col, side])


def test_pillows_limit_on_pixels_does_not_bite(monkeypatch):
    from PIL import Image

    pairs = pairs_of((3, 2, 2))
    data = to_png(pairs)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as if ours were a hundred million
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(data))
    assert same_bits(from_png(data, (3, 2, 2), where="w"), pairs)


def test_a_damaged_png_is_refused_with_its_place():
    data = to_png(pairs_of((2, 2, 2)))
    flipped = data[:900] + bytes([data[900] ^ 8]) + data[901:]
    for broken in (b"", b"not a png", data[:60], data[: len(data) // 2], flipped):
        with pytest.raises(CorpusError, match=r"^a\.tar:k\.patches\.png: cannot be decoded"):
            from_png(broken, (2, 2, 2), where="a.tar:k.patches.png")


@given(place=st.integers(0, 200), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=200)
def test_whatever_is_damaged_the_error_is_ours(place, byte):
    data = bytearray(to_png(pairs_of((1, 1, 1))))
    data[place] = byte
    try:
        assert from_png(bytes(data), (1, 1, 1), where="w").shape == (1, 1, 1, 2, 40, 40, 3)
    except CorpusError as error:
        assert str(error).startswith("w: ")


def test_a_png_of_another_size_or_mode_is_refused_before_it_is_decoded():
    from PIL import Image

    with pytest.raises(CorpusError, match="w: RGB 160×160, expected RGB 160×240"):
        from_png(to_png(pairs_of((2, 2, 2))), (3, 2, 2), where="w")
    written = BytesIO()
    Image.new("RGBA", (80, 40)).save(written, "PNG")
    with pytest.raises(CorpusError, match="w: RGBA 80×40, expected RGB 80×40"):
        from_png(written.getvalue(), (1, 1, 1), where="w")


def test_more_than_256_mib_is_refused_both_ways():
    grid = (100_000, 2, 2)
    with pytest.raises(InputError, match="256 MiB"):
        to_png(np.broadcast_to(np.uint8(0), (*grid, 2, 40, 40, 3)))
    for impossible in (grid, (1, -1, -1)):
        with pytest.raises(CorpusError, match="no window's pictures"):
            from_png(b"", impossible, where="w")


@pytest.mark.parametrize("misfit", [np.zeros((1, 1, 1, 2, 40, 40, 3), np.int8), np.zeros((1, 1, 1, 2, 20, 20, 3), np.uint8), np.uint8(0)])
def test_what_is_not_pairs_is_refused_in_words(misfit):
    with pytest.raises(InputError, match=r"pairs are uint8 \[P, rows, cols, 2, 40, 40, 3\]"):
        to_png(misfit)
