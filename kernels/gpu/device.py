"""What the bits of a CUDA device depend on: the GPU's part of the fingerprint (machine.py one folder up).

The tile table is in it, because another tile is another order of addition; so are the builds of Triton and CUDA, which make other binaries
of the same source. `numerics` are digests of what the Triton forms make of fixed operands.
"""

import hashlib
import os
from typing import Any

import torch
import triton

from .. import activations, philox, products, rows, selfcheck
from .tiles import TILES, architecture_of

SETTINGS = (
    "TRITON_DEFAULT_FP_FUSION",
    "TRITON_FORCE_DISABLE_FP_FUSION",
    "TRITON_OVERRIDE_ARCH",
    "NVIDIA_TF32_OVERRIDE",
    "DISABLE_PTXAS_OPT",
)


def description(device: torch.device) -> dict[str, Any]:
    """The device, its instruction set, builds, settings and tiles, as entries of a fingerprint; `numerics` are apart."""
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "device": torch.cuda.get_device_name(device),
        "instruction_set": f"sm_{major}{minor}",
        "builds": {"torch": torch.__version__, "cuda": torch.version.cuda or "", "triton": triton.__version__},
        "settings": {name: os.environ.get(name, "") for name in SETTINGS},
        "tiles": {"table": tiles_digest(architecture_of(device))},
    }


def tiles_digest(architecture: int) -> str:
    """A digest of one column of the tile table."""
    column = sorted((op, dtype, size) for (op, dtype, arch), size in TILES.items() if arch == architecture)
    return hashlib.sha256(repr(column).encode()).hexdigest()[:16]


def numerics(device: torch.device) -> dict[str, str]:
    """Digests of fixed computations by the Triton forms."""
    x = philox.normals(philox.key("fingerprint", 0, 0, "x"), torch.arange(96, device=device), 128)
    w = philox.normals(philox.key("fingerprint", 0, 0, "w"), torch.arange(96, device=device), 128)
    results = {
        "normals": x,
        "linear_fp32": products.linear(x, w),
        "linear_bf16": products.linear(x.bfloat16(), w.bfloat16()),
        "rms_norm": rows.rms_norm(x, w[0].contiguous(), 1e-6),
        "log_softmax": rows.log_softmax(x),
        "gelu": activations.gelu(x),
        "silu": activations.silu(x),
    }
    return {name: hashlib.sha256(selfcheck.as_integers(y).cpu().numpy().tobytes()).hexdigest()[:16] for name, y in results.items()}
