"""Products whose row depends on that row and the weights alone: not on how many rows come along, its place, its neighbours or the threads.

Contract form: tiles of 32 rows, the last one filled with zeros, so that every product ever made with a weight has one shape. Fast form:
one call, with no or a few zero rows added, where `selfcheck` has seen that very number of rows give the bits of the tiles. Order of
addition over K: the library's for [32, K] × [K, N], whatever it is; it is one. fp32 stays IEEE fp32 unless somebody lowers
`torch.set_float32_matmul_precision`.

Measured here, one thread, against `F.linear` (fp32 / bf16): 20 rows 1.1× / 1.1×, 2048 rows 1.0×, one row 3× to 6× / 1.2×; tiles 2.3×,
1.1× to 2×, 10×.

Backward is plain: deterministic, but its bits may depend on the company. All this is the CPU form; the Triton form is gpu/products.py.

Letters: M rows, K columns of x, N columns of the result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton, needs_graph
from .selfcheck import cancelling, proven, same_bits

TILE_ROWS = 32  # a micro-turn is about 20 rows; 16 costs 1.5 times as much per row, 64 three times as much for 20 rows
FEW_ROWS = 64  # below it every number of rows is tried as it is, above it the next multiple of 8: fewer shapes to try
TRIED_ELEMENTS = 4096  # of results, over several operands where one has fewer
MAX_TRIED_WEIGHT = 1 << 26  # elements; a larger weight is not worth a random twin: tiles cost it a few percent

_ROWS: dict[tuple[int, int, int, torch.dtype, int], int] = {}


def naive_linear(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """x · wᵀ, in float64."""
    return x_MK.double() @ w_NK.double().T


def linear(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """x · wᵀ [..., N] in the dtype of both, fp32 or bf16 (fp32 sums inside).

    Raises:
        ValueError: axes that do not fit, two dtypes, or a weight that is not contiguous (a copy per call would be a hidden price).
    """
    on_gpu = by_triton("linear", x_MK, w_NK)
    if w_NK.ndim != 2 or x_MK.ndim < 2 or x_MK.shape[-1] != w_NK.shape[1] or x_MK.dtype != w_NK.dtype or not w_NK.is_contiguous():
        raise ValueError(
            f"linear takes x [..., K] and a contiguous weight [N, K] of one dtype, not {tuple(x_MK.shape)} {x_MK.dtype}"
            f" and {tuple(w_NK.shape)} {w_NK.dtype}{'' if w_NK.is_contiguous() else ' (not contiguous)'}"
        )
    rows_MK = (x_MK if x_MK.ndim == 2 else x_MK.flatten(0, -2)).contiguous()
    y_MN = _Linear.apply(rows_MK, w_NK, on_gpu) if needs_graph(x_MK, w_NK) else _product(rows_MK, w_NK, on_gpu)
    return y_MN if x_MK.ndim == 2 else y_MN.view(*x_MK.shape[:-1], w_NK.shape[0])


def _product(x_MK: Tensor, w_NK: Tensor, on_gpu: bool) -> Tensor:
    if on_gpu:
        from .gpu import products as triton_form

        return triton_form.product(x_MK, w_NK)
    return product(x_MK, w_NK)


def product(x_MK: Tensor, w_NK: Tensor, out: Tensor | None = None) -> Tensor:
    """The CPU form: x · wᵀ of contiguous 2-D operands, into contiguous `out` if given; no checks, no autograd. Other ops' CPU forms
    come through here.
    """
    num_rows = x_MK.shape[0]
    called_rows = rows_called(num_rows, x_MK.shape[1], w_NK.shape[0], x_MK.dtype)
    if called_rows == num_rows:
        return torch.mm(x_MK, w_NK.T, out=out)
    y_MN = _filled_product(x_MK, w_NK, called_rows) if called_rows else tiled_product(x_MK, w_NK)
    return y_MN if out is None else out.copy_(y_MN)


def _filled_product(x_MK: Tensor, w_NK: Tensor, called_rows: int) -> Tensor:
    num_rows = x_MK.shape[0]
    return torch.mm(F.pad(x_MK, (0, 0, 0, called_rows - num_rows)), w_NK.T)[:num_rows]


def tiled_product(x_MK: Tensor, w_NK: Tensor) -> Tensor:
    """The contract form of `product`: one call for every 32 rows."""
    num_rows = x_MK.shape[0]
    filled_rows = -(-num_rows // TILE_ROWS) * TILE_ROWS
    if filled_rows != num_rows:
        x_MK = F.pad(x_MK, (0, 0, 0, filled_rows - num_rows))
    y_MN = x_MK.new_empty(filled_rows, w_NK.shape[0])
    for start in range(0, filled_rows, TILE_ROWS):
        torch.mm(x_MK[start : start + TILE_ROWS], w_NK.T, out=y_MN[start : start + TILE_ROWS])
    return y_MN[:num_rows]


def rows_called(num_rows: int, num_inputs: int, num_outputs: int, dtype: torch.dtype) -> int:
    """How many rows one call may have to serve `num_rows` with the bits of tiles; 0 when no such number was found, and for no rows.

    The first question about a shape costs about five products of it and one of tiles, 1 to 50 ms.
    """
    key = (num_rows, num_inputs, num_outputs, dtype, torch.get_num_threads())
    called = _ROWS.get(key)
    if called is None:
        called = _ROWS[key] = _smallest_proven(*key[:4]) if num_rows else 0
    return called


def _smallest_proven(num_rows: int, num_inputs: int, num_outputs: int, dtype: torch.dtype) -> int:
    if num_inputs * num_outputs > MAX_TRIED_WEIGHT:
        return 0
    steps = (1, 4, 8) if num_rows < FEW_ROWS else (8,)
    candidates = sorted({-(-num_rows // step) * step for step in steps})
    return next((rows for rows in candidates if _equals_tiles(rows, num_inputs, num_outputs, dtype)), 0)


def _equals_tiles(num_rows: int, num_inputs: int, num_outputs: int, dtype: torch.dtype) -> bool:
    """Whether one call of this many rows gives tiles' bits in some thousand elements, from memory aligned to cache lines or not."""

    def equal(generator: torch.Generator) -> bool:
        for _ in range(min(-(-TRIED_ELEMENTS // (num_rows * num_outputs)), 100)):
            x_MK, w_NK = cancelling(generator, num_rows, num_inputs, num_outputs, dtype)
            wanted = tiled_product(x_MK, w_NK)
            if not all(same_bits(torch.mm(x, w.T), wanted) for x in (x_MK, _unaligned(x_MK)) for w in (w_NK, _unaligned(w_NK))):
                return False
        return True

    return proven("linear in one call", (num_rows, num_inputs, num_outputs, dtype), equal)


def _unaligned(x: Tensor) -> Tensor:
    """A copy that begins one element after an aligned address."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view_as(x)


class _Linear(Function):
    @staticmethod
    def forward(ctx, x_MK: Tensor, w_NK: Tensor, on_gpu: bool) -> Tensor:
        ctx.save_for_backward(x_MK, w_NK)
        ctx.on_gpu = on_gpu
        return _product(x_MK, w_NK, on_gpu)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_MN: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_MK, w_NK = ctx.saved_tensors
        needs_dx, needs_dw, _ = ctx.needs_input_grad
        if ctx.on_gpu:
            from .gpu import products as triton_form

            dx_MK = triton_form.product_dx(dy_MN, w_NK) if needs_dx else None
            return dx_MK, triton_form.product_dw(dy_MN, x_MK) if needs_dw else None, None
        return dy_MN @ w_NK if needs_dx else None, dy_MN.T @ x_MK if needs_dw else None, None
