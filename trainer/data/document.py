"""A document from windows: consecutive ticks of one view as rows, each with what it is embedded from and what is learned from it.

FORMAT.md section 4, its table to the letter; section 5 for own speech. Windows may lie in any number of records: where a record ends
changes nothing.

How the table is read here: everything in G(k) has tick k + 1 as its source, and it has weight 0 as a whole when that tick lies outside
the document or none of its own samples is real. Own absence and edges are context; a rule by what is said there would be one by the target.
w(k) looks at ticks of the document only, and at what it was left of typed text and results.

*Played*: a cut speaking tick keeps n of its four frames. Frames after them become code 0 and are not learned. With n = 0 the tick is
`<perform> <silent>`; what `<perform>` learns stays what was performed, or cutting would teach silence. A tick with control keeps a frame:
its `<delegate>` has consequences.

Letters: N rows, K ticks, F frames of own speech (4 a speaking tick), P patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...schemas import keys
from ...schemas.clock import FRAME_SAMPLES, TICK_FRAMES
from ...schemas.layout import LayoutSpec, Slot
from ...schemas.record import Record
from ...schemas.spec import NUM_BANDS, PATCH_PX
from ...transforms import own
from . import chance
from .order import Dropped
from .own_speech import OwnSpeech
from .spec import DataSpec

OPENING = 10  # beside schemas.layout.Slot: BOS and the prologue, which no record holds
SAID = (Slot.SAY, Slot.CONTROL)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Document:
    """What a model sees and learns in one document.

    Attributes:
        key: `<session>-<view>-<tick7>` of its first tick: the document key of random numbers.
        epoch: of its corpus; chance depends on it.
        first_tick, num_ticks: ticks of the session; none in a document that stands for an empty sequence.
        ids, slots, ticks: int32, uint8, int32 [N]: id, Slot or OPENING, and tick k of P(k) or G(k); -1 in G(-1), the first tick in OPENING.
        loud: bool [N]: rows of ticks whose w(k) is 1 by context, of P(k) and G(k) alike; never in OPENING and G(-1). Weights that are 0
            for other reasons change nothing here.
        heard_codes: uint8 [HEARD rows, 80].
        own_codes: uint8 [OWN rows, 4, 80].
        patches, patch_px: uint8 [PATCH rows, 2, 40, 40, 3], and [.., 2], the height and width of it that is picture and not padding.
        text_rows, text_targets, text_weights: int64, int64, float32: rows that learn a next id.
        flow_rows, flow_targets, flow_weights: int64 [F], float32 [F, 4, 80] in head space, float32 [F]: rows that learn a frame of speech.
    """

    key: str
    epoch: int
    first_tick: int
    num_ticks: int
    ids: NDArray[np.int32]
    slots: NDArray[np.uint8]
    ticks: NDArray[np.int32]
    loud: NDArray[np.bool_]
    heard_codes: NDArray[np.uint8]
    own_codes: NDArray[np.uint8]
    patches: NDArray[np.uint8]
    patch_px: NDArray[np.uint8]
    text_rows: NDArray[np.int64]
    text_targets: NDArray[np.int64]
    text_weights: NDArray[np.float32]
    flow_rows: NDArray[np.int64]
    flow_targets: NDArray[np.float32]
    flow_weights: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """What documents are made by, besides their windows: the same for all of a run."""

    layout: LayoutSpec
    spec: DataSpec
    prologue_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A record and its own speech, which computes what it is asked for once."""

    record: Record
    speech: OwnSpeech

    @classmethod
    def of(cls, record: Record, layout: LayoutSpec) -> "Window":
        """The window of a record."""
        return cls(record, OwnSpeech(record.own_pcm, layout.own_mel))


