"""The console script: a thin dispatcher. Each room brings its own commands, and is imported only when one of them is called."""

import difflib
import importlib
import logging
import os
import sys
from typing import Any

import click

from . import __version__
from .schemas.errors import InputError, MicroturnError

# command → (module, attribute, one line for the list: `--help` must not import the rooms)
COMMANDS = {
    "synth": ("pipelines.synth.command", "synth_command", "Make raw two-party recordings with known truth."),
    "build": ("pipelines.build_command", "build_command", "Build a corpus of micro-turns from recordings."),
    "reshard": ("pipelines.reshard_command", "reshard_command", "Make a corpus anew from corpora, or rid one of sessions."),
    "verify": ("pipelines.verify_command", "verify_command", "Recompute everything a corpus claims."),
    "inspect": ("notebooks.inspect_command", "inspect_command", "Show one window, or what a corpus holds, in the terminal."),
    "report": ("notebooks.report_command", "report_command", "Write report.html: what is in a corpus, and what was dropped."),
    "train": ("trainer.train.command", "train_command", "Train a model on corpora; goes on by itself after any interruption."),
    "align": ("trainer.session.align_command", "align_command", "Law 3 on this machine: the sampler against the trainer, bit for bit."),
    "speak": ("trainer.speech.command", "speak_command", "Let a run retell the own speech of a conversation, as a wav."),
    "export": ("trainer.exchange.command", "export_command", "Write the weights of a run as files that other engines read."),
    "plan": ("trainer.scale.plan_command", "plan_command", "Plan memory and parallelism of training a model on N GPUs."),
    "bench": ("cli", "bench", "Measure what the README claims, each beside a peer or a floor."),
}
BENCHES = {
    "build": ("pipelines.bench.build", "build_bench", "What a build costs, beside decoding alone, lhotse and a librosa script."),
    "law": ("trainer.bench.law", "law_bench", "What law 3 costs, beside the same equations in plain torch."),
    "loader": ("trainer.bench.loader", "loader_bench", "Tokens a second beside webdataset and lhotse; packing; restore."),
    "scale": ("pipelines.bench.scale", "scale_bench", "Time and memory of the steps that see a whole corpus, as it grows tenfold."),
    "session": ("trainer.bench.session", "session_bench", "What an append costs as its session grows, and memory."),
    "train": ("trainer.bench.train", "train_bench", "Tokens a second of training, beside a plain dense transformer."),
}


NEAR = 0.7  # of difflib's ratio: a far guess is worse than none


class Rooms(click.Group):
    """Finds commands in its table, and names the near miss of a mistyped one: click would suggest only what is imported already."""

    def __init__(self, *args: Any, table: dict[str, tuple[str, str, str]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module, attribute, _ = self.table[name]
        return getattr(importlib.import_module(f".{module}", __package__), attribute)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        close = difflib.get_close_matches(args[0].lower(), self.table, n=1, cutoff=NEAR)
        if close and args[0] not in self.table and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in self.table.items()])


@click.group(cls=Rooms, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="microturn %(version)s")
def microturn() -> None:
    """Recordings of people talking, as the 200 ms micro-turns that interaction models train on.

    \b
    Examples:
      microturn synth raw                    raw recordings with known truth, to try things on
      microturn build raw corpus             a corpus from a folder or a manifest
      microturn verify corpus                recompute every digest, count and sum of it

    Data goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage; `build --help` has more.
    """


@click.group("bench", cls=Rooms, table=BENCHES, context_settings={"help_option_names": ["-h", "--help"]})
def bench() -> None:
    """Measure what the README claims: this project's own speeds, each beside a peer or a floor in the same run.

    \b
    Examples:
      microturn bench loader
      microturn bench loader corpus --json
    """


def main() -> None:
    """Runs the command line. An error of ours, or of the machine's files, is a sentence and a hint, never a traceback."""
    # Beam warns about Google's client libraries wherever it is imported; whoever needs them will be told by Beam again
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    try:
        microturn(prog_name="microturn")
    except MicroturnError as error:
        _tell(str(error), error.hint)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:  # the reader of stdout has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _tell(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
        sys.exit(1)


def _tell(message: str, hint: str = "") -> None:
    color = False if os.environ.get("NO_COLOR") else None  # None: where stderr is a terminal
    click.secho(f"error: {message}", fg="red", err=True, color=color)
    if hint:
        click.echo(f"hint: {hint}", err=True)
