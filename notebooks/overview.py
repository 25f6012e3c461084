"""What a corpus holds, on one screen of a terminal: totals, drops by reason, the first keys. From index and ledger; no shard is opened."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ..pipelines.corpus import Corpus
from ..pipelines.wording.counted import counted
from . import survey, whereabouts
from .figures import hms, mib, ratio, share
from .ticks import printable

KEY_COLUMNS = ("key", "split", "num_ticks", "num_tokens", "num_own_words", "num_pairs", "overlap_ticks", "max_lag_ticks")
SHOWN_COLUMNS = ("key", "split", "ticks", "tokens", "own words", "pictures", "both talk", "lag")
REASON_COLUMNS = ("entry", "reason", "stage", "rows", "sum", "for example")
GAP = 2  # between columns
MIN_EXAMPLE = 20  # columns, for what is worth reading


def overview(corpus: Corpus, name: str, *, num_keys: int | None = 10) -> RenderableType:
    """Three tables: totals, where the input went, the first `num_keys` keys (None: all)."""
    held, went = survey.survey(corpus), whereabouts.whereabouts(corpus)
    parts: list[RenderableType] = [Text(f"corpus {printable(name)}", style="bold"), _totals(corpus, held, went), Text("")]
    if went.reasons:
        parts += [Text("where the input went besides", style="bold"), _Reasons(went), Text("")]
    shown = held.num_windows if num_keys is None else min(num_keys, held.num_windows)
    more = f" (the first {shown} of {held.num_windows}; --all lists them)" if shown < held.num_windows else ""
    return Group(*parts, Text(f"windows{more}", style="bold"), _Keys(list(_first_rows(corpus, shown))))


def _totals(corpus: Corpus, held: survey.Windows, went: whereabouts.Whereabouts) -> Table:
    totals, digests = held.totals, corpus.dataset["digests"]
    ticks = totals["num_ticks"]
    both, own, heard = totals["overlap_ticks"], totals["own_active_ticks"], totals["heard_active_ticks"]
    sums = corpus.dataset["totals"]
    splits = ", ".join(f"{name} {split['windows']}" for name, split in held.by_split.items())
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in (
        ("sessions", f"{held.num_sessions}, {hms(held.session_ticks)} (h:mm:ss); {sums['rejected_sessions']} more dropped whole"),
        ("views", f"{held.num_views}, {hms(ticks)}"),
        ("windows", f"{held.num_windows} in {counted(len(corpus.shards), 'shard')} ({splits or 'none'}), {mib(held.tar_bytes)}"),
        ("words", f"{held.num_words}"),
        ("events", ", ".join(f"{kind} {count}" for kind, count in held.events.items()) or "none"),
        (
            "voice",
            f"own {share(own - both, ticks)} of ticks, heard {share(heard - both, ticks)}, both {share(both, ticks)}, "
            f"nobody {share(ticks - own - heard + both, ticks)}",
        ),
        ("tokens", f"{totals['num_tokens']}, {ratio(totals['num_tokens'], ticks)} a tick ({corpus.layout.tokenizer})"),
        ("pictures", f"{counted(totals['num_pairs'], 'pair')}, {counted(totals['num_patches'], 'patch')}"),
        ("text lag", f"at most {counted(max(held.lags, default=0), 'tick')}"),
        ("audio", f"{share(sums['audio_dropped'], sums['audio_decoded'], 2)} lost; {counted(len(went.faults), 'open sum')} in the ledger"),
        ("digests", " ".join(f"{key} {digest[:12]}" for key, digest in digests.items())),
    ):
        table.add_row(label, value)
    return table


@dataclass(frozen=True)
class _Reasons:
    """Why input went: a table, or where that leaves no room for an example, two lines for each reason."""

    went: whereabouts.Whereabouts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        rows = list(self._rows())
        widths = _widths(REASON_COLUMNS, rows)
        if sum(widths[:-1]) + GAP * len(widths) + MIN_EXAMPLE > options.max_width:
            for entry, reason, stage, num, total, place in rows:
                yield Text(f"{entry}: {reason} ({stage}), {counted(int(num), 'row')}, {total}")
                yield Padding(Text(place, style="dim"), (0, 0, 0, 2))
            return
        table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim")
        for name in REASON_COLUMNS[:-1]:
            table.add_column(name, justify="right" if name in ("rows", "sum") else "left", no_wrap=True)
        table.add_column(REASON_COLUMNS[-1], max_width=60, overflow="fold")
        for row in rows:
            table.add_row(*row)
        yield table

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for (entry, reason, stage, unit), what in self.went.reasons.items():
            first = what.examples[0]
            place = " ".join(filter(None, (first["session"], first["stream"], first["message"])))
            yield entry, printable(reason), stage, str(what.rows), counted(what.units, unit), printable(place)


@dataclass(frozen=True)
class _Keys:
    """Windows by their keys, with as many of the other columns as there is room for: a key is there to be copied."""

    rows: list[tuple[str, ...]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        widths = _widths(SHOWN_COLUMNS, self.rows)
        fit = [sum(widths[: n + 1]) + GAP * n <= options.max_width for n in range(len(widths))]
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
        for name, fits in zip(SHOWN_COLUMNS, fit, strict=True):
            if name == "key":
                table.add_column(name, no_wrap=fits, overflow="fold")
            elif fits:
                table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
        num = max(1, sum(fit))
        for row in self.rows:
            table.add_row(*row[:num])
        yield table
        if num < len(fit):
            yield Text(f"(no room for {', '.join(SHOWN_COLUMNS[num:])})", style="dim")


def _widths(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[int]:
    """Of each column the cells of its widest text."""
    return [max(map(cell_len, texts)) for texts in zip(names, *rows, strict=True)]


def _first_rows(corpus: Corpus, num_keys: int) -> Iterator[tuple[str, ...]]:
    left = num_keys
    for shard in corpus.shards:
        if left <= 0:
            break
        for row in survey.read_index(corpus, KEY_COLUMNS, shards=[shard["name"]]).slice(0, left).to_pylist():
            yield tuple(str(row[column]) for column in KEY_COLUMNS)
            left -= 1
