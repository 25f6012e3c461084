"""`microturn plan`: does this model fit on N GPUs, how, and what does a step send."""

import json
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..model import PRESETS, ModelSpec
from .memory import FLOW_SHARE, TEXT_SHARE
from .plan import ELEMENT_BYTES, GIB, RESERVE, Layout, Plan, plan, refuse_unfitting


@click.command("plan", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--preset", default="small-276b-a12b", show_default=True, type=click.Choice(list(PRESETS)), help="The model.")
@click.option("--gpus", default=64, show_default=True, type=click.IntRange(1), help="How many GPUs, one process each.")
@click.option(
    "--gpu-memory-gib", default=80.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Of one GPU, in 2^30 bytes."
)
@click.option("--sequence-tokens", default=8192, show_default=True, type=click.IntRange(1), help="Tokens that a GPU takes at once.")
@click.option("--ep", "expert_ranks", type=click.IntRange(1), help="Only layouts with experts over so many GPUs; otherwise all.")
@click.option("--dtype", default="bfloat16", show_default=True, type=click.Choice(list(ELEMENT_BYTES)), help="Of rows; masters are fp32.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def plan_command(preset: str, gpus: int, as_json: bool, **asked: Any) -> None:
    """Plan memory and parallelism of training a model on GPUs, without any GPU.

    Numbers come from a formula over the model's sizes, tested against real tensors of small models. They were not measured on GPUs.

    \b
    Examples:
      microturn plan --preset small-276b-a12b --gpus 128
      microturn plan --preset tiny --gpus 1 --sequence-tokens 4096 --json

    \b
    Layouts: fsdp × ep ranks. Everything is sharded over all GPUs; `ep` neighbours each own a part of every
    layer's experts and send rows to them. A tenth of each GPU is left free.
    Exit codes: 0 something fits, 1 nothing does (the hint says what would), 2 wrong usage.
    """
    made = plan(ModelSpec.preset(preset), gpus, **asked)
    if as_json:
        click.echo(json.dumps(row_of(made, preset), indent=1))
    else:
        show(made, preset, Console())
    refuse_unfitting(made)


def row_of(made: Plan, preset: str) -> dict[str, Any]:
    """The plan as JSON; sizes in bytes of one GPU."""
    return {
        "preset": preset,
        "gpus": made.gpus,
        "usable_bytes": made.usable,
        "sequence_tokens": made.sequence_tokens,
        "step_tokens": made.step_tokens,
        "dtype": made.dtype,
        "parameters": made.counts.total,
        "active_parameters": made.counts.active,
        "sampling_bytes_per_session": made.sampling,
        "layouts": [
            asdict(layout)
            | {
                "total": layout.total(recompute=False),
                "total_recomputed": layout.total(recompute=True),
                "fits": made.fits(layout, recompute=False),
                "fits_recomputed": made.fits(layout, recompute=True),
            }
            for layout in made.layouts
        ],
        "basis": "formula, not measured on GPUs",
    }


def show(made: Plan, preset: str, console: Console) -> None:
    """Prints the plan."""
    counts = made.counts
    console.print(
        f"{preset}: {counts.total / 1e9:.2f} B parameters, {counts.active / 1e9:.2f} B active in text; {made.gpus} GPUs of"
        f" {made.usable / (1 - RESERVE) / GIB:g} GiB, {made.usable / GIB:.1f} usable; rows {made.dtype}, masters, gradients, moments fp32",
        highlight=False,
    )
    table = Table(title="GiB a GPU", title_justify="left", caption=_words(made), caption_justify="left")
    for head in ("fsdp × ep", "state", "gathered", "kept", "total", "recompute", "total"):
        table.add_column(head, justify="right", no_wrap=True)
    for layout in made.layouts:
        state = layout.masters + layout.gradients + layout.moments
        table.add_row(
            f"{layout.fsdp} × {layout.ep}",
            *(_gib(part) for part in (state, layout.gathered + layout.reducing, layout.activations.total)),
            _verdict(made, layout, recompute=False),
            _gib(layout.recomputed.total),
            _verdict(made, layout, recompute=True),
        )
    console.print(table)
    sent = Table(title="GiB sent by a GPU in a step, forward computed twice", title_justify="left")
    for head in ("fsdp × ep", "all-gathers", "reduce-scatters", "rows to experts", "all"):
        sent.add_column(head, justify="right", no_wrap=True)
    for layout in made.layouts:
        ways = (layout.gathers, layout.reduces, layout.travels)
        sent.add_row(f"{layout.fsdp} × {layout.ep}", *(_gib(way) for way in (*ways, sum(ways))))
    console.print(sent)


def _words(made: Plan) -> str:
    return (
        "state: masters, gradients, moments; gathered: of one block; kept: activations\n"
        "for backward, or with recompute. --json has every part.\n"
        f"A step of one sequence of {made.sequence_tokens} tokens a GPU: {made.step_tokens} tokens; {TEXT_SHARE:.0%} of rows learn text,"
        f" {FLOW_SHARE:.0%} a frame.\nSampling: {made.sampling / GIB:.3f} GiB of keys and values for a session of that length.\n"
        "Formula, not measured on GPUs."
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.3f}"


def _verdict(made: Plan, layout: Layout, *, recompute: bool) -> str:
    total = _gib(layout.total(recompute=recompute))
    return f"[green]{total} fits[/green]" if made.fits(layout, recompute=recompute) else f"[red]{total} no[/red]"
