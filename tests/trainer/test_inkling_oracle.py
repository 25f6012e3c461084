"""The whole model against the open one (transformers.models.inkling): equal weights through a folder, equal logits, every gradient equal
but for rounding; packed documents against each alone; and what we export generates there what we generate here.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from handmade import HEARD_ID, PATCH_ID, SPEC, TICK, alone, made, model_of, shaken
from microturn.schemas.layout import LayoutSpec
from microturn.trainer.exchange import export, fill, load
from microturn.trainer.exchange.inkling import published
from microturn.trainer.exchange.shards import Files
from microturn.trainer.model import Inputs, InteractionModel, initialise
from tensors import close, threads
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
from transformers import InklingConfig, InklingForConditionalGeneration  # noqa: E402
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD  # noqa: E402

TOLERANCE = 1e-4  # of the largest magnitude; the oracle's own noise, fp32 against fp64, is up to 4e-6
TEXT = {
    "vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 1, "swa_head_dim": 16, "sliding_window_size": 20, "d_rel": 8,
    "rel_extent": 30, "layer_types": ["hybrid_sliding", "hybrid"] * 2, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "intermediate_size": 96, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 2,
    "route_scale": 8.0, "logits_mup_width_multiplier": 2.5, "log_scaling_n_floor": 16, "eos_token_id": None,
}  # fmt: skip
DOCUMENTS = ["t" + "tpphhhhttt" * 7, "thhhht", "ttp" + "thhhh" * 9]  # the first and the last are longer than window, extent and floor


def loaded(folder: Path) -> InklingForConditionalGeneration:
    """The open model of a folder, as plain as it can be."""
    theirs = InklingForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
    theirs.set_experts_implementation("eager")
    return theirs


def ours_of(folder: Path) -> InteractionModel:
    """Our model of a folder that is not ours."""
    opened = load(folder, flow_width=SPEC.flow_width, flow_layers=SPEC.flow_layers)
    assert opened.spec == SPEC and opened.layout is None
    model = initialise(InteractionModel(opened.spec), 3)
    assert {name.split(".")[0] for name in fill(model, opened.weights)} == {"embedding", "flow"}
    return model


def theirs_take(inputs: Inputs) -> dict[str, Tensor]:
    """One document without own speech as the open model takes it; pixels are prepared by arithmetic of this file."""
    ids = inputs.ids.clone()
    ids[inputs.heard_rows], ids[inputs.patch_rows] = HEARD_ID, PATCH_ID
    taken = {"input_ids": ids[None]}
    if len(inputs.heard_rows):
        taken["audio_input_ids"] = inputs.heard_codes.long()[None]
    if len(inputs.patch_rows):
        pixels = inputs.patches.double()
        for patch, (height, width) in zip(pixels, inputs.patch_px.tolist(), strict=True):
            patch[:, height:], patch[:, :, width:] = -1, -1
        taken["pixel_values"] = ((pixels / 255 - torch.tensor(OPENAI_CLIP_MEAN)) / torch.tensor(OPENAI_CLIP_STD)).float()
    return taken


def loss_of(logits: Tensor, ids: Tensor) -> Tensor:
    return F.cross_entropy(logits, ids * 7 % 60)


def smallest_margin(theirs: nn.Module, taken: dict[str, Tensor]) -> float:
    """How far the last chosen expert is ahead of the first that was not chosen, at worst."""
    margins = []

    def look(router, _, output):
        scores = (output[0].sigmoid() + router.e_score_correction_bias).sort(-1, descending=True).values
        margins.append(float((scores[:, router.top_k - 1] - scores[:, router.top_k]).min()))

    hooks = [layer.mlp.gate.register_forward_hook(look) for layer in theirs.model.language_model.layers[1:]]
    with torch.no_grad():
        theirs(**taken)
    for hook in hooks:
        hook.remove()
    return min(margins)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The open model with random weights, ours from its folder, three documents, and both models' logits and gradients for the first."""
    folder = tmp_path_factory.mktemp("open") / "model"
    config = InklingConfig(
        text_config=dict(TEXT), audio_config={"n_mel_bins": 80, "mel_vocab_size": 16}, vision_config={"num_hidden_layers": 2},
        image_token_id=PATCH_ID, audio_token_id=HEARD_ID,
    )  # fmt: skip
    first = InklingForConditionalGeneration(config)
    shaken(first, 4)
    first.save_pretrained(folder, max_shard_size="1MB")
    theirs, ours, inputs = loaded(folder), ours_of(folder), made(DOCUMENTS, seed=8)
    taken, document = theirs_take(alone(inputs, 0)), alone(inputs, 0)
    their_logits = theirs(**taken).logits[0]
    loss_of(their_logits, document.ids).backward()
    our_logits = ours.text_logits(ours(document).hidden_TD)
    loss_of(our_logits, document.ids).backward()
    return SimpleNamespace(
        theirs=theirs, ours=ours, inputs=inputs, taken=taken, document=document, their_logits=their_logits, our_logits=our_logits
    )


