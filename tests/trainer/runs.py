"""Runs that take seconds: `from runs import Listener, config, go, rows, tensors`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from microturn.trainer.train.loop import Stand, train
from microturn.trainer.train.metrics import SECONDS
from microturn.trainer.train.run_folder import RunFolder
from microturn.trainer.train.spec import TrainSpec, merged
from safetensors.torch import load_file
from torch import Tensor

SIZES = {
    "hidden": 32, "layers": 2, "global_every": 2, "heads": 2, "kv_heads": 1, "window_heads": 2, "window_kv_heads": 1, "head_dim": 16,
    "window": 64, "bias_columns": 4, "bias_extent": 64, "experts": 4, "experts_per_row": 2, "shared_experts": 1, "expert_width": 16,
    "vocabulary": 280, "vision_layers": 1, "flow_width": 32, "flow_layers": 1,
}  # fmt: skip


class Listener:
    """Who keeps what a run tells; `stop_after` asks it to stop after that step."""

    def __init__(self, *, stop_after: int = 0) -> None:
        self.told: list[str] = []
        self.rows: list[dict[str, Any]] = []
        self._stop_after = stop_after

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)

    def step(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def asked(self) -> bool:
        return bool(self._stop_after) and bool(self.rows) and self.rows[-1]["step"] >= self._stop_after


def config(corpus: Path, steps: int, **changes: Any) -> dict[str, Any]:
    """The config of a tiny run: two sequences a step, one thread, a checkpoint every other step, nothing held out."""
    tiny = {
        "seed": 3,
        "model": SIZES,
        "corpora": [{"path": str(corpus)}],
        "data": {"sequence_tokens": 256, "document_ticks": 30},
        "step_sequences": 2,
        "schedule": {"warmup_steps": 2},
        "optimizer": {"lr": 0.01},
        "losses": {"flow_draws": 1},
        "pace": {"steps": steps, "workers": 0, "threads": 1, "evaluate_every": 0, "checkpoint_every": 2, "keep": 3},
    }
    return merged(tiny, changes)


def go(folder: Path, config: Mapping[str, Any], listener: Listener | None = None, asked: Callable[[], bool] | None = None) -> Stand:
    """The run in this folder, brought as far as the config says."""
    listener = listener or Listener()
    return train(TrainSpec.of(config, where="test"), RunFolder(folder), listener, asked_to_stop=asked or listener.asked)


def rows(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl, without what the clock had a hand in."""
    return [{name: value for name, value in row.items() if name not in SECONDS} for row in RunFolder(folder).rows()]


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint."""
    return {name: tensor for file in sorted(checkpoint.glob("*.safetensors")) for name, tensor in load_file(file).items()}
