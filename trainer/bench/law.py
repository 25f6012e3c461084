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

from ..model import Inputs, InteractionModel, ModelSpec, initialise
from ..session import Engine, Limits
from .plain import plain
from .rows import made_up

Timed = tuple[str, Callable[[], None], Callable[[], None]]  # what, with the law, in plain torch


@click.command("law", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--preset", type=click.Choice(["nano", "micro", "tiny"]), default="micro", show_default=True, help="Sizes of the model.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True, help="Of the rows.")
@click.option("--rows", default=2048, show_default=True, type=click.IntRange(64), help="Rows of a whole document.")
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1), help="Interleaved runs; medians are told.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: torch's own choice]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table.")
def law_bench(preset: str, dtype: str, rows: int, repeat: int, threads: int | None, as_json: bool) -> None:
    """Measure the price of law 3: training step, whole forward, appends of 20 rows and of 1, each beside plain torch.

    A plain append is a plain forward over as many rows without any past: less work than ours, so the ratio is an upper bound.

    \b
    Examples:
      microturn bench law
      microturn bench law --preset nano --dtype bfloat16 --threads 1
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    model = initialise(InteractionModel(ModelSpec.preset(preset), dtype=getattr(torch, dtype)), seed=0)
    found = _measure(_timed(model, made_up(rows, seed=1)), repeat)
    about = {"preset": preset, "dtype": dtype, "rows": rows, "threads": torch.get_num_threads(), "repeat": repeat}
    if as_json:
        click.echo(json.dumps(about | {"measured": found}))
        return
    table = Table(
        title=f"{preset}, {dtype}, {rows} rows, {about['threads']} threads: CPU seconds, medians of {repeat}", title_justify="left"
    )
    for column in ("", "with the law", "plain torch", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in found.items():
        table.add_row(name, f"{row['law_s']:.4f}", f"{row['plain_s']:.4f}", f"{row['ratio']:.2f}×")
    Console().print(table)


def _timed(model: InteractionModel, whole: Inputs) -> list[Timed]:
    def forward() -> None:
        with torch.no_grad():
            model(whole)

    def step() -> None:
        output = model(whole)
        (model.text_logits(output.hidden_TD[::8]).float().logsumexp(-1).mean() + output.hidden_TD.float().square().mean()).backward()
        model.zero_grad()

    def in_plain(run: Callable[[], None]) -> Callable[[], None]:
        def run_plain() -> None:
            with plain():
                run()

        return run_plain

    timed: list[Timed] = [("training step", step, in_plain(step)), ("whole forward", forward, in_plain(forward))]
    for rows in (20, 1):
        timed.append((f"append of {rows}", *_append(model, whole, rows)))
    return timed


def _append(model: InteractionModel, whole: Inputs, rows: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """An append behind half the document; and a plain forward of as many rows that have no past."""
    past = whole.rows.num_rows // 2
    engine = Engine(model, Limits(sessions=1, rows=whole.rows.num_rows, uncommitted_rows=whole.rows.num_rows))
    session = engine.open("append", rows=whole.rows.num_rows)
    engine.append([(session, whole.piece([0], [past]))])
    engine.commit(session)
    piece = whole.piece([past], [past + rows])

    def law() -> None:
        engine.append([(session, piece)])
        engine.abort(session)

    alone = whole.piece([0], [rows])

    def in_plain() -> None:
        with plain(), torch.no_grad():
            model(alone)

    return law, in_plain


def _measure(timed: list[Timed], repeat: int) -> dict[str, dict[str, float]]:
    found = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=len(timed) * repeat)
        for name, law, in_plain in timed:
            law(), in_plain()  # shapes are tried and pages touched
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(repeat):
                for side, run in enumerate((law, in_plain)):
                    start = time.process_time()
                    run()
                    times[side].append(time.process_time() - start)
                progress.advance(task)
            law_s, plain_s = map(statistics.median, times)
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            found[name] = {"law_s": law_s, "plain_s": plain_s, "ratio": ratio}
    return found
