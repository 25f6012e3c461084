"""The recogniser: FORMAT.md's grammar of section 4 over (slot, id), for the byte tokenizer, and nothing of how tokens are made."""

from dataclasses import dataclass, field

from microturn.schemas.layout import Slot
from microturn.transforms.tokens.interleave import Interleaved


@dataclass
class Tick:
    """One P, if there is one, and one G, as read back from the tokens."""

    perceived: bool = False
    patches: int = 0
    typed: list[int] = field(default_factory=list)
    background: list[tuple[int, list[int], bool]] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    control: list[tuple[str, int]] = field(default_factory=list)
    performed_ids: int = 0
    speak: bool = False
    length: int = 0


def ticks_of(tokens, slots, layout) -> list[Tick]:
    """The ticks of a document's stored tokens. Raises AssertionError at the first position that the grammar does not allow."""
    ids, stream, at, ticks = layout.ids, list(zip(map(Slot, slots.tolist()), tokens.tolist(), strict=True)), 0, []

    def take(slot, *allowed):
        nonlocal at
        assert at < len(stream) and stream[at][0] == slot and (not allowed or stream[at][1] in allowed), (
            f"position {at}: {stream[at : at + 1]}"
        )
        at += 1
        return stream[at - 1][1]

    def ahead(slot, *allowed):
        return at < len(stream) and stream[at][0] == slot and (not allowed or stream[at][1] in allowed)

    while at < len(stream):
        tick, since = Tick(), at
        if not ahead(Slot.PERFORM):
            tick.perceived = True
            if ahead(Slot.PICTURE):
                take(Slot.PICTURE, ids.picture)
                take(Slot.PATCH, ids.patch)
                tick.patches = 1
                while ahead(Slot.PATCH):
                    take(Slot.PATCH, ids.patch)
                    tick.patches += 1
            for _ in range(4):
                take(Slot.HEARD, ids.heard)
            if ahead(Slot.TYPED):
                take(Slot.TYPED, ids.typed)
                tick.typed.append(take(Slot.TYPED, *range(256)))
                while ahead(Slot.TYPED):
                    tick.typed.append(take(Slot.TYPED, *range(256)))
            while ahead(Slot.BACKGROUND):
                take(Slot.BACKGROUND, ids.background)
                slot, text = ids.slots.index(take(Slot.BACKGROUND, *ids.slots)), []
                while ahead(Slot.BACKGROUND, *range(256)):
                    text.append(take(Slot.BACKGROUND))
                ended = ahead(Slot.BACKGROUND, ids.end)
                if ended:
                    take(Slot.BACKGROUND)
                assert text or ended
                tick.background.append((slot, text, ended))
        take(Slot.PERFORM, ids.perform)
        while not ahead(Slot.VOICE):
            if ahead(Slot.CONTROL):
                kind = take(Slot.CONTROL, ids.delegate, ids.cancel)
                tick.control.append(("delegate" if kind == ids.delegate else "cancel", ids.slots.index(take(Slot.CONTROL, *ids.slots))))
                tick.performed_ids += 2
            else:
                tick.said.append(take(Slot.SAY, *range(256)))
                tick.performed_ids += 1
        tick.speak = take(Slot.VOICE, ids.speak, ids.silent) == ids.speak
        for _ in range(4 * tick.speak):
            take(Slot.OWN, ids.own)
        tick.length = at - since
        ticks.append(tick)
    return ticks


def recognised(parts: list[Interleaved], layout) -> list[Tick]:
    """The ticks of consecutive windows."""
    return [tick for part in parts for tick in ticks_of(part.tokens, part.token_slot, layout)]
