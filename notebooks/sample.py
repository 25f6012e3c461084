"""What some windows of a corpus say that the index does not: floor transfers, text lag, tokens by slot, how streams lie in time.

In: a corpus and a number of windows. They are the first by sha256 of their keys: the same on every run, and spread over everything. Only
light members are read, by their byte ranges. Costs about a millisecond a window on a disk, three requests a window in a store.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..pipelines.corpus import Corpus
from ..schemas.layout import LayoutSpec, Slot
from ..schemas.strict import sha256_hex
from ..transforms.tokens.interleave import Carry
from ..transforms.tokens.tokenizer import Tokenizer
from ..transforms.tokens.view_window import view_window
from . import find
from .lag import said_lags

MEMBERS = ("activity", "events", "meta", "picture_tick", "token_slot", "words")

Row = Mapping[str, Any]


@dataclass(slots=True)
class Sample:
    """What the sampled windows say.

    Attributes:
        num_windows, num_ticks: of the sample; of_windows: of the corpus.
        slots: kind of position → tokens.
        transfers: floor transfer offsets in samples, sorted, of each session once; `transfers` below says what they are.
        lags: ticks of lag → ids of own text or control; {} where the tokenizer cannot be loaded.
        streams: a row for each stream of the sampled sessions, as meta has it, with `session`.
        timing: how words were timed → words.
    """

    num_windows: int = 0
    of_windows: int = 0
    num_ticks: int = 0
    slots: Counter[str] = field(default_factory=Counter)
    transfers: list[int] = field(default_factory=list)
    lags: Counter[int] = field(default_factory=Counter)
    streams: list[dict[str, Any]] = field(default_factory=list)
    timing: Counter[str] = field(default_factory=Counter)


def sample(corpus: Corpus, num_windows: int, tokenizer: Tokenizer | None) -> Sample:
    """The first `num_windows` windows by sha256 of key, looked at."""
    known = find.shard_of_keys(corpus)
    chosen = sorted(known, key=sha256_hex)[:num_windows]
    found = Sample(of_windows=len(known))
    sessions: set[str] = set()
    minutes: set[tuple[str, int]] = set()
    for row in _index_rows(corpus, chosen, known):
        held = find.members(corpus, row, MEMBERS)
        found.num_windows += 1
        found.num_ticks += row["num_ticks"]
        slots = np.bincount(held["token_slot"], minlength=len(Slot)).tolist()
        found.slots.update({Slot(number).name: count for number, count in enumerate(slots) if count})
        if tokenizer is not None:
            found.lags.update(lags(held, corpus.layout, tokenizer))
        meta = held["meta"]
        if (meta["session"], meta["first_tick"]) not in minutes:  # another view of it holds the same events and words
            minutes.add((meta["session"], meta["first_tick"]))
            found.transfers += transfers(held["events"])
            found.timing.update(word["timing"] for word in held["words"])
        if meta["session"] not in sessions:
            sessions.add(meta["session"])
            found.streams += [{"session": meta["session"], **stream} for stream in meta["streams"]]
    found.streams.sort(key=lambda stream: (stream["session"], stream["id"]))
    found.transfers.sort()
    return found


def transfers(events: Sequence[Row]) -> list[int]:
    """Floor transfer offsets in samples: the length of every gap; minus that of every overlap in which the second speaks on."""
    stops = {(event["participant"], event["start"]): event["stop"] for event in events if event["kind"] == "turn"}
    found = [event["stop"] - event["start"] for event in events if event["kind"] == "gap"]
    for event in events:
        if event["kind"] == "overlap" and stops.get((event["participant"], event["start"]), 0) > event["stop"]:
            found.append(event["start"] - event["stop"])
    return found


def lags(held: Mapping[str, Any], layout: LayoutSpec, tokenizer: Tokenizer) -> list[int]:
    """Ticks of lag of every id of own text or control of a window, from its light members."""
    meta = held["meta"]
    window = view_window(held["activity"], held["picture_tick"], held["words"], held["events"], meta, layout)
    _, late = said_lags(held["token_slot"], window, Carry.from_json(meta["carry_in"]), layout, tokenizer)
    return late.tolist()


def _index_rows(corpus: Corpus, chosen: Sequence[str], known: Mapping[str, str]) -> Iterable[find.IndexRow]:
    """The index rows of the chosen keys; each shard's index is read once."""
    wanted = set(chosen)
    for shard in sorted({known[key] for key in chosen}):
        yield from (row for row in corpus.index(shard) if row["key"] in wanted)
