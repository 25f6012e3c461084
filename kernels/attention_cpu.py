"""The CPU form of attention: the arithmetic of relative_attention.py on the chunks of attention_plan.py.

Everything inside is fp32 and contiguous. For c tiles of B rows, G key/value heads with g query heads each, and b blocks of 64 keys:
queries [c·G, g·B, D] · scores [b, c·G, g·B, 64] · keys of one call [blocks·tiles·G, 64, D] · band [c·G·g·B, U].

The *band* is the relative bias before it meets keys: one product of relative states with the profiles as columns, from the largest
distance down; a strided view that moves one column to the left per row of a tile lines distances up with keys.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_plan import AttentionPlan, Call, Chunk, attention_plan
from .pages import PAGE_ROWS, PageTable
from .products import product
from .selfcheck import proven, same_bits

TILE_ROWS = 16  # of the contract form
MOST_TILE_ROWS = 64
LOWEST_EXPONENT = -80.0


def plan_for(q_THD: Tensor, k_NGBD: Tensor, table: PageTable, window: int | None) -> AttentionPlan:
    """The plan with tiles as long as the longest segment, at most 64 rows, where they are proven equal to tiles of 16."""
    heads, width, kv_heads = q_THD.shape[1], q_THD.shape[2], k_NGBD.shape[1]
    tile_rows = min(-(-max(table.rows.lengths, default=1) // 8) * 8, MOST_TILE_ROWS)
    if not tiles_agree(tile_rows, heads // kv_heads, width):
        tile_rows = TILE_ROWS
    return attention_plan(table, window, tile_rows, heads, kv_heads)


def forward(
    plan: AttentionPlan, operands: tuple[Tensor, Tensor, Tensor, Tensor, Tensor], scale: float, for_backward: bool
) -> tuple[Tensor, Tensor | None]:
    """y, fp32 [T, H, D]; and for backward the logarithm of each row's sum of exponents, fp32 [tiles, H·B]."""
    q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE = operands
    heads, kv_heads = q_THD.shape[1], k_NGBD.shape[1]
    keys, values, columns_UR = _Pages(plan, k_NGBD), _Pages(plan, v_NGBD), _columns(profiles_RE)
    queries, relatives = _by_head(plan, q_THD.float() * scale, kv_heads), _by_head(plan, relative_THR, kv_heads)
    ys, log_sums = [], []
    for chunk in plan.chunks:
        rows = slice(chunk.tile_start * kv_heads, chunk.tile_stop * kv_heads)
        scores = _scores(chunk, queries[rows], keys, relatives[rows], columns_UR, plan.tile_rows)
        largest = scores.amax(-1).amax(0)
        weights = _exponents(chunk, scores, largest, plan.tile_rows)
        y, total = torch.zeros_like(queries[rows]), torch.zeros_like(largest)
        for block_total in weights.sum(-1).unbind():
            total += block_total
        for call in chunk.calls:
            y_seen = y[call.first_tile * kv_heads :]
            for part in torch.bmm(_of_call(weights, call, kv_heads), values.of(call)).chunk(call.num_blocks):
                y_seen += part
        ys.append(y.div_(total[..., None]))
        if for_backward:
            log_sums.append(total.log_().add_(largest))
    y_THD = _by_row(plan, torch.cat(ys) if len(ys) > 1 else ys[0], heads)
    return y_THD, torch.cat(log_sums) if for_backward else None


