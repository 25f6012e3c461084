"""`microturn export`: the weights of a run, in files that others read."""

import click
import torch

from ..train.trained import Which, trained
from .inkling import export
from .plain import export_plain

WRITERS = {"inkling": export, "safetensors": export_plain}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WHICH: dict[str, Which] = {"last": "last", "best": "best"}


@click.command("export", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False))
@click.argument("out", metavar="OUT", type=click.Path(file_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    default="inkling",
    show_default=True,
    help="The open model's names, or this project's.",
)
@click.option(
    "--dtype", type=click.Choice(list(DTYPES)), default="float32", show_default=True, help="Of the weights; float32 loses no bit."
)
@click.option("--checkpoint", type=click.Choice(list(WHICH)), default="last", show_default=True, help="Which weights.")
def export_command(run: str, out: str, form: str, dtype: str, checkpoint: str) -> None:
    """Write the weights of a run as safetensors, for engines that serve Inkling or for any reader.

    OUT is a new folder. Format inkling: config.json and weights under the published names, as transformers, SGLang and vLLM load them. They
    give text only: own bag and flow head lie beside, in microturn.safetensors, and a history that holds own speech cannot be represented
    there. Format safetensors: all weights under this project's names. Sizes and layout are in microturn.json in both.

    \b
    Examples:
      microturn export run served
      microturn export run served --dtype bfloat16 --checkpoint best
      microturn export run weights --format safetensors

    \b
    Exit codes:
      0  written
      1  failed
      2  wrong usage: OUT holds something, or RUN has no checkpoint
    """
    opened = trained(run, WHICH[checkpoint])
    WRITERS[form](opened.model.state_dict(), opened.model.spec, opened.layout, out, dtype=DTYPES[dtype])
    click.echo(f"{out}: the weights after step {opened.step} of {run}, {form}, {dtype}", err=True)
