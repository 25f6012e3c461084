"""An array in pieces is the array, and its runs are numpy's own file."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.pieces import Pieces, npy_runs, num_bytes


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=(1, 0))
    return out.getvalue()


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(0, 5), max_size=6), width=st.integers(0, 4), dtype=st.sampled_from(["u1", "<i2", "<i8", "<u2"]))
def test_runs_of_pieces_are_the_file_of_the_whole(lengths, width, dtype):
    whole = np.arange(sum(lengths) * width).astype(dtype).reshape(-1, width) if width else np.empty((sum(lengths), 0), dtype)
    cuts = np.cumsum([0, *lengths])
    pieces = Pieces(whole.shape, dtype, [whole[a:b] for a, b in pairwise(cuts)])
    runs = npy_runs(pieces)
    assert b"".join(runs) == saved(whole) and num_bytes(runs) == len(saved(whole))
    assert pieces.whole().tobytes() == whole.tobytes() and pieces.whole().shape == whole.shape


def test_what_lies_otherwise_in_memory_is_written_as_it_reads():
    turned, swapped, every_other = np.arange(6).reshape(2, 3).T, np.arange(4, dtype=">i2"), np.arange(9, dtype=np.uint16)[::2]
    assert b"".join(npy_runs(turned)) == saved(np.ascontiguousarray(turned))
    assert b"".join(npy_runs(swapped)) == saved(swapped.astype("<i2"))
    assert b"".join(npy_runs(every_other)) == saved(every_other.copy())


def test_nothing_big_is_copied():
    array = np.zeros((3, 4), np.int16)
    run = np.frombuffer(npy_runs(Pieces((2, 3, 4), np.int16, [array, array]))[1], np.int16)
    assert np.shares_memory(run, array) and np.shares_memory(Pieces.of(array).whole(), array)


def test_pieces_of_another_length_are_refused():
    with pytest.raises(AssertionError, match="another number"):
        Pieces((2, 3), np.uint8, [np.zeros(5, np.uint8)])
