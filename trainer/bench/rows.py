"""Rows of a conversation that nobody had, for measuring: four heard frames a tick, now and then own speech and text."""

import torch

from ...kernels import ragged
from ...schemas.layout import BYTES_IDS
from ..model import Inputs


def made_up(num_rows: int, seed: int) -> Inputs:
    """One whole document without pictures: ticks of 6 rows in silence, of about 13 in speech, which changes every few seconds."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = [BYTES_IDS.bos]
    speaks = False
    while len(ids) < num_rows:
        speaks ^= bool(torch.rand((), generator=generator) < 0.07)
        ids += [BYTES_IDS.heard] * 4 + [BYTES_IDS.perform]
        if speaks:
            ids += torch.randint(97, 123, (int(torch.randint(0, 7, (), generator=generator)),), generator=generator).tolist()
            ids += [BYTES_IDS.speak] + [BYTES_IDS.own] * 4
        else:
            ids.append(BYTES_IDS.silent)
    ids_N = torch.tensor(ids[:num_rows])
    heard, own = (torch.nonzero(ids_N == id_)[:, 0] for id_ in (BYTES_IDS.heard, BYTES_IDS.own))
    return Inputs(
        rows=ragged([num_rows]),
        ids=ids_N,
        heard_rows=heard,
        heard_codes=torch.randint(0, 16, (len(heard), 80), generator=generator, dtype=torch.uint8),
        own_rows=own,
        own_codes=torch.randint(0, 16, (len(own), 4, 80), generator=generator, dtype=torch.uint8),
        patch_rows=torch.zeros(0, dtype=torch.int64),
        patches=torch.zeros(0, 2, 40, 40, 3, dtype=torch.uint8),
        patch_px=torch.zeros(0, 2, dtype=torch.uint8),
    )
