"""`microturn reshard`: options, progress and exit codes around pipelines/reshard/run.py."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .input.options import layout_of, splits_of
from .wording.counted import counted
from .wording.size import Size

if TYPE_CHECKING:
    from .corpus.withdrawn import Listed
    from .watch import Standing

EXIT_INTERRUPTED = 130


@click.command("reshard", context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="CORPUS [MORE]... [OUT] [BEAM OPTIONS]...")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Local worker processes.")
@click.option("--shard-bytes", type=Size(), help="A shard closes past so many bytes, e.g. 512MiB.  [default: the first corpus's]")
@click.option(
    "--split",
    "splits",
    metavar="SHARES",
    help="Divide anew, NAME=SHARE,NAME=SHARE in any unit, as 98 and 2 or 0.98 and 0.02.  [default: as they are]",
)
@click.option("--move-given", is_flag=True, help="With --split: also move sessions whose split a manifest named.")
@click.option(
    "--tokenizer", help="Make tokens anew: bytes, inkling (needs microturn[oracle]), or a tokenizer.json.  [default: as they are]"
)
@click.option("--drop", metavar="LIST", help="Leave out what LIST names: an id, key or speaker:NAME a line.")
@click.option("--missing-ok", is_flag=True, help="With --drop: names that are in no corpus are no mistake.")
@click.option("--staging", default="", metavar="URI", help="Where parts and receipts of the builds lie.  [default: each corpus's .staging]")
@click.pass_context
def reshard_command(ctx: click.Context, arguments: tuple[str, ...], **options: Any) -> None:
    """Make the corpus OUT from one CORPUS or several, by byte ranges: no media is decoded.

    Other shard sizes, splits or tokens, several corpora as one, sessions left out: OUT is what one build of those recordings would have
    written, byte for byte, however the corpora grew. Every member is hashed on its way; one that is damaged stops it, and is named.
    Corpora that were divided by different shares become one only with --split, those of different tokens only with --tokenizer.

    With --drop and without OUT the CORPUS itself is purged: shards that held such a session are written again without it, and then
    everything of it is deleted, receipts, parts and report.html too. Later builds leave it out, by the hash of its key in dataset.json.
    A line `speaker:NAME` is every session in which this person takes part, named as in meta.json, by a pseudonym if it has one.
    `microturn verify CORPUS --absent LIST` proves it. The same command again finishes what was interrupted.

    Options that are not listed here go to Beam, written with “=”: --runner=DaskRunner, …

    \b
    Examples:
      microturn reshard corpus smaller --shard-bytes 64MiB --split train=0.9,val=0.1
      microturn reshard monday tuesday week --tokenizer inkling --workers 2
      microturn reshard corpus --drop withdrawn.txt

    \b
    Exit codes:
      0  written
      1  failed; nothing was changed
      2  wrong usage, or LIST names a session or speaker that is not there
    """
    console = Console(stderr=True)
    sources, out, beam = _apart(ctx, arguments, options)
    try:
        code = _reshard(console, sources, out, options | {"beam": beam})
    except KeyboardInterrupt:
        console.print("interrupted: finished shards are kept; run the same command again to go on")
        code = EXIT_INTERRUPTED
    ctx.exit(code)


def _apart(ctx: click.Context, arguments: tuple[str, ...], options: dict[str, Any]) -> tuple[list[str], str, list[str]]:
    """The corpora, OUT or "" where a corpus is to be purged, and Beam's options."""
    beam = [argument for argument in arguments if argument.startswith("-")]
    places = [argument for argument in arguments if not argument.startswith("-")]
    if beam:
        from .runners import refuse_unknown

        refuse_unknown(beam, [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("-")])
    if not places or (len(places) == 1 and not options["drop"]):
        raise click.UsageError("a CORPUS and OUT are needed, or a CORPUS and --drop LIST", ctx)
    for flag, needs in (("missing_ok", "drop"), ("move_given", "splits")):
        if options[flag] and not options[needs]:
            raise click.UsageError(f"--{flag.replace('_', '-')} goes with --{needs.removesuffix('s')}", ctx)
    if len(places) > 1:
        return places[:-1], places[-1], beam
    given = [name for name in ("shard_bytes", "splits", "tokenizer") if options[name]]
    if given:
        flag = {"splits": "--split"}.get(given[0], f"--{given[0].replace('_', '-')}")
        raise click.UsageError(f"{flag} needs OUT: in its own folder a corpus is only rid of sessions", ctx)
    return places, "", beam