def backward(
    plan: AttentionPlan,
    operands: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    scale: float,
    y_THD: Tensor,
    log_sum: Tensor,
    dy_THD: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the operands q, k, v, relative and profiles, each in the dtype of its tensor, from what forward returned."""
    q_THD, k_NGBD, v_NGBD, relative_THR, profiles_RE = operands
    heads, kv_heads = q_THD.shape[1], k_NGBD.shape[1]
    keys, values, columns_UR = _Pages(plan, k_NGBD), _Pages(plan, v_NGBD), _columns(profiles_RE)
    queries, relatives, dys, slopes = (
        _by_head(plan, x, kv_heads) for x in (q_THD.float() * scale, relative_THR, dy_THD, (dy_THD.float() * y_THD).sum(-1, keepdim=True))
    )
    dqs, d_relatives, d_columns_UR = torch.zeros_like(queries), torch.empty_like(relatives), torch.zeros_like(columns_UR)
    for chunk in plan.chunks:
        rows = slice(chunk.tile_start * kv_heads, chunk.tile_stop * kv_heads)
        q, dy, slope, relative, dq = (x[rows] for x in (queries, dys, slopes, relatives, dqs))
        weights = _exponents(chunk, _scores(chunk, q, keys, relative, columns_UR, plan.tile_rows), log_sum[rows], plan.tile_rows)
        d_scores = torch.zeros_like(weights)
        for call in chunk.calls:
            first = call.first_tile * kv_heads
            q_call, dy_call, slope_call = (_repeated(x[first:], call.num_blocks) for x in (q, dy, slope))
            p = _of_call(weights, call, kv_heads)
            ds = torch.bmm(dy_call, values.of(call).transpose(1, 2)).sub_(slope_call).mul_(p)
            values.add_gradient(call, torch.bmm(p.transpose(1, 2), dy_call))
            keys.add_gradient(call, torch.bmm(ds.transpose(1, 2), q_call))
            d_scores[call.block_start : call.block_stop, first:] = ds.unflatten(0, (call.num_blocks, -1))
            for part in torch.bmm(ds, keys.of(call)).chunk(call.num_blocks):
                dq[first:] += part
        reached = _reached(chunk, columns_UR)
        d_band = torch.zeros(relative.shape[0] * relative.shape[1], reached.stop - reached.start)
        for d_seen, d_aligned in _aligned(chunk, d_scores, d_band, columns_UR.shape[0] - reached.start, plan.tile_rows):
            d_aligned.copy_(d_seen)
        d_relatives[rows] = (d_band @ columns_UR[reached]).view_as(relative)
        d_columns_UR[reached] += d_band.T @ relative.flatten(0, 1)
    return (
        _by_row(plan, dqs, heads).mul_(scale).to(q_THD.dtype),
        keys.gradient(k_NGBD),
        values.gradient(v_NGBD),
        _by_row(plan, d_relatives, heads).to(relative_THR.dtype),
        d_columns_UR[_distances(profiles_RE)].flip(0).T.contiguous().to(profiles_RE.dtype),
    )


def _scores(chunk: Chunk, q: Tensor, keys: "_Pages", relative: Tensor, columns_UR: Tensor, tile_rows: int) -> Tensor:
    """Scores [b, c·G, g·B, 64] with bias, -inf where a query must not look."""
    kv_heads = q.shape[0] // (chunk.tile_stop - chunk.tile_start)
    scores = torch.empty(chunk.num_blocks, *q.shape[:2], PAGE_ROWS)
    for call in chunk.calls:
        first = call.first_tile * kv_heads
        torch.bmm(_repeated(q[first:], call.num_blocks), keys.of(call).transpose(1, 2), out=_of_call(scores, call, kv_heads))
        if first:
            scores[call.block_start, :first] = float("-inf")  # tiles whose document does not go back this far
    reached = _reached(chunk, columns_UR)
    band = product(relative.flatten(0, 1), columns_UR[reached])
    for seen, aligned in _aligned(chunk, scores, band, columns_UR.shape[0] - reached.start, tile_rows):
        seen += aligned
    return _masked(chunk, scores, float("-inf"), tile_rows)


def _exponents(chunk: Chunk, scores: Tensor, subtracted: Tensor, tile_rows: int) -> Tensor:
    """exp(scores - subtracted), in place; exact zeros where a query must not look. A library's exp of less than -87 takes a slow path."""
    scores.sub_(subtracted[..., None]).clamp_(min=LOWEST_EXPONENT).exp_()
    kv_heads = scores.shape[1] // (chunk.tile_stop - chunk.tile_start)
    for call in chunk.calls:
        if call.first_tile:
            scores[call.block_start, : call.first_tile * kv_heads] = 0
    return _masked(chunk, scores, 0.0, tile_rows)


def _masked(chunk: Chunk, scores: Tensor, value: float, tile_rows: int) -> Tensor:
    for block, hidden in chunk.hidden:
        scores[block].view(hidden.shape[0], -1, tile_rows, PAGE_ROWS).masked_fill_(hidden, value)
    return scores


def _aligned(chunk: Chunk, scores: Tensor, band: Tensor, columns_from_end: int, tile_rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of views of one shape: the scores that a bias reaches, and the band with its distances lined up with those keys.

    Slot s of a tile at phase f stands f + s keys after the start of its newest block; the oldest key reached is at column `oldest` of
    slot -f.
    """
    reached = min(chunk.num_blocks, columns_from_end // PAGE_ROWS - 2)
    num_columns, tiles = band.shape[1], len(chunk.phases)
    seen = scores[chunk.num_blocks - reached :].view(reached, tiles, -1, tile_rows, PAGE_ROWS)
    shape, strides = (reached, seen.shape[2], tile_rows, PAGE_ROWS), (PAGE_ROWS, tile_rows * num_columns, num_columns - 1, 1)
    oldest = columns_from_end - (reached + 1) * PAGE_ROWS - 1
    for tile, phase in enumerate(chunk.phases):
        yield seen[:, tile], band.as_strided(shape, strides, tile * (band.numel() // tiles) + oldest - phase)


def _columns(profiles_RE: Tensor) -> Tensor:
    """fp32 [U, R]: the profiles from the largest distance to 0; zeros before them, to a whole block and two more, and for 128 keys after
    a query.
    """
    return F.pad(profiles_RE.float().flip(1), (_distances(profiles_RE).start, 2 * PAGE_ROWS)).T.contiguous()


def _distances(profiles_RE: Tensor) -> slice:
    """The columns of distances E - 1 … 0."""
    extent = profiles_RE.shape[1]
    start = -extent % PAGE_ROWS + 2 * PAGE_ROWS
    return slice(start, start + extent)


def _reached(chunk: Chunk, columns_UR: Tensor) -> slice:
    """The columns that a chunk's rows need, if fewer columns are proven to give the same bits, else all."""
    all_columns, states = columns_UR.shape
    needed = 1 << (chunk.num_blocks - 1).bit_length()  # few different shapes
    start = max(0, all_columns - (needed + 2) * PAGE_ROWS)
    stop = all_columns if min(chunk.phases) < 0 else all_columns - PAGE_ROWS
    return slice(start, stop) if _columns_agree(start, stop, all_columns, states) else slice(0, all_columns)


def _by_head(plan: AttentionPlan, x_THD: Tensor, kv_heads: int) -> Tensor:
    """Rows as tiles, fp32 [tiles·G, g·B, D], zeros where a tile has no row of the batch."""
    heads, width = x_THD.shape[1:]
    tiles = torch.zeros(plan.num_tiles * plan.tile_rows, heads, width).index_copy_(0, plan.place_T, x_THD.float())
    tiles = tiles.view(plan.num_tiles, plan.tile_rows, heads, width).transpose(1, 2)
    return tiles.reshape(plan.num_tiles * kv_heads, heads // kv_heads * plan.tile_rows, width)


def _by_row(plan: AttentionPlan, x: Tensor, heads: int) -> Tensor:
    """Tiles [tiles·G, g·B, D] as rows [T, H, D]."""
    return x.view(plan.num_tiles, heads, plan.tile_rows, -1).transpose(1, 2).flatten(0, 1)[plan.place_T]


def _of_call(scores: Tensor, call: Call, kv_heads: int) -> Tensor:
    """The scores or weights [blocks·tiles·G, g·B, 64] that a call is about."""
    return scores[call.block_start : call.block_stop, call.first_tile * kv_heads :].flatten(0, 1)


def _repeated(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else x.expand(times, *x.shape).flatten(0, 1)


class _Pages:
    """The pages that a plan reads, as fp32 [used, G, 64, D], and what is added up for their gradients."""

    def __init__(self, plan: AttentionPlan, pages_NGBD: Tensor) -> None:
        self.plan = plan
        self.pages = (pages_NGBD[: plan.num_used] if plan.used is None else pages_NGBD[plan.used]).float()
        self.gradients: Tensor | None = None

    def of(self, call: Call) -> Tensor:
        """[blocks·tiles·G, 64, D]: a page for every block and tile of a call."""
        return (self.pages[call.page : call.page + call.num_pages] if call.pages is None else self.pages[call.pages]).flatten(0, 1)

    def add_gradient(self, call: Call, gradient: Tensor) -> None:
        """Adds what `of(call)` would get."""
        if self.gradients is None:
            self.gradients = torch.zeros_like(self.pages)
        gradient = gradient.unflatten(0, (call.num_pages, -1))
        if call.pages is None:
            self.gradients[call.page : call.page + call.num_pages] += gradient
        else:
            self.gradients.index_add_(0, call.pages, gradient)  # one after the other on a CPU: deterministic

    def gradient(self, pages_NGBD: Tensor) -> Tensor:
        """The gradient of the tensor that the pages came from."""
        total = torch.zeros_like(pages_NGBD)
        if self.gradients is not None:
            total[slice(self.plan.num_used) if self.plan.used is None else self.plan.used] = self.gradients.to(total.dtype)
        return total


def tiles_agree(tile_rows: int, group: int, width: int) -> bool:
    """Whether tiles of so many rows give the bits of tiles of 16, in both products, alone and among others."""

    def equal(generator: torch.Generator) -> bool:
        tile, contract = group * tile_rows, group * TILE_ROWS
        for inner, outer in ((width, PAGE_ROWS), (PAGE_ROWS, width)):
            rows, others = torch.randn(3, tile, inner, generator=generator), torch.randn(3, inner, outer, generator=generator)
            found = torch.bmm(rows, others)
            for start in range(0, tile, contract):
                few = rows[:, start : start + contract]
                few = F.pad(few, (0, 0, 0, contract - few.shape[1]))
                for sets in (1, 3):
                    wanted = torch.bmm(few[:sets], others[:sets])[:, : tile - start]
                    if not same_bits(wanted, found[:sets, start : start + contract]):
                        return False
                if not same_bits(torch.bmm(rows[:1], others[:1]), found[:1]):
                    return False
        return True

    return proven("attention in other tiles than 16", (tile_rows, group, width), equal)


def _columns_agree(start: int, stop: int, all_columns: int, states: int) -> bool:
    """Whether a product with some of the columns gives the bits of these columns in the product with all."""

    def equal(generator: torch.Generator) -> bool:
        x, columns = torch.randn(32, states, generator=generator), torch.randn(all_columns, states, generator=generator)
        return same_bits(product(x, columns[start:stop]), product(x, columns)[:, start:stop])

    return proven("relative bias by fewer columns", (start, stop, all_columns, states), equal)
