"""An array that lies in pieces, and the bytes of its `.npy` file as runs that are written one after another: nothing big is copied.

Copying costs as much as hashing: fresh memory has to be found page by page (measured: 0.54 s a GB, sha256 0.55).
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

Runs: TypeAlias = Sequence[bytes | memoryview]  # the bytes of a member, in order


class Pieces:
    """An array whose bytes are those of some C-contiguous arrays, one after another.

    Attributes:
        shape, dtype: of the whole.
        parts: of its dtype; any shapes.
    """

    __slots__ = ("dtype", "parts", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype | type, parts: Sequence[np.ndarray]) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.parts = tuple(np.ascontiguousarray(part, self.dtype) for part in parts)
        assert sum(part.size for part in self.parts) == np.prod(shape, dtype=np.int64), f"{shape}: the pieces are another number of values"

    @classmethod
    def of(cls, array: "np.ndarray | Pieces") -> "Pieces":
        """The array, in one piece."""
        return array if isinstance(array, Pieces) else cls(array.shape, array.dtype, [array])

    def whole(self) -> np.ndarray:
        """The array; a copy, unless it lies in one piece."""
        if len(self.parts) == 1:
            return self.parts[0].reshape(self.shape)
        flat = np.concatenate([part.reshape(-1) for part in self.parts]) if self.parts else np.empty(0, self.dtype)
        return flat.reshape(self.shape)


def npy_runs(array: np.ndarray | Pieces) -> list[bytes | memoryview]:
    """The bytes of an `.npy` file, version 1.0, C order, little endian: its header and views of the array's own memory."""
    pieces = Pieces.of(array)
    dtype = pieces.dtype.newbyteorder("<")
    parts = [part.astype(dtype, copy=False).reshape(-1).view(np.uint8).data for part in pieces.parts if part.size]
    return [_npy_header(dtype.str, pieces.shape), *parts]


def num_bytes(runs: Runs) -> int:
    """Bytes of all runs."""
    return sum(map(len, runs))


@lru_cache(maxsize=256)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()
