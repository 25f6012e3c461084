"""From the windows of a receipt to windows with tokens: the layout of a whole view, walked in order because its text queue runs on.

Only light members are read here (labels, activity, picture ticks). Heavy ones stay byte ranges of their parts, but for a view's last
window when its text outlasts its audio: then ticks without audio are added, and the window's arrays are made anew.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...schemas import keys, record
from ...schemas.clock import TICK_SAMPLES
from ...schemas.layout import LayoutSpec
from ...schemas.meta import Meta
from ...schemas.receipts import MemberAt, Receipt, WindowReceipt
from ...schemas.tables import LedgerRow
from ...transforms.sessions import tail
from ...transforms.sessions.ledger import unsaid_rows
from ...transforms.tokens.interleave import Carry, Interleaved, interleave, tail_ticks
from ...transforms.tokens.tokenizer import Tokenizer
from ...transforms.tokens.view_window import view_window
from ..storage.parts import LIGHT_MEMBERS, PartReader


@dataclass(frozen=True, kw_only=True, slots=True)
class LaidWindow:
    """A window ready for its shard.

    Attributes:
        members: name → payload, or where in a part the payload lies; sorted by name.
        sha256: name → sha256 of the payload.
        light: the light arrays and labels among them, decoded: what the index row is made from.
        unsaid: ledger rows of the text that is left over when its view ends with it.
    """

    key: str
    members: dict[str, bytes | MemberAt]
    sha256: dict[str, str]
    light: dict[str, Any]
    num_tokens: int
    unsaid: tuple[LedgerRow, ...]


def lay_out(receipt: Receipt, start: int, stop: int, parts: PartReader, layout: LayoutSpec, tokenizer: Tokenizer) -> Iterator[LaidWindow]:
    """Windows [start, stop) of the receipt, with tokens, and after a view's last window those that its remaining text needs.

    A view that begins before `start` is walked from its beginning: the queue's state depends on every word before.
    """
    first = 0
    while first < len(receipt.windows):
        view = receipt.windows[first].view
        last = first
        while last < len(receipt.windows) and receipt.windows[last].view == view:
            last += 1
        if first < stop and start < last:
            windows = receipt.windows[first:last]
            lights = [_read_light(window, parts) for window in windows]
            skip, end = max(0, start - first), min(stop, last) - first
            for number, laid in _walk_view(receipt, view, windows, lights, end, parts, layout, tokenizer):
                if number >= skip:
                    yield laid
        first = last


def _walk_view(
    receipt: Receipt,
    view: str,
    windows: tuple[WindowReceipt, ...],
    lights: list[dict[str, Any]],
    end: int,
    parts: PartReader,
    layout: LayoutSpec,
    tokenizer: Tokenizer,
) -> Iterator[tuple[int, LaidWindow]]:
    """(number, window) of the view's windows 0 … end - 1, and its tail where `end` is its end."""
    outside = _Outside(view, lights, layout)
    carry = Carry.empty()
    for number in range(end):
        light = lights[number] | {"meta": lights[number]["meta"] | outside.of(lights[number])}
        pieces: list[tuple[dict[str, Any], Mapping[str, bytes | MemberAt]]]
        pieces = [(light, {member.name: member for member in windows[number].members})]
        is_last = number == len(windows) - 1
        if is_last:
            left_over = _interleave(light, layout, tokenizer, carry).carry
            if ticks := min(tail_ticks(left_over, layout), layout.max_tail_ticks):
                pieces = list(_with_tail(receipt, view, windows[number], light, ticks, parts))
        for piece, (longer, media) in enumerate(pieces, 1):
            laid = _interleave(longer, layout, tokenizer, carry)
            left = laid.carry if is_last and piece == len(pieces) else Carry.empty()
            unsaid = unsaid_rows(receipt.session, receipt.session_id, view, left, layout, tokenizer)
            yield number, _finish(receipt, longer, laid, layout, carry, media, tuple(unsaid))
            carry = laid.carry


