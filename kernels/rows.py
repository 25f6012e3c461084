"""Ops along a row: a row's bits depend on that row and the weights alone, not on how many rows come with it, their place or the threads.

Order: one row is one reduction over its contiguous last axis, in fp32, never split. torch reduces a row the same way in any company as
long as a row has at most 32,768 columns; `sum`, `mean` and norms of longer rows are split between threads (measured), `log_softmax` of
any length is not.

Letters: M rows, D columns, V vocabulary.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import cpu_only, needs_graph

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
    cpu_only("rms_norm", x_MD, weight_D)
    columns = x_MD.shape[-1]
    if weight_D.shape != (columns,) or columns > MAX_COLUMNS:
        raise ValueError(f"rms_norm of rows of {columns} columns (at most {MAX_COLUMNS}) with a weight of shape {tuple(weight_D.shape)}")
    return _RmsNorm.apply(x_MD, weight_D, eps) if needs_graph(x_MD, weight_D) else _rms_norm(x_MD, weight_D, eps)[0]


def log_softmax(x_MV: Tensor) -> Tensor:
    """log softmax along the last axis, fp32 whatever the dtype of x. Its exp, times one constant, is the softmax everybody uses here."""
    cpu_only("log_softmax", x_MV)
    return torch.log_softmax(x_MV.float().contiguous(), -1)


def cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """-log softmax(logits)[target] per row, fp32 [M]. Weights and sums are the caller's; every target must be a real id.

    Raises:
        ValueError: shapes that do not belong together.
    """
    cpu_only("cross_entropy", logits_MV, targets_M)
    if logits_MV.ndim != 2 or targets_M.shape != logits_MV.shape[:1]:
        raise ValueError(f"cross_entropy takes logits [M, V] and targets [M], not {tuple(logits_MV.shape)} and {tuple(targets_M.shape)}")
    return -log_softmax(logits_MV).gather(-1, targets_M[:, None])[:, 0]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The normed rows and the factor, fp32 [..., 1], that each was scaled by."""
    x32 = x.to(torch.float32).contiguous()
    norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)  # one pass and no squares in memory: 1.5 times as fast as a mean of squares
    factor = 1 / torch.sqrt(norm * norm / x.shape[-1] + eps)  # not rsqrt, whose bf16 form changes with place
    normed = (x32 * factor).to(x.dtype)
    return (normed.mul_(weight) if weight.dtype == normed.dtype else normed * weight), factor


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, factor = _rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, factor)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, factor = ctx.saved_tensors
        normed, dy32 = x.float() * factor, dy.float()
        d_weight = (dy32 * normed).flatten(0, -2).sum(0).to(weight.dtype)
        d_normed = dy32 * weight
        slope = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.sub_(normed.mul_(slope)).mul_(factor).to(x.dtype), d_weight, None
