"""`microturn verify`: recompute what a corpus claims; non-zero exit on any difference."""

from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from .corpus.verify import Findings

MAX_SHOWN = 50


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", metavar="OUT")
@click.option("--against", "input_", metavar="INPUT", help="Also make windows again from the raw files and compare bytes.")
@click.option("--windows", "num_windows", default=8, show_default=True, type=click.IntRange(1), help="How many windows --against takes.")
@click.option("--infer", is_flag=True, help="Read the folder INPUT by its layout even where it has a manifest.jsonl.")
@click.option("--pseudonymise", default="", metavar="SALT", help="The salt that the corpus was built with.")
@click.option("--tokenizer", "tokenizer_path", default="", metavar="FILE", help="The tokenizer.json, when the corpus was built with one.")
@click.pass_context
def verify_command(ctx: click.Context, out: str, **options: Any) -> None:
    """Recompute every digest, schema, count and ledger sum of the corpus OUT, and its tokens from its words.

    \b
    Examples:
      microturn verify corpus
      microturn verify corpus --against raw --windows 20

    Exit codes: 0 everything is as claimed, 1 it is not (each difference is a line on stdout).
    """
    from .corpus.against import against
    from .corpus.reader import Corpus
    from .corpus.verify import verify

    console = Console(stderr=True)
    corpus = Corpus.open(out)
    with Progress(console=console) as bar:
        task = bar.add_task("verifying shards", total=None)
        found = verify(corpus, options["tokenizer_path"], lambda done, total: bar.update(task, completed=done, total=max(total, 1)))
    console.print(
        f"{found.num_shards} shards, {found.num_windows} windows, {found.num_bytes / 2**20:.1f} MiB, {found.num_ledger_rows} ledger rows"
    )
    faults = list(found.faults)
    if options["input_"]:
        again = _against(console, corpus, options, against)
        faults += again.faults
    for fault in faults[:MAX_SHOWN]:
        click.echo(fault)
    if len(faults) > MAX_SHOWN:
        click.echo(f"… and {len(faults) - MAX_SHOWN} more")
    console.print(f"[red]{len(faults)} differences[/red]" if faults else "[green]verified: everything is as claimed[/green]")
    ctx.exit(1 if faults else 0)


def _against(console: Console, corpus: Any, options: dict[str, Any], against: Any) -> Findings:
    from .input.inputs import read_sessions
    from .input.plan import make_plan
    from .sessions.toolchain import toolchain_digest

    here = toolchain_digest()
    if here != corpus.dataset["digests"]["toolchain"]:
        console.print("note: this machine's toolchain is not the corpus's; bytes of decoded audio may differ")
    salt, splits = options["pseudonymise"], corpus.dataset["splits"]
    given = read_sessions(options["input_"], options["infer"], lambda sentence: console.print(sentence, markup=False), numbered=bool(salt))
    plan = make_plan(given.sessions, root=given.root, spec=corpus.spec, toolchain=here, splits=splits, salt=salt)
    items = {item.key: item for item in plan.items}
    with Progress(console=console) as bar:
        task = bar.add_task("making windows again", total=None)
        found = against(
            corpus,
            items,
            options["num_windows"],
            options["tokenizer_path"],
            lambda done, total: bar.update(task, completed=done, total=max(total, 1)),
        )
    console.print(f"{found.num_windows} windows made again from the raw files, {found.num_bytes / 2**20:.1f} MiB compared")
    return found
