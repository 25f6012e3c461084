"""Parameters with the operation that reads them: the leaves of the model. A weight is cast to the rows' dtype where it is used, so that
one fp32 master serves fp32 and bf16 alike; what must stay fp32 says so.

Letters: T rows, D columns.
"""

import torch
from torch import Tensor, nn

from ... import kernels
from ...kernels import Ragged


class Linear(nn.Module):
    """x · wᵀ without bias; weight [outputs, inputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight.to(x.dtype))


class RmsNorm(nn.Module):
    """Rows scaled to a root mean square of 1, times weight [columns]."""

    def __init__(self, columns: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.empty(columns)), eps

    def forward(self, x: Tensor) -> Tensor:
        return kernels.rms_norm(x, self.weight.to(x.dtype), self.eps)


class ShortConv(nn.Module):
    """Depthwise causal convolution with residual, fp32 taps [columns, taps]; its state is the inputs of the last taps - 1 rows."""

    def __init__(self, columns: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(columns, taps))

    def forward(self, x_TD: Tensor, rows: Ragged, past_SHD: Tensor | None) -> tuple[Tensor, Tensor]:
        return kernels.short_conv(x_TD, self.weight, rows, past_SHD)
