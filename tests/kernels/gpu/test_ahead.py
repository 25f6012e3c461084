"""Every kernel compiled ahead of time for Ampere, Hopper and Blackwell: the same binary for any number of rows, no spilled register, no
atomic, no tf32, matrix instructions for bf16 and none for fp32, and resources as the checked-in table has them.

Needs Triton and no GPU. Quick tests compile for Hopper in bf16 and compare with the table's lines; the nightly one compiles everything.
After a change of kernels, tiles or Triton: python -m microturn.kernels.gpu.ahead > tests/kernels/gpu/ahead.txt
"""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton has no wheel for this platform")
import triton
import triton.language as tl
from microturn.kernels.gpu import ahead, tiles
from microturn.kernels.gpu.launch import launch, recorded

TABLE = (Path(__file__).parent / "ahead.txt").read_text(encoding="utf-8").splitlines()
SHARED_BYTES = {80: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # of one program; 80: what the smaller cards of its column have
PRODUCTS = {
    *("linear_kernel", "linear_dx_kernel", "linear_dw_kernel", "bag_dtable_kernel"),
    *("attention_kernel", "dq_kernel", "dkv_kernel", "experts_kernel", "experts_dx_kernel", "experts_dw_kernel"),
}

INSTRUCTIONS = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}  # what a bf16 product of at least 64 rows must become


def faults(found: ahead.Compiled) -> list[str]:
    """What of a compiled kernel breaks the house's rules."""
    name, wrong = f"{found.kernel} {found.dtype} sm_{found.architecture}", []
    if found.stack:
        wrong.append(f"{name} spills: {found.stack} bytes of stack")
    if found.forbidden:
        wrong.append(f"{name} has {found.forbidden}")
    if found.shared > SHARED_BYTES[found.architecture]:
        wrong.append(f"{name} wants {found.shared} bytes of shared memory")
    if found.dtype == "fp32" and found.instruction != "-":
        wrong.append(f"{name} has {found.instruction}: fp32 products must be IEEE")
    is_product = found.dtype == "bf16" and found.kernel.partition("(")[0] in PRODUCTS
    if is_product and not found.instruction.startswith(INSTRUCTIONS[found.architecture]):
        wrong.append(f"{name} multiplies by {found.instruction}")
    return wrong


def columns(line: str) -> tuple[str, ...]:
    return tuple(line.split(maxsplit=6))


@pytest.mark.parametrize("architecture", tiles.ARCHITECTURES)
@pytest.mark.parametrize("dtype", ahead.DTYPES, ids=str)
@pytest.mark.parametrize("file", ahead.FILES)
def test_any_number_of_rows_takes_the_same_binaries(file, dtype, architecture):
    keys = [{ahead.bound(noted, architecture)[1] for noted in ahead.launches(dtype, architecture, n, (file,))} for n in ahead.ROW_COUNTS]
    assert all(found == keys[0] for found in keys)
    assert keys[0] or dtype == torch.bfloat16  # files without a bf16 kernel: the router, random numbers


@triton.jit
def careless_kernel(x, num_rows, B: tl.constexpr):
    """A kernel whose number of rows may choose the binary, and that adds with atomics."""
    tl.atomic_add(x + tl.arange(0, B), num_rows.to(tl.float32))


def careless(num_rows: int) -> ahead.Launch:
    with recorded(90) as noted:
        launch(careless_kernel, (1,), torch.zeros(64), num_rows, warps=1, B=64)
    return noted[0]


def test_a_careless_kernel_is_found():
    assert len({ahead.bound(careless(n), 90)[1] for n in ahead.ROW_COUNTS}) == 3
    assert any("atom." in fault or "red." in fault for fault in faults(ahead.compiled(careless(20), torch.float32, 90)))


def test_the_table_has_no_fault_and_every_kernel():
    rows = [columns(line) for line in TABLE[2:]]
    assert columns(TABLE[1]) == tuple(ahead.HEAD) and len(rows) > 150
    for kernel, dtype, architecture, registers, stack, shared, instruction in rows:
        found = ahead.Compiled(kernel, dtype, int(architecture), int(registers), int(stack), int(shared), instruction, ())
        assert faults(found) == []
    for architecture in tiles.ARCHITECTURES:
        for dtype in ahead.DTYPES:
            launched = {noted.kernel.__name__ for noted in ahead.launches(dtype, architecture, 1)}
            assert launched == {r[0].partition("(")[0] for r in rows if r[1:3] == (tiles.NAMES[dtype], str(architecture))}


def compare(found: list[ahead.Compiled]) -> None:
    """Fails on faults, and on other resources than the table's if that was made with this Triton."""
    assert [fault for one in found for fault in faults(one)] == []
    if TABLE[0] == f"triton {triton.__version__}":
        assert [row.row() for row in found if row.row() not in {columns(line) for line in TABLE[2:]}] == []


@pytest.mark.parametrize("file", ahead.FILES)
def test_hopper_bf16_compiles_as_in_the_table(file):
    distinct = {ahead.bound(noted, 90)[1]: noted for noted in ahead.launches(torch.bfloat16, 90, 1, (file,))}
    compare([ahead.compiled(noted, torch.bfloat16, 90) for noted in distinct.values()])


@pytest.mark.nightly
def test_everything_compiles_as_in_the_table():
    found = list(ahead.table())
    compare(found)
    assert ahead.text(found).splitlines() == TABLE or TABLE[0] != f"triton {triton.__version__}"
