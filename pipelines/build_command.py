"""`microturn build`: options, progress and exit codes around pipelines/run.py."""

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES, clock_text
from ..schemas.errors import InputError, MicroturnError
from ..schemas.spec import FeatureSpec
from .input.options import DEFAULT_SPLITS, layout_of, spec_of, splits_of
from .wording.counted import counted
from .wording.size import Real, Size

if TYPE_CHECKING:
    from .estimate.figures import Estimate, Spent
    from .input.inputs import Input
    from .input.plan import Plan
    from .run import Settings
    from .settle import Verdict
    from .watch import Standing

SAMPLE = 200  # as pipelines/estimate/look.py has it, which the list of options must not import
OF_A_DRY_RUN = ("sample", "cores", "as_json", "write_manifest")
EXIT_FAILED, EXIT_DROPPED, EXIT_UNSETTLED, EXIT_INTERRUPTED = 1, 3, 4, 130
MAX_SILENCE_S = 7 * 24 * 3600  # whoever waits longer waits for ever
MAX_SHOWN = 10
LINES_OF_WORKERS = ("beam_control_read", "read_grpc_client_inputs", "run_worker")  # Beam's threads that end with the worker they speak to


@click.command("build", context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="INPUT OUT [BEAM OPTIONS]...")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Local worker processes.")
@click.option("--infer", is_flag=True, help="Read the folder by its layout even where it has a manifest.jsonl.")
@click.option("--spec", "spec_path", type=click.Path(exists=True, dir_okay=False), help="Feature spec, YAML or JSON; see --print-spec.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One value of the feature spec, e.g. pictures.every_ticks=1.")
@click.option("--print-spec", is_flag=True, help="Print the feature spec that would be used, and stop.")
@click.option("--tokenizer", default="bytes", show_default=True, help="bytes, inkling (needs microturn[oracle]), or a tokenizer.json.")
@click.option(
    "--split",
    "splits",
    metavar="SHARES",
    help="NAME=SHARE,NAME=SHARE in any unit, as 98 and 2 or 0.98 and 0.02; by hash of group or session."
    f"  [default: the corpus's, or {DEFAULT_SPLITS}]",
)
@click.option("--shard-bytes", default="512MiB", show_default=True, type=Size(), help="A shard closes past so many bytes.")
@click.option("--max-drop-ratio", default=0.05, show_default=True, type=Real(0, 1), help="A larger dropped share: exit code 3.")
@click.option("--staging", default="", metavar="URI", help="Where parts and receipts lie.  [default: OUT/.staging]")
@click.option("--keep-parts", is_flag=True, help="Leave the parts in the staging folder after the commit.")
@click.option("--rehash", is_flag=True, help="Hash every input file again, whatever its size and time say.")
@click.option("--pseudonymise", metavar="SALT", help="Replace speakers by salted hashes.")
@click.option(
    "--hang-after",
    default=600.0,
    show_default=True,
    type=Real(1, MAX_SILENCE_S),
    help="Seconds without progress after which a decoder is given up.",
)
@click.option("--allow-mixed-toolchain", is_flag=True, help="Take workers or a corpus of other versions; bytes may differ.")
@click.option(
    "--progress-file", default="", metavar="PATH", help="JSON, replaced once a second.  [default: progress.json in the staging folder]"
)
@click.option(
    "--estimate", "estimate_path", type=click.Path(exists=True, dir_okay=False), help="What --dry-run --json gave, for the report."
)
@click.option("--dry-run", is_flag=True, help="Tell what the build would give and cost; write nothing into OUT.")
@click.option("--sample", default=SAMPLE, show_default=True, type=click.IntRange(0), help="With --dry-run: sessions to look at; 0 for all.")
@click.option(
    "--cores", default=0, metavar="N", type=click.IntRange(0), help="With --dry-run: also the time on N workers.  [default: this machine's]"
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: one JSON object on stdout.")
@click.option("--write-manifest", default="", metavar="FILE", help="With --dry-run: write what was understood as a manifest, to edit it.")
@click.pass_context
def build_command(ctx: click.Context, arguments: tuple[str, ...], **options: Any) -> None:
    """Build a corpus of micro-turns: shards, index, ledger and dataset.json in the folder OUT.

    INPUT is a manifest (.jsonl or .parquet, one session a row), one recording, or a folder: its manifest.jsonl if it has one, else stereo
    files with word timings in a .json beside them (left = assistant), one file per speaker, or any other audio and video. The same command
    again resumes what was interrupted, and adds recordings that are new. One build at a time may be at work in OUT.

    Options that are not listed here go to Beam, written with “=”: --runner=DaskRunner, --runner=FlinkRunner --flink_master=…

    \b
    Examples:
      microturn build raw corpus --workers 2
      microturn build calls.jsonl corpus --tokenizer inkling --set pictures.every_ticks=1
      microturn build raw corpus --dry-run --cores 64

    \b
    Exit codes:
      0  written
      1  failed
      2  wrong usage or manifest; nothing was built
      3  written, but a larger share of audio, of sessions or of words was dropped than --max-drop-ratio
      4  unsettled: the machine failed some recordings; nothing is committed, run it again
    """
    console = Console(stderr=True)
    spec = spec_of(options["spec_path"], options["settings"])
    if options["print_spec"]:
        click.echo(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
        return
    input_, out, beam = _apart(ctx, arguments)
    _refuse_without_dry_run(ctx)
    try:
        code = _build(console, input_, out, spec, options | {"beam": beam})
    except KeyboardInterrupt:
        kept = "nothing was written" if options["dry_run"] else "finished recordings are kept; run the same command again to go on"
        console.print(f"interrupted: {kept}")
        code = EXIT_INTERRUPTED
    ctx.exit(code)


def _refuse_without_dry_run(ctx: click.Context) -> None:
    """An option that would do nothing is a mistake."""
    for parameter in ctx.command.params if not ctx.params["dry_run"] else ():
        if parameter.name in OF_A_DRY_RUN and ctx.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{parameter.opts[0]} needs --dry-run", ctx)


def _apart(ctx: click.Context, arguments: tuple[str, ...]) -> tuple[str, str, list[str]]:
    """INPUT, OUT and Beam's options, in whatever order they stand: an option is never taken for a folder's name."""
    beam = [argument for argument in arguments if argument.startswith("-")]
    others = [argument for argument in arguments if not argument.startswith("-")]
    if len(others) != 2:
        found = " ".join(others) or "nothing"
        raise click.UsageError(f"INPUT and OUT are needed, and Beam's options as --name=value; found {found}", ctx)
    if beam:
        from .runners import refuse_unknown

        refuse_unknown(beam, [flag for parameter in ctx.command.params for flag in parameter.opts if flag.startswith("-")])
    return others[0], others[1], beam


def _build(console: Console, input_: str, out: str, spec: FeatureSpec, options: dict[str, Any]) -> int:
    quiet_beam()
    from . import run
    from .corpus.commit import read_dataset
    from .dry_run import read_estimate
    from .input.inputs import read_sessions, refuse_entangled
    from .input.plan import make_plan
    from .progress import PROGRESS, Pace, ProgressFile, told
    from .reshard.purge import REPORT
    from .runners import workers
    from .sessions.toolchain import toolchain_digest
    from .storage.folders import Folder

    def say(sentence: str) -> None:
        console.print(printable(sentence), markup=False, highlight=False, soft_wrap=True)

    salt = options["pseudonymise"]
    if salt == "":
        raise InputError("--pseudonymise: the salt is empty", hint="is the variable it comes from set?")
    layout, tokenizer_path = layout_of(options["tokenizer"])
    splits = splits_of(options["splits"]) if options["splits"] else None
    refuse_entangled(input_, out)
    given = read_sessions(input_, options["infer"], say, numbered=salt is not None)
    splits = splits or (read_dataset(Folder(out)) or {}).get("splits") or splits_of(DEFAULT_SPLITS)
    toolchain = toolchain_digest()
    plan = make_plan(given.sessions, root=given.root, spec=spec, toolchain=toolchain, splits=splits, salt=salt or "", unnamed=given.unnamed)
    plan = run.without_withdrawn(plan, Folder(out), say)  # told of a dry run too; the build looks again when nobody else is at work in OUT
    settings = run.Settings(
        out=out,
        staging=options["staging"],
        spec=spec,
        layout=layout,
        tokenizer_path=tokenizer_path,
        splits=splits,
        shard_bytes=options["shard_bytes"],
        keep_parts=options["keep_parts"],
        rehash=options["rehash"],
        allow_mixed_toolchain=options["allow_mixed_toolchain"],
        silence_s=options["hang_after"],
        beam=[*workers(options["workers"]), *options["beam"]],
    )
    if options["dry_run"]:
        return _dry_run(console, plan, settings, given, options)
    before = read_dataset(Folder(out))
    estimated = read_estimate(options["estimate_path"]) if options["estimate_path"] else None
    file = ProgressFile(options["progress_file"] or f"{settings.staging_folder.uri.rstrip('/')}/{PROGRESS}")
    expected_s = estimated.figures.session_ticks * TICK_SAMPLES / SAMPLE_RATE_HZ if estimated else 0.0
    pace = Pace(len(plan.items), len(plan.rejected), expected_s)
    spent: Spent | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=console) as bar:
        task = bar.add_task(f"featurising {counted(len(plan.items), 'session')}", total=None, pace="")

        def show(standing: "Standing") -> None:
            nonlocal spent
            spent, progress = standing.spent, pace.at(standing)
            file.write(progress)
            done, words = _standing(standing, len(plan.items)), "" if spent else told(progress)
            bar.update(task, description=done, completed=standing.done, total=max(standing.total, 1), pace=words)

        try:
            verdict = run.run(plan, settings, toolchain, show, say)
        except BaseException as error:
            file.end("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        bar.update(task, description="not committed" if verdict.blocks else "done", completed=1, total=1, pace="")
    file.end("conflict" if verdict.conflicts else "unsettled" if verdict.unsettled else "done", len(verdict.rejected))
    if file.fault and options["progress_file"]:
        say(f"--progress-file: {file.fault}")
    _tell(console, "unsettled", verdict.unsettled)
    _tell(console, "conflict", verdict.conflicts)
    if verdict.conflicts:
        raise MicroturnError(
            "nothing was committed", hint="build what has changed into another folder, or drop those sessions from the input"
        )
    if verdict.unsettled:
        advice = "run the same command again, or leave those sessions out of the input"
        console.print(f"{len(verdict.unsettled)} unsettled: nothing was committed; {advice}")
        return EXIT_UNSETTLED
    dataset = read_dataset(Folder(out))
    if spent is not None and (verdict.fresh or verdict.rejected):
        _keep_account(settings, before, dataset, verdict, spent, estimated, plan)
    if verdict.rejected:
        _tell(console, "dropped", tuple(_reasons(out, dataset)))
    _summary(console, out, dataset, verdict)
    if dataset != before and Folder(out).exists(REPORT):
        say(f"{REPORT} tells of the corpus as it was before: `microturn report {out}` writes it anew")
    return _exit_code(console, dataset["totals"], options["max_drop_ratio"])


def _dry_run(console: Console, plan: "Plan", settings: "Settings", given: "Input", options: dict[str, Any]) -> int:
    """Tells what the build would give and cost."""
    from . import dry_run

    if given.unnamed:
        console.print(f"not UTF-8, and dropped by the build: the names of {counted(len(given.unnamed), 'file')}")
    if options["write_manifest"]:
        dry_run.write_manifest(options["write_manifest"], given.sessions, given.root)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking at headers", total=None)

        def show(done: int, total: int) -> None:
            told = "looking at headers" if done < total else "featurising a few pieces"
            bar.update(task, description=told, completed=done, total=total)

        estimated = dry_run.estimate(plan, settings, sample=options["sample"], cores=options["cores"], tell=show)
    dry_run.show(estimated, options["as_json"])
    return 0


def _keep_account(
    settings: "Settings",
    before: dict[str, Any] | None,
    after: dict[str, Any],
    verdict: "Verdict",
    spent: "Spent",
    estimated: "Estimate | None",
    plan: "Plan",
) -> None:
    """Leaves what the build gave and took where the report finds it. Advice: what cannot be written changes nothing."""
    from .estimate.account import Account, actual, reasons
    from .estimate.foretell import plan_digest
    from .storage.folders import Folder

    out = Folder(settings.out)
    with contextlib.suppress(OSError):
        dropped = reasons(settings.staging_folder, verdict.rejected)
        gave = actual(out, before, after, dropped, spent.cpu_s)
        same = estimated is not None and estimated.plan == plan_digest(plan.items)
        Account(content=after["digests"]["content"], actual=gave, spent=spent, estimate=estimated, same_plan=same).write(out)


def _standing(standing: "Standing", num_sessions: int) -> str:
    """How far the build is, in a few words; inside a long recording its seconds go on."""
    if standing.phase != "featurising":
        return standing.phase
    inside = f", {clock_text(standing.longest_s * SAMPLE_RATE_HZ)} into the longest" if standing.longest_s else ""
    dropped = f", {standing.dropped} dropped" if standing.dropped else ""
    return f"featurising, {standing.sessions} of {counted(num_sessions, 'session')} done{dropped}{inside}"


def _exit_code(console: Console, totals: dict[str, int], limit: float) -> int:
    """0, or 3 with the reason said: more was dropped than is allowed, or nothing is left."""
    from .sessions.drops import shares

    lost = shares(totals)
    if not totals["num_windows"]:
        console.print("no session was kept: the corpus is empty; ledger/ says why")
        return EXIT_DROPPED
    if lost.largest > limit:
        told = f"dropped {lost.audio:.1%} of the audio, {lost.sessions:.1%} of the sessions and {lost.words:.1%} of the words"
        console.print(f"{told}; --max-drop-ratio is {limit:.1%}; ledger/ says why")
        return EXIT_DROPPED
    return 0


def _reasons(out: str, dataset: dict[str, Any]) -> Iterator[str]:
    """A sentence for each session that the last build dropped whole."""
    from .corpus.reader import Corpus

    for row in Corpus.open(out).ledger(dataset["rejected"][-1]["name"]):
        if row["entry"] == "session":
            yield f"{row['session_id']}: {row['reason']}: {row['message']}"


def _tell(console: Console, kind: str, sentences: tuple[str, ...]) -> None:
    for sentence in sentences[:MAX_SHOWN]:
        console.print(f"{kind}: {printable(sentence)}", style="yellow", markup=False, soft_wrap=True)
    if len(sentences) > MAX_SHOWN:
        console.print(f"… and {len(sentences) - MAX_SHOWN} more")


def printable(text: str) -> str:
    """The text on one line, with nothing in it that moves a cursor: ids and names of files are other people's."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _words_told(totals: dict[str, int]) -> str:
    unsaid = f", {totals['words_unsaid']} of them never said" if totals["words_unsaid"] else ""
    unreadable = f"; {counted(totals['unreadable'], 'transcript')} could not be read, ledger/ says why" if totals["unreadable"] else ""
    return f"{totals['words_kept']} of {totals['words_found']} kept{unsaid}{unreadable}"


def _summary(console: Console, out: str, dataset: dict[str, Any], verdict: "Verdict") -> None:
    from .sessions.drops import shares

    totals, digests = dataset["totals"], dataset["digests"]
    counts = f"{verdict.fresh} new, {verdict.known} known, {totals['rejected_sessions']} dropped whole"
    if verdict.absent:
        counts += f", {verdict.absent} no longer in the input"
    for name, value in (
        ("sessions", f"{totals['num_sessions']} ({counts})"),
        ("windows", f"{totals['num_windows']} in {counted(len(dataset['shards']), 'shard')}, {totals['size_bytes'] / 2**20:.1f} MiB"),
        ("micro-turns", f"{totals['num_ticks']} ({clock_text(totals['num_ticks'] * TICK_SAMPLES)} in all views)"),
        ("tokens", totals["num_tokens"]),
        ("audio lost", f"{shares(totals).audio:.2%}"),
        *([("words", _words_told(totals))] if totals["transcripts"] else []),
        ("content digest", digests["content"]),
        ("layout digest", digests["layout"]),
    ):
        console.print(f"{name:<16}{value}", soft_wrap=True, highlight=False, markup=False)
    if not sys.stdout.isatty():
        click.echo(json.dumps({"out": out, "totals": totals, "digests": digests}))


def quiet_beam() -> None:
    """What Beam logs of an interrupt, and of faults that we say in words."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    lost = ("worker.data_plane", "portability.fn_api_runner.worker_handlers")  # a worker's line, when Ctrl-C or a kill ends the worker
    for name in ("common", *lost):
        logging.getLogger(f"apache_beam.runners.{name}").setLevel(logging.CRITICAL)  # tracebacks of what we say in words
    logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)  # repeats what its workers say
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
        handler.addFilter(lambda record: "KeyboardInterrupt" not in record.getMessage())
    before = threading.excepthook
    threading.excepthook = lambda args: None if args.thread and args.thread.name in LINES_OF_WORKERS else before(args)
