"""Equality of bits, for tests: `from bits import same_bits`."""

from numpy.typing import NDArray


def same_bits(a: NDArray, b: NDArray) -> bool:
    """Whether dtype, shape and raw bytes, read row by row, are equal: 0.0 is not -0.0 here, and a NaN equals itself."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
