"""Chance by counters: the published vectors, and that no draw depends on another."""

import numpy as np
import pytest
import torch
from microturn.trainer.data import chance

VECTORS = [  # counter, key, words. Source: Random123 `kat_vectors`, philox4x32 10
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_gives_the_published_vectors(counter: tuple, key: tuple, expected: str) -> None:
    assert " ".join(f"{word:08x}" for word in chance.words(key, *counter)) == expected


def test_many_counters_at_once_are_each_alone() -> None:
    key = chance.key("a purpose", 1, 2, "a document")
    many = chance.words(key, np.arange(5), 7, np.arange(5) * 3)
    assert many.shape == (5, 4)
    assert all((many[n] == chance.words(key, n, 7, n * 3)).all() for n in range(5))


def test_every_part_of_a_key_matters() -> None:
    base = ["order", 1, 2, "a"]
    others = [["side", 1, 2, "a"], ["order", 2, 2, "a"], ["order", 1, 3, "a"], ["order", 1, 2, "b"]]
    assert len({chance.key(*parts) for parts in [base, *others]}) == 5


def test_uniform_stays_inside_the_open_interval() -> None:
    edges = chance.uniform(np.array([0, 2**32 - 1], np.uint32))
    assert 0 < edges[0] < 1e-6 and 1 - 1e-6 < edges[1] < 1


def test_kernels_draw_the_same_numbers() -> None:
    philox = pytest.importorskip("microturn.kernels.philox")
    key = chance.key("noise", 3, 1, "a-b-0000000")
    assert key == philox.key("noise", 3, 1, "a-b-0000000")
    positions = np.array([0, 1, 77, 2**31])
    assert (chance.words(key, positions, 0, 5) == philox.words(key, torch.from_numpy(positions), 4, draw=5).numpy()).all()