def make(
    windows: Sequence[Window], start: int, stop: int, making: Making, *, epoch: int = 0, dropped: Dropped = Dropped.NOTHING
) -> Document:
    """The document of ticks [start, stop) of the session, which lie in these consecutive windows of one view, all of them touched."""
    spans = [_Span.of(window, start, stop) for window in windows]
    layout, meta = making.layout, spans[0].window.meta
    ids_N, slots_N, ticks_N = (np.concatenate([getattr(span, name) for span in spans]) for name in ("ids", "slots", "ticks"))
    next_ids_N = np.append(ids_N[1:], np.int32(0))  # of rows in G: what stands behind them is never dropped

    keep_N = _kept(slots_N, dropped)
    place_N = ticks_N - start  # of the tick in the document; that of G(-1) is -1
    perceived_K = np.bincount(place_N[keep_N & np.isin(slots_N, (Slot.TYPED, Slot.BACKGROUND))], minlength=stop - start) > 0
    active_K = np.concatenate([span.active_K for span in spans])
    loud_K = _loud(active_K | perceived_K, layout.quiet_ticks)
    learned_K = np.concatenate([span.own_next_K for span in spans])
    learned_K[-1] = False  # its source is the tick after the document
    if ticks_N[0] < 0:  # G(-1): nothing came before it; its source is the first tick
        loud_K, learned_K = np.append(loud_K, False), np.append(learned_K, spans[0].window.own_valid[0] > 0)
    weight_K = np.where(loud_K, 1.0, layout.quiet_weight) * learned_K  # place -1 reads its last value

    speaks_N = (slots_N == Slot.VOICE) & (ids_N == layout.ids.speak)
    speaking_S = ticks_N[speaks_N]
    control_S = np.isin(speaking_S, ticks_N[slots_N == Slot.CONTROL])
    played_S = played(meta["session"], meta["view"], speaking_S, control_S, making.spec, epoch)
    undone_N = np.isin(ticks_N, speaking_S[played_S == 0])
    keep_N &= ~(undone_N & np.isin(slots_N, (*SAID, Slot.OWN)))
    ids_N = np.where(undone_N & speaks_N, np.int32(layout.ids.silent), ids_N)

    sounding = played_S > 0
    mel16_SF = _own_mel(spans, speaking_S[sounding])
    filled_SF = np.arange(TICK_FRAMES) >= played_S[sounding][:, None]  # frames that were not played
    codes_SF = own.codes(mel16_SF, layout.own_mel)
    codes_SF[filled_SF] = 0
    flow_N = (speaks_N & ~undone_N) | _first_three(slots_N)
    flow_weights = (learned_K[place_N[speaks_N]][sounding][:, None] & ~filled_SF).astype(np.float32)

    text_N = np.isin(slots_N, (Slot.PERFORM, *SAID))
    row_N = np.cumsum(keep_N) - 1 + 1 + len(making.prologue_ids)
    text_kept_N, flow_kept_N = text_N & keep_N, flow_N & keep_N
    opening = np.array([layout.ids.bos, *making.prologue_ids], np.int32)
    patches, patch_px = _pictures(spans, dropped)
    return Document(
        key=keys.window_key(meta["session"], meta["view"], start),
        epoch=epoch,
        first_tick=start,
        num_ticks=stop - start,
        ids=np.concatenate([opening, ids_N[keep_N]]),
        slots=np.concatenate([np.full(len(opening), OPENING, np.uint8), slots_N[keep_N]]),
        ticks=np.concatenate([np.full(len(opening), start, np.int32), ticks_N[keep_N]]),
        loud=np.concatenate([np.zeros(len(opening), bool), loud_K[place_N[keep_N]]]),
        heard_codes=np.concatenate([span.window.heard_dmel[0, span.start : span.stop].reshape(-1, NUM_BANDS) for span in spans]),
        own_codes=codes_SF.reshape(-1, *codes_SF.shape[2:]),
        patches=patches,
        patch_px=patch_px,
        text_rows=row_N[text_kept_N],
        text_targets=next_ids_N[text_kept_N].astype(np.int64),
        text_weights=weight_K[place_N[text_kept_N]].astype(np.float32),
        flow_rows=row_N[flow_kept_N],
        flow_targets=own.to_head(mel16_SF).reshape(-1, *mel16_SF.shape[2:]),
        flow_weights=flow_weights.reshape(-1),
    )


def played(
    session: str, view: str, speaking_S: NDArray[Any], control_S: NDArray[np.bool_], spec: DataSpec, epoch: int
) -> NDArray[np.int64]:
    """How many of its four frames each speaking tick (of the session) plays: 4, but fewer where it is cut. By view and tick alone."""
    drawn_S4 = chance.words(chance.key("played", spec.seed, epoch, keys.window_key(session, view, 0)), speaking_S + 1)
    is_cut = chance.uniform(drawn_S4[:, 0]) < spec.cut_played
    fewer = np.where(control_S, 1 + drawn_S4[:, 1] % (TICK_FRAMES - 1), drawn_S4[:, 1] % TICK_FRAMES)
    return np.where(is_cut, fewer, TICK_FRAMES)


