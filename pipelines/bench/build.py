"""`microturn bench build`: what a build costs, beside decoding alone and beside the scripts that people write instead.

The same conversations in several codecs. Every contestant reads the same files in one process, once before it is timed and then `repeats`
times in turn, so that what else the machine does falls on all of them; figures are medians of processor seconds, of this process and its
children. Imports are nobody's cost. Compared is a whole build, plan to commit: parts, shards, index, ledger and dataset.json.
"""

import importlib.util
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ...schemas.errors import InputError
from ...schemas.spec import FeatureSpec
from . import figures, floor, material, ours, peers
from .clock import Run, medians, timed
from .material import CODECS, VIDEO, Material

FLOOR, ALONE, BUILD = "floor", "featurise", "build"
PEERS = {  # who → what its rows are called
    "lhotse": {"lhotse → Shar, 50 ms": peers.OUR_HOP, "lhotse → Shar, 10 ms": peers.THEIR_HOP},
    "librosa": {"librosa → tar, 50 ms": peers.OUR_HOP, "librosa → tar, 10 ms": peers.THEIR_HOP},
}
NEEDS = {"lhotse": ("lhotse", "torch", "soundfile"), "librosa": ("librosa", "webdataset")}
MIN_HOURS = 0.005
Work = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Cost:
    """One contestant on one codec: medians, per hour of conversation.

    Attributes:
        hours: that it read.
        cpu_s, wall_s: seconds for each of them.
        ratio: of processor seconds, the build's over this one's.
        note: what it could not do by itself.
    """

    codec: str
    who: str
    hours: float
    cpu_s: float
    wall_s: float
    ratio: float
    note: str = ""


