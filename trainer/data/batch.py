"""Documents as tensors: one ragged batch of rows. A document is a segment; nothing in it may look at another.

Legend. N rows, D documents; B text rows, F flow rows; H, O, P rows of kind HEARD, OWN, PATCH.

| row is a     | embedded from                                   | learns                                                        |
|--------------|-------------------------------------------------|---------------------------------------------------------------|
| HEARD        | heard_codes: the heard bag                      | –                                                             |
| PATCH        | patches: hMLP                                   | –                                                             |
| OWN          | own_codes: the own bag                          | o0, o1, o2: flow_targets, the frame after it                  |
| VOICE        | ids                                             | `<speak>`: flow_targets, the first frame                      |
| PERFORM, SAY, CONTROL | ids                                    | text_targets: the next id                                     |
| OPENING, PICTURE, TYPED, BACKGROUND | ids                      | –                                                             |

Rows of a kind stand in order: row `own_rows[i]` is embedded from `own_codes[i]`. A loss is a sum of weight × loss over its rows, divided by
the sum of weights over the whole optimizer step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ...schemas.layout import Slot
from .document import Document
from .making import Damage
from .mixture import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Where a document's rows come from. `key` and `epoch` are what its random numbers hang on; "" stands for no ticks at all."""

    key: str
    corpus: int
    epoch: int
    first_tick: int
    num_ticks: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Rows of some documents.

    Attributes:
        ids, slots, ticks: int64, uint8, int32 [N]; slots are schemas.layout.Slot, or document.OPENING.
        loud: bool [N]: rows of ticks that learn with weight 1 by context, P(k) and G(k) alike: what router load is counted over.
        offsets: int64 [D + 1]: document d is rows offsets[d] … offsets[d + 1] - 1; a row's position is row - offsets[d].
        heard_rows, heard_codes: int64 [H], uint8 [H, 80].
        own_rows, own_codes: int64 [O], uint8 [O, 4, 80].
        patch_rows, patches, patch_px: int64 [P], uint8 [P, 2, 40, 40, 3], uint8 [P, 2]: height and width that is picture, not padding.
        text_rows, text_targets, text_weights: int64 [B], int64 [B], float32 [B].
        flow_rows, flow_targets, flow_weights: int64 [F], float32 [F, 4, 80] in head space, float32 [F].
        segments: D of them.
        num_sequences: how many sequences these documents fill.
        place: where the run goes on after the step that this batch ends; None while more batches of it are to come.
        damaged: windows that are missing here because they are damaged.
    """

    ids: Tensor
    slots: Tensor
    ticks: Tensor
    loud: Tensor
    offsets: Tensor
    heard_rows: Tensor
    heard_codes: Tensor
    own_rows: Tensor
    own_codes: Tensor
    patch_rows: Tensor
    patches: Tensor
    patch_px: Tensor
    text_rows: Tensor
    text_targets: Tensor
    text_weights: Tensor
    flow_rows: Tensor
    flow_targets: Tensor
    flow_weights: Tensor
    segments: tuple[Segment, ...]
    num_sequences: int = 1
    place: Place | None = None
    damaged: tuple[Damage, ...] = ()

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def num_ticks(self) -> int:
        """Ticks of all documents: a fifth of a second of a conversation each."""
        return sum(segment.num_ticks for segment in self.segments)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The batch on a device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; DataLoader calls it."""
        return self._with(lambda tensor: tensor.pin_memory())

    def _with(self, change) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


def of_documents(
    documents: Sequence[Document],
    corpora: Sequence[int],
    *,
    num_sequences: int = 1,
    place: Place | None = None,
    damaged: Sequence[Damage] = (),
) -> Batch:
    """The batch of these documents, one after the other; `corpora` says which corpus each is from."""
    lengths = [len(document.ids) for document in documents]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(document, name) for document in documents]))

    def moved(name: str) -> Tensor:
        """Rows of documents as rows of the batch."""
        return torch.from_numpy(np.concatenate([getattr(d, name) + start for d, start in zip(documents, offsets[:-1], strict=True)]))

    slots = joined("slots")
    return Batch(
        ids=joined("ids").long(),
        slots=slots,
        ticks=joined("ticks"),
        loud=joined("loud"),
        offsets=torch.from_numpy(offsets),
        heard_rows=torch.nonzero(slots == Slot.HEARD)[:, 0],
        heard_codes=joined("heard_codes"),
        own_rows=torch.nonzero(slots == Slot.OWN)[:, 0],
        own_codes=joined("own_codes"),
        patch_rows=torch.nonzero(slots == Slot.PATCH)[:, 0],
        patches=joined("patches"),
        patch_px=joined("patch_px"),
        text_rows=moved("text_rows"),
        text_targets=joined("text_targets"),
        text_weights=joined("text_weights"),
        flow_rows=moved("flow_rows"),
        flow_targets=joined("flow_targets"),
        flow_weights=joined("flow_weights"),
        segments=tuple(
            Segment(key=d.key, corpus=corpus, epoch=d.epoch, first_tick=d.first_tick, num_ticks=d.num_ticks)
            for d, corpus in zip(documents, corpora, strict=True)
        ),
        num_sequences=num_sequences,
        place=place,
        damaged=tuple(damaged),
    )
