"""What came of each step, as rows of metrics.jsonl and as curves for TensorBoard.

A row: step · loss, text, flow, load (the last step's means, before its update) · text_weight, flow_weight, load_weight · grad_norm, rate ·
crowding · rows, ticks · seconds, wait_s, forward_s, backward_s, update_s · where it was evaluated: held_out_loss, held_out_text,
held_out_flow, floor_text, floor_flow. Everything before `seconds` and after the last second is a function of the run; the seconds are not.
"""

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from .balance import crowding
from .evaluate import Floor, HeldOut
from .step import Stepped

SECONDS = ("seconds", "wait_s", "forward_s", "backward_s", "update_s")
FLUSH_S = 10


def row_of(step: int, stepped: Stepped, *, rate: float, wait_s: float, seconds: float) -> dict[str, Any]:
    """The row of a step."""
    return {
        "step": step,
        "loss": stepped.loss,
        "text": stepped.text,
        "flow": stepped.flow,
        "load": stepped.load,
        "text_weight": stepped.weights.text,
        "flow_weight": stepped.weights.flow,
        "load_weight": stepped.weights.load,
        "grad_norm": stepped.grad_norm,
        "rate": rate,
        "crowding": crowding(stepped.counts_LE),
        "rows": stepped.rows,
        "ticks": stepped.ticks,
        "seconds": round(seconds, 6),
        "wait_s": round(wait_s, 6),
        "forward_s": round(stepped.forward_s, 6),
        "backward_s": round(stepped.backward_s, 6),
        "update_s": round(stepped.update_s, 6),
    }


def held_out_row(held: HeldOut, floor: Floor | None) -> dict[str, Any]:
    """What an evaluation adds to the row of its step."""
    row = {"held_out_loss": held.loss, "held_out_text": held.text, "held_out_flow": held.flow}
    return row | ({} if floor is None else {"floor_text": floor.text, "floor_flow": floor.flow})


class Metrics:
    """Appends rows; rank 0 has one, from the step on that the run goes on at."""

    def __init__(self, path: Path, tensorboard: Path, *, step: int) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._curves = SummaryWriter(str(tensorboard), purge_step=step + 1, flush_secs=FLUSH_S)

    def append(self, row: dict[str, Any]) -> None:
        """Nothing; a kill of this process leaves the row."""
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._curves.add_scalar(_tag(name), value, row["step"])

    def settle(self) -> None:
        """Nothing; rows so far outlive the machine, as a checkpoint that counts on them does."""
        os.fsync(self._file.fileno())
        self._curves.flush()

    def close(self) -> None:
        self._file.close()
        self._curves.close()


def _tag(name: str) -> str:
    """A curve's name: its group before the slash."""
    for group, names in (("loss", ("loss", "text", "flow", "load")), ("seconds", SECONDS)):
        if name in names:
            return f"{group}/{name}"
    for group in ("held_out", "floor"):
        if name.startswith(group):
            return f"held_out/{name.removeprefix('held_out_')}"
    return f"run/{name}"
