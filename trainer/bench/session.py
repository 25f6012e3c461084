"""`microturn bench session`: what an append costs as its session grows, beside what a server without state would pay; and memory.

Sessions of several lengths stand side by side in one engine; an append to each in turn is timed and taken back, so that whatever the
machine does meets all lengths alike. The longest has grown append by append, the others in long pieces. Twice: with the preset's global
layers made windowed, where nothing may grow, and as the preset is, where the reads of the global layers grow with the document:

    KV rows read by an append of n rows behind p, per layer    global    64 · ⌈(p + n) / 64⌉
                                                               windowed  64 · (⌊(p + n - 1) / 64⌋ - ⌊max(0, p - window + 1) / 64⌋ + 1)

That is counted where attention reads pages, and set beside the formula. Appends are short enough to be one tile of attention (64 rows).
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from unittest.mock import patch

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ...kernels import PAGE_ROWS, attention_cpu
from ..model import Inputs, InteractionModel, ModelSpec, initialise
from ..model.inputs import continued
from ..session import Engine, Limits, Session, session_bytes
from .rows import made_up

EARLY = 30  # the append that later ones are compared with: past the windows of nano and micro
PIECES = 50  # different appends, taken in turn
LONG_ROWS = 1000  # of the pieces in which the shorter sessions grow


@dataclass(frozen=True, slots=True)
class Measured:
    """One append of a session, the `append`-th.

    Attributes:
        rows: of the session before it.
        cpu_s: the append's, a median. kv_rows, kv_rows_formula: read by it, over all layers: counted, and by the formula.
        again_s: CPU seconds of computing the whole document for the same rows; None where that was not done.
    """

    append: int
    rows: int
    cpu_s: float
    kv_rows: int
    kv_rows_formula: int
    again_s: float | None


@dataclass(frozen=True, slots=True)
class Grown:
    """What was measured of one model: appends by ascending length; the longest session's bytes, by its tensors and by the formula."""

    appends: tuple[Measured, ...]
    ratio: float
    session_bytes: int
    session_bytes_formula: int

    @property
    def kv_rows_slope(self) -> float:
        """KV rows read more for each row that a document has more."""
        first, last = self.appends[0], self.appends[-1]
        return (last.kv_rows - first.kv_rows) / (last.rows - first.rows)

    @property
    def us_per_krow(self) -> float:
        """CPU microseconds more for a thousand rows that a document has more."""
        first, last = self.appends[0], self.appends[-1]
        return (last.cpu_s - first.cpu_s) / (last.rows - first.rows) * 1e9


