"""The sections of the report that only windows can fill: floor transfers, tokens by slot, text lag, how streams lie in time.

In: what a sample of windows says, and for comparison the sums over all. Out: HTML; each section states the size of its sample.
"""

from collections.abc import Mapping, Sequence

from ..pipelines.corpus import Corpus
from ..schemas.clock import SAMPLE_RATE_HZ
from . import page
from .figures import ms, number, numbered, ratio, share
from .page import Html, tag
from .sample import Sample
from .survey import Windows

WORST_STREAMS = 10
TRANSFER_BIN_MS, TRANSFER_BINS = 200, (-10, 15)  # from -2 s to 3 s


def transfers(seen: Sample) -> Html:
    values = seen.transfers
    if not values:
        return page.section("Floor transfers", tag("p", "No gap or overlap between turns in the sample."))
    low, high = TRANSFER_BINS
    size = TRANSFER_BIN_MS * SAMPLE_RATE_HZ // 1000
    counts = dict.fromkeys(range(low, high), 0)
    for value in values:
        counts[min(max(value // size, low), high - 1)] += 1
    bins = [(f"{at * TRANSFER_BIN_MS / 1000:.1f}", count) for at, count in counts.items()]
    within = sum(-3200 <= value <= 3200 for value in values)
    early = sum(value < 0 for value in values)
    return page.section(
        "Floor transfers",
        tag(
            "p",
            "From the end of a turn to the start of another's: gaps are positive, overlaps after which the second speaks on negative. "
            f"Median {ms(_quantile(values, 0.5))}; half lie between {ms(_quantile(values, 0.25))} and {ms(_quantile(values, 0.75))}; "
            f"{share(early, len(values))} begin early, {share(within, len(values))} within 200 ms either way.",
        ),
        page.histogram(bins, axis="seconds (bin's start; the outermost bins hold all beyond)", about="floor transfer offsets", marked=-low),
        _sampled(seen, numbered(len(values), "transfer")),
    )


def tokens(corpus: Corpus, held: Windows, seen: Sample) -> Html:
    total = sum(seen.slots.values())
    items = [
        (name, count, f"{ratio(count, seen.num_ticks)} a tick · {share(count, total)}")
        for name, count in sorted(seen.slots.items(), key=lambda item: (-item[1], item[0]))
    ]
    return page.section(
        "Tokens",
        tag(
            "p",
            f"{numbered(held.totals['num_tokens'], 'token')} of the {corpus.layout.tokenizer} layout, "
            f"{ratio(held.totals['num_tokens'], held.totals['num_ticks'])} a tick over all windows. By what a position is:",
        ),
        page.bars(items, about="tokens a tick by slot"),
        _sampled(seen, numbered(total, "token")),
        tag("p", "Tokens a tick, window by window, all windows:"),
        page.histogram(_binned(held.tokens_per_tick, 10), axis="tokens a tick", about="windows by tokens a tick"),
    )


def text_lag(held: Windows, seen: Sample) -> Html:
    parts: list[Html] = [
        tag("p", "Text that does not fit into its tick's quota waits. The most ticks that any id of a window waited, all windows:"),
        page.histogram(_capped(held.lags), axis="ticks of 200 ms", about="windows by their worst text lag"),
    ]
    if seen.lags:
        total = sum(seen.lags.values())
        parts += [
            tag("p", f"Of single ids {share(seen.lags[0], total)} are said in the tick they are due:"),
            page.histogram(_capped(seen.lags), axis="ticks of 200 ms", about="ids by text lag"),
            _sampled(seen, f"{numbered(total, 'id')} of own text and control"),
        ]
    if timed := sum(seen.timing.values()):
        parts.append(tag("p", f"{share(seen.timing['segment'], timed)} of the sample's words had only their segment's times.", css="soft"))
    if not seen.lags:
        parts.append(tag("p", "The sample has no own text, or its tokenizer could not be loaded.", css="soft"))
    return page.section("Text lag", *parts)


def streams(seen: Sample) -> Html:
    used = [stream for stream in seen.streams if stream["used"]]
    columns = (("offset_samples", "offset in its file"), ("drift_samples", "drift"), ("jitter_samples", "jitter"))
    quantiles = [
        (label, *(ms(_quantile(sorted(abs(stream[name]) for stream in used), q)) for q in (0.5, 0.9, 1.0)))
        for name, label in columns
        if used
    ]
    worst = sorted(used, key=lambda s: (-max(abs(s["offset_samples"]), abs(s["drift_samples"])), s["session"], s["id"]))[:WORST_STREAMS]
    rows = [
        (s["session"], s["id"], s["kind"], s["codec"], number(s["rate_hz"]) if s["rate_hz"] else "", ms(s["start_samples"]),
         ms(s["offset_samples"]), ms(s["drift_samples"]), ms(s["jitter_samples"]), number(s["num_spans"]))
        for s in worst
    ]  # fmt: skip
    head = ("session", "stream", "kind", "codec", "Hz#", "start#", "offset in its file#", "drift#", "jitter#", "spans#")
    return page.section(
        "Streams in time",
        tag("p", "What timestamps say against the count of samples; nothing of it is corrected but the offset. Absolute values:"),
        page.table(("", "median#", "nine of ten#", "worst#"), quantiles),
        _sampled(seen, numbered(len(used), "stream")),
        tag("p", f"The {len(rows)} furthest off:"),
        page.table(head, rows),
    )


def _sampled(seen: Sample, what: str) -> Html:
    if seen.num_windows == seen.of_windows:
        return tag("p", f"{what}, from all {numbered(seen.of_windows, 'window')}.", css="soft")
    some = f"a sample of {number(seen.num_windows)} of {numbered(seen.of_windows, 'window')}, chosen by sha256 of their keys"
    return tag("p", f"{what}, from {some}.", css="soft")


def _quantile(values: Sequence[int], q: float) -> int:
    """The value at the share q of sorted values; no value between two is made up."""
    return values[min(len(values) - 1, int(q * len(values)))]


def _binned(counts: Mapping[int, int], tenths: int, most_bins: int = 30) -> list[tuple[str, int]]:
    """Counts by tenths, in bins of one, two, five, ten … units, so that there are at most `most_bins`."""
    if not counts:
        return []
    low, high = min(counts) // tenths, max(counts) // tenths
    size = next(s * 10**p for p in range(9) for s in (1, 2, 5) if (high // (s * 10**p)) - (low // (s * 10**p)) < most_bins)
    bins = dict.fromkeys(range(low // size, high // size + 1), 0)
    for value, count in counts.items():
        bins[value // tenths // size] += count
    return [(str(at * size), count) for at, count in bins.items()]


def _capped(counts: Mapping[int, int], most: int = 20) -> list[tuple[str, int]]:
    """A bin for each number from 0, all from `most` on in one."""
    top = min(max(counts, default=0), most)
    bins = dict.fromkeys(range(top + 1), 0)
    for value, count in counts.items():
        bins[min(value, top)] += count
    return [(f"{at}+" if at == most else str(at), count) for at, count in bins.items()]
