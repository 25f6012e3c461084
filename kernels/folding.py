"""The hMLP's folding: neighbouring pixels become channels, stage by stage, until one row of numbers stands for the whole patch.

Pure reshaping: a stage is `fold`, a linear layer without bias, RMSNorm and GELU (the last stage: the linear layer alone). `stages` is the
open model's plan for a number of layers: widths follow the area a row covers (area · channels, rounded up to 64), and the layers are
spread over the possible scales so that the sum of |log ideal - log actual| size is smallest. Source: transformers.models.inkling
`plan_out_scales`.

Letters: P patches, T time (pictures of a pair), H and W pixels, C channels.
"""

import math
from dataclasses import dataclass
from itertools import combinations, pairwise

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage: fold `time_fold` × `side_fold` × `side_fold` neighbours into channels, then a product of these widths."""

    time_fold: int
    side_fold: int
    num_inputs: int
    num_outputs: int


def stages(
    num_layers: int, hidden: int, *, patch_px: int = 40, pictures: int = 2, channels: int = 3, multiple_of: int = 64
) -> tuple[Stage, ...]:
    """The plan of an hMLP with `num_layers` stages whose last gives `hidden` columns.

    Raises:
        ValueError: more layers than there are factors to fold, which would repeat a scale.
    """
    scales = [(1, 1, channels)]  # (time, side, width) of what a row covers, from a pixel up
    for side in _products(patch_px):
        scales.append((1, side, math.ceil(side * side * channels / multiple_of) * multiple_of))
    for time in _products(pictures):
        scales.append((time, patch_px, math.ceil(patch_px * patch_px * channels * time / multiple_of) * multiple_of))
    if not 1 <= num_layers < len(scales):
        raise ValueError(f"an hMLP on {pictures} pictures of {patch_px} px has 1 to {len(scales) - 1} layers, not {num_layers}")
    log_sizes = [math.log(time * side * side) for time, side, _ in scales]
    log_total = math.log(pictures * patch_px * patch_px * channels)
    ideal = [log_total * layer / num_layers for layer in range(num_layers + 1)]
    best = min(
        combinations(range(len(scales)), num_layers + 1),
        key=lambda chosen: sum(abs(want - log_sizes[i]) for want, i in zip(ideal, chosen, strict=True)),
    )
    chosen = [scales[0], *(scales[i] for i in best[1:-1]), scales[-1]]
    return tuple(
        Stage(
            time_fold=after[0] // before[0],
            side_fold=after[1] // before[1],
            num_inputs=before[2] * (after[0] // before[0]) * (after[1] // before[1]) ** 2,
            num_outputs=after[2] if after is not chosen[-1] else hidden,
        )
        for before, after in pairwise(chosen)
    )


def fold(x_PTHWC: Tensor, time_fold: int, side_fold: int) -> Tensor:
    """[P, T / t, H / s, W / s, t·s·s·C]: each cell's numbers in order time, row, column, channel."""
    num_patches, time, height, width, channels = x_PTHWC.shape
    if time % time_fold or height % side_fold or width % side_fold:
        raise ValueError(f"fold: {time} × {height} × {width} cannot be folded by {time_fold} × {side_fold} × {side_fold}")
    cells = x_PTHWC.reshape(
        num_patches, time // time_fold, time_fold, height // side_fold, side_fold, width // side_fold, side_fold, channels
    )
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4)


def _products(number: int) -> list[int]:
    """Running products of a number's prime factors, the largest factor first: 40 gives 5, 10, 20, 40."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    running, out = 1, []
    for factor in reversed(factors):
        running *= factor
        out.append(running)
    return out
