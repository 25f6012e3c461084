"""Bags of embeddings: a row of codes becomes the sum of one table row per code. A row's bits depend on its codes and the table alone.

Column n with code c reads table row n · levels + c: 80 bands of 16 codes are a heard frame (1,280 table rows), 4 sub-frames of 80 bands
an own one (5,120, row (80 s + b) · 16 + c). Order: torch's `embedding_bag`, columns from first to last, fp32 sums (measured: no row
differs in any company). The Triton form, gpu/bags.py, has the same order.

Letters: R rows, N columns of codes, D columns of the table.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton


def naive_bag(codes_RN: Tensor, table_VD: Tensor) -> Tensor:
    """Look up, then sum, in float64."""
    num_columns = codes_RN.shape[1]
    levels = table_VD.shape[0] // num_columns
    return table_VD.double()[codes_RN.long() + torch.arange(num_columns) * levels].sum(1)


def bag(codes_RN: Tensor, table_VD: Tensor) -> Tensor:
    """The summed embeddings [R, D] in the table's dtype, fp32 or bf16. Differentiable in the table.

    Args:
        codes_RN: uint8 or int64 [R, N], each below V / N.

    Raises:
        ValueError: a table whose rows are not a multiple of the columns, or a code beyond its levels (it would read the next column's
            rows); on a GPU, which nobody waits for, the code's row becomes NaN instead.
    """
    on_gpu = by_triton("bag", codes_RN, table_VD)
    num_columns = codes_RN.shape[1]
    levels, rest = divmod(table_VD.shape[0], num_columns)
    if rest or not levels:
        raise ValueError(f"bag: a table of {table_VD.shape[0]} rows does not hold equally many levels for {num_columns} columns")
    if on_gpu:
        return _Bag.apply(codes_RN, table_VD)
    if codes_RN.numel() and not 0 <= int(codes_RN.min()) <= int(codes_RN.max()) < levels:
        raise ValueError(f"bag: codes are {int(codes_RN.min())} … {int(codes_RN.max())}, the table has {levels} levels a column")
    rows_RN = codes_RN.long() + torch.arange(num_columns) * levels
    return F.embedding_bag(rows_RN, table_VD, mode="sum")


class _Bag(Function):
    """The Triton form's; on the CPU torch has its own."""

    @staticmethod
    def forward(ctx, codes_RN: Tensor, table_VD: Tensor) -> Tensor:
        from .gpu import bags as triton_form

        ctx.save_for_backward(codes_RN)
        ctx.entries = table_VD.shape[0]
        return triton_form.bag(codes_RN, table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_RD: Tensor) -> tuple[None, Tensor]:
        from .gpu import bags as triton_form

        (codes_RN,) = ctx.saved_tensors
        return None, triton_form.bag_dtable(dy_RD, codes_RN, ctx.entries)
