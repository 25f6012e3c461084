"""`microturn bench law`: what law 3 costs, against the same equations in plain torch, same weights, dtype and threads, in one run."""

import json
import statistics
import time
from collections.abc import Callable

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ... import kernels
from ..model import Inputs, InteractionModel, ModelSpec, initialise
from ..session import Engine, Limits
from .ops import COLUMNS, timed_ops
from .plain import Cached, plain
from .rows import made_up

Run = Callable[[], object]
Timed = tuple[str, Run, Run]  # what, with the law, in plain torch (to be called inside `plain()`)
LEAST_S = 0.005  # of CPU in one measurement: what is shorter is repeated


@click.command("law", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--preset", type=click.Choice(["nano", "micro", "tiny"]), default="micro", show_default=True, help="Sizes of the model.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of the rows.")
@click.option("--rows", default=2048, show_default=True, type=click.IntRange(64), help="Rows of a whole document.")
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1), help="Interleaved runs; medians are told.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: torch's own choice]")
@click.option("--ops", "by_op", is_flag=True, help="A table per op instead of whole steps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table.")
def law_bench(preset: str, dtype: str, rows: int, repeat: int, threads: int | None, by_op: bool, as_json: bool) -> None:
    """Measure the price of law 3: training step, whole forward, appends of 20 rows and of 1, each beside plain torch.

    Appends stand behind half the document in both; a plain one reads a cache of keys and values by SDPA. Times are CPU seconds.

    \b
    Examples:
      microturn bench law
      microturn bench law --preset nano --dtype bfloat16 --threads 1
      microturn bench law --ops
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    model = initialise(InteractionModel(ModelSpec.preset(preset), dtype=getattr(torch, dtype)), seed=0)
    about = {"preset": preset, "dtype": dtype, "rows": rows, "threads": torch.get_num_threads(), "repeat": repeat}
    if by_op:
        timed: list[Timed] = [(f"{op.op}: {op.column}", op.law, op.plain) for op in timed_ops(model, rows)]
    else:
        timed = _timed(model, made_up(rows, seed=1))
    found = measured(timed, repeat)
    if as_json:
        click.echo(json.dumps(about | {"measured": found}))
        return
    title = f"{preset}, {dtype}, {rows} rows, {about['threads']} threads"
    Console().print(
        _by_op(found, f"{title}: law ÷ plain torch") if by_op else _by_step(found, f"{title}: CPU seconds, medians of {repeat}")
    )


def measured(timed: list[Timed], repeat: int) -> dict[str, dict[str, float]]:
    """Per name `law_s`, `plain_s`, medians of CPU seconds, and `ratio`, the median of the ratios of neighbouring runs."""
    found = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=len(timed) * repeat)
        for name, law, in_plain in timed:
            with plain():
                plain_count = _count(in_plain)
            law_count = _count(law)
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(repeat):
                times[0].append(_seconds(law, law_count))
                with plain():
                    times[1].append(_seconds(in_plain, plain_count))
                progress.advance(task)
            law_s, plain_s = map(statistics.median, times)
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            found[name] = {"law_s": law_s, "plain_s": plain_s, "ratio": ratio}
    return found


def _count(run: Run) -> int:
    """How often it is run in one measurement; the first run tries shapes and touches pages."""
    run()
    return max(1, int(LEAST_S / max(_seconds(run, 1), 1e-6)))


def _seconds(run: Run, count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - start) / count


def _timed(model: InteractionModel, whole: Inputs) -> list[Timed]:
    own, ask = whole.own_rows, torch.arange(0, whole.rows.num_rows, 8)
    noise_FX, time_F = torch.randn(len(own), 320), torch.rand(len(own))

    def forward() -> None:
        with torch.no_grad():
            model(whole)

    def step() -> None:
        output = model(whole)
        text = kernels.cross_entropy(model.text_logits(output.hidden_TD[ask]), whole.ids[ask]).mean()
        flow = (model.flow(output.hidden_TD[own], noise_FX, time_F) + noise_FX).square().mean()
        (text + flow + 1e-3 * output.load).backward()
        model.zero_grad()

    timed: list[Timed] = [("training step", step, step), ("whole forward", forward, forward)]
    for rows in (20, 1):
        timed.append((f"append of {rows}", *_append(model, whole, rows)))
    return timed


def _append(model: InteractionModel, whole: Inputs, rows: int) -> tuple[Run, Run]:
    """An append behind half the document: of a session, and of a plain cache."""
    num_rows, past = whole.rows.num_rows, whole.rows.num_rows // 2
    engine, cached = Engine(model, Limits(sessions=1, rows=num_rows, uncommitted_rows=num_rows)), Cached(model, num_rows)
    session = engine.open("append", rows=num_rows)
    engine.append([(session, whole.piece([0], [past]))])
    engine.commit(session)
    with plain():
        cached.append(whole.piece([0], [past]))
    piece = whole.piece([past], [past + rows])

    def law() -> None:
        engine.append([(session, piece)])
        engine.abort(session)

    def in_plain() -> None:
        cached.append(piece, keep=False)

    return law, in_plain


def _by_step(found: dict[str, dict[str, float]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "with the law", "plain torch", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in found.items():
        table.add_row(name, f"{row['law_s']:.4f}", f"{row['plain_s']:.4f}", f"{row['ratio']:.2f}×")
    return table


def _by_op(found: dict[str, dict[str, float]], title: str) -> Table:
    """A row per op: the ratio, and in brackets what it costs with the law, in milliseconds."""
    table = Table(title=title + " (and ms)", title_justify="left")
    for column in ("", *COLUMNS):
        table.add_column(column, justify="right" if column else "left")
    for op in dict.fromkeys(name.rpartition(": ")[0] for name in found):
        here = [found.get(f"{op}: {column}") for column in COLUMNS]
        table.add_row(op, *(_with_ms(row) if row else "" for row in here))
    return table


def _with_ms(row: dict[str, float]) -> str:
    ms = row["law_s"] * 1000
    return f"{row['ratio']:.2f} ({ms:.0f})" if ms >= 10 else f"{row['ratio']:.2f} ({ms:.2g})"
