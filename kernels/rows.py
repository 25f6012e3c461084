"""Ops along a row: a row's bits depend on that row and the weights alone, not on how many rows come with it, their place or the threads.

Order: one row is one reduction over its contiguous last axis, in fp32, never split. torch reduces a row the same way in any company as
long as a row has at most 32,768 columns; `sum`, `mean` and norms of longer rows are split between threads (measured), `log_softmax` of
any length is not. (The CPU form; the Triton forms are gpu/rows.py and gpu/softmax.py.)

Letters: M rows, D columns, V vocabulary.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton, needs_graph

MAX_COLUMNS = 32_768  # beyond it torch may give one row to several threads


def naive_rms_norm(x_MD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """weight · (x / sqrt(mean(x²) + eps) rounded to x's dtype): the open model's order of casts."""
    x32_MD = x_MD.float()
    normed_MD = x32_MD * torch.rsqrt(x32_MD.pow(2).mean(-1, keepdim=True) + eps)
    return weight_D * normed_MD.to(x_MD.dtype)


def naive_cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """-log softmax(logits)[target] per row, in float64."""
    return -logits_MV.double().log_softmax(-1).gather(-1, targets_M[:, None])[:, 0]


def rms_norm(x_MD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Rows scaled to a root mean square of 1 and times `weight`: statistics in fp32, rounded to x's dtype, then times weight.

    Args:
        x_MD: fp32 or bf16, any leading axes, at most 32,768 columns.
        weight_D: the result has the dtype that `weight · x` has.

    Raises:
        ValueError: too many columns, or a weight of another length.
    """
    on_gpu = by_triton("rms_norm", x_MD, weight_D)
    columns = x_MD.shape[-1]
    if weight_D.shape != (columns,) or columns > MAX_COLUMNS:
        raise ValueError(f"rms_norm of rows of {columns} columns (at most {MAX_COLUMNS}) with a weight of shape {tuple(weight_D.shape)}")
    if needs_graph(x_MD, weight_D):
        return _RmsNorm.apply(x_MD, weight_D, eps, on_gpu)
    return _rms_norm(x_MD, weight_D, eps, on_gpu)[0]


def log_softmax(x_MV: Tensor) -> Tensor:
    """log softmax along the last axis, fp32 whatever the dtype of x. Its exp, times one constant, is the softmax everybody uses here."""
    if not by_triton("log_softmax", x_MV):
        return torch.log_softmax(x_MV.float().contiguous(), -1)
    rows_MV = x_MV.reshape(-1, x_MV.shape[-1])
    return (_LogSoftmax.apply(rows_MV) if needs_graph(x_MV) else _triton_softmax().log_softmax(rows_MV)).view(x_MV.shape)


def cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """-log softmax(logits)[target] per row, fp32 [M]. Weights and sums are the caller's; every target must be a real id (elsewhere the CPU
    raises, and on a GPU, which nobody waits for, the loss is NaN).

    Raises:
        ValueError: shapes that do not belong together.
    """
    on_gpu = by_triton("cross_entropy", logits_MV, targets_M)
    if logits_MV.ndim != 2 or targets_M.shape != logits_MV.shape[:1]:
        raise ValueError(f"cross_entropy takes logits [M, V] and targets [M], not {tuple(logits_MV.shape)} and {tuple(targets_M.shape)}")
    if not on_gpu:
        return -log_softmax(logits_MV).gather(-1, targets_M[:, None])[:, 0]
    if needs_graph(logits_MV):
        return _CrossEntropy.apply(logits_MV, targets_M)
    return _triton_softmax().cross_entropy(logits_MV, targets_M)[0]


def _triton_softmax():
    from .gpu import softmax as triton_form

    return triton_form


def _rms_norm(x: Tensor, weight: Tensor, eps: float, on_gpu: bool) -> tuple[Tensor, Tensor]:
    """The normed rows and the factor, fp32, that each was scaled by: [..., 1], of the Triton form [M]."""
    if on_gpu:
        from .gpu import rows as triton_form

        return triton_form.rms_norm(x, weight, eps)
    x32 = x.to(torch.float32).contiguous()
    norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)  # one pass and no squares in memory: 1.5 times as fast as a mean of squares
    factor = 1 / torch.sqrt(norm * norm / x.shape[-1] + eps)  # not rsqrt, whose bf16 form changes with place
    normed = (x32 * factor).to(x.dtype)
    return (normed.mul_(weight) if weight.dtype == normed.dtype else normed * weight), factor


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, on_gpu: bool) -> Tensor:
        y, factor = _rms_norm(x, weight, eps, on_gpu)
        ctx.save_for_backward(x, weight, factor)
        ctx.on_gpu = on_gpu
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight, factor = ctx.saved_tensors
        if ctx.on_gpu:
            from .gpu import rows as triton_form

            return *triton_form.rms_norm_slopes(dy, x, weight, factor), None, None
        normed, dy32 = x.float() * factor, dy.float()
        d_weight = (dy32 * normed).flatten(0, -2).sum(0).to(weight.dtype)
        d_normed = dy32 * weight
        slope = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.sub_(normed.mul_(slope)).mul_(factor).to(x.dtype), d_weight, None, None


class _LogSoftmax(Function):
    """The Triton form's; on the CPU torch has its own."""

    @staticmethod
    def forward(ctx, x_MV: Tensor) -> Tensor:
        y_MV = _triton_softmax().log_softmax(x_MV)
        ctx.save_for_backward(y_MV)
        ctx.dtype = x_MV.dtype
        return y_MV

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_MV: Tensor) -> Tensor:
        (y_MV,) = ctx.saved_tensors
        return _triton_softmax().log_softmax_dx(dy_MV, y_MV, ctx.dtype)


class _CrossEntropy(Function):
    """The Triton form's: neither direction holds log-probabilities of all columns."""

    @staticmethod
    def forward(ctx, logits_MV: Tensor, targets_M: Tensor) -> Tensor:
        loss_M, log_sum_M = _triton_softmax().cross_entropy(logits_MV, targets_M)
        ctx.save_for_backward(logits_MV, targets_M, log_sum_M)
        return loss_M

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss_M: Tensor) -> tuple[Tensor, None]:
        logits_MV, targets_M, log_sum_M = ctx.saved_tensors
        return _triton_softmax().cross_entropy_dx(d_loss_M, logits_MV, targets_M, log_sum_M), None
