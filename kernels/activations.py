"""Activations whose value at an element depends on that element alone: not on its place, its neighbours, the length or the threads.

torch's own `silu`, `gelu` and `sigmoid` break this: their vector body and the scalar tail after it round differently, so an element
changes with its distance from the end (measured). exp, log, erf, division and the like do not. So everything here is written from those,
in fp32, on contiguous memory, and rounded once to the input's dtype. It costs 2 times `F.silu` and less than 2% of a layer. (The CPU form;
the Triton form is gpu/activations.py.)

Each op is elementwise, any shape, fp32 or bf16; its backward is exact calculus in fp32 and keeps only the inputs.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .dispatch import by_triton, needs_graph

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
    return _activation("sigmoid", x)


def log_sigmoid(x: Tensor) -> Tensor:
    """min(x, 0) - log(1 + exp(-|x|)), dtype of x. Absolute error 1e-7; for large x it is 0 where the truth is -exp(-x)."""
    return _activation("log_sigmoid", x)


def silu(x: Tensor) -> Tensor:
    """x·σ(x), dtype of x."""
    return _activation("silu", x)


def gelu(x: Tensor) -> Tensor:
    """x·Φ(x) by erf, as the open model's hMLP has it; dtype of x."""
    return _activation("gelu", x)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate)·up of two tensors of one shape and dtype, rounded once. Two halves of one wider product may be given as views."""
    on_gpu = by_triton("swiglu", gate, up)
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(f"swiglu takes two equal shapes and dtypes, not {tuple(gate.shape)} {gate.dtype} and {tuple(up.shape)} {up.dtype}")
    return _Swiglu.apply(gate, up, on_gpu) if needs_graph(gate, up) else _swiglu(gate, up, on_gpu)


def _activation(name: str, x: Tensor) -> Tensor:
    on_gpu = by_triton(name, x)
    return _Activation.apply(name, x, on_gpu) if needs_graph(x) else _value(name, x, on_gpu)


def _value(name: str, x: Tensor, on_gpu: bool) -> Tensor:
    if on_gpu:
        from .gpu import activations as triton_form

        return triton_form.activation(name, x)
    return FORMS[name][0](_fp32(x)).to(x.dtype)


def _fp32(x: Tensor) -> Tensor:
    """x as fp32 on contiguous memory; x itself if it is that already."""
    return x.to(torch.float32).contiguous()


def _one_plus_exp_minus(x: Tensor) -> Tensor:
    return torch.exp(-x).add_(1)


def _sigmoid(x32: Tensor) -> Tensor:
    return torch.reciprocal(_one_plus_exp_minus(x32))


def _sigmoid_slope(x32: Tensor) -> Tensor:
    sigma = _sigmoid(x32)
    return (1 - sigma).mul_(sigma)


def _log_sigmoid(x32: Tensor) -> Tensor:
    return x32.clamp(max=0) - _one_plus_exp_minus(x32.abs()).log_()


def _log_sigmoid_slope(x32: Tensor) -> Tensor:
    return _sigmoid(-x32)  # without the cancellation of 1 - σ(x)


def _silu(x32: Tensor) -> Tensor:
    y = _one_plus_exp_minus(x32)
    return torch.div(x32, y, out=y)


def _silu_slope(x32: Tensor) -> Tensor:
    """σ(x)·(1 + x·(1 - σ(x)))."""
    sigma = _sigmoid(x32)
    return (1 - sigma).mul_(x32).add_(1).mul_(sigma)


def _gelu(x32: Tensor) -> Tensor:
    return torch.erf(x32 * SQRT_HALF).add_(1).mul_(0.5).mul_(x32)


def _gelu_slope(x32: Tensor) -> Tensor:
    slope = torch.erf(x32 * SQRT_HALF).add_(1).mul_(0.5)
    return slope.add_(torch.exp(x32 * x32 * -0.5).mul_(x32).mul_(SQRT_HALF_OVER_PI))


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {  # the CPU form: value and slope, fp32 to fp32
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "log_sigmoid": (_log_sigmoid, _log_sigmoid_slope),
    "silu": (_silu, _silu_slope),
    "gelu": (_gelu, _gelu_slope),
}


def _swiglu(gate: Tensor, up: Tensor, on_gpu: bool) -> Tensor:
    if on_gpu:
        from .gpu import activations as triton_form

        return triton_form.swiglu(gate, up)
    return _silu(_fp32(gate)).mul_(up).to(gate.dtype)


class _Activation(Function):
    @staticmethod
    def forward(ctx, name: str, x: Tensor, on_gpu: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.name, ctx.on_gpu = name, on_gpu
        return _value(name, x, on_gpu)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[None, Tensor, None]:
        (x,) = ctx.saved_tensors
        if ctx.on_gpu:
            from .gpu import activations as triton_form

            return None, triton_form.activation_dx(ctx.name, dy, x), None
        return None, FORMS[ctx.name][1](_fp32(x)).mul_(dy).to(x.dtype), None


class _Swiglu(Function):
    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor, on_gpu: bool) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.on_gpu = on_gpu
        return _swiglu(gate, up, on_gpu)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        if ctx.on_gpu:
            from .gpu import activations as triton_form

            return *triton_form.swiglu_dx(dy, gate, up), None
        gate32, dy32 = _fp32(gate), _fp32(dy)
        sigma = _sigmoid(gate32)
        silu = gate32 * sigma
        d_gate = torch.addcmul(silu, silu, sigma, value=-1).add_(sigma).mul_(up).mul_(dy32)  # slope: σ + silu - silu·σ
        return d_gate.to(gate.dtype), silu.mul_(dy32).to(up.dtype), None
