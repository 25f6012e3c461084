"""Expert products and their sum, Triton form: values, gradients, and rows that never see how full their experts are."""

from itertools import pairwise

import pytest
import torch
from microturn.kernels import combine, expert_places, grouped_linear, linear, swiglu
from microturn.kernels.experts import ExpertPlaces, naive_combine, naive_grouped_linear
from tensors import close, randint, randn, rows_that_differ, same_bits

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-8, torch.bfloat16: 2**-5}
EXPERTS = 5


def choose(seed: int, num_rows: int, slots: int, experts: int = EXPERTS) -> torch.Tensor:
    """Different experts for the slots of every row, the first of them more often than the others; the last expert gets none."""
    scores = randn(seed, num_rows, experts - 1) + torch.arange(experts - 1, 0, -1) * 0.7
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :slots].contiguous()


def layer(x, chosen, weights, w_in, w_out):
    places = expert_places(chosen, w_in.shape[0])
    hidden = swiglu(*grouped_linear(x, w_in, places, by_token=True).chunk(2, -1))
    return combine(grouped_linear(hidden, w_out, places, by_token=False), weights, places)


def operands(seed: int, num_rows: int, dtype: torch.dtype = torch.float32):
    w_in, w_out = randn(seed + 3, EXPERTS, 48, 40, dtype=dtype), randn(seed + 4, EXPERTS, 33, 24, dtype=dtype)
    return randn(seed, num_rows, 40, dtype=dtype), choose(seed + 1, num_rows, 3), randn(seed + 2, num_rows, 3), w_in, w_out


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 8, 5), (37, 75, 130), (150, 40, 20)])
def test_values_and_gradients_are_the_formulas(shape, dtype):
    num_rows, k, n = shape
    x, w, weights = randn(1, num_rows, k, dtype=dtype), randn(2, EXPERTS, n, k, dtype=dtype), randn(3, num_rows, 2)
    chosen, leaves = choose(4, num_rows, 2), [t.requires_grad_() for t in (x, w, weights)]
    places = expert_places(chosen, EXPERTS)
    y = combine(grouped_linear(x, w, places, by_token=True), weights, places)
    wanted = naive_combine(naive_grouped_linear(x, w, chosen), weights)
    assert y.dtype == dtype and close(y, wanted, TOLERANCE[dtype])
    dy = randn(5, *y.shape, dtype=dtype)
    gradients = torch.autograd.grad(y, leaves, dy)
    for got, want in zip(gradients, torch.autograd.grad(wanted, leaves, dy.double()), strict=True):
        assert close(got, want, TOLERANCE[dtype])
    assert not gradients[1][EXPERTS - 1].any()  # an expert nobody chose


def test_rows_in_place_have_the_same_products_and_gradients_as_rows_by_token():
    x, chosen, _, w, _ = operands(1, 60)
    places = expert_places(chosen, EXPERTS)
    by_token, in_place = x.clone().requires_grad_(), x[places.token_P].requires_grad_()
    y = [grouped_linear(rows, w, places, by_token=rows is by_token) for rows in (by_token, in_place)]
    assert same_bits(*y)
    dy = randn(9, *y[0].shape)
    dx, dx_places = torch.autograd.grad(y[0], by_token, dy)[0], torch.autograd.grad(y[1], in_place, dy)[0]
    slot = dx_places[places.place_Tk]
    assert same_bits(dx, slot[:, 0] + 0.0 + slot[:, 1] + slot[:, 2])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_never_sees_how_full_its_experts_are(dtype):
    x, chosen, weights, w_in, w_out = operands(7, 140, dtype)
    whole = layer(x, chosen, weights, w_in, w_out)
    pieces = zip(x.split([1, 20, 119]), chosen.split([1, 20, 119]), weights.split([1, 20, 119]), strict=True)
    assert same_bits(whole, torch.cat([layer(*piece, w_in, w_out) for piece in pieces]))
    x[1::2] = float("nan")
    assert same_bits(whole[::2], layer(x, chosen, weights, w_in, w_out)[::2])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_of_a_group_is_the_linear_layer_of_that_row(dtype):
    x, chosen, _, w, _ = operands(3, 140, dtype)
    places = expert_places(chosen, EXPERTS)
    y, starts = grouped_linear(x, w, places, by_token=True), places.starts.tolist()
    for expert, (start, stop) in enumerate(pairwise(starts)):
        assert same_bits(y[start:stop], linear(x[places.token_P[start:stop]], w[expert]))


