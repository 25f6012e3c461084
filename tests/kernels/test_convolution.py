"""The short convolution: the formula, its gradients, and the same bits for any cut of a document, in any company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.kernels import ragged, short_conv
from microturn.kernels.convolution import naive_short_conv
from tensors import DTYPES, SEEDS, THREADS, close, cuts, randn, same_bits, threads


@settings(max_examples=40, deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3), seed=SEEDS, dtype=DTYPES, count=THREADS)
def test_a_document_has_the_same_bits_in_any_appends_and_any_company(data, lengths, seed, dtype, count):
    x, w = randn(seed, sum(lengths), 24, dtype=dtype), randn(seed + 1, 24, 4)
    documents = x.split(lengths)
    with threads(count):
        together, states = short_conv(x, w, ragged(lengths))
    steps = [data.draw(cuts(length)) for length in lengths]
    out, seen, state = [[] for _ in lengths], [0] * len(lengths), torch.zeros(len(lengths), 3, 24)
    for step in range(max(map(len, steps))):
        live = [d for d in range(len(lengths)) if step < len(steps[d])]
        counts = [steps[d][step] for d in live]
        rows = torch.cat([documents[d][seen[d] : seen[d] + n] for d, n in zip(live, counts, strict=True)])
        y, state[live] = short_conv(rows, w, ragged(counts, [seen[d] for d in live]), state[live])
        for d, piece in zip(live, y.split(counts), strict=True):
            out[d].append(piece)
            seen[d] += len(piece)
    assert same_bits(together, torch.cat([piece for document in out for piece in document]))
    assert same_bits(states, state)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4), taps=st.sampled_from([2, 4]), past=st.booleans(), seed=SEEDS)
def test_values_and_gradients_are_the_formulas(lengths, taps, past, seed):
    x, w = randn(seed, sum(lengths), 6).requires_grad_(), randn(seed + 1, 6, taps).requires_grad_()
    state = randn(seed + 2, len(lengths), taps - 1, 6) if past else None
    rows = ragged(lengths, [5] * len(lengths) if past else None)
    y, wanted = short_conv(x, w, rows, state)[0], naive_short_conv(x, w, rows, state)
    assert close(y, wanted, 1e-6)
    dy = randn(seed + 3, *y.shape)
    for got, want in zip(torch.autograd.grad(y, (x, w), dy), torch.autograd.grad(wanted, (x, w), dy.double()), strict=True):
        assert close(got, want, 1e-6)


def test_a_document_with_a_past_needs_its_state():
    with pytest.raises(ValueError, match="have a past"):
        short_conv(randn(1, 3, 8), randn(2, 8, 4), ragged([3], [7]))


def test_segments_are_never_empty():
    with pytest.raises(ValueError, match="non-empty segments"):
        ragged([3, 0])
