"""The plan's formulas against real tensors of small models, and its answers.

Within what factor: masters, gradients, moments exactly; kept activations within 8 %; keys and values exactly.
"""

import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from handmade import SPEC
from made_batches import made_batch
from microturn.schemas.errors import InputError, MicroturnError
from microturn.trainer.model import PRESETS, Inputs, InteractionModel, ModelSpec, initialise
from microturn.trainer.scale.memory import block_bytes, ends_bytes, kept, sampling_bytes
from microturn.trainer.scale.plan import GIB, Plan, least_gpus, plan, refuse_unfitting
from microturn.trainer.scale.plan_command import plan_command
from microturn.trainer.train.loss import sums
from torch import Tensor

SPECS = [
    pytest.param(SPEC, id="handmade"),
    pytest.param(ModelSpec.preset("nano"), id="nano"),
    pytest.param(ModelSpec.preset("micro"), id="micro", marks=pytest.mark.nightly),
]
BIG = ModelSpec.preset("small-276b-a12b")


def saved_bytes(model: torch.nn.Module, run: Any) -> int:
    """Bytes that autograd keeps for backward of what `run()` returns, parameters and what was cast of them aside; each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters()}
    storages: dict[int, tuple[int, Tensor]] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own and not (x.dtype == torch.bfloat16 and tuple(x.shape) in shapes):
            storages[storage.data_ptr()] = (storage.nbytes(), x)  # held, so that no other gets the address
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        made = run()
    assert made is not None
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spec", SPECS)
def test_a_block_keeps_what_the_formula_says(spec, dtype):
    """Dense and mixed, windowed and global."""
    rows = 333  # the shape of no weight
    model = initialise(InteractionModel(spec, dtype=dtype), 1)
    inputs = Inputs.of(made_batch(1, (rows,), pictures=False, speaks=False, vocabulary=spec.vocabulary))
    x_TD = torch.randn(rows, spec.hidden).to(dtype).requires_grad_()
    for layer in {0, spec.dense_layers, spec.global_every - 1}:
        found = saved_bytes(model, lambda layer=layer: model.blocks[layer](x_TD, inputs.rows, None, None))
        assert found == pytest.approx(rows * block_bytes(spec, layer, dtype.itemsize), rel=0.08), layer


def test_recompute_keeps_the_rows_between_blocks_and_one_block():
    spec, rows = ModelSpec.preset("nano"), 320
    inputs = Inputs.of(made_batch(1, (rows,), pictures=False, speaks=False))
    found = {}
    for recompute in (False, True):
        model = initialise(InteractionModel(spec, recompute=recompute), 1)
        x_TD = saved_bytes(model, lambda model=model: model.embedding(inputs, torch.float32))
        found[recompute] = saved_bytes(model, lambda model=model: model(inputs)) - x_TD
    plain, again = (kept(spec, rows, 4, recompute=recompute) for recompute in (False, True))
    assert found[False] == pytest.approx(plain.blocks, rel=0.06) and found[True] < 1.6 * again.blocks < found[False] / 5
    assert plain.blocks == spec.layers * again.block


def test_losses_keep_less_than_the_formula_holds_at_most():
    """Logits' gradients come on top of what is kept; so the formula is between once and four times what is kept."""
    spec, rows = ModelSpec.preset("nano").model_copy(update={"vocabulary": 4096}), 400
    model = initialise(InteractionModel(spec, recompute=True), 1)
    batch = made_batch(1, (rows,), pictures=False)
    shares = {name: int((getattr(batch, name) > 0).sum()) / rows for name in ("text_weights", "flow_weights")}
    found = saved_bytes(model, lambda: sums(model, batch, draws=2, seed=0)) - kept(spec, rows, 4, recompute=True).blocks
    assert found < ends_bytes(spec, rows, 4) * max(shares.values()) / 0.25 < 4 * found


