"""Our ops, put together as the open model puts them, against the open model's own modules with random weights
(transformers.models.inkling).
"""

import pytest
import torch
from microturn.kernels import (
    attention,
    bag,
    combine,
    expert_places,
    fold,
    fresh_table,
    gelu,
    grouped_linear,
    lay_out,
    linear,
    ragged,
    rms_norm,
    route,
    short_conv,
    silu,
    stages,
    swiglu,
)
from tensors import close, randn

inkling = pytest.importorskip("transformers.models.inkling.modeling_inkling")
from transformers.models.inkling.configuration_inkling import InklingAudioConfig, InklingTextConfig, InklingVisionConfig  # noqa: E402

CONFIG = {
    "vocab_size": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "sliding_window_size": 70,
    "d_rel": 8,
    "rel_extent": 90,
    "layer_types": ["hybrid_sliding", "hybrid"],
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
}
ROWS = 150


def built(kind, *arguments):
    """A module with random weights, in eval mode."""
    module = kind(*arguments).eval()
    for number, parameter in enumerate(module.parameters()):
        parameter.data = randn(100 + number, *parameter.shape) * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5) + (
            parameter.ndim == 1
        )
    return module


def config():
    made = InklingTextConfig(**CONFIG)
    made._attn_implementation = made._experts_implementation = "eager"
    return made


@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_attention_with_its_projections_convolutions_and_norms(layer):
    theirs, x = built(inkling.InklingAttention, config(), layer), randn(1, ROWS, 48)
    distance = torch.arange(ROWS)[:, None] - torch.arange(ROWS)
    hidden = (distance < 0) | (distance >= (70 if layer == 0 else ROWS))
    wanted = theirs(x[None], torch.zeros(ROWS, ROWS).masked_fill(hidden, float("-inf"))[None, None])[0][0]

    rows = ragged([ROWS])
    table = fresh_table(rows)
    k, v = (
        short_conv(linear(x, projection.weight), conv.conv1d.weight[:, 0], rows)[0].unflatten(-1, (2, 16))
        for projection, conv in ((theirs.k_proj, theirs.k_sconv), (theirs.v_proj, theirs.v_sconv))
    )
    q = rms_norm(linear(x, theirs.q_proj.weight).unflatten(-1, (4, 16)), theirs.q_norm.weight, 1e-6)
    k = rms_norm(k, theirs.k_norm.weight, 1e-6)
    relative = linear(x, theirs.r_proj.weight).unflatten(-1, (4, 8))
    window = 70 if layer == 0 else None
    y = attention(q, lay_out(k, table), lay_out(v, table), relative, theirs.rel_logits_proj.proj, table, scale=1 / 16, window=window)
    assert close(linear(y.flatten(1), theirs.o_proj.weight), wanted, 1e-5)


@torch.no_grad()
def test_mixture_of_experts_with_router_and_shared_experts():
    theirs, x = built(inkling.InklingMoE, config()), randn(1, ROWS, 48)
    gate, shared = theirs.gate, theirs.shared_experts
    gate.e_score_correction_bias.copy_(randn(2, 8) * 0.1)
    chosen, weights = route(linear(x, gate.weight), gate.e_score_correction_bias, 3, 8.0, gate.global_scale)
    _, their_weights, their_chosen, their_shared = gate(x)
    assert torch.equal(chosen.sort(-1).values, their_chosen.sort(-1).values)
    assert close(weights[:, :3].sort(-1).values, their_weights.sort(-1).values, 1e-5) and close(weights[:, 3:], their_shared, 1e-5)

    everywhere = torch.arange(8, 10).expand(ROWS, 2)
    places = expert_places(torch.cat([chosen, everywhere], -1), 10)
    w_in = torch.cat([theirs.experts.gate_up_proj, torch.cat([shared.gate_proj, shared.up_proj], 1)])
    w_out = torch.cat([theirs.experts.down_proj, shared.down_proj])
    hidden = swiglu(*grouped_linear(x, w_in, places, by_token=True).chunk(2, -1))
    assert close(combine(grouped_linear(hidden, w_out, places, by_token=False), weights, places), theirs(x[None])[0], 1e-5)


@torch.no_grad()
def test_short_convolution_norm_and_dense_layer():
    x = randn(1, ROWS, 48)
    conv = built(inkling.InklingShortConvolution, 48, 4, 0, 0)
    assert close(short_conv(x, conv.conv1d.weight[:, 0], ragged([ROWS]))[0], conv(x[None])[0], 1e-6)
    norm = built(inkling.InklingRMSNorm, 48)
    assert close(rms_norm(x, norm.weight, 1e-6), norm(x), 1e-6)
    mlp = built(inkling.InklingMLP, InklingTextConfig(**CONFIG, intermediate_size=80))
    gate, up = linear(x, mlp.gate_proj.weight), linear(x, mlp.up_proj.weight)
    assert close(linear(swiglu(gate, up), mlp.down_proj.weight) * mlp.global_scale, mlp(x), 1e-5)
    assert close(silu(gate) * up, swiglu(gate, up), 1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5])
@torch.no_grad()
def test_hmlp_over_patches(layers):
    theirs = built(inkling.InklingVisionModel, InklingVisionConfig(text_hidden_size=48, num_hidden_layers=layers))
    x = pixels = randn(1, 3, 2, 40, 40, 3)
    plan = stages(layers, 48)
    assert [(s.num_inputs, s.num_outputs) for s in plan] == [tuple(e.projection.weight.shape[::-1]) for e in theirs.encoder_layers]
    for stage, encoder in zip(plan, theirs.encoder_layers, strict=True):
        x = linear(fold(x, stage.time_fold, stage.side_fold), encoder.projection.weight)
        if stage is not plan[-1]:
            x = gelu(rms_norm(x, encoder.layer_norm.weight, 1e-6))
    wanted = pixels
    for encoder in theirs.encoder_layers:
        wanted = encoder(wanted)
    assert close(x, wanted, 1e-5)


@torch.no_grad()
def test_heard_frames():
    theirs = built(inkling.InklingAudioModel, InklingAudioConfig(text_hidden_size=48, mel_vocab_size=16))
    theirs.embed_audio_tokens.audio_tokens_offsets.copy_(torch.arange(80) * 16)
    codes = torch.randint(0, 16, (9, 80), generator=torch.Generator().manual_seed(1))
    ours = rms_norm(bag(codes, theirs.embed_audio_tokens.embed_audio_tokens.weight), theirs.norm.weight, 1e-6)
    assert close(ours, theirs(codes[None]).last_hidden_state[0], 1e-5)