def _reshard(console: Console, sources: list[str], out: str, options: dict[str, Any]) -> int:
    from .build_command import printable, quiet_beam

    quiet_beam()
    import apache_beam as beam

    from . import runners
    from .corpus.reader import Corpus
    from .corpus.withdrawn import look_up, read_list, refuse_unknown
    from .reshard import run
    from .storage.folders import Folder
    from .watch import Watch, WorkerNote

    def say(sentence: str) -> None:
        console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)

    corpora = [Corpus.open(source) for source in sources]
    drop = run.NONE
    if options["drop"]:
        drop = look_up(read_list(options["drop"]), corpora)
        if not options["missing_ok"]:
            refuse_unknown(drop, options["drop"])
    layout, tokenizer_path = layout_of(options["tokenizer"]) if options["tokenizer"] else (None, "")
    splits = splits_of(options["splits"]) if options["splits"] else None
    num_shards = sum(len(corpus.shards) for corpus in corpora)
    runner, beam_options = runners.make(
        [*runners.workers(options["workers"]), *options["beam"]], num_elements=max(num_shards, options["workers"])
    )

    def run_graph(elements: Sequence[tuple[int, Any]], transform: beam.PTransform) -> None:
        with runners.in_words("run the same command again"):
            pipeline = beam.Pipeline(runner=runner, options=beam_options)
            _ = pipeline | "Shards" >> beam.Create(elements, reshuffle=False) | "Reshard" >> transform
            pipeline.run().wait_until_finish()

    place = (
        Folder(options["staging"] or f"{sources[0].rstrip('/')}/{run.STAGING}") if not out else Folder(f"{out.rstrip('/')}/{run.STAGING}")
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"looking into {counted(num_shards, 'shard')}", total=None)

        def show(standing: "Standing") -> None:
            if standing.phase != "featurising":
                bar.update(task, description=standing.phase, completed=standing.done, total=max(standing.total, 1))

        with Watch(0, 0, place, show):
            if out:
                settings = run.Settings(
                    out=out,
                    staging=options["staging"],
                    layout=layout,
                    tokenizer_path=tokenizer_path,
                    splits=splits,
                    move_given=options["move_given"],
                    shard_bytes=options["shard_bytes"] or 0,
                    drop=drop,
                )
                dataset = run.anew(sources, settings, run_graph, WorkerNote, say)
            else:
                dataset = run.purge(sources[0], options["staging"], drop, run_graph, WorkerNote, say)
        bar.update(task, description="done", completed=1, total=1)
    _summary(console, out or sources[0], dataset, drop)
    return 0


def _summary(console: Console, out: str, dataset: dict[str, Any], drop: "Listed") -> None:
    totals, digests = dataset["totals"], dataset["digests"]
    dropped = f", {len(drop.held)} dropped now, {len(drop.gone)} before" if drop.num_names else ""
    for name, value in (
        ("sessions", f"{totals['num_sessions']}{dropped}"),
        ("windows", f"{totals['num_windows']} in {counted(len(dataset['shards']), 'shard')}, {totals['size_bytes'] / 2**20:.1f} MiB"),
        ("tokens", totals["num_tokens"]),
        ("content digest", digests["content"]),
        ("layout digest", digests["layout"]),
    ):
        console.print(f"{name:<16}{value}", soft_wrap=True, highlight=False, markup=False)
    if not sys.stdout.isatty():
        click.echo(json.dumps({"out": out, "totals": totals, "digests": digests}))
