"""Law 3 over many random pairs of a partition and a company, at the presets' real sizes: 60 by day, 1,050 and long documents by night.

A pair is a company of one to four sessions, each on a random document and with a random partition of its own, that grow interleaved at
random; every row of every session is compared. Documents are text, heard and own speech, and pictures.
"""

from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from documents_by_hand import document
from microturn import kernels
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.model.inputs import joined
from microturn.trainer.session import Engine, Limits
from microturn.trainer.session.align import Alignment, Check, Given
from tensors import rows_that_differ, same_bits, threads

NIGHT = pytest.mark.nightly
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
SHORT, LENGTHS, MIDDLING = (140, 65, 33, 7), (600, 500, 333, 200, 129, 64, 65, 1), (400, 257, 129, 20)
PAIRS = [  # preset, threads, pairs with each of two dtypes, lengths of the documents
    pytest.param("nano", 1, 27, SHORT, id="60 by day: most"),
    pytest.param("nano", 2, 3, SHORT, id="60 by day: two threads"),
    pytest.param("nano", 1, 250, LENGTHS, marks=NIGHT, id="1000 at nano: one thread"),
    pytest.param("nano", 2, 250, LENGTHS, marks=NIGHT, id="1000 at nano: two threads"),
    pytest.param("micro", 1, 20, MIDDLING, marks=NIGHT, id="50 at micro: one thread"),
    pytest.param("micro", 2, 5, MIDDLING, marks=NIGHT, id="50 at micro: two threads"),
]


def model_of(preset, dtype):
    return initialise(InteractionModel(ModelSpec.preset(preset), dtype=dtype), seed=11)


def of_lengths(lengths):
    return [document(length, seed, patches=length > 1) for seed, length in enumerate(lengths)]


def told(name, checks):
    """Nothing; the sum of what was compared, for whoever reads the log (`pytest -s`)."""
    print(f"\n{name}: {len(checks)} checks, {sum(c.rows for c in checks):,} rows, {sum(c.differing for c in checks)} differ")


@DTYPES
@pytest.mark.parametrize("preset, count, pairs, lengths", PAIRS)
def test_no_cut_and_no_company_changes_a_bit(preset, count, pairs, lengths, dtype):
    with threads(count):
        given = [Given(f"d{n}", inputs) for n, inputs in enumerate(of_lengths(lengths))]
        alignment = Alignment(model_of(preset, dtype), given, seed=10 * count + dtype.itemsize)
        done = [alignment.appended("", 1, lambda: None, company=1 + pair % 4) for pair in range(pairs)]
    told(f"{preset}, {count} threads, {dtype}", done)
    assert sum(check.differing for check in done) == 0 < min(check.rows for check in done)


@NIGHT
@DTYPES
def test_documents_of_ten_thousand_rows_have_one_set_of_bits(dtype):
    """Four: each alone in ticks of 20 rows, all together in pieces of all lengths, and one of them with two threads."""
    given = [Given(f"d{n}", document(10_000, seed=20 + n)) for n in range(4)]
    alignment, ticks = Alignment(model_of("nano", dtype), given, seed=5), list(range(0, 10_001, 20))
    done = []
    for count, d in ((1, 0), (1, 1), (1, 2), (1, 3), (2, 3)):
        engine = Engine(alignment.serving, Limits(sessions=1, rows=10_000))
        session, differing = engine.open("a", rows=10_000), 0
        with threads(count):
            for start, stop in pairwise(ticks):
                (rows,) = engine.append([(session, given[d].inputs.piece([start], [stop]))])
                differing += rows_that_differ(rows, alignment.hidden[d][start:stop])
                engine.commit(session)
        done.append(Check("ticks", 10_000, differing))
    done += [alignment.appended("company", 1, lambda: None, company=4) for _ in range(2)]
    told(f"10,000 rows, {dtype}", done)
    assert sum(check.differing for check in done) == 0 < min(check.rows for check in done)


@DTYPES
def test_logits_and_experts_chosen_are_those_of_the_whole(dtype):
    """Of every row and layer: which experts, in which order, with which weights; and what the next id would be drawn from."""
    model, inputs, route, seen = model_of("nano", dtype), document(90, seed=1), kernels.route, []

    def watched(*arguments):
        seen.append(route(*arguments))
        return seen[-1]

    engine = Engine(model, Limits(sessions=1, rows=90))
    session, logits = engine.open("a", rows=90), []
    with patch.object(kernels, "route", watched), torch.no_grad():
        whole = model.text_logits(model(inputs).hidden_TD)
        routes, cut = list(seen), [0, 1, 2, 22, 23, 43, 90]
        seen.clear()
        for start, stop in pairwise(cut):
            (rows,) = engine.append([(session, inputs.piece([start], [stop]))])
            logits += [engine.model.text_logits(row[None]) for row in rows]
    layers = len(routes)
    assert layers == model.spec.layers and len(seen) == layers * (len(cut) - 1)
    for layer, (chosen_Tk, weights_Tk) in enumerate(routes):
        assert same_bits(torch.cat([chosen for chosen, _ in seen[layer::layers]]), chosen_Tk)
        assert same_bits(torch.cat([weights for _, weights in seen[layer::layers]]), weights_Tk)
    assert same_bits(torch.cat(logits), whole)


@DTYPES
def test_weights_rounded_once_are_weights_rounded_each_time(dtype):
    """What a session computes with, given whole documents; the trainer's own model stays what it was."""
    model, inputs = model_of("nano", dtype), document(90, seed=1)
    serving = Engine(model, Limits(sessions=1, rows=90)).model
    with torch.no_grad():
        assert rows_that_differ(serving(inputs).hidden_TD, model(inputs).hidden_TD) == 0
    assert serving.unembedding.weight.dtype == dtype
    assert all(p.dtype == torch.float32 for p in [*model.parameters(), *serving.flow.parameters()])
    assert (serving is model) == (dtype == torch.float32) and Engine(serving, Limits(sessions=1, rows=90)).model is serving


@NIGHT
@DTYPES
def test_rows_are_the_same_with_one_thread_and_two(dtype):
    model, documents = model_of("nano", dtype), of_lengths(LENGTHS)
    found = []
    for count in (1, 2):
        with threads(count), torch.no_grad():
            found.append(torch.cat([model(inputs).hidden_TD for inputs in documents]))
    assert rows_that_differ(*found) == 0


@NIGHT
@DTYPES
def test_packed_in_any_order_documents_do_not_meet(dtype):
    model, documents = model_of("nano", dtype), of_lengths(LENGTHS)
    with torch.no_grad():
        single = [model(inputs).hidden_TD for inputs in documents]
        for seed in range(5):
            order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed)).tolist()
            packed = model(joined([documents[d] for d in order], [0] * len(order))).hidden_TD
            assert rows_that_differ(packed, torch.cat([single[d] for d in order])) == 0


@DTYPES
@pytest.mark.parametrize("length", [40, pytest.param(600, marks=NIGHT)])
def test_recomputing_blocks_changes_nothing(dtype, length):
    """Hidden rows and every gradient."""
    model, inputs, found = model_of("nano", dtype), document(length, seed=1), []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        hidden_TD = model(inputs).hidden_TD
        hidden_TD.float().square().mean().backward()
        found.append([hidden_TD.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(same_bits(*pair) for pair in zip(*found, strict=True)) and len(found[0]) > 50
    with torch.no_grad():
        assert rows_that_differ(model(inputs).hidden_TD, found[0][0]) == 0
