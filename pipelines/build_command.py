"""`microturn build`: options, progress and exit codes around pipelines/run.py."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..schemas.clock import TICK_SAMPLES, clock_text
from ..schemas.errors import InputError, MicroturnError
from ..schemas.layout import LayoutSpec
from ..schemas.manifest import Session
from ..schemas.spec import FeatureSpec

EXIT_FAILED, EXIT_DROPPED, EXIT_UNSETTLED, EXIT_INTERRUPTED = 1, 3, 4, 130
MAX_SHOWN = 10


@click.command("build", context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="INPUT OUT [BEAM OPTIONS]...")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Local worker processes.")
@click.option("--infer", is_flag=True, help="Read the folder by its layout even where it has a manifest.jsonl.")
@click.option("--spec", "spec_path", type=click.Path(exists=True, dir_okay=False), help="Feature spec, YAML or JSON; see --print-spec.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One value of the feature spec, e.g. pictures.every_ticks=1.")
@click.option("--print-spec", is_flag=True, help="Print the feature spec that would be used, and stop.")
@click.option("--tokenizer", default="bytes", show_default=True, help="bytes, inkling (needs microturn[oracle]), or a tokenizer.json.")
@click.option("--split", "splits", default="train=0.98,val=0.01,test=0.01", show_default=True, help="Shares, by hash of group or session.")
@click.option("--shard-bytes", default=512 << 20, show_default=True, type=click.IntRange(1), help="A shard closes past so many bytes.")
@click.option("--max-drop-ratio", default=0.05, show_default=True, type=click.FloatRange(0, 1), help="A larger dropped share: exit code 3.")
@click.option("--staging", default="", metavar="URI", help="Where plan, parts and receipts lie.  [default: OUT/.staging]")
@click.option("--keep-parts", is_flag=True, help="Leave the parts in the staging folder after the commit.")
@click.option("--rehash", is_flag=True, help="Hash every input file again, whatever its size and time say.")
@click.option("--pseudonymise", metavar="SALT", help="Replace speakers by salted hashes.")
@click.option("--hang-after", default=600.0, show_default=True, help="Seconds without progress after which a decoder is given up.")
@click.option("--allow-mixed-toolchain", is_flag=True, help="Take workers or a corpus of other versions; bytes may differ.")
@click.pass_context
def build_command(ctx: click.Context, arguments: tuple[str, ...], **options: Any) -> None:
    """Build a corpus of micro-turns: shards, index, ledger and dataset.json in the folder OUT.

    INPUT is a manifest (.jsonl or .parquet, one session a row) or a folder: its manifest.jsonl if it has one, else stereo files with word
    timings in a .json beside them (left = assistant), one file per speaker, or any other audio and video. The same command again resumes
    what was interrupted, and adds recordings that are new.

    Options that are not listed here go to Beam, written with “=”: --runner=DaskRunner, --runner=FlinkRunner --flink_master=…

    \b
    Examples:
      microturn build raw corpus --workers 2
      microturn build calls.jsonl corpus --tokenizer inkling --set pictures.every_ticks=1

    \b
    Exit codes:
      0  written
      1  failed
      2  wrong usage or manifest; nothing was built
      3  written, but a larger share of audio, of sessions or of words was dropped than --max-drop-ratio
      4  unsettled: the machine failed some recordings; nothing is committed, run it again
    """
    console = Console(stderr=True)
    spec = _spec(options["spec_path"], options["settings"])
    if options["print_spec"]:
        click.echo(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
        return
    input_, out, beam = _apart(ctx, arguments)
    try:
        code = _build(console, input_, out, spec, options | {"beam": beam})
    except KeyboardInterrupt:
        console.print("interrupted: finished recordings are kept; run the same command again to go on")
        code = EXIT_INTERRUPTED
    ctx.exit(code)


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
    _quiet_beam()
    from . import run
    from .commit import read_dataset
    from .plan import make_plan
    from .runners import workers
    from .storage import Folder
    from .toolchain import toolchain_digest

    if options["pseudonymise"] == "":
        raise InputError("--pseudonymise: the salt is empty", hint="is the variable it comes from set?")
    splits = _splits(options["splits"])
    run.check_splits(splits)
    layout, tokenizer_path = _layout(options["tokenizer"])
    sessions, root = read_sessions(console, input_, options["infer"])
    plan = make_plan(sessions, root=root, spec=spec, toolchain=toolchain_digest(), splits=splits, salt=options["pseudonymise"] or "")
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
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"featurising {len(plan.items)} sessions", total=None)
        verdict = run.run(plan, settings, toolchain_digest(), lambda done, total: bar.update(task, completed=done, total=max(total, 1)))
        if not verdict.blocks:
            bar.update(task, description="done", total=1, completed=1)
        else:
            bar.update(task, description="not committed")
    _tell(console, "unsettled", verdict.unsettled)
    _tell(console, "conflict", verdict.conflicts)
    if verdict.conflicts:
        raise MicroturnError(
            "nothing was committed", hint="build what has changed into another folder, or drop those sessions from the input"
        )
    if verdict.unsettled:
        console.print(f"{len(verdict.unsettled)} unsettled: nothing was committed; run the same command again")
        return EXIT_UNSETTLED
    dataset = read_dataset(Folder(out))
    if verdict.rejected:
        _tell(console, "dropped", tuple(_reasons(out, dataset)))
    _summary(console, out, dataset, verdict)
    totals, limit = dataset["totals"], options["max_drop_ratio"]
    audio = run.drop_ratio(dataset)
    whole = totals["rejected_sessions"] / max(totals["rejected_sessions"] + totals["num_sessions"], 1)
    words = _words(out, dataset)
    if words.found or words.unreadable:
        console.print(f"{'words':<16}{words.kept} of {words.found} kept", highlight=False)
    if words.unreadable:
        console.print(f"{words.unreadable} transcripts could not be read; ledger/ says why")
    if max(audio, whole, words.drop_ratio) > limit:
        lost = f"dropped {audio:.1%} of the audio, {whole:.1%} of the sessions and {words.drop_ratio:.1%} of the words"
        console.print(f"{lost}; --max-drop-ratio is {limit:.1%}; ledger/ says why")
        return EXIT_DROPPED
    return 0


@dataclass(frozen=True, kw_only=True)
class _WordCount:
    """Words and transcripts of a corpus, from its ledger."""

    found: int
    kept: int
    transcripts: int
    unreadable: int

    @property
    def drop_ratio(self) -> float:
        """Share of the words that was dropped, or of the transcripts that could not be read, whichever is larger."""
        words = (self.found - self.kept) / self.found if self.found else 0.0
        return max(words, self.unreadable / self.transcripts if self.transcripts else 0.0)


def _words(out: str, dataset: dict[str, Any]) -> _WordCount:
    from .corpus import Corpus

    corpus = Corpus.open(out)
    rows = [row for shard in dataset["shards"] for row in corpus.ledger(shard["name"]) if row["unit"] == "word" and row["stage"] != "plan"]
    totals = [row for row in rows if row["entry"] == "stream"]
    unreadable = sum(row["entry"] == "unused" for row in rows)
    return _WordCount(
        found=sum(row["decoded"] for row in totals),
        kept=sum(row["kept"] for row in totals),
        transcripts=len(totals) + unreadable,
        unreadable=unreadable,
    )


def _reasons(out: str, dataset: dict[str, Any]) -> Iterator[str]:
    """A sentence for each session that the last build dropped whole."""
    from .corpus import Corpus

    for row in Corpus.open(out).ledger(dataset["rejected"][-1]["name"]):
        if row["entry"] == "session":
            yield f"{row['session_id']}: {row['reason']}: {row['message']}"


def read_sessions(console: Console, input_: str, infer: bool) -> tuple[list[Session], str]:
    """(sessions, root of relative paths) of a manifest or a folder."""
    from .child import MediaProcess
    from .discover import Look, discover, find_manifest
    from .plan import read_manifest
    from .storage import Folder, is_folder, parent, read_input

    if not is_folder(input_):
        return read_manifest(read_input(input_), input_), parent(input_)
    folder = Folder(input_)
    manifest = "" if infer else find_manifest(folder)
    if manifest:
        console.print(f"manifest: {input_.rstrip('/')}/{manifest}")
        return read_manifest(folder.read(manifest), manifest), input_
    with MediaProcess() as media:

        def look(path: str) -> Look | None:
            try:
                return Look(**media.call("look", {"root": input_, "path": path}))
            except (MicroturnError, OSError):
                return None  # the build will say in the ledger what is wrong with it

        found = discover(folder, look)
    kinds = ", ".join(f"{count} {layout}" for layout, count in found.layouts.items() if count)
    console.print(f"understood the folder as {len(found.sessions)} sessions: {kinds}")
    if found.left_alone:
        names = ", ".join(found.left_alone[:5])
        console.print(
            f"left alone {len(found.left_alone)} files that are neither media nor their words: {names}{' …' * (len(found.left_alone) > 5)}"
        )
    return list(found.sessions), input_


def _spec(path: str | None, settings: tuple[str, ...]) -> FeatureSpec:
    data: dict[str, Any] = {}
    if path:
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not YAML ({_on_one_line(error)})") from None
        if not isinstance(data, dict):
            raise InputError(f"{path}: found {type(data).__name__}, expected a mapping")
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r}: expected KEY=VALUE", hint="for example --set pictures.every_ticks=1")
        *path_to, last = key.split(".")
        place = data
        for name in path_to:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {setting!r}: {name} is {place!r}, with nothing below it")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting!r}: not a YAML value ({_on_one_line(error)})") from None
    return FeatureSpec.parse(data, where=path or "--set")


def _layout(name: str) -> tuple[LayoutSpec, str]:
    from ..transforms.tokenizer import layout_for

    if name in ("bytes", "inkling"):
        return LayoutSpec.named(name), ""
    if not Path(name).is_file():
        raise InputError(f"--tokenizer {name!r}: neither bytes, nor inkling, nor a file")
    return layout_for(Path(name)), name


def _splits(text: str) -> dict[str, float]:
    try:
        return {name.strip(): float(Decimal(share)) for name, share in (item.split("=") for item in text.split(","))}
    except (ValueError, ArithmeticError):
        raise InputError(f"--split {text!r}: expected NAME=SHARE,NAME=SHARE", hint="for example train=0.98,val=0.02") from None


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _tell(console: Console, kind: str, sentences: tuple[str, ...]) -> None:
    for sentence in sentences[:MAX_SHOWN]:
        sentence = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in sentence)  # ids may move a cursor
        console.print(f"{kind}: {sentence}", style="yellow", markup=False, soft_wrap=True)
    if len(sentences) > MAX_SHOWN:
        console.print(f"… and {len(sentences) - MAX_SHOWN} more")


def _summary(console: Console, out: str, dataset: dict[str, Any], verdict: Any) -> None:
    totals, digests = dataset["totals"], dataset["digests"]
    ratio = totals["audio_dropped"] / totals["audio_decoded"] if totals["audio_decoded"] else 0.0
    for name, value in (
        ("sessions", f"{totals['num_sessions']} ({verdict.fresh} new, {verdict.known} known, {totals['rejected_sessions']} dropped whole)"),
        ("windows", f"{totals['num_windows']} in {len(dataset['shards'])} shards, {totals['size_bytes'] / 2**20:.1f} MiB"),
        ("micro-turns", f"{totals['num_ticks']} ({clock_text(totals['num_ticks'] * TICK_SAMPLES)} in all views)"),
        ("tokens", totals["num_tokens"]),
        ("audio dropped", f"{ratio:.2%}"),
        ("content digest", digests["content"]),
        ("layout digest", digests["layout"]),
    ):
        console.print(f"{name:<16}{value}", soft_wrap=True, highlight=False, markup=False)
    if not sys.stdout.isatty():
        click.echo(json.dumps({"out": out, "totals": totals, "digests": digests}))


def _quiet_beam() -> None:
    """Beam warns about Google's client libraries at import; whoever needs them will be told by Beam again."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)  # repeats what its workers say
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
        handler.addFilter(lambda record: not any(noise in record.getMessage() for noise in ("apitools not found", "KeyboardInterrupt")))
