"""Patches: a slow version pixel by pixel, the open model's counts and bits where its code can be run, and exact ways back."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from bits import same_bits
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.schemas.spec import PictureSpec
from microturn.transforms import patches

PLAIN, INKLING = PictureSpec(), PictureSpec(tiling="inkling")
specs = st.sampled_from([PLAIN, INKLING])
sizes_px = st.tuples(st.integers(1, 130), st.integers(1, 130))
EDGES_PX = [1, 39, 40, 41, 79, 80, 81, 240, 320, 333, 1080, 1920, 2048, 2049, 4096]


def picture(height_px, width_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), np.uint8)


def pairs_of(num_pairs, height_px, width_px, spec, seed=0):
    """Pairs uint8 [P, rows, cols, 2, 40, 40, 3] of random pictures."""
    rows, cols = patches.grid(height_px, width_px, spec)
    pairs = np.zeros((num_pairs, rows, cols, 2, 40, 40, 3), np.uint8)
    for p, side in np.ndindex(num_pairs, 2):
        pairs[p, :, :, side] = patches.cut(picture(height_px, width_px, seed + 2 * p + side), spec)
    return pairs


@given(size_px=sizes_px, spec=specs)
@settings(deadline=None, max_examples=25)
def test_a_patch_holds_its_pixels_and_zeros(size_px, spec):
    whole = picture(*size_px)
    cut = patches.cut(whole, spec)
    assert cut.shape[:2] == patches.grid(*size_px, spec)
    for row, col in np.ndindex(cut.shape[:2]):
        inside = whole[40 * row : 40 * row + 40, 40 * col : 40 * col + 40]
        assert np.array_equal(cut[row, col, : inside.shape[0], : inside.shape[1]], inside)
        assert not cut[row, col, inside.shape[0] :].any() and not cut[row, col, :, inside.shape[1] :].any()


@given(size_px=sizes_px, spec=specs)
@example(size_px=(80, 120), spec=INKLING)  # a column of padding only
@settings(deadline=None, max_examples=50)
def test_joining_undoes_cutting(size_px, spec):
    whole = picture(*size_px)
    assert same_bits(patches.join(patches.cut(whole, spec), *size_px), whole)


@given(size_px=sizes_px, spec=specs)
@example(size_px=(80, 80), spec=INKLING)
@settings(deadline=None, max_examples=25)
def test_what_the_model_sees_is_known_from_the_pixels_place(size_px, spec):
    pairs = pairs_of(2, *size_px, spec)
    seen = patches.normalise(pairs, *size_px, spec)
    assert seen.shape == pairs.shape and seen.dtype == np.float32
    row, col, y, x = (
        np.arange(n).reshape([-1 if axis == i else 1 for i in range(4)]) for axis, n in enumerate((*pairs.shape[1:3], 40, 40))
    )
    outside = ((40 * row + y >= size_px[0]) | (40 * col + x >= size_px[1]))[None, :, :, None, :, :, None]
    pixel = np.where(outside & (spec.tiling == "inkling"), -1.0, pairs)
    expected = (pixel / 255 - np.array(patches.CLIP_MEAN)) / np.array(patches.CLIP_STD)
    assert np.abs(seen - expected).max() < 1e-6


def test_a_lead_of_axes_is_the_loaders_business():
    pairs = pairs_of(4, 60, 50, INKLING)
    seen = patches.normalise(pairs, 60, 50, INKLING)
    assert same_bits(patches.normalise(pairs[1], 60, 50, INKLING), seen[1])
    assert same_bits(patches.normalise(pairs.reshape(2, 2, *pairs.shape[1:]), 60, 50, INKLING), seen.reshape(2, 2, *pairs.shape[1:]))


def test_misfits_are_refused_in_words():
    with pytest.raises(InputError, match="float32"):
        patches.cut(np.zeros((4, 4, 3), np.float32), PLAIN)
    with pytest.raises(InputError, match=r"\[4, 4, 4\]"):
        patches.cut(np.zeros((4, 4, 4), np.uint8), PLAIN)
    with pytest.raises(InputError, match="0×5"):
        patches.cut(np.zeros((5, 0, 3), np.uint8), PLAIN)
    with pytest.raises(InputError, match="41×40"):
        patches.join(np.zeros((1, 1, 40, 40, 3), np.uint8), 40, 41)
    with pytest.raises(InputError, match="plain tiling"):
        patches.normalise(pairs_of(1, 80, 80, INKLING), 80, 80, PLAIN)


def test_mean_and_deviation_are_clips():
    constants = pytest.importorskip("transformers.utils.constants")
    assert list(patches.CLIP_MEAN) == constants.OPENAI_CLIP_MEAN and list(patches.CLIP_STD) == constants.OPENAI_CLIP_STD


def test_the_grid_is_the_native_renderers():
    chat = pytest.importorskip("tml_renderers.chat")
    from tml_renderers import tokenizers, v0

    renderer = v0.Renderer(tokenizers.O200kBaseChatTokenizer())
    for height_px, width_px in [(h, w) for h in EDGES_PX for w in (*EDGES_PX, *range(2, 200, 3))]:
        pointer = chat.ImagePointer(location="unread.png", format=chat.ImageFormat.Png, width=width_px, height=height_px)
        spans, _ = renderer.render_for_completion([chat.Message(content=pointer, author=chat.Author(chat.AuthorKind.User))])
        (num_tokens,) = [s.span.num_tokens for s in spans if isinstance(s.span, chat.ImageAssetPointerTokenSpan)]
        rows, cols = patches.grid(height_px, width_px, INKLING)
        assert num_tokens == rows * cols, (height_px, width_px)


def test_the_tiles_are_those_of_transformers_divide_to_patches():
    """The module cannot be imported without torchvision, but this function of it needs only slices: it is run from its source."""
    torch, models = pytest.importorskip("torch"), pytest.importorskip("transformers.models.inkling")
    module = ast.parse((Path(inspect.getfile(models)).parent / "image_processing_inkling.py").read_text())
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "divide_to_patches"]
    found = {}
    exec(compile(ast.Module([function], []), "image_processing_inkling.py", "exec"), found)
    for size_px in [(1, 1), (40, 40), (41, 79), (100, 333), (240, 320)]:
        tiles = found["divide_to_patches"](torch.from_numpy(picture(*size_px)).permute(2, 0, 1), 40)
        ours = patches.cut(picture(*size_px), INKLING).reshape(-1, 40, 40, 3)
        assert len(tiles) == len(ours)
        for tile, patch in zip(tiles, ours, strict=True):
            assert np.array_equal(patch[: tile.shape[1], : tile.shape[2]], tile.permute(1, 2, 0).numpy())


def test_what_the_model_sees_has_the_bits_of_transformers_processor():
    torch = pytest.importorskip("torch")
    try:
        import torchvision  # noqa: F401  (its wheels fit one build of torch each)
        from transformers.models.inkling.image_processing_inkling import InklingImageProcessor
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchvision that fits this torch: {error}")
    for size_px in [(7, 5), (40, 40), (41, 79), (100, 333), (240, 320)]:
        theirs = InklingImageProcessor()(torch.from_numpy(picture(*size_px)).permute(2, 0, 1), return_tensors="pt")["pixel_values"]
        patch = patches.cut(picture(*size_px), INKLING)
        ours = patches.normalise(np.stack([patch, patch], 2), *size_px, INKLING)
        assert same_bits(ours.reshape(-1, 2, 40, 40, 3), np.ascontiguousarray(theirs.numpy()))