def nothing(making: Making) -> Document:
    """The document of a sequence that has no ticks (damaged ones, or ranks that outnumber sequences): the opening, nothing learned."""
    opening = np.array([making.layout.ids.bos, *making.prologue_ids], np.int32)
    sub_frames = FRAME_SAMPLES // making.layout.own_mel.hop_samples
    return Document(
        key="",
        epoch=0,
        first_tick=0,
        num_ticks=0,
        ids=opening,
        slots=np.full(len(opening), OPENING, np.uint8),
        ticks=np.zeros(len(opening), np.int32),
        loud=np.zeros(len(opening), bool),
        heard_codes=np.zeros((0, NUM_BANDS), np.uint8),
        own_codes=np.zeros((0, sub_frames, NUM_BANDS), np.uint8),
        patches=_NO_PATCHES,
        patch_px=np.zeros((0, 2), np.uint8),
        text_rows=np.zeros(0, np.int64),
        text_targets=np.zeros(0, np.int64),
        text_weights=np.zeros(0, np.float32),
        flow_rows=np.zeros(0, np.int64),
        flow_targets=np.zeros((0, sub_frames, NUM_BANDS), np.float32),
        flow_weights=np.zeros(0, np.float32),
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Span:
    """The ticks of one window that lie in a document: [start, stop) of the window, and what they hold. Ticks of rows are the session's."""

    window: Record
    speech: OwnSpeech
    start: int
    stop: int
    ids: NDArray[np.int32]
    slots: NDArray[np.uint8]
    ticks: NDArray[np.int32]
    active_K: NDArray[np.bool_]
    own_next_K: NDArray[np.bool_]

    @classmethod
    def of(cls, kept: Window, start: int, stop: int) -> "_Span":
        window = kept.record
        first_tick = window.meta["first_tick"]
        lo, hi = max(start - first_tick, 0), min(stop - first_tick, window.num_ticks)
        assert lo < hi, "a document touches all its windows"
        rows = slice(*np.searchsorted(window.token_tick, [lo, hi]))
        ticks = window.token_tick[rows].astype(np.int32) + first_tick
        if first_tick == 0 and lo == 0:
            ticks[: _rows_before(window)] = -1
        return cls(
            window=window,
            speech=kept.speech,
            start=lo,
            stop=hi,
            ids=window.tokens[rows],
            slots=window.token_slot[rows],
            ticks=ticks,
            active_K=np.bitwise_or.reduce(window.activity[:, lo:hi]) > 0,
            own_next_K=window.own_valid[lo + 1 : hi + 1] > 0,
        )


def _rows_before(window: Record) -> int:
    """Rows of G(-1), which stand before the first that is perceived; 0 where there is none."""
    perceived = np.flatnonzero(np.isin(window.token_slot, (Slot.PICTURE, Slot.HEARD)))
    return int(perceived[0]) if len(perceived) else 0


def _kept(slots_N: NDArray[np.uint8], dropped: Dropped) -> NDArray[np.bool_]:
    """Rows that are not of a dropped kind."""
    gone = [Slot.PICTURE, Slot.PATCH] if dropped & Dropped.PICTURES else []
    gone += [Slot.TYPED] if dropped & Dropped.TYPED else []
    gone += [Slot.BACKGROUND] if dropped & Dropped.BACKGROUND else []
    return ~np.isin(slots_N, gone)


def _loud(stirred_K: NDArray[np.bool_], quiet_ticks: int) -> NDArray[np.bool_]:
    """Whether somebody was active, or something typed or returned, in the last `quiet_ticks` ticks of the document: w(k) is 1 there."""
    so_far_K1 = np.concatenate([[0], np.cumsum(stirred_K)])
    before_K = np.maximum(np.arange(len(stirred_K)) + 1 - quiet_ticks, 0)
    return so_far_K1[1:] > so_far_K1[before_K]


def _first_three(slots_N: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """o0, o1 and o2 of every speaking tick."""
    own_rows = np.flatnonzero(slots_N == Slot.OWN)
    first = np.zeros(len(slots_N), bool)
    first[own_rows[np.arange(len(own_rows)) % TICK_FRAMES < TICK_FRAMES - 1]] = True
    return first


def _own_mel(spans: Sequence[_Span], speaking_S: NDArray[Any]) -> NDArray[np.float16]:
    """Own mel float16 [S, 4 frames, sub-frames, 80] of what is performed after these ticks of the session: of the ticks behind them."""
    made = []
    for span in spans:
        first_tick = span.window.meta["first_tick"]
        here = speaking_S[(speaking_S >= first_tick + span.start - (span.ticks[0] < 0)) & (speaking_S < first_tick + span.stop)]
        made.append(span.speech.mel16(here + 1 - first_tick))
    return np.concatenate(made)


def _pictures(spans: Sequence[_Span], dropped: Dropped) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(patches [P, 2, 40, 40, 3], the size [P, 2] of what is picture in each), row by row of each pair."""
    shown, sizes = [_NO_PATCHES], [np.zeros((0, 2), np.uint8)]
    for span in spans:
        ticks = span.window.picture_tick
        pairs = span.window.patches[slice(*np.searchsorted(ticks, [span.start, span.stop]))]
        if len(pairs) and not dropped & Dropped.PICTURES:
            about = span.window.meta["pictures"]
            height = np.clip(about["height_px"] - PATCH_PX * np.arange(about["rows"]), 0, PATCH_PX)
            width = np.clip(about["width_px"] - PATCH_PX * np.arange(about["cols"]), 0, PATCH_PX)
            size = np.stack(np.meshgrid(height, width, indexing="ij"), axis=-1).reshape(-1, 2)
            shown.append(pairs.reshape(-1, *_NO_PATCHES.shape[1:]))
            sizes.append(np.tile(size.astype(np.uint8), (len(pairs), 1)))
    if len(shown) == 2:  # nearly always: not copied
        return shown[1], sizes[1]
    return np.concatenate(shown), np.concatenate(sizes)


_NO_PATCHES = np.zeros((0, 2, PATCH_PX, PATCH_PX, 3), np.uint8)
