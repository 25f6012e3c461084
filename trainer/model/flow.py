"""The flow head: own speech, a frame at a time. Rectified flow from noise to the 4 × 80 values of a frame of own mel, given a hidden row.

    x_t = (1 - t) · ε + t · x₁        the head learns  v(x_t, t | h) = x₁ - ε        sampling: Euler steps from ε at t = 0 to t = 1

A conditional MLP: per layer a norm, shifted, scaled and gated by the condition, which is made of the hidden row and the time. Beside it the
point itself goes to the result, each value scaled by the condition: most of a velocity is the noise's own negative, 320 values that a
narrower MLP could not carry. All of it is fp32. Gates and last products begin at zero, so an untrained head says "no velocity". Sources:
rectified flow, arXiv 2209.03003; the conditional MLP on autoregressive rows, arXiv 2406.11838.

Letters: F frames, D columns of the hidden row, W width, X = 320 values of a frame, C columns of the time's waves.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ... import kernels
from ...schemas.clock import FRAME_SAMPLES
from ...schemas.spec import NUM_BANDS, OwnMelSpec
from .layers import Linear, RmsNorm
from .spec import ModelSpec

SUB_FRAMES = FRAME_SAMPLES // OwnMelSpec().hop_samples
FRAME_VALUES = SUB_FRAMES * NUM_BANDS
TIME_COLUMNS = 64
SLOWEST, FASTEST = 1.0, 1000.0  # radians per unit of time


class FlowLayer(nn.Module):
    """x + gate · mlp(norm(x) · (1 + scale) + shift), all three made of the condition."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.norm, self.modulation = RmsNorm(width, eps), Linear(width, 3 * width)
        self.inward, self.outward = Linear(width, width), Linear(width, width)

    def forward(self, x_FW: Tensor, condition_FW: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(condition_FW).chunk(3, dim=-1)
        y_FW = self.norm(x_FW) * (1 + scale) + shift
        return x_FW + gate * self.outward(kernels.silu(self.inward(y_FW)))


class FlowHead(nn.Module):
    """Velocities of frames in head space; see the module."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        width, self.steps = spec.flow_width, spec.flow_steps
        self.hidden, self.time, self.frame = Linear(spec.hidden, width), Linear(TIME_COLUMNS, width), Linear(FRAME_VALUES, width)
        self.layers = nn.ModuleList(FlowLayer(width, spec.norm_eps) for _ in range(spec.flow_layers))
        self.norm, self.modulation = RmsNorm(width, spec.norm_eps), Linear(width, 2 * width)
        self.velocity, self.bypass = Linear(width, FRAME_VALUES), Linear(width, FRAME_VALUES)

    def forward(self, hidden_FD: Tensor, x_FX: Tensor, time_F: Tensor) -> Tensor:
        """The velocity [F, 320], fp32, at points `x_FX` (fp32, head space) and times `time_F` (fp32, 0 … 1), given hidden rows [F, D]."""
        return self.velocity_given(self.condition(hidden_FD), x_FX, time_F)

    def condition(self, hidden_FD: Tensor) -> Tensor:
        """What the head takes from hidden rows, fp32 [F, W]: the same for every time and draw."""
        return self.hidden(hidden_FD.float())

    def velocity_given(self, from_hidden_FW: Tensor, x_FX: Tensor, time_F: Tensor) -> Tensor:
        """`forward`, from `condition`'s rows."""
        condition_FW = kernels.silu(from_hidden_FW + self.time(waves(time_F)))
        x_FW = self.frame(x_FX)
        for layer in self.layers:
            x_FW = layer(x_FW, condition_FW)
        shift, scale = self.modulation(condition_FW).chunk(2, dim=-1)
        return self.velocity(self.norm(x_FW) * (1 + scale) + shift) + self.bypass(condition_FW) * x_FX

    def sample(self, hidden_FD: Tensor, noise_FX: Tensor) -> Tensor:
        """Frames [F, 320] in head space: `steps` Euler steps from the noise (fp32 [F, 320], standard normal)."""
        condition_FW, x_FX = self.condition(hidden_FD), noise_FX
        times = euler_times(self.steps)
        for start, stop in pairwise(times):
            x_FX = x_FX + (stop - start) * self.velocity_given(condition_FW, x_FX, x_FX.new_full((len(x_FX),), start))
        return x_FX


def waves(time_F: Tensor) -> Tensor:
    """Sines and cosines of times, fp32 [F, C], their speeds in geometric steps. The speeds are computed by Python: the same everywhere."""
    half = TIME_COLUMNS // 2
    speeds = time_F.new_tensor([SLOWEST * (FASTEST / SLOWEST) ** (i / (half - 1)) for i in range(half)])
    angle = time_F[:, None] * speeds
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=-1)


def euler_times(steps: int) -> tuple[float, ...]:
    """The fixed table of steps + 1 times from 0 to 1: smaller steps first, where noise turns into shape (t - sin-like warp of F5-TTS,
    arXiv 2410.06885: t' = t + s (cos(π t / 2) - 1 + t) with s = -1).
    """
    return tuple(1 - math.cos(math.pi / 2 * i / steps) if i < steps else 1.0 for i in range(steps + 1))
