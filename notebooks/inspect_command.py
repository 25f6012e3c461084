"""`microturn inspect`: what a corpus holds, or one of its windows as a timeline, in the terminal."""

import os
import re
import sys
from decimal import Decimal
from typing import Any

import click
from rich.console import Console, RenderableType

from ..schemas.clock import TICK_SAMPLES, clock_text, to_samples
from ..schemas.errors import InputError

PIPED_WIDTH = 110  # where there is no terminal to ask


@click.command("inspect", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out", metavar="OUT")
@click.argument("key", metavar="[KEY]", default="")
@click.option(
    "--from", "start", metavar="TIME", default="", help="First moment to show, on the session's clock: 65.2, 1:05.2 or 0:01:05.2."
)
@click.option("--to", "stop", metavar="TIME", default="", help="Moment to stop before.")
@click.option("--ticks", "range_", metavar="A:B", default="", help="Show the session's ticks A … B - 1 instead (200 ms each).")
@click.option("--all", "everything", is_flag=True, help="Show the whole window; without KEY, list every key.  [default: 10 s; 10 keys]")
@click.option("--tokens", "raw", is_flag=True, help="Print the ticks' token ids by slot, a line a tick.")
@click.option("--tokenizer", "tokenizer_path", default="", metavar="FILE", help="The tokenizer.json, when the corpus was built with one.")
def inspect_command(out: str, key: str, start: str, stop: str, range_: str, everything: bool, raw: bool, tokenizer_path: str) -> None:
    """Show what the corpus OUT holds, or the window KEY of it tick by tick.

    KEY is <session>-<view>-<tick7>, or as much of its beginning as no other window shares. The timeline has what is perceived on the left,
    what is performed after it on the right; quiet stretches take one line.

    \b
    Examples:
      microturn inspect corpus
      microturn inspect corpus two-people-assistant-0000000 --from 0:00:05 --to 0:00:12
    """
    from ..pipelines.corpus import Corpus

    given = [name for name, value in (("--from/--to", start or stop), ("--ticks", range_), ("--all", everything)) if value]
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} exclude each other")
    if not key and (start or stop or range_ or raw):
        raise click.UsageError("--from, --to, --ticks and --tokens show a window: name its KEY")
    corpus = Corpus.open(out)
    console = _console()
    if not key:
        from .overview import overview

        console.print(overview(corpus, out, num_keys=None if everything else 10))
        return
    console.print(_window(corpus, key, start, stop, range_, everything, raw, tokenizer_path), soft_wrap=raw)


def parse_ticks(range_: str) -> tuple[int, int | None]:
    """(A, B) of `A:B`; either may be left out. Raises InputError."""
    found = re.fullmatch(r"(\d*):(\d*)", range_)
    if not found:
        raise InputError(f"--ticks {range_!r}: expected A:B", hint="for example --ticks 25:75")
    return int(found[1] or 0), int(found[2]) if found[2] else None


def parse_time(text: str, option: str) -> int:
    """Session samples of `s`, `m:ss` or `h:mm:ss`, with decimals. Raises InputError."""
    found = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text)
    if not found:
        raise InputError(f"{option} {text!r}: not a time", hint="for example 65.2, 1:05.2 or 0:01:05.2")
    return to_samples(int(found[1] or 0) * 3600 + int(found[2] or 0) * 60 + Decimal(found[3]))


def _console() -> Console:
    """The console of stdout: as wide as the terminal, or COLUMNS, or 110; NO_COLOR is rich's own."""
    fixed = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH
    return Console(width=fixed, highlight=False, emoji=False, markup=False)


def _window(corpus: Any, text: str, start: str, stop: str, range_: str, everything: bool, raw: bool, tokenizer_path: str) -> RenderableType:
    from . import find, timeline

    known = find.shard_of_keys(corpus)
    row = find.row_of(corpus, find.full_key(text, known), known)
    window = corpus.read(row)
    if everything:
        first, end = row["first_tick"], row["first_tick"] + row["num_ticks"]
    elif range_:
        first, end = _inside(row, *parse_ticks(range_), known)
    elif start or stop:
        last = -(-parse_time(stop, "--to") // TICK_SAMPLES) if stop else None
        first, end = _inside(row, parse_time(start, "--from") // TICK_SAMPLES if start else 0, last, known)
    else:
        first, end = timeline.interesting(window)
    if raw:
        from .raw_tokens import raw_tokens

        return raw_tokens(window, corpus.layout, start_tick=first, stop_tick=end)
    click.echo(f"{row['key']}: ticks {first}–{end - 1}; --all, --from or --ticks shows others", err=True)
    tokenizer = _tokenizer(corpus, tokenizer_path)
    earlier = find.events_before(corpus, row, known)
    return timeline.timeline(window, corpus.layout, tokenizer, start_tick=first, stop_tick=end, earlier_events=earlier)


def _inside(row: dict[str, Any], first: int, end: int | None, known: dict[str, str]) -> tuple[int, int]:
    """The part of the session's ticks [first, end) that lies in the window. Raises InputError when none does."""
    start, stop = row["first_tick"], row["first_tick"] + row["num_ticks"]
    inside = max(first, start), stop if end is None else min(end, stop)
    if inside[0] < inside[1]:
        return inside
    if end is not None and end <= first:
        raise InputError(f"ticks {first} to {end} are none", hint="the end is not shown, so it lies after the start")
    from ..schemas import keys

    session, view, _ = keys.parse_window_key(row["key"])
    other = next((key for key in reversed(known) if key.startswith(f"{session}-{view}-") and keys.parse_window_key(key)[2] <= first), "")
    covers = f"ticks {start}–{stop - 1}, {clock_text(start * TICK_SAMPLES)} to {clock_text(stop * TICK_SAMPLES)}"
    raise InputError(f"{row['key']} has {covers}", hint=f"look at {other}" if other not in ("", row["key"]) else "ask for a time inside it")


def _tokenizer(corpus: Any, path: str) -> Any:
    """The layout's tokenizer; None, and a note, where it cannot be loaded: ids are shown then."""
    from ..transforms.tokens import tokenizer

    try:
        return tokenizer.load(corpus.layout, path or None)
    except InputError as error:
        if path:
            raise
        click.echo(f"note: text is shown as ids: {error}", err=True)
        return None
