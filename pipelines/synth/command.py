"""`microturn synth`: the command line of this folder."""

from pathlib import Path

import click

from ..wording.counted import counted
from ..wording.size import Real
from .plan import DEFAULT_HOURS, MAX_HOURS, Layout
from .voices import VoiceKind

EPILOG = """\b
Examples:
  microturn synth raw
  microturn synth raw --hours 1 --seed 7
  microturn synth talk --sessions 1 --hours 0.02 --layout video
  microturn synth two_people --voice natural --layout demo

\b
Layouts:
  stereo   one WAV: left = assistant, right = user; words beside it as JSON
  tracks   a folder with a mono WAV and a word list for each speaker
  video    one MP4: the user on the screen, sound as in stereo; words as JSON
  mixed    the three in turn
  demo     a video of 66 s and tracks of 20 s, with one event of each kind

Truth (words, turns, overlaps, claps, sights, events, in samples of 16 kHz)
lies in OUT/truth, a manifest of everything in OUT/manifest.jsonl.
"""


@click.command("synth", epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--hours",
    type=Real(0, MAX_HOURS, min_open=True),
    metavar="H",
    help=f"Hours of recordings; made of sessions of 10 to 70 s.  [default: {DEFAULT_HOURS}]",
)
@click.option(
    "--sessions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of sessions; with --hours each lasts H/N hours.  [default: what H needs]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same recordings.")
@click.option(
    "--voice",
    type=click.Choice(["procedural", "natural"]),
    default="procedural",
    show_default=True,
    help="procedural: fast, word times exact to the sample. natural: like people, slow, needs the extra `voices`.",
)
@click.option(
    "--layout", type=click.Choice(["mixed", "stereo", "tracks", "video", "demo"]), default="mixed", show_default=True, help="See below."
)
@click.option("--overwrite", is_flag=True, help="Make sessions again that are there already.")
def synth_command(
    out: Path, hours: float | None, sessions: int | None, seed: int, voice: VoiceKind, layout: Layout, overwrite: bool
) -> None:
    """Make recordings of two people talking in OUT, with exactly known truth.

    Run again, it makes only what is missing; more hours add sessions.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from .write import make

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("synth", total=None)
        made = make(
            out,
            hours=hours,
            sessions=sessions,
            seed=seed,
            voice=voice,
            layout=layout,
            overwrite=overwrite,
            progress=lambda name, done, total: bar.update(task, description=name, completed=done, total=total),
        )
    kinds = [truth["recipe"]["layout"] for truth in made.truths]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("stereo", "tracks", "video") if kind in kinds)
    kept = len(made.truths) - made.num_written
    click.echo(
        f"{out}: {counted(len(made.truths), 'session')} ({counts}), "
        f"{made.num_samples / 16_000 / 3600:.3f} hours, {made.size_bytes / 1e6:.1f} MB" + (f"; {kept} there already" if kept else "")
    )
    click.echo(f"next: microturn build {out} CORPUS")
