"""Parameters: every preset's model has as many as its formula says, and the released relative as many as were published."""

import pytest
import torch
from microturn.trainer.model import PRESETS, InteractionModel, ModelSpec, count

SMALL = ModelSpec.preset("small-276b-a12b")
CHECKPOINT_BYTES = 531_912_898_740  # of the released checkpoint, in 32 shards


def billions(number: int) -> float:
    return round(number / 1e9, 2)


def prediction_layers(spec: ModelSpec, layers: int) -> int:
    """Parameters of dense global layers, each with two norms of its inputs and the product that joins them."""
    d = spec.hidden
    one = count(spec.model_copy(update={"layers": 1, "dense_layers": 1, "global_every": 1}))
    return layers * (one.attention + one.convolutions + (one.norms - 2 * d) + one.dense + 2 * d + 2 * d * d)


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_model_has_the_parameters_of_its_formula(name):
    spec = ModelSpec.preset(name)
    with torch.device("meta"):
        model = InteractionModel(spec)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    counts = count(spec)

    def of(*kinds: str) -> int:
        return sum(size for name, size in sizes.items() if any(kind in name for kind in kinds))

    assert sum(sizes.values()) == counts.total
    assert of("embedding.own.") == counts.own and of("flow.") == counts.flow
    assert of("embedding.heard.") == counts.heard and of("embedding.patch.") == counts.patches
    assert of(".routed.") == counts.routed and of(".shared.") == counts.shared and of(".router.") == counts.router
    assert of("_conv.") == counts.convolutions and of("embedding.table", "unembedding.") == counts.tables
    assert counts.routed_active * spec.experts == counts.routed * spec.experts_per_row


def test_headline_numbers_count_every_layer_as_a_mixture():
    counts = count(SMALL.model_copy(update={"dense_layers": 0, "dense_width": 0}))
    assert (billions(counts.text), billions(counts.active), billions(counts.open)) == (276.24, 12.00, 276.31)


def test_as_released_the_numbers_are_those_of_the_checkpoint():
    counts = count(SMALL)
    assert billions(counts.open) == 263.72
    whole = counts.open + prediction_layers(SMALL, 8)
    assert billions(whole) == billions(CHECKPOINT_BYTES // 2) == 265.96
    assert abs(2 * whole - CHECKPOINT_BYTES) < 1e-6 * CHECKPOINT_BYTES  # bf16; what is left are heads of files and routers' biases


@pytest.mark.parametrize("name, layers, millions", [("nano", 2, 1.41), ("micro", 2, 4.03), ("small-276b-a12b", 4, 64.08)])
def test_the_hmlp_is_as_large_as_its_preset_says(name, layers, millions):
    assert ModelSpec.preset(name).vision_layers == layers and round(count(ModelSpec.preset(name)).patches / 1e6, 2) == millions
