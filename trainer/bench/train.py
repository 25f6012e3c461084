"""`microturn bench train`: tokens a second of a training step, beside a plain dense transformer of equal active size, in one run."""

import json
import statistics
import time
from collections.abc import Callable

import click
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from ...kernels import cross_entropy, ragged
from ...schemas.layout import BYTES_IDS
from ..model import Inputs, InteractionModel, ModelSpec, count, initialise
from .probe import TICK_ROWS, Probe

SIZES = {"expert_width": 128}  # nano with as many active parameters as the probe


@click.command("train", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--documents", default=8, show_default=True, type=click.IntRange(1), help="Documents of a step.")
@click.option("--ticks", default=150, show_default=True, type=click.IntRange(2), help="Ticks in each; a tick is 6 rows.")
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1), help="Interleaved steps; medians are told.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: torch's own choice]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table.")
def train_bench(documents: int, ticks: int, repeat: int, threads: int | None, as_json: bool) -> None:
    """Measure a training step of nano, law 3 kept, beside the dense transformer that a user would write.

    Both hear the same made-up codes, decide once a tick, have equally many active parameters in their layers, and step with AdamW. Ours has
    experts, convolutions, relative bias and router besides; its flow head has nothing to learn here.

    \b
    Examples:
      microturn bench train
      microturn bench train --threads 1 --ticks 300
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (documents, ticks, 4, 80), generator=generator)
    done = torch.randint(0, 2, (documents, ticks), generator=generator)
    ours, probe = _ours(codes, done), _probe(codes, done)
    found = _measure({"ours": ours, "probe": probe}, documents * ticks * TICK_ROWS, repeat)
    found |= {"active_ours": _active(), "active_probe": Probe().active, "rows": ticks * TICK_ROWS, "threads": torch.get_num_threads()}
    if as_json:
        click.echo(json.dumps(found))
        return
    title = f"training, {documents} documents of {found['rows']} rows, {found['threads']} threads, medians of {repeat}"
    table = Table(title=title, title_justify="left")
    for column in ("", "active parameters", "tokens/s", "tokens/s of CPU"):
        table.add_column(column, justify="right" if column else "left")
    for name, label in (("ours", "nano, law kept"), ("probe", "dense, plain torch")):
        table.add_row(label, f"{found[f'active_{name}']:,}", f"{found[f'{name}_wall']:,.0f}", f"{found[f'{name}_cpu']:,.0f}")
    table.add_row("ratio", "", f"{found['ratio_wall']:.2f}×", f"{found['ratio_cpu']:.2f}×")
    Console().print(table)


def _spec() -> ModelSpec:
    return ModelSpec.preset("nano").model_copy(update=SIZES)


def _active() -> int:
    """Parameters of the layers that one row meets."""
    counts = count(_spec())
    return counts.active - counts.tables


def _ours(codes: torch.Tensor, done: torch.Tensor) -> Callable[[], None]:
    """One step: the same rows as the probe's, as a ragged batch."""
    documents, ticks = done.shape
    rows = documents * ticks * TICK_ROWS
    ids = torch.tensor([BYTES_IDS.heard] * 4 + [BYTES_IDS.perform, BYTES_IDS.silent]).repeat(documents * ticks)
    voice = torch.where(done.flatten() > 0, BYTES_IDS.speak, BYTES_IDS.silent)
    ids[5::TICK_ROWS] = voice
    none = torch.zeros(0, dtype=torch.int64)
    inputs = Inputs(
        rows=ragged([ticks * TICK_ROWS] * documents),
        ids=ids,
        heard_rows=torch.arange(rows).view(-1, TICK_ROWS)[:, :4].flatten(),
        heard_codes=codes.flatten(0, 2).to(torch.uint8),
        own_rows=none,
        own_codes=torch.zeros(0, 4, 80, dtype=torch.uint8),
        patch_rows=none,
        patches=torch.zeros(0, 2, 40, 40, 3, dtype=torch.uint8),
        patch_px=torch.zeros(0, 2, dtype=torch.uint8),
    )
    model = initialise(InteractionModel(_spec()), seed=0)

    def loss() -> torch.Tensor:
        output = model(inputs)
        return cross_entropy(model.text_logits(output.hidden_TD[4::TICK_ROWS]), voice).mean() + 1e-3 * output.load / rows

    return _step(model, loss)


def _probe(codes: torch.Tensor, done: torch.Tensor) -> Callable[[], None]:
    torch.manual_seed(0)
    model = Probe()
    return _step(model, lambda: F.cross_entropy(model(codes, done).flatten(0, 1), done.flatten()))


def _step(model: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _measure(steps: dict[str, Callable[[], None]], tokens: int, repeat: int) -> dict[str, float]:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("measuring", total=repeat)
        for step in steps.values():
            step()  # shapes are tried and pages touched
        for _ in range(repeat):
            for name, step in steps.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step()
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            progress.advance(task)
    found: dict[str, float] = {}
    for number, clock in enumerate(("wall", "cpu")):
        for name in steps:
            found[f"{name}_{clock}"] = tokens / statistics.median(taken[number] for taken in times[name])
        ratios = [probe[number] / ours[number] for ours, probe in zip(times["ours"], times["probe"], strict=True)]
        found[f"ratio_{clock}"] = statistics.median(ratios)
    return found
