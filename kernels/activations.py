"""Activations whose value at an element depends on that element alone: not on its place, its neighbours, the length or the threads.

torch's own `silu`, `gelu` and `sigmoid` break this: their vector body and the scalar tail after it round differently, so an element
changes with its distance from the end (measured). exp, log, erf, division and the like do not. So everything here is written from those,
in fp32, on contiguous memory, and rounded once to the input's dtype. It costs 2 times `F.silu` and less than 2% of a layer.

Each op is elementwise, any shape, fp32 or bf16; its backward is exact calculus in fp32 and keeps only the inputs.
"""

import math

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import cpu_only, needs_graph

SQRT_HALF = math.sqrt(0.5)
SQRT_HALF_OVER_PI = math.sqrt(0.5 / math.pi)


def naive_silu(x: Tensor) -> Tensor:
    """x·σ(x), in float64."""
    return x.double() * torch.sigmoid(x.double())


def naive_gelu(x: Tensor) -> Tensor:
    """x·Φ(x) with the exact normal distribution, in float64."""
    return torch.nn.functional.gelu(x.double())


def naive_log_sigmoid(x: Tensor) -> Tensor:
    """log σ(x), in float64."""
    return torch.nn.functional.logsigmoid(x.double())


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), dtype of x."""
    cpu_only("sigmoid", x)
    return _Sigmoid.apply(x) if needs_graph(x) else _sigmoid(x)


def log_sigmoid(x: Tensor) -> Tensor:
    """min(x, 0) - log(1 + exp(-|x|)), dtype of x. Absolute error 1e-7; for large x it is 0 where the truth is -exp(-x)."""
    cpu_only("log_sigmoid", x)
    return _LogSigmoid.apply(x) if needs_graph(x) else _log_sigmoid(x)


def silu(x: Tensor) -> Tensor:
    """x·σ(x), dtype of x."""
    cpu_only("silu", x)
    return _Silu.apply(x) if needs_graph(x) else _silu(_fp32(x)).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """x·Φ(x) by erf, as the open model's hMLP has it; dtype of x."""
    cpu_only("gelu", x)
    return _Gelu.apply(x) if needs_graph(x) else _gelu(x)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate)·up of two tensors of one shape and dtype, rounded once. Two halves of one wider product may be given as views."""
    cpu_only("swiglu", gate, up)
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(f"swiglu takes two equal shapes and dtypes, not {tuple(gate.shape)} {gate.dtype} and {tuple(up.shape)} {up.dtype}")
    return _Swiglu.apply(gate, up) if needs_graph(gate, up) else _swiglu(gate, up)


def _fp32(x: Tensor) -> Tensor:
    """x as fp32 on contiguous memory; x itself if it is that already."""
    return x.to(torch.float32).contiguous()


def _one_plus_exp_minus(x: Tensor) -> Tensor:
    return torch.exp(-x).add_(1)


def _sigmoid(x: Tensor) -> Tensor:
    return torch.reciprocal(_one_plus_exp_minus(_fp32(x))).to(x.dtype)


def _log_sigmoid(x: Tensor) -> Tensor:
    x32 = _fp32(x)
    return (x32.clamp(max=0) - _one_plus_exp_minus(x32.abs()).log_()).to(x.dtype)


def _silu(x32: Tensor) -> Tensor:
    y = _one_plus_exp_minus(x32)
    return torch.div(x32, y, out=y)


def _silu_slope(x32: Tensor) -> Tensor:
    """σ(x)·(1 + x·(1 - σ(x)))."""
    sigma = torch.reciprocal(_one_plus_exp_minus(x32))
    return (1 - sigma).mul_(x32).add_(1).mul_(sigma)


def _gelu(x: Tensor) -> Tensor:
    x32 = _fp32(x)
    return torch.erf(x32 * SQRT_HALF).add_(1).mul_(0.5).mul_(x32).to(x.dtype)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return _silu(_fp32(gate)).mul_(up).to(gate.dtype)


class _Sigmoid(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _sigmoid(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        sigma = torch.reciprocal(_one_plus_exp_minus(_fp32(x)))
        return (dy * sigma * (1 - sigma)).to(x.dtype)


class _LogSigmoid(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _log_sigmoid(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (dy / _one_plus_exp_minus(-_fp32(x))).to(x.dtype)  # σ(-x), without the cancellation of 1 - σ(x)


class _Silu(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _silu(_fp32(x)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (dy * _silu_slope(_fp32(x))).to(x.dtype)


class _Gelu(Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        x32 = _fp32(x)
        slope = torch.erf(x32 * SQRT_HALF).add_(1).mul_(0.5)
        slope += torch.exp(x32 * x32 * -0.5).mul_(x32).mul_(SQRT_HALF_OVER_PI)
        return (dy * slope).to(x.dtype)


class _Swiglu(Function):
    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _swiglu(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        gate32, dy32 = _fp32(gate), _fp32(dy)
        d_up = _silu(gate32).mul_(dy32)
        d_gate = _silu_slope(gate32).mul_(up).mul_(dy32)
        return d_gate.to(gate.dtype), d_up.to(up.dtype)
