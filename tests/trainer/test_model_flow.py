"""The flow head: Euler on a known velocity, silence before training, and that it can learn at all."""

import math
from itertools import pairwise

import pytest
import torch
from handmade import SPEC, model_of
from microturn.trainer.model import FlowHead, InteractionModel, initialise
from microturn.trainer.model.flow import FRAME_VALUES, euler_times, waves
from tensors import close, randn, same_bits, threads


@pytest.fixture(autouse=True)
def _one_thread():
    with threads(1):
        yield


def known(velocity, steps: int = 8) -> FlowHead:
    """A head whose velocity at (x, t) is given."""
    head = FlowHead(SPEC.model_copy(update={"flow_steps": steps}))
    head.velocity_given = lambda _, x_FX, time_F: velocity(x_FX, time_F[:, None])
    torch.nn.init.zeros_(head.hidden.weight)
    return head


@pytest.mark.parametrize("steps", [1, 2, 8, 13])
def test_euler_on_the_straight_lines_velocity_comes_to_the_speech(steps):
    """Whether it is told as the constant x1 - noise, or as what is left of the way."""
    noise, speech, hidden = randn(1, 5, FRAME_VALUES), randn(2, 5, FRAME_VALUES) * 3, randn(3, 5, 64)
    assert close(known(lambda x, t: speech - noise, steps).sample(hidden, noise), speech, 1e-6)
    assert close(known(lambda x, t: (speech - x) / (1 - t), steps).sample(hidden, noise), speech, 1e-6)
    assert not close(known(lambda x, t: noise - speech, steps).sample(hidden, noise), speech, 0.1)


def test_euler_on_a_bent_path_comes_nearer_with_more_steps():
    """dx/dt = x from 1 comes to e; nothing else than the table decides how near."""
    far = [abs(float(known(lambda x, t: x, n).sample(torch.zeros(1, 64), torch.ones(1, 1))) - math.e) for n in (1, 4, 16, 64)]
    assert far[0] > 2 * far[1] > 4 * far[2] > 8 * far[3] and far[3] < 0.03


@pytest.mark.parametrize("steps", [1, 2, 8, 50])
def test_times_rise_from_0_to_1_with_smaller_steps_first(steps):
    times = euler_times(steps)
    widths = [b - a for a, b in pairwise(times)]
    assert times[0] == 0 and times[-1] == 1 and len(times) == steps + 1
    assert all(0 < a <= b for a, b in pairwise(widths)) and widths[0] > 0


def test_an_untrained_head_says_no_velocity():
    head = initialise(InteractionModel(SPEC), 1).flow
    hidden, noise = randn(1, 7, 64), randn(2, 7, FRAME_VALUES)
    with torch.no_grad():
        assert not head(hidden, noise, torch.rand(7)).any() and same_bits(head.sample(hidden, noise), noise)
        assert not any((layer(noise[:, :24], hidden[:, :24]) - noise[:, :24]).any() for layer in head.layers)  # gates are shut


def test_velocity_depends_on_row_point_and_time_each():
    head, hidden, x, time = model_of().flow, randn(1, 4, 64), randn(2, 4, FRAME_VALUES), torch.full((4,), 0.3)
    with torch.no_grad():
        velocity = head(hidden, x, time)
        assert velocity.dtype == torch.float32 and velocity.shape == (4, FRAME_VALUES)
        assert same_bits(head.velocity_given(head.condition(hidden), x, time), velocity)
        for other in (head(hidden + 0.1, x, time), head(hidden, x + 0.1, time), head(hidden, x, time + 0.1)):
            assert not close(other, velocity, 1e-3)
        assert not close(waves(torch.tensor([0.0])), waves(torch.tensor([0.01])), 1e-2)


def test_bf16_rows_are_taken_as_fp32():
    head, hidden = model_of().flow, randn(1, 4, 64).to(torch.bfloat16)
    with torch.no_grad():
        assert same_bits(head.condition(hidden), head.condition(hidden.float()))


def test_a_head_that_is_trained_learns_where_to_go():
    """Two kinds of hidden rows, a frame for each: before, samples are as far from one as from the other."""
    head = initialise(InteractionModel(SPEC.model_copy(update={"flow_width": 352, "flow_layers": 1})), 1).flow
    rows, frames = randn(1, 2, 64), randn(2, 2, FRAME_VALUES)

    def distances() -> tuple[float, float]:
        """Of samples to their own frame and to the other."""
        with torch.no_grad():
            said = head.sample(rows, randn(9, 2, FRAME_VALUES))
        return float((said - frames).square().mean()), float((said - frames.flip(0)).square().mean())

    before = distances()
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    hidden, speech = rows.repeat(16, 1), frames.repeat(16, 1)
    for step in range(60):
        noise, time = randn(100 + step, 32, FRAME_VALUES), torch.rand(32, generator=torch.Generator().manual_seed(step))
        loss = (head(hidden, torch.lerp(noise, speech, time[:, None]), time) - (speech - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    own, other = distances()
    assert abs(before[0] / before[1] - 1) < 0.2 and own < 0.3 * other
