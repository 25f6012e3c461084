"""What a person sees of a run: one live line on a terminal, else a plain line every few seconds. Everything to stderr."""

from collections import deque
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_EVERY_S = 10.0
RECENT = 20  # steps over which speed is taken


class Shown:
    """Progress of a run to its last step; a context."""

    def __init__(self, console: Console, *, steps: int) -> None:
        self._console, self._steps = console, steps
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)
        self._rows, self._told = 0, 0.0
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("opening", total=steps)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, sentence: str) -> None:
        """Nothing; a sentence above the progress."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def step(self, row: dict[str, Any]) -> None:
        """Nothing; the row of a step is shown, or kept for the next line."""
        now = monotonic()
        if not self._recent:
            self._recent.append((now - row["seconds"], 0))
        self._rows += row["rows"]
        self._recent.append((now, self._rows))
        line = describe(row, self._recent, self._steps)
        if self._bar is not None:
            self._bar.update(self._task, completed=row["step"], description=line)
        elif "held_out_loss" in row or row["step"] == self._steps or now - self._told >= LINE_EVERY_S:
            self._told = now
            self.tell(f"step {row['step']}/{self._steps}  {line}")
        if self._bar is not None and "held_out_loss" in row:
            self.tell(f"step {row['step']}  {held_out(row)}")


def describe(row: dict[str, Any], recent: "deque[tuple[float, int]]", steps: int) -> str:
    """loss and its parts, speed, expected finish and load of a step on one line."""
    (before, rows_before), (now, rows) = recent[0], recent[-1]
    seconds = max(now - before, 1e-9)
    per_step = seconds / max(len(recent) - 1, 1)
    parts = [
        f"loss {row['loss']:.4f}",
        f"text {row['text']:.4f}",
        f"flow {row['flow']:.4f}",
        f"{(rows - rows_before) / seconds:,.0f} tokens/s",
        f"{clock(per_step * (steps - row['step']))} left",
        f"busiest expert ×{row['crowding']:.2f}",
    ]
    return "  ".join([*parts, held_out(row)] if "held_out_loss" in row else parts)


def held_out(row: dict[str, Any]) -> str:
    """The held-out losses of a row, each beside what is reached without hearing."""
    text, flow = ((f" ({row[name]:.4f} unheard)" if name in row else "") for name in ("floor_text", "floor_flow"))
    return f"held out: text {row['held_out_text']:.4f}{text}, flow {row['held_out_flow']:.4f}{flow}"


def clock(seconds: float) -> str:
    """`3:05` or `1:03:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
