"""What a corpus holds, on one screen of a terminal: totals, drops by reason, the first keys. From index and ledger; no shard is opened."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..pipelines.corpus import Corpus
from . import survey, whereabouts
from .figures import counted, hms, mib, ratio, share
from .ticks import printable

KEY_COLUMNS = ("key", "split", "num_ticks", "num_tokens", "num_own_words", "num_pairs", "overlap_ticks", "max_lag_ticks")


def overview(corpus: Corpus, name: str, *, num_keys: int | None = 10) -> RenderableType:
    """Three tables: totals, where the input went, the first `num_keys` keys (None: all)."""
    held, went = survey.survey(corpus), whereabouts.whereabouts(corpus)
    parts: list[RenderableType] = [Text(f"corpus {printable(name)}", style="bold"), _totals(corpus, held, went), Text("")]
    if went.reasons:
        parts += [Text("where the input went besides", style="bold"), _reasons(went), Text("")]
    shown = held.num_windows if num_keys is None else min(num_keys, held.num_windows)
    more = f" (the first {shown} of {held.num_windows}; --all lists them)" if shown < held.num_windows else ""
    return Group(*parts, Text(f"windows{more}", style="bold"), _keys(corpus, shown))


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
        ("sessions", f"{held.num_sessions}, {hms(held.session_ticks)} (h:mm:ss); {sums['rejected_sessions']} more were dropped whole"),
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
        ("pictures", f"{counted(totals['num_pairs'], 'pair')}, {totals['num_patches']} patches"),
        ("text lag", f"at most {counted(max(held.lags, default=0), 'tick')}"),
        ("audio", f"{share(sums['audio_dropped'], sums['audio_decoded'], 2)} lost; {len(went.faults) or 'no'} ledger sums open"),
        ("digests", " ".join(f"{key} {digest[:12]}" for key, digest in digests.items())),
    ):
        table.add_row(label, value)
    return table


def _reasons(went: whereabouts.Whereabouts) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("entry", "reason", "stage", "rows", "sum", "for example"):
        last = name == "for example"
        table.add_column(name, justify="right" if name in ("rows", "sum") else "left", no_wrap=not last, max_width=60 if last else None)
    for (entry, reason, stage, unit), what in went.reasons.items():
        first = what.examples[0]
        place = " ".join(filter(None, (first["session"], first["stream"], first["message"])))
        total = counted(what.units, unit)
        table.add_row(entry, printable(reason), stage, str(what.rows), total, printable(place))
    return table


def _keys(corpus: Corpus, num_keys: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    rows = list(_first_rows(corpus, num_keys))
    longest = max((len(row[0]) for row in rows), default=0)  # a key is there to be copied: other columns give way
    for name in ("key", "split", "ticks", "tokens", "own words", "pictures", "both talk", "lag"):
        width = longest if name == "key" else None
        table.add_column(name, justify="left" if name in ("key", "split") else "right", no_wrap=True, min_width=width)
    for row in rows:
        table.add_row(*row)
    return table


def _first_rows(corpus: Corpus, num_keys: int) -> Iterator[tuple[str, ...]]:
    left = num_keys
    for shard in corpus.shards:
        if left <= 0:
            break
        for row in survey.read_index(corpus, KEY_COLUMNS, shards=[shard["name"]]).slice(0, left).to_pylist():
            yield tuple(str(row[column]) for column in KEY_COLUMNS)
            left -= 1