def _with_tail(
    receipt: Receipt, view: str, window: WindowReceipt, light: dict[str, Any], ticks: int, parts: PartReader
) -> Iterator[tuple[dict[str, Any], Mapping[str, bytes | MemberAt]]]:
    """(light members, encoded media members) of a view's last window with `ticks` more ticks, and of the windows that it overflows into."""
    meta = light["meta"]
    payloads = {member.name: parts.read(member) for member in window.members}
    arrays = record.decode_media(payloads, meta["pictures"], where=f"{receipt.session} {view}")
    codes_HB = np.frombuffer(bytes.fromhex(receipt.tail_codes[view]), dtype=np.uint8).reshape(len(arrays["heard_valid"]), -1)
    longer = tail.lengthen(arrays, ticks, codes_HB)
    for start, piece in tail.pieces(longer, meta["window_ticks"]):
        num_ticks = piece["heard_valid"].shape[1]
        here = {
            "first_tick": meta["first_tick"] + start,
            "num_ticks": num_ticks,
            "tail_ticks": min(num_ticks, start + num_ticks - window.num_ticks),
        }
        labels = {name: light[name] if start == 0 else [] for name in ("words", "events")}
        before = {"before": {"own_active": int(longer["activity"][-1, start - 1])}} if start else {}
        yield {**piece, **labels, "meta": meta | here | before}, record.encode_media(piece, meta["pictures"]["codec"])


def _interleave(light: dict[str, Any], layout: LayoutSpec, tokenizer: Tokenizer, carry: Carry) -> Interleaved:
    window = view_window(light["activity"], light["picture_tick"], light["words"], light["events"], light["meta"], layout)
    return interleave(window, layout, tokenizer, carry)


class _Outside:
    """What a window must know of the ticks next to it, from all windows of its view."""

    def __init__(self, view: str, lights: list[dict[str, Any]], layout: LayoutSpec) -> None:
        self._active = np.concatenate([light["activity"][-1] for light in lights] + [np.zeros(1, dtype=np.uint8)])
        self._say: dict[int, list[str]] = {}
        self._control: dict[int, list[list[Any]]] = {}
        self._lead = layout.text_lead_ticks
        for light in lights:
            for word in light["words"]:
                if word["participant"] == view:
                    self._say.setdefault(word["start"] // TICK_SAMPLES, []).append(word["text"])
            for event in light["events"]:
                if event["kind"] in ("delegate", "cancel") and event["participant"] == view:
                    self._control.setdefault(event["start"] // TICK_SAMPLES, []).append([event["kind"], event["slot"]])

    def of(self, light: dict[str, Any]) -> dict[str, Any]:
        """`before` and `after` of a window's meta."""
        start = light["meta"]["first_tick"]
        stop = start + light["meta"]["num_ticks"]
        return {
            "before": {"own_active": int(self._active[start - 1]) if start else 0},
            "after": {
                "own_active": int(self._active[stop]),
                "say": [self._say.get(tick, []) for tick in range(stop, stop + 1 + self._lead)],
                "control": self._control.get(stop, []),
            },
        }


def _read_light(window: WindowReceipt, parts: PartReader) -> dict[str, Any]:
    """The light members, decoded, by their names without ending."""
    light = {}
    for member in window.members:
        if member.name in LIGHT_MEMBERS:
            name, _, kind = member.name.partition(".")
            where = f"{member.part}:{member.offset}"
            light[name] = (record.decode_array if kind == "npy" else record.decode_json)(parts.read(member), where=where)
    return light


def _finish(
    receipt: Receipt,
    light: dict[str, Any],
    laid: Interleaved,
    layout: LayoutSpec,
    carry: Carry,
    media: Mapping[str, bytes | MemberAt],
    unsaid: tuple[LedgerRow, ...],
) -> LaidWindow:
    """The window: its media members as they are, its labels and token members encoded."""
    meta = Meta.laid(
        light["meta"],
        layout=layout.digest(),
        carry_in=carry.to_json(),
        carry_out=laid.carry.to_json(),
        max_lag_ticks=int(laid.max_lag_ticks),
    ).to_json()
    made: dict[str, bytes | MemberAt] = {
        "tokens.npy": record.encode_array(laid.tokens),
        "token_tick.npy": record.encode_array(laid.token_tick),
        "token_slot.npy": record.encode_array(laid.token_slot),
        "meta.json": record.encode_json(meta),
        "words.json": record.encode_json(light["words"]),
        "events.json": record.encode_json(light["events"]),
    }
    members = dict(sorted({**media, **made}.items()))
    digests = {name: at.sha256 if isinstance(at, MemberAt) else hashlib.sha256(at).hexdigest() for name, at in members.items()}
    key = keys.window_key(receipt.session, meta["view"], meta["first_tick"])
    return LaidWindow(key=key, members=members, sha256=digests, light=light | {"meta": meta}, num_tokens=len(laid.tokens), unsaid=unsaid)
