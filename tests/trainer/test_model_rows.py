"""Law 3 for the whole model: hidden rows have the same bits for every partition of documents into appends and every company."""

import random

import pytest
import torch
from handmade import SPEC, TICK, alone, made, model_of, pieces
from hypothesis import given, settings
from microturn.trainer.model import InteractionModel
from tensors import DTYPES, SEEDS, rows_that_differ, same_bits, threads

# the first passes page, window, extent and floor; the second is one row; the third one tick; the last begins with what is no text
DOCUMENTS = ["t" + TICK * 6, "t", TICK, "hhhho" + "thhhht" * 9]
MODELS = {dtype: model_of(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
INPUTS = made(DOCUMENTS, seed=3)


def whole(model: InteractionModel):
    with torch.no_grad():
        return model(INPUTS)


def in_turn(seed: int) -> list[list[int]]:
    """Appends of all documents, of few rows or many: who has nothing left, or sits a call out, takes 0 rows."""
    chance, left, takes = random.Random(seed), [len(document) for document in DOCUMENTS], []
    while any(left):
        most = chance.choice([3, 20, 70])
        take = [min(rows, chance.choice([0, chance.randint(1, most)])) for rows in left]
        left = [rows - taken for rows, taken in zip(left, take, strict=True)]
        takes += [take] if any(take) else []
    return takes


@settings(max_examples=5, deadline=None)
@given(seed=SEEDS, dtype=DTYPES)
def test_any_partition_in_any_company_gives_the_rows_of_the_whole(seed, dtype):
    with threads(1):
        wanted = whole(MODELS[dtype])
        hidden, counts = pieces(MODELS[dtype], INPUTS, in_turn(seed))
    assert rows_that_differ(hidden, wanted.hidden_TD) == 0
    assert torch.equal(counts, wanted.counts_LE)


@pytest.mark.parametrize("dtype", MODELS, ids=str)
def test_row_by_row_gives_the_rows_of_the_whole(dtype):
    model, document = MODELS[dtype], alone(INPUTS, 2)
    with threads(1), torch.no_grad():
        hidden, _ = pieces(model, document, [[1]] * len(TICK))
        assert same_bits(hidden, model(document).hidden_TD)
        assert same_bits(model.text_logits(hidden), torch.cat([model.text_logits(row[None]) for row in hidden]))


def test_two_threads_give_the_rows_of_one():
    with threads(1):
        wanted = whole(MODELS[torch.float32])
    with threads(2):
        assert same_bits(whole(MODELS[torch.float32]).hidden_TD, wanted.hidden_TD)


@pytest.mark.parametrize("dtype", MODELS, ids=str)
@torch.no_grad()
def test_documents_of_a_batch_do_not_see_each_other(dtype):
    with threads(1):
        starts, hidden = INPUTS.rows.row_starts, whole(MODELS[dtype]).hidden_TD
        for number in range(len(DOCUMENTS)):
            assert same_bits(MODELS[dtype](alone(INPUTS, number)).hidden_TD, hidden[starts[number] : starts[number + 1]])


@torch.no_grad()
def test_a_row_sees_what_came_before_and_nothing_later():
    """Negative control of the above: rows do depend on earlier ones of each kind."""
    model = MODELS[torch.float32]
    with threads(1):
        before = whole(model).hidden_TD
        for kind, name in (("t", "ids"), ("h", "heard_codes"), ("o", "own_codes"), ("p", "patches")):
            changed, first = made(DOCUMENTS, seed=3), DOCUMENTS[0].index(kind)
            values = getattr(changed, name)
            values[0] = (values[0] + 1) % 16
            after = model(changed).hidden_TD
            assert same_bits(after[:first], before[:first])
            assert rows_that_differ(after[first : first + 8], before[first : first + 8]) == 8


@pytest.mark.parametrize("dtype", MODELS, ids=str)
def test_computing_forward_again_in_backward_changes_no_bit(dtype):
    results = []
    with threads(1):
        for recompute in (False, True):
            model = model_of(SPEC, dtype=dtype, recompute=recompute)
            output = model(INPUTS)
            (output.hidden_TD.float().square().mean() + output.load).backward()
            gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            results.append((output, gradients))
    (kept, a), (again, b) = results
    assert same_bits(kept.hidden_TD, again.hidden_TD) and same_bits(kept.load, again.load) and torch.equal(kept.counts_LE, again.counts_LE)
    assert set(a) == set(b) and len(a) > 60 and all(same_bits(a[name], b[name]) for name in a)


def test_the_flow_head_keeps_the_law():
    head, hidden, noise = model_of().flow, torch.randn(9, 64), torch.randn(9, 320)
    with threads(1), torch.no_grad():
        frames = head.sample(hidden, noise)
        assert same_bits(frames, torch.cat([head.sample(hidden[row : row + 1], noise[row : row + 1]) for row in range(9)]))
