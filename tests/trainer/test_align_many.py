"""Law 3 over many random pairs of a partition and a company, at nano's real sizes; by day a slice of it, by night all."""

import pytest
import torch
from documents_by_hand import document
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.model.inputs import joined
from microturn.trainer.session.align import Alignment, Given
from tensors import rows_that_differ, same_bits, threads

NIGHT = pytest.mark.nightly
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
LENGTHS = (600, 333, 129, 64, 65, 1)


def nano(dtype):
    return initialise(InteractionModel(ModelSpec.preset("nano"), dtype=dtype), seed=11)


def of_lengths(lengths):
    return [document(length, seed, patches=length > 1) for seed, length in enumerate(lengths)]


@DTYPES
@pytest.mark.parametrize(
    "count, pairs, lengths",
    [(1, 1, (140, 65)), pytest.param(1, 50, LENGTHS, marks=NIGHT), pytest.param(2, 50, LENGTHS, marks=NIGHT)],
    ids=["slice", "one thread", "two threads"],
)
def test_no_cut_and_no_company_changes_a_bit(dtype, count, pairs, lengths):
    """200 pairs by night: 50 with each dtype and number of threads, a third of them alone, the others two and three together."""
    with threads(count):
        alignment = Alignment(nano(dtype), [Given(f"d{n}", inputs) for n, inputs in enumerate(of_lengths(lengths))], seed=count)
        done = []
        for pair in range(pairs):
            done.append(alignment.appended("", 1, lambda: None, company=1 + (pair + 1) % 3))
    assert sum(check.differing for check in done) == 0 < min(check.rows for check in done)


@NIGHT
@DTYPES
def test_rows_are_the_same_with_one_thread_and_two(dtype):
    model, documents = nano(dtype), of_lengths(LENGTHS)
    found = []
    for count in (1, 2):
        with threads(count), torch.no_grad():
            found.append(torch.cat([model(inputs).hidden_TD for inputs in documents]))
    assert rows_that_differ(*found) == 0


@NIGHT
@DTYPES
def test_packed_in_any_order_documents_do_not_meet(dtype):
    model, documents = nano(dtype), of_lengths(LENGTHS)
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
    model, inputs, found = nano(dtype), document(length, seed=1), []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        hidden_TD = model(inputs).hidden_TD
        hidden_TD.float().square().mean().backward()
        found.append([hidden_TD.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert all(same_bits(*pair) for pair in zip(*found, strict=True)) and len(found[0]) > 50
    with torch.no_grad():
        assert rows_that_differ(model(inputs).hidden_TD, found[0][0]) == 0