def test_masters_gradients_and_moments_are_the_bytes_of_real_ones():
    spec = ModelSpec.preset("nano")
    model = initialise(InteractionModel(spec), 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    layout = plan(spec, 1, dtype="float32").layouts[0]
    assert layout.masters == sum(p.nbytes for p in model.parameters())
    assert layout.gradients == sum(p.grad.nbytes for p in model.parameters())
    assert layout.moments == sum(x.nbytes for state in optimizer.state.values() for x in state.values() if x.ndim)
    assert layout.gathered == layout.reducing == layout.gathers == layout.reduces == layout.travels == 0


def test_keys_and_values_are_the_pages_of_a_forward():
    spec, rows = ModelSpec.preset("nano"), 640
    per_layer = [sampling_bytes(spec.model_copy(update={"layers": layers}), rows, 2) for layers in range(1, 5)]
    windowed = 2 * spec.window_kv_heads * spec.head_dim * spec.window * 2
    assert per_layer == [windowed, 2 * windowed, 3 * windowed, 3 * windowed + 2 * spec.kv_heads * spec.head_dim * rows * 2]


@pytest.mark.parametrize("name", PRESETS)
def test_more_gpus_never_need_more_of_each(name):
    spec = ModelSpec.preset(name)
    totals = [min(layout.total(recompute=True) for layout in plan(spec, gpus).layouts) for gpus in (2, 4, 8, 16, 64)]
    assert totals == sorted(totals, reverse=True)


def test_parts_are_the_parameters_over_the_gpus_in_every_layout():
    made = plan(BIG, 64)
    assert [(layout.fsdp, layout.ep) for layout in made.layouts] == [(64 // ep, ep) for ep in (1, 2, 4, 8, 16, 32, 64)]
    for layout in made.layouts:
        assert layout.masters + layout.gradients + layout.moments == pytest.approx(16 * made.counts.total / 64)
        assert 16 * made.counts.total / 64 / GIB == pytest.approx(61.4, abs=0.1)


def test_experts_on_more_ranks_gather_less_and_travel_more():
    layouts = plan(BIG, 64).layouts
    for name, rises in (("gathered", False), ("gathers", False), ("reduces", False), ("travels", True)):
        values = [getattr(layout, name) for layout in layouts]
        assert values == sorted(values, reverse=not rises) and values[0] != values[-1]


def test_the_fewest_gpus_fit_and_fewer_do_not():
    found = least_gpus(plan(BIG, 1), 80.0)
    assert found is not None and found.fitting and not plan(BIG, found.gpus - 8).fitting
    with pytest.raises(MicroturnError, match="nothing fits on 8 GPUs of 80 GiB") as refused:
        refuse_unfitting(plan(BIG, 8))
    assert refused.value.hint.startswith(f"--gpus {found.gpus} would do")


def test_where_no_number_of_gpus_helps_that_is_said():
    with pytest.raises(MicroturnError) as refused:
        refuse_unfitting(plan(BIG, 8, sequence_tokens=2_000_000))
    assert "--sequence-tokens" in refused.value.hint


@pytest.mark.parametrize("gpus, ep", [(8, 3), (8, 16), (6, 6)])
def test_an_ep_that_divides_not_both_is_refused_with_those_that_do(gpus, ep):
    with pytest.raises(InputError, match="divide both") as refused:
        plan(BIG, gpus, expert_ranks=ep)
    assert refused.value.hint.startswith("there are: 1")


def run(*args: str) -> Any:
    return CliRunner().invoke(plan_command, args, env={"COLUMNS": "140"})


def test_the_command_shows_every_layout_and_says_what_it_is():
    result = run("--gpus", "128")
    assert result.exit_code == 0 and "263.78 B parameters" in result.output and "not measured on GPUs" in result.output
    assert all(f"{128 // ep} × {ep}" in result.output for ep in (1, 2, 4, 8, 16, 32, 64)) and "fits" in result.output


def test_json_is_the_plan():
    row = json.loads(run("--preset", "tiny", "--gpus", "4", "--ep", "2", "--sequence-tokens", "2048", "--json").output)
    made: Plan = plan(ModelSpec.preset("tiny"), 4, expert_ranks=2, sequence_tokens=2048)
    assert row["step_tokens"] == 8192 and row["basis"] == "formula, not measured on GPUs" and len(row["layouts"]) == 1
    assert row["layouts"][0]["masters"] == made.layouts[0].masters and row["layouts"][0]["fits"] is True
    assert row["layouts"][0]["total"] == made.layouts[0].total(recompute=False)


def test_what_does_not_fit_is_shown_and_fails():
    result = run("--gpus", "8")
    assert isinstance(result.exception, MicroturnError) and "8 × 1" in result.output
