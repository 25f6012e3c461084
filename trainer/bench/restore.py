"""How long a corpus of a million windows takes to be at its place again: a simulated index, saved once, loaded and ordered every time."""

from pathlib import Path

import numpy as np

from ..data import DataSpec
from ..data.index import WindowIndex
from ..data.order import EpochOrder, stretches

WINDOW_BYTES = 2_080_256  # a window of sound
SHARD_WINDOWS = 250


def made_up_index(num_windows: int, seed: int = 0) -> WindowIndex:
    """Sessions of two views, 1 to 40 windows each, one after the other as a pipeline lays them; no bytes stand behind it."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 41, num_windows // 20 + 2)
    lengths = lengths[: np.searchsorted(np.cumsum(2 * lengths), num_windows) + 1]
    session_W = np.repeat(np.arange(len(lengths)), 2 * lengths)[:num_windows]
    within_W = np.arange(num_windows) - np.concatenate([[0], np.cumsum(2 * lengths)])[session_W]
    tokens_W = rng.integers(1800, 6000, num_windows)
    return WindowIndex(
        shards=tuple(f"train-{n:06d}" for n in range(num_windows // SHARD_WINDOWS + 1)),
        view_names=("assistant", "user"),
        window_ticks=300,
        shard_W=(np.arange(num_windows) // SHARD_WINDOWS).astype(np.uint32),
        offset_W=(np.arange(num_windows) % SHARD_WINDOWS * WINDOW_BYTES).astype(np.uint64),
        size_W=np.full(num_windows, WINDOW_BYTES, np.uint32),
        first_tick_W=(within_W % lengths[session_W] * 300).astype(np.uint32),
        ticks_W=np.full(num_windows, 300, np.uint32),
        tokens_W=tokens_W.astype(np.uint32),
        picture_tokens_W=(tokens_W // 3).astype(np.uint32),
        digest_W=rng.integers(0, 256, (num_windows, 32), dtype=np.uint8),
        session_W=session_W.astype(np.uint32),
        view_W=(within_W >= lengths[session_W]).astype(np.uint32),
    )


def restored(saved: Path, spec: DataSpec, epoch: int) -> int:
    """From a saved index to the sequence in the middle of an epoch (load, stretches, order, pieces): its tokens."""
    order = EpochOrder(stretches(WindowIndex.load(saved), spec, where=saved.name), spec, epoch)
    middle = order.num_tokens // 2
    return sum(piece.stop - piece.start for piece in order.pieces(middle, middle + spec.sequence_tokens))
