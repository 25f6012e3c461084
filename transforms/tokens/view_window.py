"""From a window's members to all that its tokens depend on. Gather calls it before a record exists, verify and loaders on the record."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...schemas.clock import TICK_SAMPLES
from ...schemas.layout import LayoutSpec
from ...schemas.record import Record
from .interleave import Carry, Interleaved, ViewWindow, interleave
from .tokenizer import Tokenizer

JsonRows = Sequence[Mapping[str, Any]]


def view_window(
    activity_HT: np.ndarray, picture_tick_P: np.ndarray, words: JsonRows, events: JsonRows, meta: Mapping[str, Any], layout: LayoutSpec
) -> ViewWindow:
    """The tokens' inputs, from the members `activity`, `picture_tick`, `words`, `events` and `meta` of one window.

    `meta` says what lies just outside: `before.own_active`, `after.own_active`, `after.say`, `after.control`.
    """
    view, first_tick, num_ticks = meta["view"], meta["first_tick"], activity_HT.shape[1]
    patches_T = np.zeros(num_ticks, dtype=np.int64)
    patches_T[picture_tick_P] = meta["pictures"]["rows"] * meta["pictures"]["cols"]
    own_active_T2 = np.concatenate([[meta["before"]["own_active"]], activity_HT[-1], [meta["after"]["own_active"]]]).astype(bool)

    def tick_of(row: Mapping[str, Any]) -> int:
        return row["start"] // TICK_SAMPLES - first_tick

    say: list[list[str]] = [[] for _ in range(num_ticks)]
    for word in words:
        if word["participant"] == view:
            say[tick_of(word)].append(word["text"])
    typed: list[list[str]] = [[] for _ in range(num_ticks)]
    background: list[list[tuple[int, str, bool]]] = [[] for _ in range(num_ticks)]
    control: list[list[tuple[str, int]]] = [[] for _ in range(num_ticks)]
    for event in events:
        match event["kind"]:
            case "typed" if event["participant"] != view:
                typed[tick_of(event)].append(event["text"])
            case "background" if event["participant"] in ("", view):
                background[tick_of(event)].append((event["slot"], event["text"], event["complete"]))
            case "delegate" | "cancel" if event["participant"] == view:
                control[tick_of(event)].append((event["kind"], event["slot"]))
    after_say = meta["after"]["say"]
    if len(after_say) != 1 + layout.text_lead_ticks:
        raise ValueError(f"meta.after.say has {len(after_say)} ticks, the layout looks {1 + layout.text_lead_ticks} ahead")
    return ViewWindow(
        starts_session=first_tick == 0,
        first_tick=first_tick,
        patches_T=patches_T,
        own_active_T2=own_active_T2,
        say=tuple(map(tuple, [*say, *after_say])),
        typed=tuple(map(tuple, typed)),
        background=tuple(map(tuple, background)),
        control=tuple(map(tuple, [*control, [(kind, slot) for kind, slot in meta["after"]["control"]]])),
    )


def tokens_again(record: Record, layout: LayoutSpec, tokenizer: Tokenizer) -> Interleaved:
    """The tokens of a record, made again from its other members alone. Equal to the stored ones, or something is wrong."""
    window = view_window(record.activity, record.picture_tick, record.words, record.events, record.meta, layout)
    return interleave(window, layout, tokenizer, Carry.from_json(record.meta["carry_in"]))