@pytest.mark.parametrize(("num_rows", "slots", "experts"), [(1, 1, 1), (40, 3, 7), (300, 2, 3), (5, 6, 256)])
def test_places_are_those_of_a_stable_sort_and_nothing_is_filled(num_rows, slots, experts):
    chosen = randint(1, experts, num_rows, slots)
    places = expert_places(chosen, experts)
    assert sorted(places.place_Tk.flatten().tolist()) == list(range(num_rows * slots))
    assert len(places.starts) == experts + 1
    for expert in range(experts):
        group = places.token_P[int(places.starts[expert]) : int(places.starts[expert + 1])]
        assert group.tolist() == [t for t, row in enumerate(chosen.tolist()) for e in row if e == expert]
    assert torch.equal(places.token_P[places.place_Tk], torch.arange(num_rows)[:, None].expand(-1, slots))


def test_combine_has_the_bits_of_multiplying_and_adding_slot_by_slot():
    y, weights, place = (
        randn(1, 120, 70),
        randn(2, 40, 3),
        torch.randperm(120, generator=torch.Generator("cpu").manual_seed(3), device="cpu"),
    )
    place = place.to(y.device).view(40, 3)
    wanted = torch.zeros(40, 70)
    for slot in range(3):
        wanted += y[place[:, slot]] * weights[:, slot, None]
    assert same_bits(combine(y, weights, ExpertPlaces(place.flatten(), place, place.flatten())), wanted)


def test_adding_in_order_of_arrival_breaks_the_law():
    """Negative control: what a scatter with addition does."""
    y, weights, tokens = randn(1, 240, 32), randn(2, 40, 6), torch.arange(40).repeat_interleave(6)
    terms = y * weights.flatten()[:, None]
    orders = torch.arange(240), randn(3, 240).argsort()
    arrivals = [torch.zeros(40, 32).index_add_(0, tokens[order], terms[order]) for order in orders]
    assert rows_that_differ(*arrivals) > 20


def test_tiles_chosen_by_how_many_rows_an_expert_got_break_the_law(monkeypatch):
    """Negative control: a smaller step for small groups, which is what tuned kernels do."""
    from microturn.kernels.gpu import experts
    from microturn.kernels.gpu.tiles import Tile

    x, w = randn(1, 96, 300), randn(2, EXPERTS, 24, 300)

    def tuned(rows, chosen):
        size = Tile(64, 64, 16 if rows.shape[0] < 32 else 64, 4, 1)
        monkeypatch.setattr(experts, "tile_for", lambda op, x: size)
        return grouped_linear(rows, w, expert_places(chosen, EXPERTS), by_token=True)

    chosen = torch.zeros(96, 1, dtype=torch.int64)
    assert rows_that_differ(tuned(x, chosen), torch.cat([tuned(a, b) for a, b in zip(x.split(12), chosen.split(12), strict=True)])) > 20


def test_gradients_have_the_same_bits_twice():
    x, chosen, weights, w_in, w_out = operands(5, 90)
    leaves = [t.requires_grad_() for t in (x, weights, w_in, w_out)]
    once, twice = (torch.autograd.grad(layer(x, chosen, weights, w_in, w_out).sum(), leaves) for _ in range(2))
    assert all(same_bits(a, b) for a, b in zip(once, twice, strict=True))
