"""Every kernel compiled ahead of time, without a GPU: registers, stack, shared memory and matrix instructions per architecture.

Nothing is listed by hand: each file's `rehearse` calls its host functions, and the launches that these would make on the architecture are
noted and compiled with Triton's own specialization. So what is compiled is what would be launched, and two numbers of rows that need two
binaries show as two.

    python -m microturn.kernels.gpu.ahead          prints the table (tests/kernels/gpu/ahead.txt is the checked-in one)

ptxas comes with Triton. Takes one to three seconds a kernel, dtype and architecture; Triton keeps what it compiled. What this cannot
say: whether a kernel is right or fast. Not for a process with TRITON_INTERPRET set.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from . import activations, attention, bags, convolution, experts, noise, products, router, rows, softmax
from .launch import Launch, recorded
from .tiles import ARCHITECTURES, NAMES

FILES = {
    "activations": activations.rehearse,
    "attention": attention.rehearse,
    "bags": bags.rehearse,
    "convolution": convolution.rehearse,
    "experts": experts.rehearse,
    "noise": noise.rehearse,
    "products": products.rehearse,
    "router": router.rehearse,
    "rows": rows.rehearse,
    "softmax": softmax.rehearse,
}
DTYPES = (torch.bfloat16, torch.float32)
ROW_COUNTS = (1, 20, 64, 4096)  # an append of one row, a micro-turn, a multiple of 16, training
FORBIDDEN = (r"tf32", r"\batom\.", r"\bred\.")
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
HEAD = ["kernel", "dtype", "arch", "registers", "stack", "shared", "instruction"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of one kernel.

    Attributes:
        registers: per thread. stack: bytes per thread, which is where spilled registers go. shared: bytes per program.
        instruction: the matrix instruction, `-` where there is none. forbidden: what of FORBIDDEN (patterns) stands in the PTX.
    """

    kernel: str
    dtype: str
    architecture: int
    registers: int
    stack: int
    shared: int
    instruction: str
    forbidden: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        """The columns of HEAD."""
        return (
            self.kernel, self.dtype, str(self.architecture), str(self.registers), str(self.stack), str(self.shared), self.instruction,
        )  # fmt: skip


def launches(dtype: torch.dtype, architecture: int, num_rows: int, files: Iterable[str] = FILES) -> list[Launch]:
    """The launches of these files' rehearsals."""
    found: list[Launch] = []
    for file in files:
        with recorded(architecture) as noted:
            FILES[file](num_rows, dtype)
        found += noted
    return found


def bound(noted: Launch, architecture: int) -> tuple[str, str, ASTSource, dict[str, Any]]:
    """A launch's name for people, the key that Triton would look its binary up by, and what it would compile: source and options.

    The name has the constants, and `K%16` for a size K of the model that is no multiple of 16, which takes a binary of its own.
    """
    kernel, backend = noted.kernel, make_backend(_target(architecture))
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    arguments, specialization, given = binder(*noted.arguments, **noted.keywords)
    key = f"{kernel.__name__} {specialization} {given}"
    options, signature, constants, attributes = kernel._pack_args(backend, noted.keywords, arguments, specialization, given)
    choosing = [param for param in kernel.params if not param.do_not_specialize and signature[param.name] in ("i32", "i64")]
    odd = [f"{param.name}%16" for param in choosing if arguments[param.name] % 16]
    chosen = [f"{name}={value}" for name, value in noted.keywords.items() if name not in OPTIONS]
    name = f"{kernel.__name__}({','.join(chosen + odd)})"
    return name, key, ASTSource(kernel, signature, constants, attributes), options.__dict__


def compiled(noted: Launch, dtype: torch.dtype, architecture: int) -> Compiled:
    """What comes of compiling one launch."""
    name, _, source, options = bound(noted, architecture)
    binary = triton.compile(source, target=_target(architecture), options=options)
    ptx = binary.asm["ptx"]
    used = _resources(binary.asm["cubin"])
    return Compiled(
        kernel=name,
        dtype=NAMES[dtype],
        architecture=architecture,
        registers=used["REG"],
        stack=used["STACK"] + used["LOCAL"],
        shared=binary.metadata.shared,
        instruction=" ".join(sorted(set(re.findall(r"(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)[.\w:]*", ptx)))) or "-",
        forbidden=tuple(sorted(set(re.findall("|".join(FORBIDDEN), ptx)))),
    )


def table(files: Iterable[str] = FILES) -> Iterator[Compiled]:
    """Every kernel of these files once per dtype and architecture that it has a binary of its own for."""
    for dtype in DTYPES:
        for architecture in ARCHITECTURES:
            distinct = {bound(noted, architecture)[1]: noted for noted in launches(dtype, architecture, ROW_COUNTS[0], files)}
            for noted in distinct.values():
                yield compiled(noted, dtype, architecture)


def text(rows: list[Compiled]) -> str:
    """The table as it is checked in, sorted; its first line says with which Triton."""
    lines = [HEAD, *sorted(row.row() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    lines_text = "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)
    return f"triton {triton.__version__}\n{lines_text}"


def _target(architecture: int) -> GPUTarget:
    return GPUTarget("cuda", architecture, 32)


def _resources(cubin: bytes) -> dict[str, int]:
    """REG, STACK, LOCAL … of the one function in a cubin, by the cuobjdump that comes with Triton."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(triton.knobs.nvidia.cuobjdump.path), "--dump-resource-usage", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in told.splitlines() if "REG:" in line)
    return {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", line)}


if __name__ == "__main__":
    sys.stdout.write(text(list(table(sys.argv[1:] or FILES))))
