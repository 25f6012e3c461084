"""The tokens of a window as they are stored: ids by slot, a line for each row of ticks. For those who debug a layout or a loader."""

from itertools import groupby

from ..schemas.layout import LayoutSpec, Slot
from ..schemas.record import Record
from .lag import rows_of
from .ticks import control_names

_NAMED = (Slot.TYPED, Slot.BACKGROUND, Slot.CONTROL, Slot.VOICE)


def raw_tokens(record: Record, layout: LayoutSpec, *, start_tick: int, stop_tick: int) -> str:
    """A line for each of the session's ticks [start_tick, stop_tick): `tick @first position: SLOT id id … ·`, equal ids as `id×n`.

    Controls are named behind their id where the slot does not say which it is. G(-1) is the line of tick -1.
    """
    names = control_names(layout.ids)
    rows = rows_of(record.token_slot).tolist()
    before = int(record.meta["first_tick"] == 0)
    lines = []
    position = 0
    for row, group in groupby(zip(rows, record.token_slot.tolist(), record.tokens.tolist(), strict=True), key=lambda token: token[0]):
        tokens = list(group)
        tick = record.meta["first_tick"] + row - before
        if start_tick <= tick < stop_tick or (tick == -1 and start_tick == 0):
            runs = ((Slot(slot), [id_ for _, _, id_ in run]) for slot, run in groupby(tokens, key=lambda token: token[1]))
            parts = [f"{slot.name} {_ids(ids, names if slot in _NAMED else {})}" for slot, ids in runs]
            lines.append(f"{tick:>7} @{position:<6} {' · '.join(parts)}")
        position += len(tokens)
    return "\n".join(lines)


def _ids(ids: list[int], names: dict[int, str]) -> str:
    pieces = []
    for id_, run in groupby(ids):
        count = len(list(run))
        pieces.append(f"{id_}{names.get(id_, '')}{f'×{count}' if count > 1 else ''}")
    return " ".join(pieces)
