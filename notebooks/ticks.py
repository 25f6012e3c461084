"""A window as rows for people, one for each tick: what was perceived in it, what was performed after it, what happened between speakers.

In: a record, its layout and, where it can be loaded, its tokenizer. Out: `Tick` rows of text and numbers; nothing is drawn here. Tokens
read `<name>` or `"text"`, labels do not: labels are not tokens. Levels of what is heard are made from its codes, for that is what the model
hears: 9 of 10 frames of speech lie at most 14 dB under and 4 dB over the sound's own, with the same median (measured against kept PCM).

Letters: N tokens, R rows of tokens, F frames, B bands.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from ..schemas.clock import FRAME_SAMPLES, TICK_FRAMES, TICK_SAMPLES
from ..schemas.layout import ControlIds, LayoutSpec, Slot
from ..schemas.record import Record
from ..transforms import dmel
from ..transforms.tokens.interleave import Carry
from ..transforms.tokens.tokenizer import Tokenizer
from ..transforms.tokens.view_window import view_window
from . import lag

GLYPHS = " ▁▂▃▄▅▆▇█"  # -60 dB re full scale and less is blank, each next one 6 dB more
ABSENT = "····"
_CODES_DB = -28.0  # from the sum of a frame's squared magnitudes to dB re full scale, measured on speech
_OBEYED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # Unicode categories
_PERCEIVED = (Slot.TYPED, Slot.BACKGROUND)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """One tick as a person reads it.

    Attributes:
        tick: of the session; -1 is G(-1), what is performed before anything was perceived.
        heard_bars: for each heard stream four glyphs of level, or ABSENT where no sample of the tick is real.
        heard_active: somebody who is heard is active.
        picture_pts: session samples of the pair perceived here, or ().
        heard_words: (participant, word) of the others' words that start here; labels.
        perceived: typed text and background results, as tokens.
        said: own text and control, as tokens; voice: `<speak>` or `<silent>`.
        own_bar, own_active, own_words: of the tick in which this sounds, the next one.
        lag_ticks: by how many ticks the oldest id said here is late.
    """

    tick: int
    heard_bars: tuple[str, ...]
    heard_active: bool
    picture_pts: tuple[int, ...]
    heard_words: tuple[tuple[str, str], ...]
    perceived: tuple[str, ...]
    said: tuple[str, ...]
    voice: str
    own_bar: str
    own_active: bool
    own_words: tuple[str, ...]
    lag_ticks: int

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is active, nothing is said, typed or returned, and no word starts. A picture may be there."""
        busy = self.heard_active or self.own_active or self.voice == "<speak>"
        return not (busy or self.heard_words or self.own_words or self.perceived or self.said)

    @property
    def is_absent(self) -> bool:
        """Whether neither side has a real sample here: absent, not silent."""
        return self.own_bar == ABSENT and all(bar == ABSENT for bar in self.heard_bars)


def ticks(record: Record, layout: LayoutSpec, tokenizer: Tokenizer | None) -> list[Tick]:
    """The rows of a window, G(-1) first where it starts the session. Without a tokenizer text shows as ids, and no lag is known."""
    meta = record.meta
    first_tick, num_ticks = meta["first_tick"], record.num_ticks
    before = int(first_tick == 0)
    row_N = lag.rows_of(record.token_slot)
    perceived = _spelt(record, row_N, _PERCEIVED, layout, tokenizer)
    said = _spelt(record, row_N, lag.SAID, layout, tokenizer)
    voice = _spelt(record, row_N, (Slot.VOICE,), layout, tokenizer)
    late = _lag_by_row(record, row_N, layout, tokenizer)
    heard = [_bars(codes_level(codes), valid) for codes, valid in zip(record.heard_dmel, record.heard_valid, strict=True)]
    own = _bars(pcm_level(record.own_pcm), record.own_valid)
    heard_words, own_words = _words(record)
    pts = {int(tick): tuple(map(int, pair)) for tick, pair in zip(record.picture_tick, record.picture_pts, strict=True)}
    own_active = [*record.activity[-1].tolist(), meta["after"]["own_active"]]
    heard_active: list[int] = record.activity[:-1].max(axis=0, initial=0).tolist()
    found = []
    for row in range(before + num_ticks):
        k = row - before  # of the window
        found.append(
            Tick(
                tick=first_tick + k,
                heard_bars=tuple(bars[k] for bars in heard) if k >= 0 else (),
                heard_active=k >= 0 and bool(heard_active[k]),
                picture_pts=pts.get(k, ()),
                heard_words=tuple(heard_words.get(first_tick + k, ())),
                perceived=perceived.get(row, ()),
                said=said.get(row, ()),
                voice=" ".join(voice.get(row, ())),
                own_bar=own[k + 1],
                own_active=bool(own_active[k + 1]),
                own_words=tuple(own_words.get(first_tick + k + 1, ())),
                lag_ticks=late.get(row, 0),
            )
        )
    return found