def test_logits_are_those_of_the_open_model(pair):
    assert smallest_margin(pair.theirs, pair.taken) > 1e-4  # else a router may choose otherwise, and nothing can be compared
    assert close(pair.our_logits, pair.their_logits, TOLERANCE)


def test_every_gradient_is_that_of_the_open_model(pair, tmp_path):
    """Their gradients come here as a checkpoint: transformers itself gives them their published names and orders."""
    for parameter in pair.theirs.parameters():
        parameter.data, parameter.grad = parameter.grad, parameter.data
    pair.theirs.save_pretrained(tmp_path)
    for parameter in pair.theirs.parameters():
        parameter.data, parameter.grad = parameter.grad, parameter.data
    wanted = Files.in_folder(tmp_path)
    gradients = {name: parameter.grad for name, parameter in pair.ours.named_parameters() if parameter.grad is not None}
    no_gradient = {name: torch.zeros_like(buffer) for name, buffer in pair.ours.named_buffers()}
    found = dict(published({**gradients, **no_gradient}, SPEC))
    assert set(found) == set(wanted) and len(found) == 90
    names = [name for name in found if not name.endswith("gate.bias")]  # a bias is no parameter
    assert {name: True for name in names} == {name: close(found[name], wanted[name], TOLERANCE) for name in names}
    assert min(float(wanted[name].abs().max()) for name in names) > 0


@pytest.mark.parametrize("document", range(len(DOCUMENTS)))
@torch.no_grad()
def test_documents_packed_together_are_each_the_open_models_alone(pair, document):
    hidden = pair.ours(pair.inputs).hidden_TD
    start, stop = pair.inputs.rows.row_starts[document : document + 2]
    taken = theirs_take(alone(pair.inputs, document))
    assert smallest_margin(pair.theirs, taken) > 1e-4
    assert close(pair.ours.text_logits(hidden[start:stop]), pair.theirs(**taken).logits[0], TOLERANCE)


@pytest.mark.parametrize(
    "name, place",
    [
        ("blocks.2.attention.key_conv.weight", (3, 0)),
        ("blocks.1.mlp_conv.weight", (5, 1)),
        ("blocks.3.mlp.router.bias", (2,)),
        ("blocks.1.attention.profiles", (4, 29)),
        ("blocks.0.mlp.scale", (0,)),
        ("embedding.patch.norms.1.weight", (7,)),
    ],
)
@torch.no_grad()
def test_one_changed_number_is_seen(pair, name, place):
    """Negative control: the comparison above fails if one tap, bias or bias profile's last distance is another."""
    tensor = pair.ours.state_dict()[name]
    before = tensor[place].item()
    tensor[place] += 0.5
    changed = pair.ours.text_logits(pair.ours(pair.document).hidden_TD)
    tensor[place] = before
    assert not close(changed, pair.their_logits, TOLERANCE)


@torch.no_grad()
def test_what_we_export_generates_there_what_we_generate(tmp_path):
    model, layout = model_of(seed=9), LayoutSpec()
    layout = layout.model_copy(update={"ids": layout.ids.model_copy(update={"bos": 61, "picture": 60, "heard": 62, "patch": 63})})
    export(model.state_dict(), SPEC, layout, tmp_path / "out")
    theirs, inputs, prompt = loaded(tmp_path / "out"), made(["tpphhhhtt" * 3 + "t" * 7]), 27
    taken = theirs_take(inputs)
    taken["input_ids"] = taken["input_ids"][:, :prompt]
    said = theirs.generate(**taken, max_new_tokens=8, do_sample=False)[0, prompt:]
    for row in range(prompt, prompt + 8):  # rows to come are there already: what they hold cannot matter
        best = int(model.text_logits(model(inputs).hidden_TD[row - 1 : row]).argmax())
        assert best == said[row - prompt]
        inputs.ids[row : row + 1] = best
    assert len(set(said.tolist())) > 1


@torch.no_grad()
def test_bf16_is_stored_as_the_open_model_stores_it(tmp_path):
    """The same tensors stay fp32."""
    model = model_of(seed=2)
    export(model.state_dict(), SPEC, None, tmp_path / "ours", dtype=torch.bfloat16)
    InklingForConditionalGeneration.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    ours, theirs = Files.in_folder(tmp_path / "ours"), Files.in_folder(tmp_path / "theirs")
    assert {name: ours.dtype(name) for name in ours} == {name: theirs.dtype(name) for name in theirs}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_own_speech_is_ours_alone():
    """A document with own rows has no place in the open model, and its rows do depend on them."""
    inputs, model = made([TICK * 2]), model_of()
    before = model(inputs).hidden_TD
    inputs.own_codes[0] = 15 - inputs.own_codes[0]
    assert not close(model(inputs).hidden_TD, before, TOLERANCE)
