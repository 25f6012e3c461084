"""Device functions that kernels share, so that each piece of arithmetic is written once.

fp32 products are IEEE (no tf32). The interpreter's own bf16 is wrong (it multiplies the bit patterns), so there, and only there, `dot`
widens its operands first; a bf16 product is exact in fp32, so nothing else changes. Every other kernel widens to fp32 right after loading
anyway.

The functions of one number are those of activations.py one folder up, term by term; Φ is the normal distribution.
"""

import math

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
SQRT_HALF = tl.constexpr(math.sqrt(0.5))
SQRT_HALF_OVER_PI = tl.constexpr(math.sqrt(0.5 / math.pi))


@triton.jit
def dot(a, b, total):
    """total + a · b in fp32: matrix instructions for bf16, IEEE multiply and add for fp32."""
    if INTERPRETED:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def sigmoid(x):
    """σ(x) = 1 / (1 + exp(-x))."""
    return 1 / (1 + tl.exp(-x))


@triton.jit
def log_sigmoid(x):
    """min(x, 0) - log(1 + exp(-|x|))."""
    return tl.minimum(x, 0.0) - tl.log(1 + tl.exp(-tl.abs(x)))


@triton.jit
def silu(x):
    """x · σ(x)."""
    return x / (1 + tl.exp(-x))


@triton.jit
def silu_slope(x):
    """σ(x) · (1 + x · (1 - σ(x)))."""
    s = sigmoid(x)
    return s * (1 + x * (1 - s))


@triton.jit
def gelu(x):
    """x · Φ(x)."""
    return x * (0.5 * (1 + tl.erf(x * SQRT_HALF)))


@triton.jit
def gelu_slope(x):
    """Φ(x) + x · Φ'(x)."""
    return 0.5 * (1 + tl.erf(x * SQRT_HALF)) + x * SQRT_HALF_OVER_PI * tl.exp(-0.5 * x * x)
