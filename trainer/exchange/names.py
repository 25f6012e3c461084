"""Which tensor of the published format is which part of ours, and in which order its numbers stand. Values are moved, never computed.

What we multiply at once is one tensor of ours and several of theirs (queries, keys, values, relative states). Where we keep gates before
ups, theirs alternate row by row: gate 0, up 0, gate 1, up 1 … Published names: what transformers' `save_pretrained` writes for
`inkling_mm_model` (transformers.conversion_mapping).

Letters: E experts, S shared ones, W width of an expert, D columns of the stream, C channels, K taps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..model import InteractionModel, ModelSpec

OURS_ONLY = ("embedding.own.", "flow.")
STAYS_FP32 = ("sconv.weight", "mlp.gate.bias", "mlp.gate.global_scale")  # ends of names; transformers keeps them so too


class Form(NamedTuple):
    """An order of the same numbers: `out` from ours to theirs, `back` again."""

    out: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


class Part(NamedTuple):
    """Tensor `theirs` is rows `start` … `stop` of tensor `ours`, in another form."""

    theirs: str
    ours: str
    start: int
    stop: int
    form: Form


SAME = Form(lambda x: x, lambda x: x)
TAPS = Form(lambda x_CK: x_CK[:, None], lambda x_C1K: x_C1K[:, 0])
PAIRS = Form(  # […, 2 W, D]: gates, then ups; and alternating
    lambda x: x.unflatten(-2, (2, -1)).transpose(-3, -2).flatten(-3, -2),
    lambda x: x.unflatten(-2, (-1, 2)).transpose(-3, -2).flatten(-3, -2),
)


def shared_in(shared: int) -> Form:
    """[2 S W, D], the gates of all before the ups of all; and [S, 2 W, D], alternating."""
    return Form(
        lambda x: x.unflatten(0, (2, shared, -1)).permute(1, 2, 0, 3).flatten(1, 2),
        lambda x: x.unflatten(1, (-1, 2)).permute(2, 0, 1, 3).flatten(0, 2),
    )


def shared_out(shared: int) -> Form:
    """[D, S W]; and [S, D, W]."""
    return Form(lambda x: x.unflatten(1, (shared, -1)).transpose(0, 1), lambda x: x.transpose(0, 1).flatten(1))


def parts(spec: ModelSpec) -> list[Part]:
    """Every tensor of the published format, prediction layers aside, layer by layer. Parts of one of ours: in the order of its rows."""
    shapes, found = shapes_of(spec), []

    def add(ours: str, *theirs: str, form: Form = SAME, rows: tuple[int, ...] = ()) -> None:
        start = 0
        for name, count in zip(theirs, rows or (shapes[ours][0],), strict=True):
            found.append(Part(name, ours, start, start + count, form))
            start += count
        assert start == shapes[ours][0], ours

    add("embedding.table", "model.llm.embed.weight")
    add("embedding.norm.weight", "model.llm.embed_norm.weight")
    add("embedding.heard.table", "model.audio.encoder.weight")
    add("embedding.heard.norm.weight", "model.audio.final_norm.weight")
    for stage in range(spec.vision_layers):
        is_last = stage == spec.vision_layers - 1
        add(f"embedding.patch.linears.{stage}.weight", f"model.visual.layers.linear_{stage}.weight")
        add(f"embedding.patch.norms.{stage}.weight", f"model.visual.{'final_norm' if is_last else f'layers.norm_{stage}'}.weight")
    for layer in range(spec.layers):
        _add_layer(spec, layer, add)
    add("norm.weight", "model.llm.norm.weight")
    add("unembedding.weight", "model.llm.unembed.weight")
    return found


def _add_layer(spec: ModelSpec, layer: int, add: Callable[..., None]) -> None:
    ours, theirs = f"blocks.{layer}", f"model.llm.layers.{layer}"
    heads, kv_heads = spec.num_heads(layer)
    rows = (heads * spec.head_dim, kv_heads * spec.head_dim, kv_heads * spec.head_dim, heads * spec.bias_columns)
    projections = (f"{theirs}.attn.{name}.weight" for name in ("wq_du", "wk_dv", "wv_dv", "wr_du"))
    add(f"{ours}.attention.inward.weight", *projections, rows=rows)
    add(f"{ours}.attention.outward.weight", f"{theirs}.attn.wo_ud.weight")
    add(f"{ours}.attention.query_norm.weight", f"{theirs}.attn.q_norm.weight")
    add(f"{ours}.attention.key_norm.weight", f"{theirs}.attn.k_norm.weight")
    add(f"{ours}.attention.key_conv.weight", f"{theirs}.attn.k_sconv.weight", form=TAPS)
    add(f"{ours}.attention.value_conv.weight", f"{theirs}.attn.v_sconv.weight", form=TAPS)
    add(f"{ours}.attention.profiles", f"{theirs}.attn.rel_logits_proj.proj")
    for name, published in (("attention", "attn"), ("mlp", "mlp")):
        add(f"{ours}.{name}_norm.weight", f"{theirs}.{published}_norm.weight")
        add(f"{ours}.{name}_conv.weight", f"{theirs}.{published}_sconv.weight", form=TAPS)
    if spec.is_dense(layer):
        add(f"{ours}.mlp.gate_up.weight", f"{theirs}.mlp.w13_dn.weight", form=PAIRS)
        add(f"{ours}.mlp.down.weight", f"{theirs}.mlp.w2_md.weight")
        add(f"{ours}.mlp.scale", f"{theirs}.mlp.global_scale")
        return
    add(f"{ours}.mlp.router.weight", f"{theirs}.mlp.gate.weight")
    add(f"{ours}.mlp.router.bias", f"{theirs}.mlp.gate.bias")
    add(f"{ours}.mlp.router.scale", f"{theirs}.mlp.gate.global_scale")
    add(f"{ours}.mlp.routed.gate_up", f"{theirs}.mlp.experts.w13_weight", form=PAIRS)
    add(f"{ours}.mlp.routed.down", f"{theirs}.mlp.experts.w2_weight")
    shared = spec.shared_experts
    add(f"{ours}.mlp.shared.gate_up.weight", f"{theirs}.mlp.shared_experts.shared_w13_weight", form=shared_in(shared))
    add(f"{ours}.mlp.shared.down.weight", f"{theirs}.mlp.shared_experts.shared_w2_weight", form=shared_out(shared))


def shapes_of(spec: ModelSpec) -> dict[str, torch.Size]:
    """The shape of every tensor of ours by name, without making one."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in InteractionModel(spec).state_dict().items()}


def is_ours_only(name: str) -> bool:
    """Whether the published format has no place for this tensor of ours."""
    return name.startswith(OURS_ONLY)
