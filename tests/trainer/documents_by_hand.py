"""Documents of random rows of every kind, for laws of the model: `from documents_by_hand import document`."""

import torch
from microturn.kernels import ragged
from microturn.trainer.model import Inputs


def document(length: int, seed: int, *, patches: bool = True) -> Inputs:
    """One whole document: a third ids, a third heard, the rest own speech and a few patches, some of them padded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    kinds = draw(100, length)
    heard = torch.nonzero((kinds >= 33) & (kinds < 66))[:, 0]
    own = torch.nonzero((kinds >= 66) & (kinds < 99))[:, 0]
    patch = torch.nonzero(kinds >= 99)[:, 0] if patches else torch.zeros(0, dtype=torch.int64)
    return Inputs(
        rows=ragged([length]),
        ids=draw(274, length),
        heard_rows=heard,
        heard_codes=draw(16, len(heard), 80).to(torch.uint8),
        own_rows=own,
        own_codes=draw(16, len(own), 4, 80).to(torch.uint8),
        patch_rows=patch,
        patches=draw(256, len(patch), 2, 40, 40, 3).to(torch.uint8),
        patch_px=(draw(41, len(patch), 2) if len(patch) else torch.zeros(0, 2)).to(torch.uint8),
        counted=draw(4, length) > 0,
    )
