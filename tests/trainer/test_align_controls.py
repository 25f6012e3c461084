"""The ordinary ways to compute, one at a time in a whole model: each must break law 3, or the law's own tests have lost their teeth.

Kernels alone are tried in tests/kernels/test_negative_controls.py; here the same weights and documents, with one operation exchanged,
are computed whole and as a session or a company would compute them.
"""

import math
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from documents_by_hand import document
from microturn import kernels
from microturn.kernels import fresh_table, ragged
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.model.inputs import joined
from microturn.trainer.session import Engine, Limits
from runs import SIZES
from tensors import rows_that_differ

LENGTHS = (37, 150)


@pytest.fixture(scope="module")
def model():
    """Six of eight experts to a row, so that the order of their sum matters."""
    spec = ModelSpec.parse(SIZES | {"experts": 8, "experts_per_row": 6, "hidden": 64, "window": 100}, where="wide")
    return initialise(InteractionModel(spec), seed=7)


@pytest.fixture(scope="module")
def documents():
    return [document(length, seed, patches=False) for seed, length in enumerate(LENGTHS)]


def alone(model, inputs):
    with torch.no_grad():
        return model(inputs).hidden_TD


def packed(model, documents):
    """The second document's rows, computed behind the first in one batch."""
    with torch.no_grad():
        return model(joined(documents, [0, 0])).hidden_TD[LENGTHS[0] :]


def appended(model, inputs, rows):
    """A session that grows by so many rows at a time."""
    engine = Engine(model, Limits(sessions=1, rows=256))
    session, got = engine.open("a", rows=256), []
    for start in range(0, inputs.rows.num_rows, rows):
        got += engine.append([(session, inputs.piece([start], [min(start + rows, inputs.rows.num_rows)]))])
        engine.commit(session)
    return torch.cat(got)


def test_the_law_holds_of_this_model_and_these_documents(model, documents):
    whole = alone(model, documents[1])
    for found in (packed(model, documents), appended(model, documents[1], 1), appended(model, documents[1], 20)):
        assert rows_that_differ(found, whole) == 0


def test_plain_linear_at_one_row_breaks_it(model, documents):
    with patch.object(kernels, "linear", F.linear):
        assert rows_that_differ(appended(model, documents[1], 1), alone(model, documents[1])) > 75


def test_a_plain_short_tail_of_silu_breaks_it(model, documents):
    """Only where rows do not fill the machine's vectors: odd widths, one row at a time."""
    spec = model.spec.model_copy(update={"expert_width": 13})
    odd = initialise(InteractionModel(spec), seed=7)
    assert rows_that_differ(appended(odd, documents[1], 1), alone(odd, documents[1])) == 0
    with patch.object(kernels, "swiglu", lambda gate, up: F.silu(gate.contiguous()) * up):
        assert rows_that_differ(appended(odd, documents[1], 1), alone(odd, documents[1])) > 30


ATTENTION, LAY_OUT, COMBINE = kernels.attention, kernels.lay_out, kernels.combine


def anchored_at_the_buffer(q_THD, k_TGD, v_TGD, r_THR, profiles_RE, table, *, scale, window):
    """The law's own attention, but blocks of 64 rows are counted from the batch's first row, so that a document begins inside of one.

    Rows before it in the block are filling, which one more column keeps from being seen.
    """
    pieces = []
    for start, stop in pairwise(table.rows.row_starts):
        before = start % 64
        there = fresh_table(ragged([before + stop - start]))
        q, k, v, r = (F.pad(x[start:stop], (0, wider, 0, 0, before, 0)) for x, wider in ((q_THD, 1), (k_TGD, 1), (v_TGD, 1), (r_THR, 0)))
        q[..., -1], k[:before, :, -1] = 1, -1e30
        y = ATTENTION(q, LAY_OUT(k, there), LAY_OUT(v, there), r, profiles_RE, there, scale=scale, window=window)
        pieces.append(y[before:, :, :-1])
    return torch.cat(pieces)


def test_attention_anchored_at_the_buffer_breaks_it(model, documents):
    with patch.multiple(kernels, attention=anchored_at_the_buffer, lay_out=lambda rows, table: rows):
        found, whole = packed(model, documents), alone(model, documents[1])
    assert rows_that_differ(found, whole) > 75
    for other in (found, alone(model, documents[1])):  # it is attention still
        assert torch.allclose(other, whole, atol=1e-3)


def in_order_of_arrival(y_PN, weights_Tk, places):
    """Experts' results are added as they become ready: those of an expert with few rows first."""
    weights_P = torch.zeros(len(y_PN))
    weights_P[places.place_Tk.flatten()] = weights_Tk.flatten()
    total_TN = torch.zeros(len(weights_Tk), y_PN.shape[1])
    for start, stop in sorted(pairwise(places.starts), key=lambda span: span[1] - span[0]):
        total_TN.index_add_(0, places.token_P[start:stop], y_PN[start:stop] * weights_P[start:stop, None])
    return total_TN


def test_scatter_add_in_order_of_arrival_breaks_it(model, documents):
    with patch.object(kernels, "combine", in_order_of_arrival):
        found, whole = appended(model, documents[1], 1), alone(model, documents[1])
    assert rows_that_differ(found, whole) > 75 and torch.allclose(found, whole, atol=1e-3)


def with_a_capacity(y_PN, weights_Tk, places):
    """An expert takes no more rows than its even share; who comes too late goes without."""
    experts = len(places.starts) - 1
    capacity = math.ceil(weights_Tk.numel() / experts)
    starts = torch.tensor(places.starts)
    rank_Tk = places.place_Tk - starts[torch.searchsorted(starts[1:], places.place_Tk, right=True)]
    return COMBINE(y_PN, weights_Tk.masked_fill(rank_Tk >= capacity, 0.0), places)


def test_a_capacity_breaks_it(model, documents):
    with patch.object(kernels, "combine", with_a_capacity):
        whole = alone(model, documents[1])
        assert rows_that_differ(packed(model, documents), whole) > 5
        assert rows_that_differ(appended(model, documents[1], 1), whole) > 5


def test_a_plain_convolution_without_a_past_breaks_it(model, documents):
    """What `state=None` means to a whole document, given to an append."""
    conv = kernels.short_conv
    with patch.object(kernels, "short_conv", lambda x, w, rows, state: conv(x, w, rows, None if state is None else state * 0)):
        assert rows_that_differ(appended(model, documents[1], 20), alone(model, documents[1])) > 75
