"""How rows come in: ids by a table, heard and own frames by bags of embeddings, patches by an hMLP; each normed, then put in its place.

Letters: N rows, D columns, H heard, O own, P patch rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import kernels
from ...schemas.clock import FRAME_SAMPLES
from ...schemas.spec import NUM_BANDS, DmelSpec, OwnMelSpec
from .inputs import Inputs
from .layers import Linear, RmsNorm
from .spec import ModelSpec

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the open model's image processor, after division by 255
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PADDING = -1.0  # stands for pixels that are no picture, before the division
HEARD_ROWS = NUM_BANDS * DmelSpec().num_codes
OWN_ROWS = FRAME_SAMPLES // OwnMelSpec().hop_samples * NUM_BANDS * OwnMelSpec().num_codes


class Bag(nn.Module):
    """norm(Σ table[column · levels + code]): table [columns · levels, D]."""

    def __init__(self, table_rows: int, columns: int, eps: float) -> None:
        super().__init__()
        self.table, self.norm = nn.Parameter(torch.empty(table_rows, columns)), RmsNorm(columns, eps)

    def forward(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return self.norm(kernels.bag(codes.flatten(1), self.table.to(dtype)))


class PatchMlp(nn.Module):
    """The hMLP: fold, linear, norm, gelu per stage; the last stage linear alone; a norm. Pixels to [P, D]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.stages = kernels.stages(spec.vision_layers, spec.hidden)
        self.linears = nn.ModuleList(Linear(stage.num_inputs, stage.num_outputs) for stage in self.stages)
        self.norms = nn.ModuleList(RmsNorm(stage.num_outputs, spec.norm_eps) for stage in self.stages)  # the last is the final norm

    def forward(self, patches: Tensor, patch_px: Tensor, dtype: torch.dtype) -> Tensor:
        x = pixels(patches, patch_px).to(dtype)
        for stage, linear, norm in zip(self.stages, self.linears, self.norms, strict=True):
            x = norm(linear(kernels.fold(x, stage.time_fold, stage.side_fold)))
            x = x.flatten(1) if stage is self.stages[-1] else kernels.gelu(x)
        return x


def pixels(patches: Tensor, patch_px: Tensor) -> Tensor:
    """fp32 of the shape of `patches` [P, 2, 40, 40, 3]: divided by 255, CLIP's mean and deviation; padding counts as -1 of 255."""
    height, width = patches.shape[2:4]
    x = patches.float()
    rows, columns = (torch.arange(size, device=patches.device) for size in (height, width))
    is_picture = (rows < patch_px[:, :1])[:, :, None] & (columns < patch_px[:, 1:])[:, None]
    x = x.masked_fill_(~is_picture[:, None, :, :, None], PADDING)
    return x.div_(255).sub_(x.new_tensor(CLIP_MEAN)).div_(x.new_tensor(CLIP_STD))


class Embedding(nn.Module):
    """Rows [N, D] of inputs."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.table, self.norm = nn.Parameter(torch.empty(spec.vocabulary, spec.hidden)), RmsNorm(spec.hidden, spec.norm_eps)
        self.heard = Bag(HEARD_ROWS, spec.hidden, spec.norm_eps)
        self.own = Bag(OWN_ROWS, spec.hidden, spec.norm_eps)
        self.patch = PatchMlp(spec)

    def forward(self, inputs: Inputs, dtype: torch.dtype) -> Tensor:
        by_id = torch.ones(inputs.rows.num_rows, dtype=torch.bool, device=inputs.ids.device)
        places, made = [], []
        if len(inputs.heard_rows):
            places.append(inputs.heard_rows)
            made.append(self.heard(inputs.heard_codes, dtype))
        if len(inputs.own_rows):
            places.append(inputs.own_rows)
            made.append(self.own(inputs.own_codes, dtype))
        if len(inputs.patch_rows):
            places.append(inputs.patch_rows)
            made.append(self.patch(inputs.patches, inputs.patch_px, dtype))
        for place in places:
            by_id[place] = False
        rest = torch.nonzero(by_id)[:, 0]
        places.append(rest)
        made.append(self.norm(F.embedding(inputs.ids[rest], self.table.to(dtype))))
        x = torch.cat(made)
        return torch.zeros_like(x).index_copy(0, torch.cat(places), x)
