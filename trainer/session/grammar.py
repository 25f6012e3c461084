"""Which ids may come next inside G(k), as masks over the vocabulary: FORMAT.md section 4, enforced while sampling.

    <perform> x1 … xm d      x: text, or <delegate> or <cancel> and its <slot>; m ≤ quota; d: <speak> or <silent>

A control pair counts two and is never split. A slot is delegated to when it is free and cancelled when it is busy: from `<delegate>` until
its result is complete, or `<cancel>`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...schemas.layout import LayoutSpec
from ...transforms.tokens import o200k, tokenizer


def text_ids(layout: LayoutSpec, tokenizer_json: str | Path | None = None) -> Sequence[int]:
    """The ids of text that may be said: those of the layout's tokenizer, without its special ones.

    Raises InputError for a `file` layout without its tokenizer.json.
    """
    match layout.tokenizer:
        case "bytes":
            return range(256)
        case "inkling":
            return range(o200k.VOCAB_SIZE)
        case _:
            found = tokenizer.load(layout, tokenizer_json)
            assert isinstance(found, tokenizer.FileTokenizer)
            return sorted(found.ordinary_ids)


@dataclass(frozen=True, slots=True)
class Said:
    """What G(k) holds so far.

    Attributes:
        count: of ids towards the quota.
        control: the control id whose slot comes next; None when none is open.
        delegated, cancelled: slots that are busy, and free, from here on because of it.
    """

    count: int = 0
    control: int | None = None
    delegated: frozenset[int] = frozenset()
    cancelled: frozenset[int] = frozenset()

    def busy(self, before: frozenset[int]) -> frozenset[int]:
        """The slots that are busy after this, if these were before G(k)."""
        return (before | self.delegated) - self.cancelled


class Grammar:
    """Masks of one layout: True where an id is allowed."""

    def __init__(self, layout: LayoutSpec, vocabulary: int, text_ids: Iterable[int]) -> None:
        self.layout, self.vocabulary = layout, vocabulary
        self._text = self._of(text_ids)
        self._voice = self._of((layout.ids.speak, layout.ids.silent))

    def allowed(self, said: Said, busy_slots: frozenset[int] = frozenset()) -> Tensor:
        """bool [V]; at least one id is allowed. `busy_slots` were delegated to before this G(k), and neither ended nor cancelled."""
        ids, quota = self.layout.ids, self.layout.say_quota
        busy_slots = said.busy(busy_slots)
        if said.control is not None:
            wanted = busy_slots if said.control == ids.cancel else frozenset(range(len(ids.slots))) - busy_slots
            return self._of(ids.slots[slot] for slot in wanted)
        mask = self._voice
        if said.count < quota:
            mask = mask | self._text
        if said.count + 2 <= quota:
            controls = [ids.delegate] * (len(busy_slots) < len(ids.slots)) + [ids.cancel] * bool(busy_slots)
            mask = mask | self._of(controls) if controls else mask
        return mask

    def after(self, said: Said, id_: int) -> Said:
        """What has been said once this id is."""
        ids, delegated, cancelled = self.layout.ids, said.delegated, said.cancelled
        if said.control is not None:
            slot = frozenset({ids.slots.index(id_)})
            is_new = said.control == ids.delegate
            delegated, cancelled = (delegated | slot, cancelled - slot) if is_new else (delegated - slot, cancelled | slot)
        return Said(said.count + 1, id_ if id_ in (ids.delegate, ids.cancel) else None, delegated, cancelled)

    def _of(self, ids: Iterable[int]) -> Tensor:
        mask = torch.zeros(self.vocabulary, dtype=torch.bool)
        mask[torch.tensor(list(ids), dtype=torch.int64)] = True
        return mask
