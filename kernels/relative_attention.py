"""Attention with a learned relative bias over pages of keys and values. A row's bits depend on its document up to that row alone.

    score(t, u) = scale · q_t · k_u + relative_t · profiles[:, t - u]      u ≤ t, t - u < window; no bias where t - u ≥ extent
    y_t         = Σ_u softmax_u(score(t, u)) v_u

per head, heads in groups that share a key/value head, everything in fp32 from the stored dtypes, rounded once at the end. The same call
serves whole documents, appends of any length and any company; positions, blocks and window restart in every document.

Order: keys in blocks of 64 anchored at the document's start (see pages.py). All products have one shape, [tile rows · group, D] × [D,
64]; the maximum over all scores first (it is the same in any order), then exp, then each block's sum and product, added from the oldest
block to the newest in fp32. A block of which a row sees nothing adds exact zeros, so it does not matter who else is in the tile.
Exponents stop at -80: below it the library's exp is a hundred times slower, and e⁻⁸⁰ of the largest weight is nothing in fp32. Tiles have
64 rows where the self-check found that to be equal to 16, the contract form, and 16 for short appends.

Backward recomputes the scores chunk by chunk: deterministic, and memory as in forward.

That is the CPU form. The Triton form (gpu/attention.py) keeps a running maximum instead, and rounds weights to the values' dtype before
they meet them, which matters in bf16.

Letters: T rows, H heads, D columns of a head, G key/value heads, N pages, B = 64 rows of a page, R columns of the relative state, E extent.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from . import attention_cpu
from .dispatch import by_triton, needs_graph
from .pages import PAGE_ROWS, PageTable


def naive_attention(
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGD: Tensor,
    relative_THR: Tensor,
    profiles_RE: Tensor,
    lengths: tuple[int, ...],
    *,
    scale: float,
    window: int | None,
) -> Tensor:
    """Whole documents of these lengths, the formula as it stands, in float64: [T, H, D]."""
    pieces, start = [], 0
    group, extent = q_THD.shape[1] // k_TGD.shape[1], profiles_RE.shape[1]
    for length in lengths:
        q, k, v, r = (x[start : start + length].double() for x in (q_THD, k_TGD, v_TGD, relative_THR))
        start += length
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        distance = torch.arange(length)[:, None] - torch.arange(length)
        bias = (r @ profiles_RE.double()).gather(-1, distance.clamp(0, extent - 1)[:, None].expand(-1, q.shape[1], -1))
        bias = bias.masked_fill((distance >= extent)[:, None], 0.0)
        hidden = (distance < 0) | (distance >= (window or length))
        scores = (torch.einsum("thd,uhd->thu", q, k) * scale + bias).masked_fill(hidden[:, None], float("-inf"))
        pieces.append(torch.einsum("thu,uhd->thd", scores.softmax(-1), v))
    return torch.cat(pieces)


def attention(
    q_THD: Tensor,
    k_NGBD: Tensor,
    v_NGBD: Tensor,
    relative_THR: Tensor,
    profiles_RE: Tensor,
    table: PageTable,
    *,
    scale: float,
    window: int | None,
) -> Tensor:
    """What each new row reads, [T, H, D] in the dtype of q.

    Args:
        q_THD: the table's new rows; fp32 or bf16. H is a multiple of G; heads h·H/G … share key/value head h.
        k_NGBD, v_NGBD: pages of 64 rows, the new rows already in them (`lay_out` or `write`), in their storage dtype.
        relative_THR: each head's relative state; profiles_RE: the bias per distance that its columns mix, for distances 0 … E - 1.
        scale: of the products; 1 / D in the open model, whose q and k are normalised.
        window: how many newest positions a row sees, its own included; None for all.

    Raises:
        ValueError: shapes that do not fit, a table without the pages of blocks that a row may see; on a GPU, operands of several dtypes.
    """
    on_gpu = by_triton("attention", q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE)
    num_rows, heads, columns = q_THD.shape
    fits = (
        num_rows == table.rows.num_rows
        and k_NGBD.shape == v_NGBD.shape
        and k_NGBD.shape[2] == PAGE_ROWS
        and k_NGBD.shape[3] == columns
        and heads % k_NGBD.shape[1] == 0
        and relative_THR.shape[:2] == (num_rows, heads)
        and relative_THR.shape[2] == profiles_RE.shape[0]
    )
    if not fits or (window is not None and window < 1):
        raise ValueError(
            f"attention over {table.rows.num_rows} rows, window {window}: q {tuple(q_THD.shape)}, k {tuple(k_NGBD.shape)},"
            f" v {tuple(v_NGBD.shape)}, relative {tuple(relative_THR.shape)}, profiles {tuple(profiles_RE.shape)}"
        )
    operands = (q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE)
    if needs_graph(*operands):
        return _Attention.apply(*operands, table, scale, window, on_gpu)
    if on_gpu:
        from .gpu import attention as triton_form

        return triton_form.forward(operands, table, scale, window)[0]
    plan = attention_cpu.plan_for(q_THD, k_NGBD, table, window)
    return attention_cpu.forward(plan, operands, scale, for_backward=False)[0].to(q_THD.dtype)


class _Attention(Function):
    @staticmethod
    def forward(
        ctx,
        q_THD: Tensor,
        k_NGBD: Tensor,
        v_NGBD: Tensor,
        relative_THR: Tensor,
        profiles_RE: Tensor,
        table: PageTable,
        scale: float,
        window: int | None,
        on_gpu: bool,
    ) -> Tensor:
        operands = (q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE)
        ctx.table, ctx.scale, ctx.window = table, scale, window
        ctx.plan = None if on_gpu else attention_cpu.plan_for(q_THD, k_NGBD, table, window)
        if ctx.plan is None:
            from .gpu import attention as triton_form

            y_THD, log_sum = triton_form.forward(operands, table, scale, window)
        else:
            y_THD, log_sum = attention_cpu.forward(ctx.plan, operands, scale, for_backward=True)  # type: ignore[assignment]
        ctx.save_for_backward(*operands, y_THD, log_sum)
        return y_THD.to(q_THD.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_THD: Tensor) -> tuple[Tensor | None, ...]:
        *operands, y_THD, log_sum = ctx.saved_tensors
        if ctx.plan is None:
            from .gpu import attention as triton_form

            gradients = triton_form.backward(tuple(operands), ctx.table, ctx.scale, ctx.window, y_THD, log_sum, dy_THD)
        else:
            gradients = attention_cpu.backward(ctx.plan, tuple(operands), ctx.scale, y_THD, log_sum, dy_THD)
        return *gradients, None, None, None, None