@click.command("session", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--preset", type=click.Choice(["nano", "micro", "tiny"]), default="nano", show_default=True, help="Sizes of the model.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of the rows.")
@click.option(
    "--appends", default=3000, show_default=True, type=click.IntRange(EARLY + 1), help="Of the longest session, 10 minutes of speech."
)
@click.option("--rows", default=20, show_default=True, type=click.IntRange(1, 64), help="Of an append; a tick has 6 to 30.")
@click.option("--repeat", default=15, show_default=True, type=click.IntRange(1), help="Interleaved appends; medians are told.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: torch's own choice]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables.")
def session_bench(preset: str, dtype: str, appends: int, rows: int, repeat: int, threads: int | None, as_json: bool) -> None:
    """Measure how the cost of an append grows with its session: the 30th beside the last, CPU seconds, KV rows read, memory.

    Beside it: computing the whole document again for every append, as a server that keeps no state would.

    \b
    Examples:
      microturn bench session
      microturn bench session --preset micro --appends 300 --json
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    spec = ModelSpec.preset(preset)
    found = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for name, here in (("windowed only", windowed_only(spec)), (f"{preset} as it is", spec)):
            model = initialise(InteractionModel(here, dtype=getattr(torch, dtype)), seed=0)
            found[name] = grown(model, appends, rows, repeat, progress, name, again=here is spec)
    about = {"preset": preset, "dtype": dtype, "rows": rows, "threads": torch.get_num_threads(), "repeat": repeat}
    if as_json:
        slopes = {name: {"kv_rows_slope": one.kv_rows_slope, "us_per_krow": one.us_per_krow} for name, one in found.items()}
        click.echo(json.dumps(about | {name: asdict(one) | slopes[name] for name, one in found.items()}))
        return
    for name, one in found.items():
        _show(one, f"{name}, {dtype}, appends of {rows} rows, {about['threads']} threads", spec if name != "windowed only" else None)


def windowed_only(spec: ModelSpec) -> ModelSpec:
    """The same sizes with a window in every layer."""
    return spec.model_copy(update={"global_every": spec.layers + 1})


def kv_rows(spec: ModelSpec, past: int, rows: int) -> int:
    """KV rows that an append of so many rows behind `past` reads, over all layers: whole pages."""
    newest, total = (past + rows - 1) // PAGE_ROWS, 0
    for layer in range(spec.layers):
        oldest = 0 if spec.is_global(layer) else max(0, past - spec.window + 1) // PAGE_ROWS
        total += (newest - oldest + 1) * PAGE_ROWS
    return total


@contextmanager
def reads() -> Iterator[list[int]]:
    """A list that gets, for every attention computed inside, how many KV rows it read."""
    counted: list[int] = []
    plan_for = attention_cpu.plan_for

    def noting(*arguments):
        plan = plan_for(*arguments)
        counted.append(plan.num_used * PAGE_ROWS)
        return plan

    with patch.object(attention_cpu, "plan_for", noting):
        yield counted


def grown(model: InteractionModel, appends: int, rows: int, repeat: int, progress: Progress, name: str, *, again: bool = True) -> Grown:
    """What appends cost in sessions of EARLY - 1 to `appends` - 1 appends; `again` computes whole documents, too."""
    numbers = sorted({EARLY, appends, *(number for number in (100, 300, 1000, 3000, 10_000) if EARLY < number < appends)})
    task = progress.add_task(name, total=sum(numbers) + len(numbers) * (repeat + again - 1))

    def told(count: int = 1) -> None:
        progress.advance(task, count)

    pieces = _pieces(rows)
    capacities = [number * rows for number in numbers]
    limits = Limits(sessions=len(numbers), rows=sum(capacities), uncommitted_rows=max(LONG_ROWS, rows))
    engine = Engine(model, limits)
    sessions = []
    for number, capacity in zip(numbers, capacities, strict=True):
        session = engine.open(str(number), rows=capacity)
        _grow(engine, session, pieces, number - 1, 1 if number == appends else max(1, LONG_ROWS // rows), told)
        sessions.append(session)
    piece = pieces[-1]
    counted = [_counted(engine, session, piece) for session in sessions]
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(repeat):
        for place, session in enumerate(sessions):
            start = time.process_time()
            engine.append([(session, piece)])
            times[place].append(time.process_time() - start)
            engine.abort(session)
            told()
    found = []
    for number, session, count, seconds in zip(numbers, sessions, counted, times, strict=True):
        formula = kv_rows(model.spec, session.rows, rows)
        again_s = _again(model, continued(list(islice(cycle(pieces), number)))) if again else None
        found.append(Measured(number, session.rows, statistics.median(seconds), count, formula, again_s))
        told(again)
    ratio = statistics.median(late / early for early, late in zip(times[0], times[-1], strict=True))
    formula = session_bytes(model.spec, sessions[-1].capacity, limits, model.dtype)
    return Grown(tuple(found), ratio, owned_bytes(engine, sessions[-1]), formula)


def owned_bytes(engine: Engine, session: Session) -> int:
    """Bytes of the tensors that a session owns: its pages in all pools, and its committed state of convolutions."""
    total = 0
    for layer, conv in enumerate(session.marks[0].convs):
        pages = session.pages if engine.model.spec.is_global(layer) else session.ring
        for pool in (engine.pools.keys[layer], engine.pools.values[layer]):
            total += sum(pool[page].nbytes for page in pages)
        total += sum(getattr(conv, name).nbytes for name in ("keys", "values", "attention", "mlp"))
    return total


def _pieces(rows: int) -> list[Inputs]:
    whole = made_up(rows * PIECES, seed=1)
    return [whole.piece([start], [start + rows]) for start in range(0, rows * PIECES, rows)]


def _grow(engine: Engine, session: Session, pieces: Sequence[Inputs], appends: int, at_once: int, told: Callable[[int], None]) -> None:
    coming = cycle(pieces)
    for start in range(0, appends, at_once):
        together = list(islice(coming, min(at_once, appends - start)))
        engine.append([(session, continued(together))])
        engine.commit(session)
        told(len(together))


def _counted(engine: Engine, session: Session, piece: Inputs) -> int:
    with reads() as counted:
        engine.append([(session, piece)])
        engine.abort(session)
    return sum(counted)


@torch.no_grad()
def _again(model: InteractionModel, whole: Inputs) -> float:
    start = time.process_time()
    model(whole)
    return time.process_time() - start


def _show(found: Grown, title: str, spec: ModelSpec | None) -> None:
    """A table, and below it what grows; `spec` where global layers make it grow."""
    table = Table(title=title, title_justify="left")
    with_again = found.appends[0].again_s is not None
    for column in ("append", "rows before", "CPU ms", "KV rows read", "by formula", *(["whole again, CPU ms"] * with_again)):
        table.add_column(column, justify="right")
    for one in found.appends:
        cells = [f"{one.append:,}", f"{one.rows:,}", f"{one.cpu_s * 1000:.1f}", f"{one.kv_rows:,}", f"{one.kv_rows_formula:,}"]
        table.add_row(*cells, *([f"{one.again_s * 1000:,.0f}"] if one.again_s is not None else []))
    console = Console()
    console.print(table)
    first, last = found.appends[0].append, found.appends[-1].append
    console.print(f"append {last:,} ÷ append {first}: {found.ratio:.2f}×", highlight=False)
    if spec is not None:
        layers = sum(spec.is_global(layer) for layer in range(spec.layers))
        console.print(
            f"each row more: {found.kv_rows_slope:.3f} KV rows read, formula {layers} (global layers); "
            f"1,000 rows more: {found.us_per_krow:.0f} µs of CPU",
            highlight=False,
        )
    console.print(f"memory of the longest session: {found.session_bytes:,} bytes, formula {found.session_bytes_formula:,}", highlight=False)
