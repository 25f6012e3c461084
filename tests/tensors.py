"""Tensors for tests of law 3: bits compared, rows drawn, documents cut. `from tensors import same_bits, randn, cuts`."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SEEDS = st.integers(0, 2**16)
THREADS = st.sampled_from([1, 2])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether dtype, shape and bits are equal: 0.0 is not -0.0 here, and a NaN equals itself."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_integers(a), _integers(b))


def _integers(x: Tensor) -> Tensor:
    widths = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.detach().contiguous().view(widths[x.element_size()]) if x.is_floating_point() else x


def rows_that_differ(a: Tensor, b: Tensor) -> int:
    """How many of the rows (along the first axis) have any bit that differs."""
    return sum(not same_bits(x, y) for x, y in zip(a, b, strict=True))


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normals of a generator of their own, on torch's default device; the same numbers on each."""
    drawn = torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return drawn.to(dtype).to(torch.get_default_device())


def randint(seed: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Integers from 0 to below `high` of a generator of their own, on torch's default device; the same numbers on each."""
    drawn = torch.randint(high, shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu", dtype=dtype)
    return drawn.to(torch.get_default_device())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@st.composite
def cuts(draw: st.DrawFn, total: int) -> list[int]:
    """Lengths of at least 1 that sum to `total`: few long pieces, many short ones, or one by one at the start."""
    lengths: list[int] = []
    most = draw(st.sampled_from([1, 3, 20, 40, 150]))
    while sum(lengths) < total:
        length = draw(st.integers(1, most)) if len(lengths) < 12 else total
        lengths.append(min(length, total - sum(lengths)))
    return lengths


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether the largest difference is at most `tolerance` of the largest magnitude of b."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())
