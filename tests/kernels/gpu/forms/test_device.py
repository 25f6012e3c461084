"""The GPU's part of the fingerprint."""

import dataclasses

import pytest
import torch
from microturn.kernels import fingerprint
from microturn.kernels.gpu import device, tiles


def test_numerics_are_the_same_again():
    here = torch.get_default_device()
    first = device.numerics(here)
    assert first == device.numerics(here) and len(set(first.values())) == len(first) == 7


def test_another_tile_is_another_digest(monkeypatch):
    before = device.tiles_digest(90), device.tiles_digest(80)
    size = tiles.TILES["linear", "bf16", 90]
    monkeypatch.setitem(tiles.TILES, ("linear", "bf16", 90), dataclasses.replace(size, inner=size.inner // 2))
    after = device.tiles_digest(90), device.tiles_digest(80)
    assert before[0] != after[0] and before[1] == after[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpus_fingerprint_is_not_the_cpus():
    assert fingerprint("cuda") == fingerprint("cuda") and fingerprint("cuda")["digest"] != fingerprint()["digest"]