def spell(ids: Iterable[int], layout: LayoutSpec, tokenizer: Tokenizer | None) -> tuple[str, ...]:
    """Ids as people read them: `<speak>` for a control, `"text"` for a run of text, `[32 104]` without a tokenizer."""
    names = control_names(layout.ids)
    pieces: list[str] = []
    text: list[int] = []

    def close() -> None:
        if text:
            pieces.append(f'"{printable(tokenizer.decode(text))}"' if tokenizer else f"[{' '.join(map(str, text))}]")
            text.clear()

    for id_ in ids:
        if id_ in names:
            close()
            pieces.append(names[id_])
        else:
            text.append(int(id_))
    close()
    return tuple(pieces)


def control_names(ids: ControlIds) -> dict[int, str]:
    """Id → `<name>`. No id of text is among them: a tokenizer whose ids meet these is refused."""
    fields = ids.model_dump(exclude={"slots"})
    return {id_: f"<{name}>" for name, id_ in fields.items()} | {id_: f"<slot {i}>" for i, id_ in enumerate(ids.slots)}


def printable(text: str) -> str:
    """The text with every character that a terminal or a page could obey (controls, line ends, reading directions) as its escape."""
    if text.isprintable():
        return text
    return "".join(c if category(c) not in _OBEYED else c.encode("unicode_escape").decode() for c in text)


def codes_level(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Level of heard frames in dB re full scale, float64 [F], from codes of any shape [..., B]. For people: a code is 12 dB wide."""
    magnitudes_FB = 10.0 ** dmel.decode(codes.reshape(-1, codes.shape[-1])).astype(np.float64)
    return 10 * np.log10((magnitudes_FB**2).sum(axis=1)) + _CODES_DB


def pcm_level(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """Level of frames in dB re full scale, float64 [F], from int16 samples of any shape that fill frames."""
    frames = pcm.reshape(-1, FRAME_SAMPLES).astype(np.float64)
    return 10 * np.log10(np.maximum(frames.var(axis=1) / 32_768**2, 1e-12))


def _bars(level_F: NDArray[np.float64], valid_T: NDArray[np.uint16]) -> list[str]:
    height_F = np.clip(np.ceil((level_F + 60) / 6), 0, 8).astype(int)
    bars = ["".join(GLYPHS[h] for h in tick) for tick in height_F.reshape(-1, TICK_FRAMES)]
    return [bar if valid else ABSENT for bar, valid in zip(bars, valid_T, strict=True)]


def _spelt(
    record: Record, row_N: NDArray[np.int64], slots: Sequence[Slot], layout: LayoutSpec, tokenizer: Tokenizer | None
) -> dict[int, tuple[str, ...]]:
    """Row → its tokens of these slots, spelt."""
    ids: dict[int, list[int]] = {}
    chosen = np.isin(record.token_slot, slots)
    for row, id_ in zip(row_N[chosen].tolist(), record.tokens[chosen].tolist(), strict=True):
        ids.setdefault(row, []).append(id_)
    return {row: spell(found, layout, tokenizer) for row, found in ids.items()}


def _lag_by_row(record: Record, row_N: NDArray[np.int64], layout: LayoutSpec, tokenizer: Tokenizer | None) -> dict[int, int]:
    if tokenizer is None:
        return {}
    window = view_window(record.activity, record.picture_tick, record.words, record.events, record.meta, layout)
    rows, lags = lag.said_lags(record.token_slot, window, Carry.from_json(record.meta["carry_in"]), layout, tokenizer)
    found: dict[int, int] = {}
    for row, late in zip(rows.tolist(), lags.tolist(), strict=True):
        found[row] = max(found.get(row, 0), late)
    return found


def _words(record: Record) -> tuple[dict[int, list[tuple[str, str]]], dict[int, list[str]]]:
    """The others' words and own words, by the tick of the session in which they start."""
    heard: dict[int, list[tuple[str, str]]] = {}
    own: dict[int, list[str]] = {}
    words: list[Mapping[str, Any]] = [*record.words]
    after = record.meta["first_tick"] + record.num_ticks
    for word in words:
        tick, text = word["start"] // TICK_SAMPLES, printable(word["text"])
        if word["participant"] == record.meta["view"]:
            own.setdefault(tick, []).append(text)
        else:
            heard.setdefault(tick, []).append((word["participant"], text))
    own.setdefault(after, []).extend(map(printable, record.meta["after"]["say"][0]))
    return heard, own
