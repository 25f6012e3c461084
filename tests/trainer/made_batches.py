"""Batches drawn at random, with every kind of row or without some: `from made_batches import made_batch`."""

from collections.abc import Sequence

import torch
from microturn.schemas.layout import Slot
from microturn.trainer.data import Batch
from microturn.trainer.data.batch import Segment

HEARD, OWN, PATCH, TEXT = range(4)


def made_batch(seed: int, lengths: Sequence[int], *, pictures: bool = True, speaks: bool = True, vocabulary: int = 512) -> Batch:
    """Documents of so many rows; a row is heard, own, a patch or text, at random. Without `speaks` none is own, no frame is learned."""
    draw = torch.Generator().manual_seed(seed)
    rows = sum(lengths)
    kind_N = torch.multinomial(torch.tensor([4.0, 4.0 * speaks, 1.0 * pictures, 4.0]), rows, replacement=True, generator=draw)
    heard, own, patch, text = (torch.nonzero(kind_N == kind)[:, 0] for kind in (HEARD, OWN, PATCH, TEXT))

    def integers(stop: int, *shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        return torch.randint(stop, shape, generator=draw, dtype=torch.int64).to(dtype)

    return Batch(
        ids=integers(vocabulary, rows, dtype=torch.int64),
        slots=torch.full((rows,), int(Slot.SAY), dtype=torch.uint8),
        ticks=torch.zeros(rows, dtype=torch.int32),
        loud=torch.rand(rows, generator=draw) < 0.7,
        offsets=torch.tensor([0, *lengths]).cumsum(0),
        heard_rows=heard,
        heard_codes=integers(16, len(heard), 80),
        own_rows=own,
        own_codes=integers(16, len(own), 4, 80),
        patch_rows=patch,
        patches=integers(256, len(patch), 2, 40, 40, 3),
        patch_px=torch.full((len(patch), 2), 40, dtype=torch.uint8),
        text_rows=text,
        text_targets=integers(vocabulary, len(text), dtype=torch.int64),
        text_weights=torch.rand(len(text), generator=draw),
        flow_rows=own,
        flow_targets=torch.randn(len(own), 4, 80, generator=draw),
        flow_weights=torch.rand(len(own), generator=draw),
        segments=tuple(Segment(key=f"made-{seed}-{n}", corpus=0, epoch=0, first_tick=0, num_ticks=1) for n in range(len(lengths))),
    )
