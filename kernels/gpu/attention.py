"""The Triton form of attention with relative bias over pages. A row's bits depend on its document up to that row alone.

Order: a program takes a tile of positions that begins at a multiple of its size in the document, wherever the new rows begin; so a row
has the same place, the same instructions and the same loop bounds whether it comes alone, in an append or in a whole document (blocks that
only other rows of the tile see are exact no-ops). Blocks of keys ascend from the oldest, sums are fp32. Nothing but the grid depends on
the batch: training and decoding launch one binary.

Kernels: attention_forward.py, attention_backward.py; the bias: attention_bias.py; tiles of a batch: attention_plan.py.

Letters: T rows, H heads, D columns of a head, G key/value heads, N pages, R columns of the relative state, E extent.
"""

import torch
import triton
from torch import Tensor

from ..documents import ragged
from ..pages import PAGE_ROWS, PageTable, page_table
from .attention_backward import dkv_kernel, dprofiles_kernel, dq_kernel, slope_kernel, sum_profiles_kernel
from .attention_forward import attention_kernel
from .attention_plan import block_plan, tile_plan
from .launch import blocks, launch, steady, tile_for
from .tiles import Tile

EVERYTHING = 2**31 - 1  # the window of a layer that has none
PART_TILES = 16  # of a sum over rows, at least; more where that would make more than MOST_PARTS
MOST_PARTS = 32
SLOPE_ROWS = 32  # of one program

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def forward(operands: Operands, table: PageTable, scale: float, window: int | None) -> tuple[Tensor, Tensor]:
    """y [T, H, D] in the dtype of q, and for `backward` log₂ of each row's sum of powers of two, fp32 [T, H].

    Raises:
        ValueError: operands of several dtypes (a product of two would have to choose one), or a table without a block that a row may see.
    """
    if len({x.dtype for x in operands}) > 1:
        raise ValueError(f"attention on a GPU takes operands of one dtype, not {[str(x.dtype) for x in operands]}")
    q_THD, *_, profiles_RE = operands = _steady(operands)
    size, sizes = tile_for("attention", q_THD), _sizes(operands)
    share = triton.next_power_of_2(sizes["H"] // sizes["G"])
    rows = min(max(size.rows // share, 1), size.columns)
    plan = tile_plan(table, window, rows, q_THD.device)
    y_THD, log_sum_TH = torch.empty_like(q_THD), q_THD.new_empty(q_THD.shape[:2], dtype=torch.float32)
    launch(
        attention_kernel, (plan.tiles.shape[0], sizes["G"]),
        *operands, plan.pages, plan.tiles, y_THD, log_sum_TH, scale, EVERYTHING if window is None else window, profiles_RE.shape[1],
        warps=max(size.warps * rows * share // size.rows, 4), stages=size.stages, STAGES=size.stages,
        **sizes, SHARE=share, **_steps(rows, size, sizes),
    )  # fmt: skip
    return y_THD, log_sum_TH


def backward(
    operands: Operands, table: PageTable, scale: float, window: int | None, y_THD: Tensor, log_sum_TH: Tensor, dy_THD: Tensor
) -> Operands:
    """Gradients of the operands, each in the dtype of its tensor, from what `forward` returned.

    Raises:
        ValueError: a page that two segments share: its gradient would have two writers.
    """
    q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE = operands = _steady(operands)
    refuse_shared_pages(table)
    dy_THD = steady(dy_THD)
    size, sizes = tile_for("attention, gradients", q_THD), _sizes(operands)
    plan = tile_plan(table, window, size.rows, q_THD.device)
    extent, num_rows = profiles_RE.shape[1], log_sum_TH.numel()
    reach, slope_TH = (EVERYTHING if window is None else window, extent), torch.empty_like(log_sum_TH)
    options = _options(size, sizes)
    launch(
        slope_kernel, (blocks(num_rows, SLOPE_ROWS),),
        dy_THD, steady(y_THD), slope_TH, num_rows, D=sizes["D"], BM=SLOPE_ROWS, BD=options["BD"], warps=4,
    )  # fmt: skip
    saved = (dy_THD, log_sum_TH, slope_TH)
    dq_THD, d_relative_THR = torch.empty_like(q_THD), torch.empty_like(relative_THR)
    launch(
        dq_kernel, (plan.tiles.shape[0], sizes["H"]),
        *operands, plan.pages, plan.tiles, *saved, dq_THD, d_relative_THR, scale, *reach, **options,
    )  # fmt: skip
    seen = block_plan(table, window, size.rows, q_THD.device)
    dk_NGBD, dv_NGBD = torch.zeros_like(k_NGBD), torch.zeros_like(v_NGBD)  # zero in pages that no row sees
    launch(
        dkv_kernel, (seen.shape[0] * (PAGE_ROWS // size.columns), sizes["G"]),
        *operands, seen, plan.tiles, *saved, dk_NGBD, dv_NGBD, scale, *reach, **options,
    )  # fmt: skip
    return dq_THD, dk_NGBD, dv_NGBD, d_relative_THR, _d_profiles(operands, table, scale, reach, saved)


def _d_profiles(operands: Operands, table: PageTable, scale: float, reach: tuple[int, int], saved: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The gradient of the profiles: parts of the tiles, then their sum."""
    profiles_RE = operands[4]
    size, sizes = tile_for("attention, profiles", profiles_RE), _sizes(operands)
    plan = tile_plan(table, None if reach[0] == EVERYTHING else reach[0], size.rows, profiles_RE.device)
    num_tiles, options = plan.tiles.shape[0], _options(size, sizes)
    part_tiles = max(PART_TILES, blocks(num_tiles, MOST_PARTS))
    num_parts, num_diagonals = blocks(num_tiles, part_tiles), blocks(min(reach) + size.rows, size.columns)
    parts = profiles_RE.new_empty(num_diagonals, num_parts * sizes["G"], options["BR"], options["BAND"], dtype=torch.float32)
    launch(
        dprofiles_kernel, (num_diagonals, num_parts, sizes["G"]),
        *operands, plan.pages, plan.tiles, *saved, parts, scale, *reach, num_tiles, part_tiles, **options,
    )  # fmt: skip
    d_profiles_RE = torch.empty_like(profiles_RE)
    launch(
        sum_profiles_kernel, (blocks(reach[1], size.columns),),
        parts, d_profiles_RE, num_parts * sizes["G"], num_diagonals, reach[1],
        R=sizes["R"], ROWS=size.rows, KEYS=size.columns, BAND=options["BAND"], BR=options["BR"], warps=4,
    )  # fmt: skip
    return d_profiles_RE


def _steady(operands: Operands) -> Operands:
    q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE = operands
    return steady(q_THD), steady(k_NGBD), steady(v_NGBD), steady(relative_THR), steady(profiles_RE)


def refuse_shared_pages(table: PageTable) -> None:
    """Nothing, if every page belongs to one segment."""
    listed = [page for pages in table.pages for page in pages]
    if len(set(listed)) != len(listed):
        raise ValueError("attention's gradients need pages that belong to one segment each; this table lists some of them twice")


def _sizes(operands: Operands) -> dict[str, int]:
    """The model's sizes, as the kernels name them."""
    q_THD, k_NGBD, _, relative_THR, _ = operands
    return {"H": q_THD.shape[1], "G": k_NGBD.shape[1], "D": q_THD.shape[2], "R": relative_THR.shape[2]}


def _steps(rows: int, size: Tile, sizes: dict[str, int]) -> dict[str, int]:
    """Sizes of blocks: powers of two, at least the 16 that products need."""
    columns, states = (max(16, triton.next_power_of_2(sizes[name])) for name in "DR")
    band = triton.next_power_of_2(size.columns + rows)
    return {"ROWS": rows, "KEYS": size.columns, "BAND": band, "BD": columns, "BK": min(size.inner, columns), "BR": states}


def _options(size: Tile, sizes: dict[str, int]) -> dict[str, int]:
    """What the launches of gradients have in common."""
    return {"warps": size.warps, "stages": size.stages, "STAGES": size.stages, **sizes, **_steps(size.rows, size, sizes)}


def rehearse(num_rows: int, dtype: torch.dtype) -> None:
    """Nothing; makes every launch of this file, for `ahead`: both head widths and groups of the presets, an append or whole documents."""
    position = 0 if num_rows > 1000 else 100
    pages = -(-(position + num_rows) // PAGE_ROWS)
    table = page_table(ragged([num_rows], [position]), [list(range(pages))])
    for heads, kv_heads, width, states in ((2, 2, 64, 8), (4, 1, 128, 16)):
        q, relative = (torch.zeros(num_rows, heads, n, dtype=dtype) for n in (width, states))
        k, v = (torch.zeros(pages, kv_heads, PAGE_ROWS, width, dtype=dtype) for _ in range(2))
        operands = (q, k, v, relative, torch.zeros(states, 1024, dtype=dtype))
        y, log_sum = forward(operands, table, 1.0, 512)
        backward(operands, table, 1.0, 512, y, log_sum, torch.zeros_like(q))
