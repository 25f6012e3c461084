"""Chance by counters (FORMAT.md section 8): a number is a function of what it is for and of its place, never of what was drawn before.

Philox4x32-10 over numpy arrays. The zero vector is 6627e8d5 e169c58d bc57ac4c 9b00dbd8. Costs 0.15 µs a call of four words.
Source: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011); Random123 `philox.h`.
"""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def key(purpose: str, seed: int, epoch: int, document: str) -> tuple[int, int]:
    """The two words of a Philox key: the first 8 bytes, little endian, of sha256 over "microturn-rng-v1" and these, zero bytes between."""
    name = "\0".join(["microturn-rng-v1", purpose, str(seed), str(epoch), document])
    first = hashlib.sha256(name.encode()).digest()[:8]
    return int.from_bytes(first[:4], "little"), int.from_bytes(first[4:], "little")


def words(key: tuple[int, int], c0: ArrayLike, c1: ArrayLike = 0, c2: ArrayLike = 0, c3: ArrayLike = 0) -> NDArray[np.uint32]:
    """uint32 [..., 4]: Philox4x32-10 of the counters (c0, c1, c2, c3), whose shapes broadcast and whose values are below 2**32."""
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in (c0, c1, c2, c3)))
    k0, k1 = key
    for _ in range(10):
        a, b = x0 * _MULTIPLY[0], x2 * _MULTIPLY[1]
        x0, x1, x2, x3 = (b >> _HALF) ^ x1 ^ np.uint64(k0), b & _LOW, (a >> _HALF) ^ x3 ^ np.uint64(k1), a & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def uniform(words: NDArray[np.uint32]) -> NDArray[np.float64]:
    """((x >> 9) + 0.5)·2⁻²³ of each word: strictly between 0 and 1."""
    return ((words >> np.uint32(9)).astype(np.float64) + 0.5) * 2.0**-23


def of_identity(key: tuple[int, int], identity_D: NDArray[np.uint64], draw: int = 0) -> NDArray[np.uint32]:
    """uint32 [D, 4]: the words of 64-bit names, whatever order they stand in."""
    return words(key, identity_D & _LOW, identity_D >> _HALF, draw)
