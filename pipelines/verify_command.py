"""`microturn verify`: recompute what a corpus claims; non-zero exit on any difference."""

from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress

from .corpus.verify import Findings
from .wording.counted import counted

if TYPE_CHECKING:
    from .corpus.withdrawn import Listed

MAX_SHOWN = 50


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", metavar="OUT")
@click.option("--against", "input_", metavar="INPUT", help="Also make windows again from the raw files and compare bytes.")
@click.option("--windows", "num_windows", default=8, show_default=True, type=click.IntRange(1), help="How many windows --against takes.")
@click.option("--infer", is_flag=True, help="Read the folder INPUT by its layout even where it has a manifest.jsonl.")
@click.option("--pseudonymise", default="", metavar="SALT", help="The salt that the corpus was built with.")
@click.option("--tokenizer", "tokenizer_path", default="", metavar="FILE", help="The tokenizer.json, when the corpus was built with one.")
@click.option("--absent", "absent", metavar="LIST", help="Also search every file for what LIST names: an id, key or speaker:NAME a line.")
@click.option("--missing-ok", is_flag=True, help="With --absent: names that this corpus never held are no mistake.")
@click.option("--of", "old", metavar="CORPUS", help="With --absent: also search for the bytes that these sessions have in this corpus.")
@click.option("--staging", default="", metavar="URI", help="With --absent: where parts and receipts lie.  [default: OUT/.staging]")
@click.pass_context
def verify_command(ctx: click.Context, out: str, **options: Any) -> None:
    """Recompute every digest, schema, count and ledger sum of the corpus OUT, and its tokens from its words.

    --absent proves that nothing of sessions that were dropped is left in the corpus and its staging folder: names of files, keys and meta
    of windows, index, ledger, receipts, cards, report. It does not know of copies elsewhere, nor of models that were trained.

    \b
    Examples:
      microturn verify corpus
      microturn verify corpus --against raw --windows 20
      microturn verify corpus --absent withdrawn.txt

    Exit codes: 0 everything is as claimed, 1 it is not (each difference is a line on stdout).
    """
    from .corpus.against import against
    from .corpus.reader import Corpus
    from .corpus.verify import verify

    if not options["absent"] and (options["old"] or options["staging"] or options["missing_ok"]):
        raise click.UsageError("--of, --staging and --missing-ok go with --absent", ctx)
    console = Console(stderr=True)
    corpus = Corpus.open(out)
    gone = _looked_up(corpus, options) if options["absent"] else None  # first: a wrong list shall not cost a night
    with Progress(console=console) as bar:
        task = bar.add_task("verifying shards", total=None)
        found = verify(corpus, options["tokenizer_path"], lambda done, total: bar.update(task, completed=done, total=max(total, 1)))
    console.print(
        f"{counted(found.num_shards, 'shard')}, {counted(found.num_windows, 'window')}, {found.num_bytes / 2**20:.1f} MiB, "
        f"{counted(found.num_ledger_rows, 'ledger row')}"
    )
    faults = list(found.faults)
    if options["input_"]:
        again = _against(console, corpus, options, against)
        faults += again.faults
    if gone is not None:
        faults += _absent(console, gone, out, options)
    for fault in faults[:MAX_SHOWN]:
        click.echo(fault)
    if len(faults) > MAX_SHOWN:
        click.echo(f"… and {len(faults) - MAX_SHOWN} more")
    console.print(f"[red]{counted(len(faults), 'difference')}[/red]" if faults else "[green]verified: everything is as claimed[/green]")
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
    console.print(f"{counted(found.num_windows, 'window')} made again from the raw files, {found.num_bytes / 2**20:.1f} MiB compared")
    return found


def _looked_up(corpus: Any, options: dict[str, Any]) -> "Listed":
    """The list's sessions. Raises InputError for a name that means nothing here: a typo would be absent, and prove nothing."""
    from .corpus.reader import Corpus
    from .corpus.withdrawn import look_up, read_list, refuse_unknown

    listed = look_up(read_list(options["absent"]), [corpus, *([Corpus.open(options["old"])] if options["old"] else [])])
    if not options["missing_ok"]:
        refuse_unknown(listed, options["absent"])
    return listed


def _absent(console: Console, listed: "Listed", out: str, options: dict[str, Any]) -> list[str]:
    """A sentence for each place in which a session of the list was found."""
    from .corpus.absent import payloads_of, places_of, search
    from .corpus.reader import Corpus

    old = Corpus.open(options["old"]) if options["old"] else None
    names = counted(listed.num_names, "name")
    payloads, shared = payloads_of(old, listed) if old else (frozenset(), 0)
    with Progress(console=console) as bar:
        task = bar.add_task(f"searching for {names}", total=None)
        found = search(
            places_of(out, options["staging"]), listed, payloads, lambda done, total: bar.update(task, completed=done, total=max(total, 1))
        )
    console.print(f"searched for {names} in {found.told()}", highlight=False, soft_wrap=True)
    if old:
        told = f"and for {counted(len(payloads), 'payload')} that only they have in {options['old']}; {shared} more lie in others too"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
    if not found.places:
        console.print("nothing of them is there; copies elsewhere, and what was trained on them, are not looked at")
    return [f"--absent: {place}" for place in found.places]
