"""Exchange: out and back are the same bits, in shards or not; what we only carry comes through; what we cannot
represent is refused by name.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from handmade import SPEC, model_of
from microturn.schemas.errors import InputError
from microturn.schemas.layout import LayoutSpec
from microturn.trainer.exchange import export, export_plain, fill, load, load_plain
from microturn.trainer.exchange.config import FIXED, config_of, spec_of
from microturn.trainer.exchange.names import PAIRS, parts, shapes_of, shared_in, shared_out
from microturn.trainer.exchange.shards import Files, Stored
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from safetensors.torch import load_file, save_file
from tensors import randn, same_bits, threads
from torch import Tensor

LAYOUT = LayoutSpec()
FLOW = {"flow_width": 24, "flow_layers": 2}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return set(a) == set(b) and all(same_bits(a[name], b[name]) for name in a)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with threads(1):
        yield


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return model_of(seed=6).state_dict()


@pytest.fixture
def folder(weights: dict[str, Tensor], tmp_path: Path) -> Path:
    export(weights, SPEC, LAYOUT, tmp_path / "out")
    return tmp_path / "out"


def edited(folder: Path, place: str, value: object) -> Path:
    """The folder, one field of its config.json changed."""
    config = json.loads((folder / "config.json").read_text())
    section, _, field = place.rpartition(".")
    (config[section] if section else config)[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("shard_bytes", [5 << 30, 1 << 20])
@pytest.mark.parametrize("writes, reads", [(export, load), (export_plain, load_plain)], ids=["inkling", "plain"])
def test_out_and_back_is_the_same_bits(weights, tmp_path, writes, reads, shard_bytes):
    writes(weights, SPEC, LAYOUT, tmp_path / "out", shard_bytes=shard_bytes)
    opened = reads(tmp_path / "out")
    assert (opened.spec, opened.layout) == (SPEC, LAYOUT) and same(opened.weights, weights)
    assert bool(list((tmp_path / "out").glob("model-*.safetensors"))) == (shard_bytes < 1 << 30)
    model = initialise(InteractionModel(SPEC), 1)
    assert fill(model, opened.weights) == [] and same(model.state_dict(), weights)


def test_bf16_goes_out_and_back_through_fp32_masters_unchanged(weights, tmp_path):
    export(weights, SPEC, LAYOUT, tmp_path / "a", dtype=torch.bfloat16)
    model = InteractionModel(SPEC)
    fill(model, load(tmp_path / "a").weights)
    export(model.state_dict(), SPEC, LAYOUT, tmp_path / "b", dtype=torch.bfloat16)
    assert same(Files.in_folder(tmp_path / "a"), Files.in_folder(tmp_path / "b"))
    assert not same(Files.in_folder(tmp_path / "a"), {name: tensor.float() for name, tensor in Files.in_folder(tmp_path / "b").items()})


def test_gates_and_ups_alternate_out_there():
    """Row 2 j of theirs is gate j, row 2 j + 1 up j; and for shared experts each has its own block of them."""
    ours = torch.arange(12.0)[:, None].expand(12, 3)  # 6 gates, 6 ups
    assert PAIRS.out(ours)[:, 0].tolist() == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    assert shared_in(2).out(ours)[:, :, 0].tolist() == [[0, 6, 1, 7, 2, 8], [3, 9, 4, 10, 5, 11]]
    down = torch.arange(6.0).expand(3, 6)
    assert shared_out(2).out(down)[:, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["nano", "micro", "tiny", "small-276b-a12b"])
def test_every_row_of_every_tensor_goes_to_one_place(name):
    spec, covered = ModelSpec.preset(name), dict[str, int]()
    table = parts(spec)
    for part in table:
        assert covered.get(part.ours, 0) == part.start
        covered[part.ours] = part.stop
    shapes = {ours: shape[0] for ours, shape in shapes_of(spec).items() if not ours.startswith(("flow.", "embedding.own."))}
    assert covered == shapes and len({part.theirs for part in table}) == len(table)
    assert spec_of(config_of(spec, None, {}, torch.float32), where="", **flow_of(spec)) == spec


def flow_of(spec: ModelSpec) -> dict[str, int]:
    return {name: getattr(spec, name) for name in ("flow_width", "flow_layers", "flow_steps")}


def test_sizes_that_leave_no_global_layer_come_back(tmp_path):
    spec = SPEC.model_copy(update={"global_every": 9})
    export(model_of(spec).state_dict(), spec, LAYOUT, tmp_path / "out")
    assert load(tmp_path / "out").spec == spec


def test_ours_lies_beside_and_says_what_the_format_cannot_hold(folder, weights):
    beside = load_file(folder / "microturn.safetensors")
    assert {name: tensor.dtype for name, tensor in beside.items()} == {
        name: torch.float32 for name in weights if name.startswith(("flow.", "embedding.own."))
    }
    told = json.loads((folder / "microturn.json").read_text())
    assert told["layout_digest"] == LAYOUT.digest() and told["model_digest"] == SPEC.digest()
    assert "own speech" in told["note"] and "own speech" in (folder / "README.md").read_text()
    index = json.loads((folder / "model.safetensors.index.json").read_text())  # who loads every file of a folder goes by this
    assert set(index["weight_map"].values()) == {"model.safetensors"}


def test_a_folder_without_ours_leaves_bag_and_head_to_the_caller(weights, tmp_path):
    published = {name: tensor for name, tensor in weights.items() if not name.startswith(("flow.", "embedding.own."))}
    export(published, SPEC, None, tmp_path / "out")
    opened = load(tmp_path / "out", **FLOW)
    assert not (tmp_path / "out" / "microturn.json").exists() and opened.layout is None and same(opened.weights, published)
    assert fill(InteractionModel(SPEC), opened.weights) == [name for name in weights if name not in published]


# ---- carried


@pytest.mark.parametrize("shard_bytes", [5 << 30, 1 << 20])
def test_prediction_layers_go_through_unchanged(folder, tmp_path, shard_bytes):
    """In whatever dtype, with the fields of config.json that are about them."""
    theirs = load_file(folder / "model.safetensors")
    extra = {f"model.mtp.layers.{n}.{name}": randn(n, 5, 7).to(torch.bfloat16) for n in range(2) for name in ("eh_proj.weight", "x.y")}
    extra["model.mtp.layers.0.attn.k_sconv.weight"] = randn(3, 4, 1, 4)
    save_file(theirs | extra, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    edited(folder, "mtp_config", {"num_nextn_predict_layers": 2, "local_layer_ids": [0]})
    opened = load(edited(folder, "text_config.mtp_hidden_states_first", True))
    export(opened.weights, opened.spec, opened.layout, tmp_path / "again", carried=opened.carried, shard_bytes=shard_bytes)
    assert same(Files.in_folder(tmp_path / "again"), theirs | extra)
    again = load(tmp_path / "again")
    assert again.carried.fields == opened.carried.fields and again.carried.fields["mtp_config"]["num_nextn_predict_layers"] == 2
    assert same(again.carried.tensors, extra) and not set(again.weights) & set(extra)


def test_an_unpadded_unembedding_is_filled_with_zeros(folder, weights):
    theirs = load_file(folder / "model.safetensors")
    theirs["model.llm.unembed.weight"] = theirs["model.llm.unembed.weight"][:59].clone()
    save_file(theirs, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"unembed.weight is \[59, 64\]"):
        load(folder)
    unembedding = load(edited(folder, "text_config.unpadded_vocab_size", 59)).weights["unembedding.weight"]
    assert same_bits(unembedding[:59], weights["unembedding.weight"][:59]) and not unembedding[59:].any() and len(unembedding) == 64


def test_ids_of_a_folder_that_is_not_ours_come_through(folder, tmp_path):
    (folder / "microturn.json").unlink()
    edited(folder, "image_token_id", 7)
    opened = load(edited(folder, "text_config.max_position_embeddings", 1 << 20), **FLOW)
    export(opened.weights, opened.spec, None, tmp_path / "again", carried=opened.carried)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["image_token_id"] == 7 and config["text_config"]["max_position_embeddings"] == 1 << 20


def test_both_dialects_of_config_say_the_same():
    released = config_of(SPEC, LAYOUT, {}, torch.float32)
    text = {name: value for name, value in released["text_config"].items() if name not in ("layer_types", "mlp_layer_types")}
    other = dict(released["text_config"])
    other["intermediate_size"], other["moe_intermediate_size"] = other.pop("dense_intermediate_size"), other["intermediate_size"]
    other["conv_kernel_size"], _, _ = other.pop("sconv_kernel_size"), other.pop("dense_mlp_idx"), other.pop("local_layer_ids")
    for dialect in (text, other):
        assert spec_of({**released, "text_config": dialect}, where="", **flow_of(SPEC)) == SPEC


# ---- refused


OTHER: dict[type, object] = {bool: None, str: "other", float: 0.125, int: 31, type(None): {"bits": 4}}


@pytest.mark.parametrize("place", FIXED)
def test_what_we_cannot_represent_is_refused_by_name(folder, place):
    only = FIXED[place]
    with pytest.raises(InputError, match=rf"config.json: {place.replace('.', '[.]')} is [^,]+[;,]"):
        load(edited(folder, place, (not only) if isinstance(only, bool) else OTHER[type(only)]))


@pytest.mark.parametrize(
    "place, value",
    [
        ("text_config.swa_head_dim", 32),
        ("text_config.layer_types", ["hybrid", "hybrid_sliding"] * 2),
        ("text_config.layer_types", ["hybrid_sliding", "hybrid", "hybrid", "hybrid"]),
        ("text_config.layer_types", 5),
        ("text_config.layer_types", "hybrid"),
        ("text_config.mlp_layer_types", ["sparse", "dense", "sparse", "sparse"]),
        ("text_config.mlp_layer_types", 5),
        ("vision_config.n_layers", 24),
        ("text_config.hidden_size", "wide"),
        ("text_config.num_hidden_layers", "many"),
        ("text_config.num_attention_heads", 3),
    ],
)
def test_what_does_not_fit_is_refused(folder, place, value):
    with pytest.raises(InputError, match=r"config[.]json: "):
        load(edited(folder, place, value))


def test_a_missing_field_is_named(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["text_config"]["rel_extent"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"text_config[.]rel_extent is missing"):
        load(folder)


@pytest.mark.parametrize(
    "change, says", [("-model.llm.norm.weight", "missing"), ("+model.audio.decoder.w", "no place"), ("float64", "F64")]
)
def test_a_tensor_too_many_or_too_few_is_named(folder, change, says):
    theirs = load_file(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    if change[0] == "-":
        del theirs[change[1:]]
    else:
        name = change[1:] if change[0] == "+" else "model.llm.norm.weight"
        theirs[name] = torch.zeros(64, dtype=torch.float32 if change[0] == "+" else torch.float64)
    save_file(theirs, folder / "model.safetensors")
    with pytest.raises(InputError, match=says):
        load(folder)


def test_a_folder_changed_by_hand_is_noticed(folder):
    with pytest.raises(InputError, match=r"another model than microturn[.]json"):
        load(edited(folder, "text_config.route_scale", 7.0))
    told = json.loads((folder / "microturn.json").read_text())
    told["model"]["flow_steps"] = 9
    (folder / "microturn.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="digest"):
        load(folder)


def test_a_damaged_file_and_an_index_that_leads_elsewhere_are_named(folder):
    index = folder / "model.safetensors.index.json"
    listed = index.read_text()
    index.write_text(listed.replace('"model.safetensors"', '"../model.safetensors"'))
    with pytest.raises(InputError, match="weight_map must name files of its folder"):
        load(folder)
    index.write_text(listed)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(InputError, match=r"model[.]safetensors:"):
        load(folder)


def test_nothing_is_written_over_and_nothing_half_written_looks_whole(folder, weights, tmp_path):
    with pytest.raises(InputError, match="not empty"):
        export(weights, SPEC, LAYOUT, folder)
    one_less = {name: tensor for name, tensor in weights.items() if name != "norm.weight"}
    with pytest.raises(InputError, match=r"norm[.]weight is missing"):
        export(one_less, SPEC, LAYOUT, tmp_path / "b")
    with pytest.raises(InputError, match="norm_eps"):
        export(weights, SPEC.model_copy(update={"norm_eps": 1e-5}), LAYOUT, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("writes", [export, export_plain])
def test_a_shard_is_on_disk_before_the_next_is_begun(tmp_path, writes):
    """So memory holds one, whatever the model's size; and no tensor is read to find out what it is."""
    shapes, out = shapes_of(SPEC), tmp_path / "out"
    written: dict[str, list[int]] = {name: [] for name in shapes}

    class Lazy(Stored):
        def __iter__(self):
            return iter(shapes)

        def __len__(self):
            return len(shapes)

        def dtype(self, name):
            return torch.float32

        def __getitem__(self, name):
            written[name].append(len(list(out.glob("model-*.safetensors"))))
            return torch.zeros(shapes[name])

    writes(Lazy(), SPEC, LAYOUT, out, shard_bytes=1 << 18)
    where = json.loads((out / "model.safetensors.index.json").read_text())["weight_map"]
    for ours, theirs in ((part.ours, part.theirs if writes is export else part.ours) for part in parts(SPEC)):
        assert int(where[theirs][6:11]) - 1 in written[ours]
    assert max(map(len, written.values())) == (4 if writes is export else 1) and len(set(where.values())) > 5


def test_a_plain_folder_is_not_taken_for_an_open_one(weights, folder, tmp_path):
    export_plain(weights, SPEC, LAYOUT, tmp_path / "plain")
    with pytest.raises(InputError, match=r"config[.]json is missing"):
        load(tmp_path / "plain")
    with pytest.raises(InputError, match="in the format inkling"):
        load_plain(folder)
