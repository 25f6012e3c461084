"""`microturn bench loader`: tokens a second beside plain webdataset and lhotse on the same windows, packing, and restore.

Two comparisons, each of whole epochs in one process: *decoded* (arrays of every window; only ours compares a sha256 too) and *batches*
(what a model trains on; peers.py says what the others do for it). A last line puts webdataset's decoding before our own making of rows:
what reading alone is worth. Everything runs once before it is timed, then `repeat` times in turn; ratios are of medians of processor time,
for what else the machine does is not the reader's.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ...schemas.errors import InputError, MicroturnError
from ..data import DataSpec, Loader, Mixture, OpenCorpus
from . import peers
from .restore import made_up_index, restored

OURS = "microturn"
LIBRARIES = ("webdataset", "lhotse")


@dataclass(frozen=True, slots=True)
class Speed:
    """Medians over the runs of one contestant: an epoch's windows and tokens, and the seconds they took."""

    what: str
    who: str
    windows: int
    tokens: int
    wall_s: float
    cpu_s: float
    ratio: float  # how many times as fast ours is

    @property
    def tokens_per_s(self) -> float:
        """By processor time."""
        return self.tokens / self.cpu_s


@click.command("loader", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("corpus", metavar="[CORPUS]", default="")
@click.option("--split", default="train", show_default=True, help="The split that is read.")
@click.option(
    "--windows", "num_windows", default=500, show_default=True, type=click.IntRange(1), help="Whole shards, until so many windows."
)
@click.option(
    "--hours", default=0.25, show_default=True, type=click.FloatRange(0.01), help="Hours of recordings made where no CORPUS is given."
)
@click.option("--repeat", default=5, show_default=True, type=click.IntRange(1), help="Runs of each contestant, in turn; medians are shown.")
@click.option("--sequence-tokens", default=4096, show_default=True, type=click.IntRange(64), help="Tokens of a sequence.")
@click.option("--restore-windows", default=1_000_000, show_default=True, type=click.IntRange(1000), help="Windows of the simulated corpus.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def loader_bench(
    corpus: str, split: str, num_windows: int, hours: float, repeat: int, sequence_tokens: int, restore_windows: int, as_json: bool
) -> None:
    """Time the loader on a local CORPUS beside webdataset and lhotse, whose Shar copy of it is made in a temporary folder.

    Without CORPUS one is made: `microturn synth` and `microturn build`. Needs webdataset and lhotse (the extra `dev`).

    \b
    Examples:
      microturn bench loader
      microturn bench loader corpus --windows 1000 --repeat 9 --json
    """
    console = Console(stderr=True)
    versions = {name: _version(name) for name in (OURS, *LIBRARIES, "torch", "numpy", "scipy")}
    with TemporaryDirectory(prefix="microturn-bench-") as scratch:
        if not corpus:
            corpus = _made_corpus(Path(scratch), hours, console)
        opened = first_shards(OpenCorpus.open(corpus, split=split), num_windows)
        console.print("writing the windows as lhotse Shar")
        peers.write_shar(opened, Path(scratch) / "shar")
        console.print(f"{1 + repeat} runs of each")
        spec = DataSpec(sequence_tokens=sequence_tokens, split=split)
        speeds = measured(opened, Path(scratch) / "shar", spec, repeat)
        packing = packed(opened, spec)
        console.print(f"simulating {restore_windows:,} windows")
        made_up_index(restore_windows).save(saved := Path(scratch) / "index.npz")
        runs = [_timed(partial(_restored, saved, spec, epoch)) for epoch in range(repeat)]
        restore = {name: median(run[place] for run in runs) for place, name in ((2, "cpu_s"), (1, "wall_s"))}
    machine = f"{platform.machine()}, Python {platform.python_version()}, one process, " + ", ".join(
        f"{name} {version}" for name, version in versions.items()
    )
    if as_json:
        rows = [asdict(speed) | {"tokens_per_s": speed.tokens_per_s, "windows_per_s": speed.windows / speed.cpu_s} for speed in speeds]
        found = {"speeds": rows, "packing": packing, "restore": {"windows": restore_windows} | restore}
        click.echo(json.dumps({"machine": machine, "repeat": repeat} | found, indent=2))
        return
    _print(speeds, packing, restore_windows, restore, machine)


def measured(corpus: OpenCorpus, shar: Path, spec: DataSpec, repeat: int) -> list[Speed]:
    """Medians of every contestant, ours first in each group."""
    layout, num_windows = corpus.layout, len(corpus.index)
    groups: dict[str, dict[str, Callable[[], Iterator[int]]]] = {
        "decoded": {
            OURS: lambda: map(_tokens, peers.our_windows(corpus)),
            "webdataset": lambda: map(_tokens, peers.webdataset_windows(corpus)),
            "lhotse": lambda: map(_tokens, peers.lhotse_windows(shar)),
        },
        "batches": {
            OURS: lambda: (batch.num_rows for batch in Loader(Mixture.of([corpus], spec), step_sequences=1, epochs=1)),
            "webdataset": lambda: map(_rows, peers.batches(peers.webdataset_windows(corpus), layout, spec.sequence_tokens)),
            "lhotse": lambda: map(_rows, peers.batches(peers.lhotse_windows(shar), layout, spec.sequence_tokens)),
            "webdataset, our rows": lambda: (batch.num_rows for batch in peers.webdataset_then_ours(corpus, spec)),
        },
    }
    contestants = [(what, who, start) for what, group in groups.items() for who, start in group.items()]
    runs: dict[tuple[str, str], list[tuple[int, float, float]]] = {(what, who): [] for what, who, _ in contestants}
    for number in range(1 + repeat):
        for what, who, start in contestants:
            run = _timed(start)
            if number:
                runs[what, who].append(run)
    speeds = []
    for what, who, _ in contestants:
        tokens, wall_s, cpu_s = (median(values) for values in zip(*runs[what, who], strict=True))
        ours_tokens, _, ours_cpu_s = (median(values) for values in zip(*runs[what, OURS], strict=True))
        speeds.append(Speed(what, who, num_windows, int(tokens), wall_s, cpu_s, ours_tokens / ours_cpu_s / (tokens / cpu_s)))
    return speeds


def packed(corpus: OpenCorpus, spec: DataSpec) -> dict[str, float]:
    """How full an epoch's sequences are, the last one left out: `filled` of `sequence_tokens`, `used` of the longest one."""
    mixture = Mixture.of([corpus], spec)
    count = mixture.order(0, 0).num_tokens // spec.sequence_tokens
    if count == 0:
        raise InputError(f"{corpus.name}: less than a sequence of {spec.sequence_tokens} tokens", hint="take a smaller --sequence-tokens")
    rows = [batch.num_rows for batch in islice(Loader(mixture, step_sequences=1, epochs=1), count)]
    mean = sum(rows) / len(rows)
    return {"sequences": len(rows), "filled": mean / spec.sequence_tokens, "used": mean / max(rows)}


def first_shards(corpus: OpenCorpus, num_windows: int) -> OpenCorpus:
    """The corpus with its first shards only: as many as hold `num_windows`, or all."""
    index = corpus.index
    last = index.shard_W[min(num_windows, len(index)) - 1]
    taken_W = index.shard_W <= last
    arrays: dict[str, Any] = {field.name: getattr(index, field.name)[taken_W] for field in fields(index) if field.name.endswith("_W")}
    return replace(corpus, index=replace(index, shards=index.shards[: int(last) + 1], **arrays))


def _timed(start: Callable[[], Iterator[int]]) -> tuple[int, float, float]:
    """(tokens, seconds of wall clock, seconds of processor) of one run."""
    wall_s, cpu_s = perf_counter(), process_time()
    tokens = sum(start())
    return tokens, perf_counter() - wall_s, process_time() - cpu_s


def _restored(saved: Path, spec: DataSpec, epoch: int) -> Iterator[int]:
    yield restored(saved, spec, epoch)


def _tokens(window: peers.Arrays) -> int:
    return len(window["tokens"])


def _rows(batch: dict[str, Any]) -> int:
    return len(batch["ids"])


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        raise InputError(f"{name} is not installed", hint="pip install 'microturn[dev]'") from None


def _made_corpus(folder: Path, hours: float, console: Console) -> str:
    """A corpus of synthetic recordings, made as a user would: by the command line, of which this room may know nothing else."""
    program = [sys.executable, "-c", "from microturn.cli import main; main()"]
    raw, corpus = str(folder / "raw"), str(folder / "corpus")
    for command in (["synth", raw, "--hours", str(hours)], ["build", raw, corpus, "--split", "train=1"]):
        console.print(f"microturn {command[0]} …")
        ran = subprocess.run([*program, *command], capture_output=True, text=True)
        if ran.returncode:
            raise MicroturnError(f"`microturn {command[0]}` failed: {ran.stderr.strip().splitlines()[-1:]}")
    return corpus


def _print(speeds: list[Speed], packing: dict[str, float], restore_windows: int, restore: dict[str, float], machine: str) -> None:
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "read by", "windows/s", "tokens/s", "CPU s", "wall s", "ours is"):
        table.add_column(name, justify="left" if name in ("", "read by") else "right", no_wrap=True)
    shown = ""
    for speed in speeds:
        if shown and shown != speed.what:
            table.add_section()
        numbers = (f"{speed.windows / speed.cpu_s:,.0f}", f"{speed.tokens_per_s:,.0f}", f"{speed.cpu_s:.3f}", f"{speed.wall_s:.3f}")
        ratio = "" if speed.who == OURS else f"{speed.ratio:.2f}×"
        table.add_row("" if shown == speed.what else speed.what, speed.who, *numbers, ratio)
        shown = speed.what
    table.add_section()
    table.add_row("packing", f"{packing['used']:.1%} full", "", "", "", "", "")
    table.add_row("restore", f"{restore_windows:,} windows", "", "", *(f"{seconds:.3f}" for seconds in restore.values()), "")
    console = Console()
    console.print(table)
    console.print(f"per second of processor time; full: of the longest of {packing['sequences']} sequences; {machine}", style="dim")
