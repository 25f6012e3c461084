"""`microturn train`: options, config files, Ctrl-C and words around loop.py."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import click
import yaml
from rich.console import Console

from ...schemas.errors import InputError
from .progress import Shown
from .run_folder import RunFolder
from .spec import TrainSpec, corpora_of, described, merged, setting

EXIT_INTERRUPTED = 130
OPTIONS = {  # option → where it stands in the config
    "preset": "model.preset",
    "steps": "pace.steps",
    "seed": "seed",
    "workers": "pace.workers",
    "threads": "pace.threads",
}


@click.command("train", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False))
@click.option("--data", "corpora", multiple=True, metavar="CORPUS[:WEIGHT]", help="A corpus and its weight; again for each further one.")
@click.option("--preset", metavar="NAME", help="Sizes of the model: nano, micro, tiny, small-276b-a12b.")
@click.option("--steps", metavar="N", type=click.IntRange(1), help="Optimizer steps in all, resumed ones included.  [default: 1000]")
@click.option("--seed", metavar="S", type=click.IntRange(0), help="Of first weights, order and noise.  [default: 0]")
@click.option("--workers", metavar="W", type=click.IntRange(0), help="Processes that make batches.  [default: 1]")
@click.option("--threads", metavar="N", type=click.IntRange(1), help="Threads that compute.  [default: torch's choice]")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What computes; cuda has run nowhere yet."
)
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="YAML or JSON; see --print-config.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One value of the config, e.g. optimizer.lr=1e-3.")
@click.option("--print-config", is_flag=True, help="Print the config that would be used, and stop.")
@click.pass_context
def train_command(ctx: click.Context, run: str, **options: Any) -> None:
    """Train a model on corpora of micro-turns; everything about it is kept in the folder RUN.

    The same command again goes on after any interruption, and with more --steps further: bit for bit as if it had never stopped, with any
    number of workers. What is not said is taken from the run. A config that would make it another run is refused.

    RUN holds config.json, corpus.json, environment.jsonl, metrics.jsonl (a row per step), tensorboard/ and checkpoints/ (last, best).

    \b
    Examples:
      microturn train run --data corpus --preset nano --steps 500 --workers 2
      microturn train run --steps 2000
      microturn train big --data calls:3 --data films:1 --config train.yaml --set optimizer.lr=5e-4

    \b
    Exit codes:
      0    the run has all its steps
      1    failed, or another process trains this run; a loss that is not finite says so here, and the newest checkpoint is from before it
      2    wrong usage, or another corpus or config than the run's
      130  stopped by Ctrl-C or SIGTERM; saved, the same command goes on
    """
    console = Console(stderr=True)
    folder = RunFolder(run)
    spec = spec_of(folder, options)
    if options["print_config"]:
        click.echo(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False))
        return
    from ..scale.start import finish, start
    from .loop import Ended, train  # distributed checkpoints take seconds to import

    world = start(options["device"])
    console.quiet = world.rank > 0  # all say the same
    stop = _Stop()
    console.print(described(spec), markup=False, highlight=False, soft_wrap=True)
    with stop, Shown(console, steps=spec.pace.steps) as shown:
        stand = train(spec, folder, shown, asked_to_stop=stop.asked, world=world)
    finish()
    if stand.ended is Ended.ASKED:
        console.print(
            f"stopped after step {stand.step}, saved; the same command goes on from there", markup=False, highlight=False, soft_wrap=True
        )
        ctx.exit(EXIT_INTERRUPTED)
    more = f", more than the {spec.pace.steps} asked for: nothing was done" if stand.step > spec.pace.steps else ""
    done = f"{run}: {stand.step} steps{more}; weights in checkpoints/last, curves in metrics.jsonl and tensorboard/"
    console.print(done, markup=False, highlight=False, soft_wrap=True)


def spec_of(folder: RunFolder, options: dict[str, Any]) -> TrainSpec:
    """The config of this start: the run's own, then the file, then --set, then the other options. Raises InputError naming the place."""
    asked: dict[str, Any] = {}
    where = "the options"
    if path := options["config_path"]:
        where = path
        asked = _mapping(Path(path))
    for text in options["settings"]:
        asked = merged(asked, _setting(text))
    for name, key in OPTIONS.items():
        if options[name] is not None:
            asked = merged(asked, setting(key, options[name]))
    if options["corpora"]:
        asked["corpora"] = corpora_of(options["corpora"])
    started = folder.started_with()
    if started is None and not asked.get("corpora"):
        raise InputError(f"{folder.path}: a new run, and no corpus", hint="name one with --data CORPUS")
    return TrainSpec.of(asked, where=where, below=started or {})


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {type(data).__name__}, expected a mapping")
    return data


def _setting(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text!r}: expected KEY=VALUE", hint="for example --set optimizer.lr=1e-3")
    try:
        read = yaml.safe_load(value)
        read = float(value) if isinstance(read, str) and _is_number(value) else read  # YAML 1.1 takes 1e-3 for a word
    except yaml.YAMLError as error:
        raise InputError(f"--set {text!r}: not a YAML value ({' '.join(str(error).split())})") from None
    return setting(key, read)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Stop:
    """The first Ctrl-C or SIGTERM asks; the second is an interrupt as ever. A context that puts the handlers back.

    Workers of the loader are forked with these handlers: Ctrl-C reaches every process of the terminal, and must not end them.
    """

    def __init__(self) -> None:
        self._asked, self._owner = False, os.getpid()
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        return self._asked

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a worker of the loader
            if number == signal.SIGTERM:
                os._exit(1)
            return
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
