"""What the bits of this process depend on, as a small dictionary to write beside a run and to compare with another's.

Two processes whose `digest` is equal give equal bits for equal inputs; otherwise nothing is promised. What cannot change bits is told but
left out of the digest: the number of threads, and which fast forms passed (a fast form is used only where it equals its contract form).

`numerics` are digests of what the contract forms and torch's functions make of fixed operands, so that a setting nobody thought of shows
too. They are for telling machines apart, never for a test to expect. Takes under a second on the CPU.
"""

import hashlib
import json
import os
import platform
from typing import Any

import torch

from . import attention_cpu, pages, philox, products, selfcheck

CONTRACT = 1  # counts changes of the order of addition in any contract form
SETTINGS = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY")
TRIED_ROWS = (4, 8, 20, 64, 256)


def fingerprint(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The fingerprint of a device's numerics here and now.

    `contract` (a number that a change of any order of addition raises), `device`, `instruction_set`, `builds`, `settings` of libraries,
    `tiles` (the constants that fix orders of addition), `numerics`; `digest` of these; `fast_forms` (of a few shapes, with one thread and
    with two; none on a GPU), `threads`.
    """
    if torch.device(device).type == "cuda":
        from .gpu import device as gpu

        place = torch.device(device)
        found: dict[str, Any] = {"contract": CONTRACT, **gpu.description(place), "numerics": gpu.numerics(place)}
        return _sealed(found, {})
    found = {
        "contract": CONTRACT,
        "device": "cpu",
        "instruction_set": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "builds": {"torch": torch.__version__, "torch_config": _sha(torch.__config__.show().encode())},
        "settings": {name: os.environ.get(name, "") for name in SETTINGS} | {"float32_matmul": torch.get_float32_matmul_precision()},
        "tiles": {"linear_rows": products.TILE_ROWS, "attention_rows": attention_cpu.TILE_ROWS, "page_rows": pages.PAGE_ROWS},
        "numerics": _numerics(),
    }
    return _sealed(found, _fast_forms())


def _sealed(found: dict[str, Any], fast_forms: dict[str, bool]) -> dict[str, Any]:
    """What was found with its digest, and what the digest leaves out."""
    digest = _sha(json.dumps(found, sort_keys=True).encode())
    return found | {"fast_forms": fast_forms, "threads": torch.get_num_threads(), "digest": digest}


def _numerics() -> dict[str, str]:
    """Digests of fixed computations: products and attention's products in contract form, functions, reductions along rows."""
    x = philox.normals(philox.key("fingerprint", 0, 0, "x"), torch.arange(96), 128)
    w = philox.normals(philox.key("fingerprint", 0, 0, "w"), torch.arange(96), 128)
    tile = x[: attention_cpu.TILE_ROWS * 4].view(1, -1, 128)
    results = {
        "philox": philox.words(philox.key("fingerprint", 0, 0, "x"), torch.arange(4), 8),
        "normals": x,
        "linear_fp32": products.tiled_product(x, w),
        "linear_bf16": products.tiled_product(x.bfloat16(), w.bfloat16()).float(),
        "attention": torch.bmm(tile, w[:64].T[None].contiguous()),
        "exp": torch.exp(x),
        "log": torch.log(x.abs()),
        "erf": torch.erf(x),
        "sum": x.sum(-1),
        "norm": torch.linalg.vector_norm(x, dim=-1),
        "softmax": torch.softmax(x, -1),
    }
    return {name: _sha(selfcheck.as_integers(result).numpy().tobytes()) for name, result in results.items()}


def _fast_forms() -> dict[str, bool]:
    """Which fast forms pass at a few fixed shapes with one thread and with two."""
    before = torch.get_num_threads()
    passed: dict[str, bool] = {}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for dtype in (torch.float32, torch.bfloat16):
                for rows in TRIED_ROWS:
                    name = f"linear {str(dtype).removeprefix('torch.')} {rows} rows"
                    passed[name] = passed.get(name, True) and products.rows_called(rows, 128, 96, dtype) == rows
            for tile_rows in (8, 24, 64):
                name = f"attention {tile_rows} rows"
                passed[name] = passed.get(name, True) and attention_cpu.tiles_agree(tile_rows, 2, 64)
    finally:
        torch.set_num_threads(before)
    return passed


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
