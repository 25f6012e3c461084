"""Where a faster form of an op may be used: only where this process has seen it give the same bits as the form that defines the op.

A *contract form* is stable by construction (every product has one shape). A *fast form* usually gives the same bits, but libraries
promise nothing: fp32 products of 1, 2, 3 rows differ everywhere, 5 to 11 rows with two threads, bf16 products of narrow weights up to 10
rows or from 33 on, and some settings of MKL break every size (measured). So a fast form is tried before its first use, at exactly its
shapes, dtype and thread count, and the answer is kept for the process. Failing costs speed, never bits.

The operands cancel: every sum's terms come in pairs of opposite sign, in random order, so that what is left is the rounding alone, and
another order of addition shows in almost every element. Ordinary random operands are nearly blind in bf16, whose rounding hides the order
in all but one of some hundred elements (measured: they found 3 of 45 shapes that differ).

Operands come from a generator of their own: nobody's random state moves. Knows nothing of the ops; they bring the comparison.
"""

from collections import Counter
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_FOUND: dict[tuple[Hashable, ...], bool] = {}


def proven(form: str, shape: tuple[Hashable, ...], equal: Callable[[torch.Generator], bool]) -> bool:
    """Whether fast form `form` equals its contract form at `shape` with the present number of threads; asked of `equal` once a process."""
    key = (form, *shape, torch.get_num_threads())
    found = _FOUND.get(key)
    if found is None:
        with torch.no_grad():
            found = _FOUND[key] = equal(torch.Generator().manual_seed(2026))
    return found


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether dtype, shape and bits are equal: 0.0 is not -0.0 here, and a NaN equals itself."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(as_integers(a), as_integers(b))


def as_integers(x: Tensor) -> Tensor:
    """The bits of a floating-point tensor as integers of the same width; integers and booleans as they are."""
    if not x.is_floating_point():
        return x
    return x.detach().contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


def cancelling(generator: torch.Generator, num_rows: int, num_inputs: int, num_outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x [M, K] and w [N, K] whose products' terms cancel in pairs; with an odd K one small term is left over."""
    half = num_inputs // 2
    x, w = torch.randn(num_rows, half, generator=generator), torch.randn(num_outputs, half, generator=generator)
    x = x * 2.0 ** torch.randint(-4, 5, (half,), generator=generator)
    odd = num_inputs % 2
    single_x, single_w = torch.randn(num_rows, odd, generator=generator), torch.randn(num_outputs, odd, generator=generator) * 1e-3
    order = torch.randperm(num_inputs, generator=generator)
    return torch.cat([x, x, single_x], 1)[:, order].to(dtype), torch.cat([w, -w, single_w], 1)[:, order].to(dtype)


def tried() -> dict[str, tuple[int, int]]:
    """Per fast form, how many shapes passed and how many failed in this process so far."""
    passed: Counter[Hashable] = Counter()
    failed: Counter[Hashable] = Counter()
    for (form, *_), found in _FOUND.items():
        (passed if found else failed)[form] += 1
    return {str(form): (passed[form], failed[form]) for form in sorted({*passed, *failed}, key=str)}
