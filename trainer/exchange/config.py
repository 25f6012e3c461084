"""config.json of the open format, to a ModelSpec and back. What we cannot represent is refused, by the name of its field.

Two dialects are in use: the released files (`dense_mlp_idx`, `local_layer_ids`, `dense_intermediate_size` beside an `intermediate_size`
that is the experts') and transformers' own (`mlp_layer_types`, `layer_types`, `moe_intermediate_size`). Both are read. Ours are written
in the first with the lists of the second, which is read alike by transformers and by engines that know the first alone. Sources:
transformers.models.inkling `InklingConfig`; sgl-project/sglang `python/sglang/srt/configs/inkling.py`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import NUM_BANDS, PATCH_PX, DmelSpec
from ..model import ModelSpec

Config = dict[str, Any]
EPS = 1e-6  # of the towers' norms, which the open code does not take from the file

SIZES = {  # our field → theirs, in text_config
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "window_heads": "swa_num_attention_heads",
    "window_kv_heads": "swa_num_key_value_heads",
    "head_dim": "head_dim",
    "window": "sliding_window_size",
    "bias_columns": "d_rel",
    "bias_extent": "rel_extent",
    "experts": "n_routed_experts",
    "experts_per_row": "num_experts_per_tok",
    "shared_experts": "n_shared_experts",
    "route_scale": "route_scale",
    "logit_divisor": "logits_mup_width_multiplier",
    "log_slope": "log_scaling_alpha",
    "vocabulary": "vocab_size",
    "norm_eps": "rms_norm_eps",
}
ALIASES = {  # of fields that two dialects name differently
    "text_config.conv_kernel_size": "sconv_kernel_size",
    "text_config.sliding_window_size": "sliding_window",
    "vision_config.n_layers": "num_hidden_layers",
    "vision_config.num_channels": "n_channels",
    "audio_config.n_mel_bins": "num_codebooks",
    "audio_config.mel_vocab_size": "codebook_size",
}
FIXED: dict[str, Any] = {  # the only values that we can represent; a field that is not there has its value
    "tie_word_embeddings": False,
    "quantization_config": None,
    "text_config.tie_word_embeddings": False,
    "text_config.hidden_act": "silu",
    "text_config.attention_dropout": 0.0,
    "text_config.rms_norm_eps": EPS,
    "text_config.q_bias": False,
    "text_config.o_bias": False,
    "text_config.use_embed_norm": True,
    "text_config.use_sconv": True,
    "text_config.use_gate_bias": True,
    "text_config.use_global_scale": True,
    "text_config.norm_after_topk": True,
    "text_config.gate_activation": "sigmoid",
    "text_config.shared_expert_sink": True,
    "text_config.final_logit_softcapping": None,
    "audio_config.audio_mode": "dmel",
    "audio_config.use_audio_norm": True,
    "audio_config.n_mel_bins": NUM_BANDS,
    "audio_config.mel_vocab_size": DmelSpec().num_codes,
    "audio_config.dmel_min_value": DmelSpec().min_log10,
    "audio_config.dmel_max_value": DmelSpec().max_log10,
    "vision_config.vision_encoder_type": "hmlp",
    "vision_config.use_vision_norm": True,
    "vision_config.patch_size": PATCH_PX,
    "vision_config.temporal_patch_size": 2,
    "vision_config.num_channels": 3,
    "vision_config.rms_norm_eps": EPS,
    "audio_config.rms_norm_eps": EPS,
}
CARRIED = (  # fields that mean nothing to us and go through a conversion as they are
    "mtp_config",
    "text_config.num_mtp_layers",
    "text_config.num_nextn_predict_layers",
    "text_config.chain_hidden_post_norm",
    "text_config.mtp_hidden_states_first",
    "text_config.mtp_local_layer_ids",
    "text_config.mtp_local_extent",
    "text_config.unpadded_vocab_size",
    "text_config.max_position_embeddings",
    "text_config.model_max_length",
    "text_config.bos_token_id",
    "text_config.eos_token_id",
    "text_config.pad_token_id",
    "image_token_id",
    "audio_token_id",
    "image_bos_token_id",
    "audio_bos_token_id",
)
REQUIRED, ABSENT = object(), object()


def config_of(spec: ModelSpec, layout: LayoutSpec | None, carried: Mapping[str, Any], dtype: torch.dtype) -> Config:
    """config.json. `layout` names the placeholders' ids unless `carried` (fields by dotted name) does.

    Raises:
        InputError: a size of ours that the format cannot say.
    """
    if spec.norm_eps != EPS:
        raise InputError(f"norm_eps is {spec.norm_eps}; the open format's towers know {EPS} alone")
    kinds = ["hybrid" if spec.is_global(layer) else "hybrid_sliding" for layer in range(spec.layers)]
    text = {
        "model_type": "inkling_text",
        **{theirs: getattr(spec, ours) for ours, theirs in SIZES.items()},
        "swa_head_dim": spec.head_dim,
        "sconv_kernel_size": spec.conv_taps,
        "log_scaling_n_floor": spec.log_floor or None,
        "layer_types": kinds,
        "local_layer_ids": [layer for layer, kind in enumerate(kinds) if kind == "hybrid_sliding"],
        "mlp_layer_types": ["dense" if spec.is_dense(layer) else "sparse" for layer in range(spec.layers)],
        "dense_mlp_idx": spec.dense_layers,
        "intermediate_size": spec.expert_width,
        "dense_intermediate_size": spec.dense_width or spec.expert_width,
        "num_nextn_predict_layers": 0,
        "bos_token_id": layout.ids.bos if layout else None,
        "eos_token_id": None,  # a conversation has no last token
        "pad_token_id": None,
    }
    config: Config = {
        "architectures": ["InklingForConditionalGeneration"],
        "model_type": "inkling_mm_model",
        "dtype": str(dtype).removeprefix("torch."),
        "text_config": text,
        "audio_config": {"model_type": "inkling_audio", "decoder_dmodel": spec.hidden, "text_hidden_size": spec.hidden},
        "vision_config": {
            "model_type": "inkling_vision",
            "decoder_dmodel": spec.hidden,
            "text_hidden_size": spec.hidden,
            "n_layers": spec.vision_layers,
        },
    }
    if layout:
        config |= {"image_token_id": layout.ids.patch, "audio_token_id": layout.ids.heard, "image_bos_token_id": layout.ids.picture}
    said = {place: value for place, value in FIXED.items() if value is not None}
    for place, value in {**said, "vision_config.n_channels": said["vision_config.num_channels"], **carried}.items():
        section, _, field = place.rpartition(".")
        (config[section] if section else config)[field] = value
    return config


def spec_of(config: Config, *, flow_width: int, flow_layers: int, flow_steps: int, where: str) -> ModelSpec:
    """The sizes that config.json says, with a flow head of these.

    Raises:
        InputError: a field that is missing or says what we cannot represent.
    """
    for place, only in FIXED.items():
        value = _get(config, place, where, only)
        if value != only and not (only is None and not value):
            raise InputError(f"{where}: {place} is {value!r}; this model has {only!r}")
    sizes: Config = {ours: _get(config, f"text_config.{theirs}", where) for ours, theirs in SIZES.items()}
    for field in ("swa_head_dim", "v_head_dim", "swa_v_head_dim"):
        value = _get(config, f"text_config.{field}", where, sizes["head_dim"])
        if value != sizes["head_dim"]:
            raise InputError(f"{where}: text_config.{field} is {value!r}; all heads of this model are alike: {sizes['head_dim']}")
    layers = _whole(config, "text_config.num_hidden_layers", where)
    vision_layers = _whole(config, "vision_config.n_layers", where)
    if vision_layers > 5:
        raise InputError(f"{where}: vision_config.n_layers is {vision_layers}; there are 5 ways to fold a pair of {PATCH_PX} px, no more")
    dense_layers = _dense_layers(config, layers, where)
    expert_width, dense_width = _widths(config, where)
    return ModelSpec.parse(
        {
            **sizes,
            "global_every": _global_every(config, layers, where),
            "conv_taps": _get(config, "text_config.conv_kernel_size", where),
            "log_floor": _get(config, "text_config.log_scaling_n_floor", where, None) or 0,
            "dense_layers": dense_layers,
            "dense_width": dense_width if dense_layers else 0,
            "expert_width": expert_width,
            "vision_layers": vision_layers,
            "flow_width": flow_width,
            "flow_layers": flow_layers,
            "flow_steps": flow_steps,
        },
        where=where,
    )


def carried_of(config: Config, where: str) -> Config:
    """The carried fields that the file has, by dotted name."""
    found = {place: _get(config, place, where, ABSENT) for place in CARRIED}
    return {place: value for place, value in found.items() if value is not ABSENT}


def _global_every(config: Config, layers: int, where: str) -> int:
    kinds, field = _get(config, "text_config.layer_types", where, None), "layer_types"
    if kinds is None:
        local, field = _get(config, "text_config.local_layer_ids", where, None), "local_layer_ids"
        if not isinstance(local, list):  # the open code's default
            local = [layer for layer in range(layers) if (layer + 1) % 6]
        kinds = ["hybrid_sliding" if layer in local else "hybrid" for layer in range(layers)]
    if not isinstance(kinds, list):
        raise InputError(f"{where}: text_config.{field} is {kinds!r}, no list")
    every = kinds.index("hybrid") + 1 if "hybrid" in kinds else layers + 1
    if kinds != ["hybrid_sliding" if (layer + 1) % every else "hybrid" for layer in range(layers)]:
        raise InputError(f"{where}: text_config.{field}: every n-th layer of this model attends to everything, and no other")
    return every


def _dense_layers(config: Config, layers: int, where: str) -> int:
    kinds = _get(config, "text_config.mlp_layer_types", where, None)
    if kinds is None:
        return _get(config, "text_config.dense_mlp_idx", where, 0)
    if not isinstance(kinds, list):
        raise InputError(f"{where}: text_config.mlp_layer_types is {kinds!r}, no list")
    dense = kinds.count("dense")
    if kinds != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise InputError(f"{where}: text_config.mlp_layer_types: the dense layers of this model are the first ones")
    return dense


def _widths(config: Config, where: str) -> tuple[int, int]:
    """(of an expert, of a dense layer)."""
    if _get(config, "text_config.dense_intermediate_size", where, None) is not None:
        experts, dense = "intermediate_size", "dense_intermediate_size"
    else:
        experts, dense = "moe_intermediate_size", "intermediate_size"
    return _whole(config, f"text_config.{experts}", where), _whole(config, f"text_config.{dense}", where)


def _whole(config: Config, place: str, where: str) -> int:
    value = _get(config, place, where)
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: {place} is {value!r}, no positive number")
    return value


def _get(config: Config, place: str, where: str, default: Any = REQUIRED) -> Any:
    """What the file says at `section.field`, under either of its names."""
    section, _, field = place.rpartition(".")
    fields = config.get(section, {}) if section else config
    if not isinstance(fields, dict):
        raise InputError(f"{where}: {section} is no object")
    found = [fields[name] for name in (field, ALIASES.get(place, "")) if name in fields]
    if len(found) == 2 and found[0] != found[1]:
        raise InputError(f"{where}: {place} is {found[0]!r}, but {ALIASES[place]} beside it {found[1]!r}")
    if not found and default is REQUIRED:
        raise InputError(f"{where}: {place} is missing")
    return found[0] if found else default
