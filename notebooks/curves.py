"""Pictures of a run: its losses beside what can be reached without listening, and when a model would speak beside when somebody did."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

COLOURS = {"text": "#2166ac", "flow": "#b2182b"}
NAMES = {"text": "text and control (nats)", "flow": "own speech (squared velocity)"}


def losses(axes: Sequence[Axes], rows: Sequence[Mapping[str, Any]]) -> Sequence[Axes]:
    """Text on the first of the axes, flow on the second, from rows of metrics.jsonl: each step thin, held out thick, the floor dashed."""
    for ax, name in zip(axes, NAMES, strict=False):
        steps = [row["step"] for row in rows]
        ax.plot(steps, [row[name] for row in rows], color=COLOURS[name], lw=0.7, alpha=0.6, label="training")
        held = [(row["step"], row[f"held_out_{name}"]) for row in rows if f"held_out_{name}" in row]
        if held:
            ax.plot(*zip(*held, strict=True), "o-", color=COLOURS[name], lw=2, label="held out")
        floors = [row[f"floor_{name}"] for row in rows if f"floor_{name}" in row]
        if floors:
            ax.axhline(floors[-1], color="0.4", ls="--", lw=1, label="without listening")
        ax.set(title=NAMES[name], xlabel="step", ylim=(0, None))
        ax.legend(frameon=False)
    return axes


def speaking(ax: Axes, probability_T: NDArray[Any], said_T: NDArray[Any], *, start_tick: int = 0) -> Axes:
    """How likely `<speak>` was after each tick, as bars, over the ticks in which the recorded person spoke, shaded."""
    ticks = start_tick + np.arange(len(probability_T))
    ax.fill_between(ticks, np.asarray(said_T, float), step="mid", color="#fddbc7", label="spoke, in the recording")
    ax.bar(ticks, probability_T, width=0.8, color=COLOURS["text"], label="would speak, says the model")
    ax.set(xlabel="tick (200 ms)", ylabel="probability of <speak>", ylim=(0, 1.02), xlim=(ticks[0] - 0.5, ticks[-1] + 0.5))
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncol=2)
    return ax
