"""Two processes are one: forward to the bit, gradients but for rounding, first weights and checkpoints exactly.

The ranks are real processes that talk over gloo; see scale_cases.py for what they compute.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from handmade import model_of
from microturn.schemas.errors import InputError
from microturn.trainer.model import InteractionModel, count
from microturn.trainer.model import initialise as initialise_alone
from microturn.trainer.scale.start import World, lay_out, start
from processes import run_ranks
from scale_cases import SPEC, alone
from tensors import same_bits

SCRIPT = Path(__file__).with_name("scale_cases.py")
LAYOUTS = {"2 × 1": 1, "1 × 2": 2}  # fsdp × ep
CASES = [
    *("fp32-1-saved", "fp32-2-saved", "bf16-1-plain", "bf16-2-plain", "fp32-1-again", "fp32-2-again", "fp32-1-wrong"),
    *("first-1", "first-2", "idle"),
]
DTYPES = ("fp32", "bf16")
TOLERANCE = 1e-5  # of a parameter's largest gradient, in fp32
ROUGH = 1e-2  # of the whole gradient's length, in bf16: two ranks round what one process adds first


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks made of all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(SCRIPT, [str(folder), *CASES])
    return folder


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Any]]:
    """What one process makes of them."""
    return {dtype: alone(dtype) for dtype in DTYPES}


def ranks(out: Path, case: str) -> list[dict[str, Any]]:
    found = [torch.load(path, weights_only=False) for path in sorted(out.glob(f"{case}.*.pt"))]
    assert len(found) == 2
    return found


def worst(gradients: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest difference, as a part of the parameter's largest gradient, and whose it is."""
    assert gradients.keys() == wanted.keys()
    return max((float((gradients[name] - x).abs().max() / x.abs().max()), name) for name, x in wanted.items() if x.any())


