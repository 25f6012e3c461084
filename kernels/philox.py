"""Counter-based random numbers: a number is a function of what it is for, never of what was drawn before it.

Philox4x32-10 (Salmon et al., SC'11, "Parallel random numbers: as easy as 1, 2, 3") in int64 arithmetic. The key is made of the purpose,
seed, epoch and document; the counter is (position, dim // 4, draw, 0) and word dim % 4 is taken. So cutting a document into appends,
dropping a draw or drawing on another device changes no number. Words are equal on every machine; logarithms and cosines have the bits of
the device. CUDA positions take the Triton form, gpu/noise.py.

On the CPU it costs about 60 elementwise passes: 0.2 µs a number on one core. Letters: P positions, D dims.
"""

import hashlib
import math

import torch
from torch import Tensor

from .dispatch import by_triton

MASK = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Key = tuple[int, int]


def key(purpose: str, seed: int, epoch: int, document: str) -> Key:
    """The key of one use: the first 8 bytes of sha256 over the UTF-8 text of version, purpose, seed, epoch and document, joined by a zero
    character, as two little-endian 32-bit words. Without an epoch (a sampler), pass 0.

    Raises:
        ValueError: a zero character in a name: two uses could share a key.
    """
    if "\0" in purpose + document:
        raise ValueError(f"purpose {purpose!r} and document {document!r} must not contain a zero character")
    digest = hashlib.sha256("\0".join(["microturn-rng-v1", purpose, str(seed), str(epoch), document]).encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def naive_philox(counter: tuple[int, int, int, int], key: Key) -> tuple[int, int, int, int]:
    """One block of four words, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = divmod(MULTIPLIERS[0] * c0, 1 << 32)
        high1, low1 = divmod(MULTIPLIERS[1] * c2, 1 << 32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: Key) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words (int64, 0 … 2³² - 1) for every element of four counters that broadcast together (int64, 0 … 2³² - 1)."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(ROUNDS):
        product0, product1 = (
            c0 * MULTIPLIERS[0],
            c2 * MULTIPLIERS[1],
        )  # 64 bits, in two's complement: the high half is masked after the shift
        c0, c2 = (product1 >> 32).bitwise_and_(MASK) ^ c1 ^ k0, (product0 >> 32).bitwise_and_(MASK) ^ c3 ^ k1
        c1, c3 = product1.bitwise_and_(MASK), product0.bitwise_and_(MASK)
        k0, k1 = (k0 + KEY_STEPS[0]) & MASK, (k1 + KEY_STEPS[1]) & MASK
    return c0, c1, c2, c3


def words(key: Key, positions_P: Tensor, dims: int, draw: int = 0) -> Tensor:
    """Random 32-bit words, int64 [P, dims], for positions (int64, below 2³²) in a document."""
    if by_triton("words", positions_P):
        return _triton_noise("words", key, positions_P, dims, draw)
    blocks = torch.arange(-(-dims // 4), device=positions_P.device)
    counter = (positions_P[:, None], blocks[None], torch.full_like(blocks, draw)[None], torch.zeros_like(blocks)[None])
    return torch.stack(philox(counter, key), -1).flatten(1)[:, :dims]


def uniforms(key: Key, positions_P: Tensor, dims: int, draw: int = 0) -> Tensor:
    """fp32 [P, dims] in (0, 1), never an end: ((word >> 9) + 0.5) · 2⁻²³, exact in fp32."""
    if by_triton("uniforms", positions_P):
        return _triton_noise("uniforms", key, positions_P, dims, draw)
    return _unit(words(key, positions_P, dims, draw))


def gumbels(key: Key, positions_P: Tensor, dims: int, draw: int = 0) -> Tensor:
    """fp32 [P, dims] Gumbel noise -log(-log u): the index of the largest logit + noise is a sample of the softmax."""
    if by_triton("gumbels", positions_P):
        return _triton_noise("gumbels", key, positions_P, dims, draw)
    return -torch.log(-torch.log(uniforms(key, positions_P, dims, draw)))


def normals(key: Key, positions_P: Tensor, dims: int, draw: int = 0) -> Tensor:
    """fp32 [P, dims] standard normals by Box–Muller: dims 2i and 2i + 1 are sqrt(-2 log u) times cos and sin of 2π v, u and v their
    uniforms.
    """
    if by_triton("normals", positions_P):
        return _triton_noise("normals", key, positions_P, dims, draw)
    pairs = uniforms(key, positions_P, dims + dims % 2, draw).unflatten(-1, (-1, 2))
    radius, angle = torch.sqrt(-2 * torch.log(pairs[..., 0].contiguous())), (2 * math.pi) * pairs[..., 1].contiguous()
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], -1).flatten(-2)[:, :dims]


def _triton_noise(kind: str, key: Key, positions_P: Tensor, dims: int, draw: int) -> Tensor:
    from .gpu import noise as triton_form

    return triton_form.noise(kind, key, positions_P, dims, draw)


def _unit(words: Tensor) -> Tensor:
    return ((words >> 9).float() + 0.5) * 2.0**-23
