"""Depthwise causal convolution over a few rows, with residual. A row's bits depend on itself and the rows of its own document before it.

y_t = x_t + w_0·x_(t-3) + w_1·x_(t-2) + w_2·x_(t-1) + w_3·x_t for a kernel of four taps, in fp32, products and sums added in this order
(the oldest tap first, the residual last) and rounded once to x's dtype. Before a document there are zeros; between appends the last three
inputs are the state. Everything is elementwise multiply and add, so no library can choose another order. Measured: 2 to 17 times as fast
as a depthwise `conv1d`. (The CPU form; the Triton form is gpu/convolution.py.)

Letters: T rows, C channels, S segments, K taps.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton, needs_graph
from .documents import Ragged, rows_within


def naive_short_conv(x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor | None = None) -> Tensor:
    """The sum written out per row, in float64."""
    x_TC, w_CK = x_TC.double(), w_CK.double()
    past = w_CK.shape[1] - 1
    pieces = []
    for s, (start, stop) in enumerate(zip(rows.row_starts, rows.row_starts[1:], strict=False)):
        before = torch.zeros(past, x_TC.shape[1]).double() if state_SHC is None else state_SHC[s].double()
        seen = torch.cat([before, x_TC[start:stop]])
        pieces += [seen[t + past] + (seen[t : t + past + 1] * w_CK.T).sum(0) for t in range(stop - start)]
    return torch.stack(pieces)


def short_conv(x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The convolved rows [T, C] in the dtype of x, and the state [S, K - 1, C], fp32, that the documents' next rows need.

    Args:
        x_TC: fp32 or bf16.
        w_CK: fp32; tap K - 1 meets the row itself. (`conv1d.weight[:, 0]` of the open model.)
        state_SHC: fp32 [S, K - 1, C], what the last call on each document returned, oldest row first; None when every document starts here.
            Gradients do not flow into it.

    Raises:
        ValueError: shapes or dtypes that do not fit; no state for a document that has a past.
    """
    on_gpu = by_triton("short_conv", x_TC, w_CK, *(() if state_SHC is None else (state_SHC,)))
    if w_CK.dtype != torch.float32 or x_TC.shape != (rows.num_rows, w_CK.shape[0]):
        raise ValueError(
            f"short_conv takes x [{rows.num_rows}, C] and fp32 taps [C, K], not {tuple(x_TC.shape)} and {w_CK.dtype} {tuple(w_CK.shape)}"
        )
    shape = (rows.num_segments, w_CK.shape[1] - 1, w_CK.shape[0])
    if state_SHC is None:
        if any(rows.positions):
            raise ValueError(f"short_conv: documents at positions {rows.positions} have a past, so they need the state it left")
        state_SHC = x_TC.new_zeros(shape, dtype=torch.float32)
    elif state_SHC.shape != shape or state_SHC.dtype != torch.float32:
        raise ValueError(f"short_conv: the state must be fp32 {shape}, not {state_SHC.dtype} {tuple(state_SHC.shape)}")
    if needs_graph(x_TC, w_CK):
        return _ShortConv.apply(x_TC, w_CK, rows, state_SHC, on_gpu)
    return _short_conv(x_TC, w_CK, rows, state_SHC, on_gpu)


@lru_cache(maxsize=64)
def _places(rows: Ragged, past: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where rows [T], states [S, past] and the next states [S, past] stand when every segment has its state in front of it."""
    shift_T = torch.repeat_interleave(torch.arange(1, rows.num_segments + 1), torch.tensor(rows.lengths)) * past
    row_place_T = torch.arange(rows.num_rows) + shift_T
    starts_S = torch.tensor(rows.row_starts[:-1]) + torch.arange(rows.num_segments) * past
    state_place_SH = starts_S[:, None] + torch.arange(past)
    return row_place_T, state_place_SH, state_place_SH + torch.tensor(rows.lengths)[:, None]


def _short_conv(x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor, on_gpu: bool) -> tuple[Tensor, Tensor]:
    if on_gpu:
        from .gpu import convolution as triton_form

        return triton_form.short_conv(x_TC, w_CK, state_SHC, rows_within(rows, x_TC.device))
    past = w_CK.shape[1] - 1
    seen_UC = _with_past(x_TC, rows, state_SHC)
    taps_KC = w_CK.T.contiguous()
    num_sums = seen_UC.shape[0] - past
    y_UC = seen_UC[:num_sums] * taps_KC[0]
    for tap in range(1, past + 1):
        y_UC += seen_UC[tap : tap + num_sums] * taps_KC[tap]
    y_UC += seen_UC[past:]
    if rows.num_segments == 1:
        return y_UC.to(x_TC.dtype), seen_UC[num_sums:].clone()[None]
    row_place_T, _, next_state_place_SH = _places(rows, past)
    return y_UC[row_place_T - past].to(x_TC.dtype), seen_UC[next_state_place_SH]


class _ShortConv(Function):
    @staticmethod
    def forward(ctx, x_TC: Tensor, w_CK: Tensor, rows: Ragged, state_SHC: Tensor, on_gpu: bool) -> tuple[Tensor, Tensor]:
        y_TC, new_state_SHC = _short_conv(x_TC, w_CK, rows, state_SHC, on_gpu)
        ctx.save_for_backward(x_TC, w_CK, state_SHC)
        ctx.rows, ctx.on_gpu = rows, on_gpu
        ctx.mark_non_differentiable(new_state_SHC)
        return y_TC, new_state_SHC

    @staticmethod
    @once_differentiable
    def backward(ctx, dy_TC: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x_TC, w_CK, state_SHC = ctx.saved_tensors
        if ctx.on_gpu:
            from .gpu import convolution as triton_form

            return *triton_form.short_conv_slopes(dy_TC, x_TC, w_CK, state_SHC, rows_within(ctx.rows, x_TC.device)), None, None, None
        past, rows = w_CK.shape[1] - 1, ctx.rows
        seen_UC = _with_past(x_TC, rows, state_SHC)
        dy_UC = _with_past(dy_TC, rows, torch.zeros_like(state_SHC))  # zeros in front of a segment also end the one before it
        dy_UC = torch.cat([dy_UC, dy_UC.new_zeros(past, dy_UC.shape[1])])
        num_seen = seen_UC.shape[0]
        dx_UC = dy_UC[:num_seen].clone()
        dw_KC = torch.empty(past + 1, seen_UC.shape[1])
        for tap in range(past + 1):
            later_UC = dy_UC[past - tap : past - tap + num_seen]  # the sums in which a row stood at this tap
            dx_UC.addcmul_(later_UC, w_CK[:, tap])
            dw_KC[tap] = (later_UC * seen_UC).sum(0)
        row_place_T, _, _ = _places(rows, past)
        return dx_UC[row_place_T].to(x_TC.dtype), dw_KC.T.contiguous(), None, None, None


def _with_past(x_TC: Tensor, rows: Ragged, state_SHC: Tensor) -> Tensor:
    """fp32 [T + S·(K - 1), C]: every segment's rows behind its state."""
    num_segments, past, num_channels = state_SHC.shape
    if num_segments == 1:
        return torch.cat([state_SHC[0], x_TC.float()])
    row_place_T, state_place_SH, _ = _places(rows, past)
    seen_UC = torch.empty(rows.num_rows + num_segments * past, num_channels)
    seen_UC[row_place_T] = x_TC.float()
    seen_UC[state_place_SH] = state_SHC
    return seen_UC
