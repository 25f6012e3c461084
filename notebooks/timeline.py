"""The ticks of a window in two columns for a terminal: left what is perceived, right what is performed after it; events in the margin.

In: a record and what it was made with. Out: a rich renderable, as wide as the console it is printed on; where that is narrow, what is
performed stands below what is perceived. Every mark reads without colour: "text" and <names> are tokens, (words) are labels, bars are
levels of 50 ms frames.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..pipelines.wording.counted import counted
from ..schemas.clock import TICK_SAMPLES, clock_text
from ..schemas.layout import LayoutSpec
from ..schemas.record import Record
from ..transforms.tokens.tokenizer import Tokenizer
from .ticks import Tick, printable, ticks

MIN_QUIET = 3  # so many quiet ticks in a row become one line
WIDE = 80  # columns of a terminal from which on there is room for two
EVENT_WIDTH = 20  # two lanes and "turn assistant"
SHOWN_TICKS = 50  # of a window of which no range was asked for: 10 s
LEGEND = (
    "Left of a name ┃ is a turn, ┊ a backchannel: of the others, of the view. Bars: levels of 50 ms frames, 6 dB a step; · absent; "
    '• active. "text" and <names> are tokens; (words) are labels by their start, never tokens. ▣ a picture pair: PTS of the first, and how '
    "much later the second. +n: said n ticks late."
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """What happens between speakers in one tick: a lane for the others and one for the view, and the events that start here."""

    lanes: str
    names: tuple[str, ...]


def timeline(
    record: Record,
    layout: LayoutSpec,
    tokenizer: Tokenizer | None,
    *,
    start_tick: int,
    stop_tick: int,
    earlier_events: Sequence[Mapping[str, Any]] = (),
) -> RenderableType:
    """The session's ticks [start_tick, stop_tick) of the window, quiet stretches in one line each, with header and legend.

    `earlier_events` are those of the window before: a turn may reach over from there.
    """
    first, view = record.meta["first_tick"], record.meta["view"]
    rows = [t for t in ticks(record, layout, tokenizer) if start_tick <= t.tick < stop_tick or (t.tick == -1 and start_tick == 0)]
    margins = _margins([*earlier_events, *record.events], view, first, first + record.num_ticks)
    name_them = sum(map(len, record.meta["heard"])) > 1
    table = _Ticks(runs=tuple(_runs(rows, margins)), margins=margins, name_them=name_them)
    return Group(Text(header(record)), Text(""), table, Text(""), Text(LEGEND, style="dim"))


@dataclass(frozen=True, kw_only=True)
class _Ticks:
    """The table of the ticks: its shape follows from the width that it is printed in."""

    runs: tuple[list[Tick], ...]
    margins: Mapping[int, Margin]
    name_them: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield self._wide() if options.max_width >= WIDE else self._narrow()

    def _wide(self) -> Table:
        table = _clocked()
        table.add_column("events", width=EVENT_WIDTH)
        table.add_column("perceived", ratio=1, overflow="fold")
        table.add_column("│", no_wrap=True, width=1)
        table.add_column("performed → next tick", ratio=1, overflow="fold")
        for tick, margin, quiet in self._rows():
            seen, done = (quiet, "") if quiet else (_perceived(tick, self.name_them), _performed(tick))
            table.add_row(_clock(tick.tick), str(tick.tick), _events(margin), seen, "│", done, style="dim" if quiet else None)
        return table

    def _narrow(self) -> Table:
        """One below the other: events, what is perceived, and behind an arrow what is performed."""
        table = _clocked()
        table.add_column("", no_wrap=True, width=2)
        table.add_column("perceived\n→ performed", ratio=1, overflow="fold")
        for tick, margin, quiet in self._rows():
            seen = Text(quiet) if quiet else _perceived(tick, self.name_them)
            parts = [*(Text(name, style="yellow") for name in margin.names), *([seen] if seen.plain.strip() else [])]
            if not quiet:
                parts.append(Text("→ ").append_text(_performed(tick)))
            table.add_row(_clock(tick.tick), str(tick.tick), margin.lanes, Text("\n").join(parts), style="dim" if quiet else None)
        return table

    def _rows(self) -> Iterator[tuple[Tick, Margin, str]]:
        """(tick, its margin, "" or the words for a quiet run that begins with it)."""
        none = Margin(lanes="  ", names=())
        for run in self.runs:
            if len(run) >= MIN_QUIET:
                yield run[0], none, _quiet(run)
            else:
                yield from ((tick, self.margins.get(tick.tick, none), "") for tick in run)


def _clocked() -> Table:
    """A table with the columns of the time."""
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    table.add_column("clock", no_wrap=True, width=9)
    table.add_column("tick", justify="right", no_wrap=True, width=6)
    return table


def header(record: Record) -> str:
    """Two lines that say whose window this is and what it holds."""
    meta, pictures = record.meta, record.meta["pictures"]
    speaker = f", speaker {printable(meta['speaker'])}" if meta["speaker"] else ""
    heard = "; ".join(" + ".join(mix) for mix in meta["heard"]) or "nobody"
    seen = f"{pictures['participant']}, {pictures['width_px']}×{pictures['height_px']} in {pictures['rows']}×{pictures['cols']} patches"
    first, stop = meta["first_tick"], meta["first_tick"] + record.num_ticks
    return (
        f"session {printable(meta['session_id'])} as {meta['view']} lives it (role {meta['role']}{speaker}) · heard: {heard} · "
        f"seen: {seen if pictures['stream'] else 'nothing'}\n"
        f"window: ticks {first}–{stop - 1} of {meta['session_ticks']}, {_clock(first)}–{_clock(stop)} · "
        f"{counted(len(record.tokens), 'token')} · {counted(len(record.picture_tick), 'picture pair')} · "
        f"text lag at most {counted(meta['max_lag_ticks'], 'tick')}"
    )


def interesting(record: Record) -> tuple[int, int]:
    """The range of session ticks to show when none was asked for: up to 10 s from the first tick with something in it."""
    first = record.meta["first_tick"]
    stop = first + record.num_ticks
    events = [event["start"] for event in record.events if event["kind"] != "gap"]
    words = [word["start"] for word in record.words]
    active = record.activity.any(axis=0)
    starts = [start // TICK_SAMPLES for start in [*events, *words]] + ([first + int(active.argmax())] if active.any() else [])
    start = max(first, min(starts) - 1) if starts else first
    return start, min(stop, start + SHOWN_TICKS)


def _runs(rows: Sequence[Tick], margins: Mapping[int, Margin]) -> Iterator[list[Tick]]:
    """Runs of quiet ticks of one kind (silent or absent), every other tick by itself."""
    run: list[Tick] = []
    for row in rows:
        quiet = row.is_quiet and not margins.get(row.tick) and row.tick >= 0
        if run and not (quiet and run[-1].is_absent == row.is_absent):
            yield from _as_runs(run)
            run = []
        if quiet:
            run.append(row)
        else:
            yield [row]
    yield from _as_runs(run)


def _as_runs(run: list[Tick]) -> Iterator[list[Tick]]:
    if len(run) >= MIN_QUIET:
        yield run
    else:
        yield from ([row] for row in run)


def _quiet(run: Sequence[Tick]) -> str:
    pictures = sum(bool(tick.picture_pts) for tick in run)
    what = "not recorded" if run[0].is_absent else "of silence"
    return f"… {len(run)} ticks {what}{f', {pictures} ▣' if pictures else ''}"


def _clock(tick: int) -> str:
    """`h:mm:ss.s`: a tick starts at a whole tenth; "" before the session."""
    return clock_text(tick * TICK_SAMPLES)[:-2] if tick >= 0 else ""


def _events(margin: Margin) -> Text:
    lines = [line for name in margin.names for line in (name.split(" ", 1) if len(name) > EVENT_WIDTH - 3 else [name])]
    text = Text(margin.lanes + " ")
    text.append("\n   ".join(lines), style="yellow")
    return text


def _perceived(tick: Tick, name_them: bool) -> Text:
    text = Text()
    if tick.tick < 0:
        return Text("the session begins", style="dim")
    text.append(" ".join(tick.heard_bars), style="green" if tick.heard_active else "dim green")
    text.append("•" if tick.heard_active else " ")
    for first, second in [tick.picture_pts] if tick.picture_pts else []:
        text.append(f" ▣ {clock_text(first)} +{(second - first) * 1000 // 16_000} ms", style="magenta")
    for piece in tick.perceived:
        text.append(" ")
        text.append(piece, style="bold")
    words = [f"{who}: {word}" if name_them else word for who, word in tick.heard_words]
    if words:
        text.append(f" ({' '.join(words)})", style="dim")
    return text


def _performed(tick: Tick) -> Text:
    text = Text()
    for piece in tick.said:
        text.append(piece + " ", style="bold")
    text.append(tick.voice, style="cyan" if tick.voice == "<speak>" else "dim")
    if tick.voice == "<speak>" or tick.own_active:
        text.append(f" {tick.own_bar}", style="cyan")
        text.append("•" if tick.own_active else " ")
    if tick.lag_ticks:
        text.append(f" +{tick.lag_ticks}", style="red")
    if tick.own_words:
        text.append(f" ({' '.join(tick.own_words)})", style="dim")
    return text


def _margins(events: Sequence[Mapping[str, Any]], view: str, first_tick: int, stop_tick: int) -> dict[int, Margin]:
    """Tick → its margin, for ticks that have one."""
    lanes: dict[int, list[str]] = {}
    names: dict[int, list[str]] = {}
    interrupted = {(e["start"], e["participant"], e["other"]) for e in events if e["kind"] == "interruption"}
    for event in events:
        kind, who = event["kind"], event["participant"]
        start, stop = event["start"] // TICK_SAMPLES, -(-event["stop"] // TICK_SAMPLES)
        if kind in ("turn", "backchannel"):
            for tick in range(max(start, first_tick), min(stop, stop_tick)):
                lanes.setdefault(tick, [" ", " "])[who == view] = "┃" if kind == "turn" else "┊"
        if kind == "overlap" and (event["start"], who, event["other"]) in interrupted:
            continue  # listed again under that name
        if kind in ("turn", "backchannel", "gap", "overlap", "interruption") and first_tick <= start < stop_tick:
            names.setdefault(start, []).append(_name(event))
    return {tick: Margin(lanes="".join(lanes.get(tick, "  ")), names=tuple(names.get(tick, ()))) for tick in sorted({*lanes, *names})}


def _name(event: Mapping[str, Any]) -> str:
    """The event in at most 17 characters where names are short."""
    length_ms = (event["stop"] - event["start"]) * 1000 // 16_000
    return f"{event['kind']} {length_ms} ms" if event["kind"] in ("gap", "overlap") else f"{event['kind']} {event['participant']}"
