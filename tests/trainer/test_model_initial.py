"""First weights: a function of the seed and each parameter's name."""

import math

import torch
from handmade import SPEC, TICK, made
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from tensors import close, same_bits, threads

INTO_STREAM = ("attention.outward", "mlp.down", "routed.down", "shared.down")


def first(seed: int, **sizes: int) -> dict[str, torch.Tensor]:
    return dict(initialise(InteractionModel(SPEC.model_copy(update=sizes)), seed).state_dict())


def test_more_layers_change_no_other_weight_but_for_the_scale_of_what_goes_into_the_stream():
    few, many = first(1), first(1, layers=6)
    assert set(few) < set(many)
    for name, weight in few.items():
        if any(part in name for part in INTO_STREAM):
            assert close(weight * math.sqrt(4 / 6), many[name], 1e-6) and not same_bits(weight, many[name])
        else:
            assert same_bits(weight, many[name]), name


def test_the_seed_moves_every_random_weight_and_nothing_else_does():
    one, again, two = first(1), first(1), first(2)
    torch.manual_seed(5)  # nobody's random state is looked at
    later = first(1)
    assert all(same_bits(one[name], again[name]) and same_bits(one[name], later[name]) for name in one)
    still = {name for name in one if same_bits(one[name], two[name])}
    constant = {name for name in one if bool((one[name] == one[name].flatten()[0]).all())}
    assert still == constant and {name.rsplit(".", 1)[-1] for name in constant} <= {"weight", "scale", "bias"}


def test_deviations_are_what_was_meant():
    spec = ModelSpec.preset("nano")
    state = initialise(InteractionModel(spec), 3).state_dict()
    wanted = {
        "embedding.table": 0.02,
        "embedding.own.table": 0.02,
        "unembedding.weight": 0.02,
        "blocks.0.attention.key_conv.weight": 0.02,
        "blocks.0.attention.profiles": 0.02,
        "blocks.0.attention.inward.weight": 128**-0.5,
        "blocks.0.mlp.router.weight": 128**-0.5,
        "blocks.1.mlp.routed.gate_up": 128**-0.5,
        "blocks.1.mlp.routed.down": 64**-0.5 / 8**0.5,
        "blocks.1.mlp.shared.down.weight": 64**-0.5 / 8**0.5,
        "embedding.patch.linears.0.weight": 300**-0.5,
    }
    assert all(abs(float(state[name].std()) / deviation - 1) < 0.1 for name, deviation in wanted.items())
    ones = [name for name in state if "norm" in name or name.endswith("scale")]
    assert len(ones) == 5 + 4 * 4 + 3 + 4 + 1 and all(bool((state[name] == 1).all()) for name in ones)
    assert all(not state[name].any() for name in state if name.endswith("bias"))


def test_a_first_forward_is_calm():
    """Hidden rows are normed, logits near 0: the first loss is about that of guessing."""
    model = initialise(InteractionModel(SPEC), 1)
    with threads(1), torch.no_grad():
        hidden = model(made([TICK])).hidden_TD
        logits = model.text_logits(hidden)
    assert abs(float(hidden.square().mean()) - 1) < 0.01
    assert abs(float(torch.logsumexp(logits, -1).mean()) - math.log(SPEC.vocabulary)) < 0.1
