"""Random numbers that depend on what they are for and on nothing else: known answers, numpy's generator, distributions, independence of
chunks.
"""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import philox
from tensors import same_bits

WORD = st.integers(0, 2**32 - 1)
KNOWN = [  # Random123's kat_vectors for philox4x32, 10 rounds: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_published_vectors(counter, key, words):
    assert tuple(int(w) for w in philox.philox(tuple(torch.tensor(c) for c in counter), key)) == words
    assert philox.naive_philox(counter, key) == words


@settings(max_examples=60, deadline=None)
@given(counter=st.tuples(WORD, WORD, WORD, WORD), key=st.tuples(WORD, WORD))
def test_vectors_of_counters_have_the_words_of_python_integers(counter, key):
    rows = [tuple((c + i) % 2**32 for c in counter) for i in range(3)]
    found = torch.stack(philox.philox(tuple(torch.tensor(column) for column in zip(*rows, strict=True)), key), -1)
    assert found.tolist() == [list(philox.naive_philox(row, key)) for row in rows]


def test_the_format_of_keys_and_counters():
    text = "microturn-rng-v1\0gumbel\x007\x000\0" + "session-a-0000000"
    digest = hashlib.sha256(text.encode()).digest()
    key = philox.key("gumbel", 7, 0, "session-a-0000000")
    assert key == tuple(np.frombuffer(digest[:8], "<u4").tolist())
    words = philox.words(key, torch.tensor([5, 2**32 - 1]), 11, draw=3)
    for row, position in enumerate((5, 2**32 - 1)):
        assert words[row].tolist() == [philox.naive_philox((position, dim // 4, 3, 0), key)[dim % 4] for dim in range(11)]


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 2**31), count=st.integers(1, 30), cut=st.integers(0, 30), dims=st.integers(1, 13), draw=st.integers(0, 5))
def test_cutting_a_document_changes_no_number(start, count, cut, dims, draw):
    key, positions = philox.key("flow", 1, 2, "d"), torch.arange(start, start + count)
    for numbers in (philox.words, philox.uniforms, philox.gumbels, philox.normals):
        whole = numbers(key, positions, dims, draw)
        assert same_bits(whole, torch.cat([numbers(key, positions[:cut], dims, draw), numbers(key, positions[cut:], dims, draw)]))
        assert same_bits(whole[:, : dims // 2], numbers(key, positions, dims // 2, draw)) or dims < 2


def test_purpose_seed_epoch_document_and_draw_all_matter():
    uses = [("a", 0, 0, "d"), ("b", 0, 0, "d"), ("a", 1, 0, "d"), ("a", 0, 1, "d"), ("a", 0, 0, "e"), ("a", 10, 0, "d"), ("a", 1, 0, "0d")]
    first = {tuple(philox.words(philox.key(*use), torch.tensor([0]), 4)[0].tolist()) for use in uses}
    assert len(first) == len(uses)
    key, at = philox.key(*uses[0]), torch.tensor([0])
    assert not torch.equal(philox.words(key, at, 4, 0), philox.words(key, at, 4, 1))
    with pytest.raises(ValueError, match="zero character"):
        philox.key("a\0", 0, 0, "d")


def test_uniforms_never_reach_an_end_and_every_noise_is_finite():
    ends = torch.tensor([[0, 2**32 - 1]])
    assert philox._unit(ends).tolist() == [[2.0**-24, 1 - 2.0**-24]]
    assert bool(torch.isfinite(-torch.log(-torch.log(philox._unit(ends)))).all())


def test_noises_have_their_distributions():
    key, positions = philox.key("test", 0, 0, "d"), torch.arange(4000)
    shares = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(shares))
    for numbers, quantiles in ((philox.uniforms, shares), (philox.normals, torch.special.ndtri(shares)), (philox.gumbels, gumbel)):
        found = numbers(key, positions, 6).double().flatten()
        below = torch.stack([(found <= q).double().mean() for q in quantiles])
        assert float((below - shares).abs().max()) < 0.014  # over four standard deviations
    pairs = philox.normals(key, positions, 2).double()
    assert abs(float((pairs[:, 0] * pairs[:, 1]).mean())) < 0.06  # the two of a Box–Muller pair are independent


def test_the_rounds_are_those_of_numpys_wider_generator():
    """numpy has the family's 64-bit member. One definition with its constants gives numpy's numbers, with ours the words of this module."""

    def blocks(bits, multipliers, steps, counter, key):
        mask = (1 << bits) - 1
        for _ in range(10):
            products = multipliers[0] * counter[0], multipliers[1] * counter[2]
            counter = [
                (products[1] >> bits) ^ counter[1] ^ key[0],
                products[1] & mask,
                (products[0] >> bits) ^ counter[3] ^ key[1],
                products[0] & mask,
            ]
            key = [(k + step) & mask for k, step in zip(key, steps, strict=True)]
        return counter

    wide = blocks(64, (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B), [1, 0, 0, 0], [7, 9])
    assert wide == np.random.Philox(key=7 + (9 << 64)).random_raw(4).tolist()
    ours = blocks(32, philox.MULTIPLIERS, philox.KEY_STEPS, [1, 2, 3, 4], [7, 9])
    assert ours == [int(w) for w in philox.philox(tuple(torch.tensor(c) for c in (1, 2, 3, 4)), (7, 9))]