def apart(gradients: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The length of the difference of two whole gradients, as a part of the length of `wanted`."""
    difference = sum(float((gradients[name] - x).double().square().sum()) for name, x in wanted.items())
    return (difference / sum(float(x.double().square().sum()) for x in wanted.values())) ** 0.5


@pytest.mark.parametrize("ep", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_hidden_rows_of_two_ranks_are_those_of_one_process_bit_for_bit(out, one, dtype, ep):
    case = f"{dtype}-{ep}-{'saved' if dtype == 'fp32' else 'plain'}"
    for rank, hidden in zip(ranks(out, case), one[dtype]["hidden"], strict=True):
        assert same_bits(rank["hidden"], hidden) and hidden.abs().max() > 1


@pytest.mark.parametrize("case", [case for case in CASES if case[:4] in DTYPES and "wrong" not in case])
def test_gradients_of_two_ranks_are_those_of_one_process(out, one, case):
    """Though one rank has no picture and learns no frame. Every rank sees the same whole gradient."""
    dtype = case.partition("-")[0]
    made, wanted = ranks(out, case), one[dtype]
    if dtype == "fp32":
        assert worst(made[0]["gradients"], wanted["gradients"]) < (TOLERANCE, "")
    assert apart(made[0]["gradients"], wanted["gradients"]) < ROUGH
    assert sum(bool(x.any()) for x in wanted["gradients"].values()) == len(wanted["gradients"])  # there is something to compare
    assert all(same_bits(x, made[1]["gradients"][name]) for name, x in made[0]["gradients"].items())
    assert sum(rank["loss"] for rank in made) == pytest.approx(wanted["loss"], rel=1e-6)


def test_a_gradient_that_is_averaged_is_noticed(out, one):
    """Negative control: FSDP2's own divisor, the number of ranks, is wrong for sums, and far beyond the tolerance."""
    gradients = ranks(out, "fp32-1-wrong")[0]["gradients"]
    assert worst(gradients, one["fp32"]["gradients"])[0] == pytest.approx(0.5, rel=1e-4)
    assert apart(gradients, one["fp32"]["gradients"]) == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("ep", LAYOUTS.values(), ids=LAYOUTS)
def test_what_must_stay_fp32_is_gathered_in_fp32_under_the_bf16_policy(out, ep):
    for rank in ranks(out, f"bf16-{ep}-plain"):
        seen = {name: dtypes for name, dtypes in rank["seen"].items() if dtypes}
        in_fp32 = {name for name, dtypes in seen.items() if dtypes == {torch.float32}}
        kinds = ("conv", "router", "velocity")
        assert {name for name in seen if name.endswith(kinds)} == in_fp32 and all(any(n.endswith(k) for n in in_fp32) for k in kinds)
        others = {name: dtypes for name, dtypes in seen.items() if name not in in_fp32}
        assert others and all(dtypes == {torch.bfloat16} for dtypes in others.values())


@pytest.mark.parametrize("ep", LAYOUTS.values(), ids=LAYOUTS)
def test_each_rank_holds_half_and_nothing_stays_gathered(out, ep):
    made = ranks(out, f"fp32-{ep}-saved")
    total = count(SPEC).total
    assert sum(rank["held"] for rank in made) == total and all(rank["all_sharded"] for rank in made)
    assert all(abs(rank["held"] - total / 2) < total / 100 for rank in made)


def test_an_owner_to_whom_no_row_comes_holds_nobody_up(out):
    made = ranks(out, "idle")
    assert all(same_bits(rank["away"], rank["home"]) for rank in made) and not same_bits(made[0]["home"], made[1]["home"])
    assert made[0]["largest"] > 0 and made[1]["largest"] == 0


@pytest.mark.parametrize("ep", LAYOUTS.values(), ids=LAYOUTS)
def test_first_weights_do_not_depend_on_ranks(out, ep):
    model = initialise_alone(InteractionModel(SPEC), 5)
    for rank in ranks(out, f"first-{ep}"):
        assert all(same_bits(parameter.detach(), rank[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("ep", LAYOUTS.values(), ids=LAYOUTS)
def test_what_two_ranks_save_one_process_loads(out, ep):
    wanted, model = model_of(SPEC).state_dict(), initialise_alone(InteractionModel(SPEC), 0)
    state = model.state_dict()
    assert not all(same_bits(state[name], x) for name, x in wanted.items())
    dcp.load(state, checkpoint_id=str(out / f"fp32-{ep}-saved"), no_dist=True)
    assert state.keys() == wanted.keys() and all(same_bits(state[name], x) for name, x in wanted.items())


@pytest.mark.nightly
def test_four_ranks_with_experts_over_two_are_one_process(tmp_path):
    """Experts cut over `ep` and then over `fsdp`."""
    run_ranks(SCRIPT, [str(tmp_path), "fp32-2-saved", "fp32-4-plain"], size=4)
    wanted = alone("fp32", 4)
    for case in ("fp32-2-saved", "fp32-4-plain"):
        made = [torch.load(path, weights_only=False) for path in sorted(tmp_path.glob(f"{case}.*.pt"))]
        assert all(same_bits(rank["hidden"], hidden) for rank, hidden in zip(made, wanted["hidden"], strict=True))
        assert worst(made[0]["gradients"], wanted["gradients"]) < (TOLERANCE, "")
    state = InteractionModel(SPEC).state_dict()
    dcp.load(state, checkpoint_id=str(tmp_path / "fp32-2-saved"), no_dist=True)
    assert all(same_bits(state[name], x) for name, x in model_of(SPEC).state_dict().items())


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert start() == World(0, 1, torch.device("cpu")) and not torch.distributed.is_initialized()


def test_half_of_torchruns_environment_is_refused(monkeypatch):
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="MASTER_ADDR"):
        start()


@pytest.mark.parametrize("expert_ranks", [0, 4, 5])
def test_an_expert_group_that_does_not_divide_the_ranks_is_refused(expert_ranks):
    with pytest.raises(InputError, match="expert group"):
        lay_out(World(0, 6, torch.device("cpu")), expert_ranks)
