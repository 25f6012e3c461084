"""What a run is: schedules by hand, configs with near misses, one that is laid over another; which parameters decay."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from microturn.schemas.errors import InputError
from microturn.trainer.model import PRESETS, InteractionModel, ModelSpec
from microturn.trainer.train.optimizer import decays
from microturn.trainer.train.schedule import ScheduleSpec, factor, same_until
from microturn.trainer.train.spec import TrainSpec, corpora_of
from runs import SIZES

LEAST = {"model": "nano", "corpora": [{"path": "corpus"}]}


@pytest.mark.parametrize(
    "step, expected",
    [(1, 0.25), (3, 0.75), (4, 1), (5, 1), (100, 1), (101, 0.955), (110, 0.55), (119, 0.145), (120, 0.1), (121, 0.1), (10**9, 0.1)],
)
def test_the_rate_warms_up_stays_and_decays(step, expected):
    assert factor(ScheduleSpec(warmup_steps=4, decay_from=100, decay_steps=20, floor=0.1), step) == pytest.approx(expected)


@pytest.mark.parametrize("step", [1, 2, 10**9])
def test_without_warm_up_and_decay_the_rate_is_the_rate(step):
    assert factor(ScheduleSpec(warmup_steps=0), step) == 1


@given(st.integers(0, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 30))
def test_a_schedule_may_change_where_no_step_that_is_done_would(warmup, later, decay, done):
    never = ScheduleSpec(warmup_steps=warmup)
    then = ScheduleSpec(warmup_steps=warmup, decay_from=warmup + later, decay_steps=decay)
    assert same_until(never, then, done) == (done <= warmup + later) == same_until(then, never, done)


@pytest.mark.parametrize(
    "schedule", [{"decay_from": 500}, {"decay_from": 5, "decay_steps": 5}], ids=["no decay_steps", "decay before the end of the warm-up"]
)
def test_a_schedule_that_is_none_is_refused(schedule):
    with pytest.raises(InputError, match="a decay has steps, and begins after the warm-up"):
        TrainSpec.of(LEAST | {"schedule": schedule}, where="run.yaml")


@pytest.mark.parametrize(
    "wrong, words, hint",
    [
        ({"optimiser": {}}, "run.yaml: unknown key 'optimiser'", "'optimizer'"),
        ({"optimizer": {"weight_decy": 0.1}}, "unknown key 'optimizer.weight_decy'", "'weight_decay'"),
        ({"pace": {"worker": 2}}, "unknown key 'pace.worker'", "'workers'"),
        ({"data": {"sequence_token": 512}}, "unknown key 'data.sequence_token'", "'sequence_tokens'"),
        ({"model": {"preset": "nano", "layer": 2}}, "unknown key 'model.layer'", "'layers'"),
        ({"model": {"preset": "nanno"}}, "no preset 'nanno'", "'nano'"),
        ({"dtype": "float16"}, "dtype", ""),
        ({"corpora": []}, "corpora", ""),
        ({"model": {}}, "run.yaml: no model", "nano"),
    ],
    ids=str,
)
def test_a_config_that_is_wrong_is_refused_with_its_near_miss(wrong, words, hint):
    with pytest.raises(InputError) as refused:
        TrainSpec.of(LEAST | wrong, where="run.yaml")
    assert words in str(refused.value) and hint in refused.value.hint


def test_a_preset_may_be_changed_in_some_sizes():
    spec = TrainSpec.of(LEAST | {"model": {"preset": "nano", "layers": 2}}, where="x")
    assert spec.model == ModelSpec.preset("nano").model_copy(update={"layers": 2}) and PRESETS["nano"]["layers"] == 4


def test_a_written_config_is_the_config_again():
    spec = TrainSpec.of(LEAST | {"seed": 4, "optimizer": {"lr": 1e-3}}, where="x")
    assert TrainSpec.of(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json"))), where="x") == spec and spec.data.seed == 4


def test_a_config_lies_over_that_of_the_run():
    started = TrainSpec.of({"model": SIZES, "corpora": [{"path": "a", "weight": 2.0}], "seed": 4}, where="x").model_dump(mode="json")
    spec = TrainSpec.of({"pace": {"steps": 7}, "corpora": [{"path": "b", "weight": 2.0}]}, where="x", below=started)
    assert (spec.seed, spec.data.seed, spec.model.hidden, spec.pace.steps, spec.corpora[0].path) == (4, 4, 32, 7, "b")
    spec.refuse_another(TrainSpec.of(started, where="x"), step=3, where="x")


@pytest.mark.parametrize("change", [{"model": "nano"}, {"seed": 5}, {"corpora": [{"path": "a"}]}], ids=str)
def test_a_config_that_is_another_run_is_seen_over_that_of_the_run(change):
    started = TrainSpec.of({"model": SIZES, "corpora": [{"path": "a", "weight": 2.0}], "seed": 4}, where="x")
    spec = TrainSpec.of(change, where="x", below=started.model_dump(mode="json"))
    with pytest.raises(InputError, match="the run was started with"):
        spec.refuse_another(started, step=0, where="x")


def test_corpora_have_weights_behind_a_colon():
    assert corpora_of(["calls:3", "films", "s3://bucket/x", "gs://bucket/x:0.5"]) == [
        {"path": "calls", "weight": 3.0},
        {"path": "films"},
        {"path": "s3://bucket/x"},
        {"path": "gs://bucket/x", "weight": 0.5},
    ]


def test_what_multiplies_rows_decays_and_nothing_else():
    model = InteractionModel(ModelSpec.parse(SIZES | {"dense_layers": 1, "dense_width": 8}, where="test"))
    decayed = {name for name, parameter in model.named_parameters() if decays(name, parameter)}
    kept = {name for name, _ in model.named_parameters()} - decayed
    ends = ("norm.weight", "_conv.weight", "scale", "profiles", "table")
    assert kept == {name for name, _ in model.named_parameters() if name.endswith(ends) or ".norms." in name}
    assert {"unembedding.weight", "blocks.1.mlp.routed.gate_up", "blocks.0.attention.inward.weight"} <= decayed
    assert math.prod(model.unembedding.weight.shape) > 0