@click.command("build", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--input", "input_", default="", metavar="FOLDER", help="Recordings, a stream of sound each.  [default: synth's]")
@click.option("--hours", default="0.25", show_default=True, metavar="H,H…", help="Of conversation; further ones are built once.")
@click.option("--codecs", default=",".join(CODECS), show_default=True, help="What the conversations are encoded in.")
@click.option("--picture", default="1280x720", show_default=True, metavar="WxH", help="Of the films, encoded anew; 0x0: as they are.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Runs of each, in turn; medians are shown.")
@click.option("--resume-sessions", default=200, show_default=True, type=click.IntRange(1), help="Sessions of 4 s whose rebuild is timed.")
@click.option("--no-peers", is_flag=True, help="Leave lhotse and librosa out.")
@click.option("--workers", is_flag=True, help="Also time two workers, beside what two busy processes get from this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the tables.")
def build_bench(
    input_: str, hours: str, codecs: str, picture: str, repeats: int, resume_sessions: int, no_peers: bool, workers: bool, as_json: bool
) -> None:
    """Time a build beside decoding alone, and beside lhotse and a librosa script on the same files.

    The floor decodes and resamples with PyAV (of films: decodes and scales too) and throws away. lhotse and librosa need the extra `dev`.

    \b
    Examples:
      microturn bench build
      microturn bench build --hours 1,10 --codecs aac,opus,mp3 --workers
      microturn bench build --input recordings --json
    """
    sizes, chosen, size_px = _hours(hours), _codecs(codecs), _picture(picture)
    console = Console(stderr=True)
    logging.getLogger().setLevel(logging.ERROR)  # Beam's remarks
    spec = FeatureSpec()
    with tempfile.TemporaryDirectory(prefix="microturn-bench-") as folder:
        scratch = Path(folder)
        sessions, root = material.recordings(input_, scratch / "raw", sizes[0], console.print)
        start_up = medians([timed(ours.start_up) for _ in range(repeats)]).cpu_s
        costs: list[Cost] = []
        sized: dict[str, Any] = {}
        for codec in chosen:
            console.print(f"encoding {sizes[0]:g} h as {codec}")
            held = material.encode(sessions, root, scratch / codec, codec, hours=sizes[0], size_px=size_px)
            console.print(f"{1 + repeats} runs of each contestant")
            costs += compare(held, spec, scratch / "work", repeats, [] if no_peers else _installed(console.print))
            sized[codec] = {"input_bytes": held.size_bytes, "hours": held.seconds / 3600} | figures.sizes(held, spec, scratch / "sized")
            first = held if codec == chosen[0] else None
            if first is not None and workers:
                console.print("two workers")
                sized["workers"] = figures.two_workers(first, spec, scratch / "work", repeats)
            if codec != chosen[0]:
                shutil.rmtree(scratch / codec)
        linear = []
        for size in sizes[1:]:
            console.print(f"encoding {size:g} h as {chosen[0]}")
            longer = material.encode(sessions, root, scratch / "longer", chosen[0], hours=size, size_px=size_px)
            run = timed(partial(ours.build, longer, spec, scratch / "work"))
            linear.append(_cost(chosen[0], BUILD, run))
            shutil.rmtree(scratch / "work")
            shutil.rmtree(scratch / "longer")
        console.print(f"{resume_sessions} sessions, built again")
        resumed = figures.resume(resume_sessions, spec, scratch / "resume")
        claps = figures.clap_errors()
    names = ("microturn", "av", "numpy", "scipy", "soxr", *(each for who in _installed() for each in (who,)))
    told = f"{platform.machine()}, Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names)
    found = {"costs": [asdict(cost) for cost in costs], "linear": [asdict(cost) for cost in linear], "sizes": sized, "resume": resumed}
    if as_json:
        click.echo(json.dumps({"machine": told, "repeats": repeats, "start_up_cpu_s": start_up} | found | {"clap_errors": claps}, indent=2))
        return
    _print(costs, linear, sized, resumed, claps, start_up, told)


def compare(held: Material, spec: FeatureSpec, work: Path, repeats: int, others: Iterable[str]) -> list[Cost]:
    """Medians of every contestant on these files. Each writes into a folder of its own, which is emptied before it is timed."""
    notes: dict[str, str] = {}
    contestants: dict[str, Work] = {
        FLOOR: lambda: _floor(held, spec),
        ALONE: lambda: ours.featurise_alone(held, spec, work / ALONE),
        BUILD: lambda: ours.build(held, spec, work / BUILD),
    }
    for who in others if held.codec != VIDEO else ():
        by_pyav = not peers.can_open(who, held.root / held.paths[0])
        run = peers.lhotse_to_shar if who == "lhotse" else peers.librosa_to_tar
        for name, hop in PEERS[who].items():
            contestants[name] = partial(run, held.root, held.paths, work / name, hop, by_pyav)
            notes[name] = "decoded by PyAV" if by_pyav else ""
    runs: dict[str, list[Run]] = {who: [] for who in contestants}
    for number in range(1 + repeats):
        for who, contestant in contestants.items():
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            done = timed(contestant)
            if number:
                runs[who].append(done)
    shutil.rmtree(work)
    found = [_cost(held.codec, who, medians(runs[who]), notes.get(who, "")) for who in contestants]
    built = next(cost for cost in found if cost.who == BUILD)
    return [Cost(**asdict(cost) | {"ratio": built.cpu_s / cost.cpu_s}) for cost in found]


def _floor(held: Material, spec: FeatureSpec) -> float:
    seconds = floor.sound(held.root, held.paths)
    if held.codec == VIDEO:
        floor.pictures(held.root, held.paths, spec.pictures)
    return seconds


def _cost(codec: str, who: str, run: Run, note: str = "") -> Cost:
    hours = run.seconds / 3600
    return Cost(codec, who, hours, run.cpu_s / hours, run.wall_s / hours, 1.0, note)


def _installed(tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """The peers that are installed; says which are not."""
    found = [who for who, needs in NEEDS.items() if all(importlib.util.find_spec(name) for name in needs)]
    for who in set(NEEDS) - set(found):
        tell(f"{who} is left out: it needs {', '.join(NEEDS[who])} (pip install 'microturn[dev]')")
    return found


def _hours(text: str) -> list[float]:
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < MIN_HOURS:
        raise InputError(f"--hours {text}: not a list of hours of at least {MIN_HOURS}", hint="for example --hours 1,10")
    return sizes


def _codecs(text: str) -> list[str]:
    chosen = text.split(",")
    for codec in chosen:
        if codec not in CODECS:
            raise InputError(f"--codecs: no such codec: {codec!r}", hint=f"there are {', '.join(CODECS)}")
    return chosen


def _picture(text: str) -> tuple[int, int] | None:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError(f"--picture {text}: not a width and a height", hint="for example --picture 640x480")
    size_px = int(width) // 2 * 2, int(height) // 2 * 2
    return size_px if min(size_px) else None


def _print(
    costs: list[Cost], linear: list[Cost], sized: dict[str, Any], resumed: dict[str, Any], claps: list[int], start_up: float, told: str
) -> None:
    console = Console()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("codec", "", "CPU s/h", "wall s/h", "a build is"):
        table.add_column(name, justify="left" if name in ("codec", "") else "right", no_wrap=True)
    shown = ""
    for cost in costs:
        if shown and shown != cost.codec:
            table.add_section()
        ratio = "" if cost.who == BUILD else f"{cost.ratio:.2f}×"
        who = f"{cost.who}{' *' if cost.note else ''}"
        table.add_row("" if shown == cost.codec else cost.codec, who, f"{cost.cpu_s:.1f}", f"{cost.wall_s:.1f}", ratio)
        shown = cost.codec
    console.print(table)
    console.print(
        "seconds for an hour of conversation; compared is `build`: plan, parts, shards, commit; imports are no one's", style="dim"
    )
    if any(cost.note for cost in costs):
        console.print("* cannot open this format here: PyAV decodes it for it", style="dim")
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for cost in costs:
        if cost.who == BUILD:
            table.add_row(f"hours per core-hour, {cost.codec}", f"{3600 / cost.cpu_s:.0f}")
    for cost in linear:
        table.add_row(f"the same, {cost.hours:.3g} h of {cost.codec}", f"{3600 / cost.cpu_s:.0f}")
    for codec, size in sized.items():
        if codec == "workers":
            table.add_row("two workers", f"{size['speed_up']:.2f} × one; two busy processes here: {size['ceiling']:.2f} ×")
            continue
        parts = ", ".join(f"{name} {size[f'{name}_bytes_per_hour'] / 1e6:.0f} MB" for name in ("audio", "pictures", "labels"))
        table.add_row(f"an hour of {codec}", f"{size['input_bytes'] / size['hours'] / 1e6:.0f} MB become {parts}")
    per = 1000 / resumed["sessions"]
    for name, words in (("finished", "a finished corpus"), ("receipted", "all parts, no commit")):
        cpu_s, wall_s = resumed[f"{name}_cpu_s"] * per, resumed[f"{name}_wall_s"] * per
        table.add_row(f"resumed, {words}", f"{cpu_s:.1f} CPU s and {wall_s:.1f} s for 1,000 sessions (measured on {resumed['sessions']})")
    far = f"at most {max(map(abs, claps))} samples of 16 kHz in {len(claps)} claps" if claps else "no clap in the film"
    table.add_row("sound from its picture", far)
    table.add_row("a decoder process starts in", f"{start_up:.2f} CPU s, once for each worker, not in the figures above")
    console.print(table)
    console.print(told, style="dim")
