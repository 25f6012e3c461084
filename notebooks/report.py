"""The report of a corpus as a page: totals, voices, events, tokens, bytes, where the input went, how streams lie, rights, specs.

In: a corpus and the size of the sample. Out: HTML. Index and ledger are read whole, of the shards only the light members of the sample's
windows. The same folder gives the same bytes: no date, no path; what its last build took is told where the folder still knows it.
"""

import json
from collections.abc import Mapping

from ..pipelines.corpus import Corpus
from ..pipelines.estimate.figures import by_modality
from ..schemas.clock import SAMPLE_RATE_HZ, TICK_SAMPLES
from ..schemas.errors import InputError
from ..transforms.tokens import tokenizer
from . import page, report_input, report_sample, report_spent
from .figures import hms, mib, number, numbered, share
from .page import Html, tag
from .sample import sample
from .survey import Windows, survey
from .whereabouts import Whereabouts, whereabouts

SAMPLE_WINDOWS = 200


def report(corpus: Corpus, *, sample_windows: int = SAMPLE_WINDOWS, tokenizer_path: str = "") -> str:
    """The whole page."""
    held, went = survey(corpus), whereabouts(corpus)
    seen = sample(corpus, sample_windows, _tokenizer(corpus, tokenizer_path))
    return page.page(
        f"micro-turn corpus {corpus.dataset['digests']['content'][:12]}",
        _head(corpus, held, went),
        _splits(corpus, held),
        _voices(held),
        _events(held),
        report_sample.transfers(seen),
        report_sample.tokens(corpus, held, seen),
        report_sample.text_lag(held, seen),
        _bytes(held),
        report_spent.spent_section(corpus),
        report_input.input_section(went),
        report_sample.streams(seen),
        _rights(held),
        _specs(corpus),
    )


def _head(corpus: Corpus, held: Windows, went: Whereabouts) -> Html:
    sums = corpus.dataset["totals"]
    lost = share(sums["audio_dropped"], sums["audio_decoded"], 2)
    sound = f"{lost} of the audio was lost (dropped, or declared by its container and missing)"
    lede = f"{sound}; {numbered(sums['rejected_sessions'], 'session')} gave no window. {report_input.closing(went)}"
    numbers = (
        ("conversations", number(held.num_sessions)),
        ("conversation, h:mm:ss", hms(held.session_ticks)),
        ("views", number(held.num_views)),
        ("all views, h:mm:ss", hms(held.totals["num_ticks"])),
        ("windows", number(held.num_windows)),
        ("tokens", number(held.totals["num_tokens"])),
        ("words", number(held.num_words)),
        ("picture pairs", number(held.totals["num_pairs"])),
        ("on disk", mib(held.tar_bytes)),
    )
    return page.join(tag("h1", "What this corpus holds"), tag("p", lede), page.facts(numbers))


def _splits(corpus: Corpus, held: Windows) -> Html:
    sizes: dict[str, list[int]] = {}
    for shard in corpus.shards:
        sizes.setdefault(shard["split"], []).append(shard["size_bytes"])
    rows = [
        (name, number(len(sizes[name])), number(s["sessions"]), number(s["windows"]), hms(s["num_ticks"]), number(s["num_tokens"]),
         number(s["num_pairs"]), mib(sum(sizes[name])))
        for name, s in held.by_split.items()
    ]  # fmt: skip
    return page.section(
        "Splits",
        tag("p", "Hours are of all views. A session and its group lie in one split.", css="soft"),
        page.table(("split", "shards#", "sessions#", "windows#", "h:mm:ss#", "tokens#", "picture pairs#", "on disk#"), rows),
    )


def _voices(held: Windows) -> Html:
    def shares(sums: Mapping[str, int]) -> list[tuple[str, int]]:
        ticks, both = sums["num_ticks"], sums["overlap_ticks"]
        own, heard = sums["own_active_ticks"], sums["heard_active_ticks"]
        return [("own voice", own - both), ("others' voices", heard - both), ("both at once", both), ("nobody", ticks - own - heard + both)]

    ticks = held.totals["num_ticks"]
    items = [(name, count, share(count, ticks)) for name, count in shares(held.totals)]
    rows = [(name, *(share(count, sums["num_ticks"]) for _, count in shares(sums))) for name, sums in held.by_split.items()]
    return page.section(
        "Who is active",
        tag(
            "p",
            f"Shares of {numbered(ticks, 'tick')} of 200 ms, by voice activity; a tick counts when any of its four frames is active.",
            css="soft",
        ),
        page.stack(items, about="shares of ticks by who is active"),
        page.table(("split", "own#", "others#", "both#", "nobody#"), rows) if len(rows) > 1 else Html(),
    )


def _events(held: Windows) -> Html:
    minutes = held.session_ticks * TICK_SAMPLES / SAMPLE_RATE_HZ / 60
    items = [(kind, count, f"{number(count)} · {count / minutes if minutes else 0:.1f} a minute") for kind, count in held.events.items()]
    return page.section(
        "Events",
        tag("p", "Each session counts once, whatever its views. Rates are per minute of session.", css="soft"),
        page.bars(items, about="events by kind") if items else tag("p", "There are none."),
    )


def _bytes(held: Windows) -> Html:
    sizes = by_modality(held.member_bytes, held.tar_bytes)
    items = [(label, size, f"{mib(size)} · {share(size, held.tar_bytes)}") for label, size in sizes.items()]
    return page.section("Bytes by modality", page.bars(items, about="bytes by modality"))


def _rights(held: Windows) -> Html:
    rows = []
    for name, values in held.rights.items():
        rows += [
            (name, value or "not stated", hms(ticks), share(ticks, held.totals["num_ticks"])) for value, ticks in list(values.items())[:20]
        ]
        if len(values) > 20:
            rows.append((name, f"and {len(values) - 20} more", "", ""))
    return page.section("Rights and languages", page.table(("", "value", "h:mm:ss in all views#", "share#"), rows))


def _specs(corpus: Corpus) -> Html:
    dataset = corpus.dataset
    rows = [(name, tag("code", digest)) for name, digest in dataset["digests"].items()]
    shown = [page.details(name, json.dumps(dataset[key], indent=1, sort_keys=True, ensure_ascii=False)) for name, key in (
        ("feature spec", "spec"), ("layout", "layout"), ("toolchain", "toolchain"), ("split shares", "splits"))]  # fmt: skip
    return page.section("Specs and digests", page.table(("digest of", "sha256"), rows), *shown)


def _tokenizer(corpus: Corpus, path: str) -> tokenizer.Tokenizer | None:
    try:
        return tokenizer.load(corpus.layout, path or None)
    except InputError:
        if path:
            raise
        return None
