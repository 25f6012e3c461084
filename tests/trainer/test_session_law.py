"""Law 3: what a session computes, however it is cut, undone, moved and accompanied, has the bits of the trainer's forward."""

import dataclasses

import pytest
import torch
from documents_by_hand import document
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.session import Engine, Limits, SessionError, Snapshot, session_bytes
from microturn.trainer.session.pools import ring_pages
from tensors import cuts, rows_that_differ

LIMITS = Limits(sessions=4, rows=4096, uncommitted_rows=320)
LENGTHS = (141, 40, 90)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def model(request):
    """nano, with the window so short that pages are given up within a test."""
    spec = ModelSpec.preset("nano").model_copy(update={"window": 40, "bias_extent": 60})
    return initialise(InteractionModel(spec, dtype=request.param), seed=3)


@pytest.fixture(scope="module")
def wholes(model):
    """Three documents, and their hidden rows as the trainer computes them, packed into one batch with each other."""
    documents = [document(length, seed) for seed, length in enumerate(LENGTHS)]
    with torch.no_grad():
        return documents, [model(d).hidden_TD for d in documents]


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_cut_in_any_company_gives_the_bits_of_the_whole(model, wholes, data):
    """With one thread; two are in test_align_command.py, and by night in test_align_many.py."""
    documents, hidden = wholes
    ours = data.draw(st.permutations(range(3)), label="who")[: data.draw(st.integers(1, 3), label="how many")]
    engine = Engine(model, LIMITS)
    sessions = {d: engine.open(f"session-{d}", rows=LENGTHS[d]) for d in ours}
    left = {d: list(data.draw(cuts(LENGTHS[d]), label=f"cuts of {d}")) for d in ours}
    while any(left.values()):
        here = [d for d in ours if left[d] and (data.draw(st.booleans()) or sum(map(bool, left.values())) == 1)]
        if not here:
            continue
        before = {d: sessions[d].rows for d in here}
        lengths = {d: left[d].pop(0) for d in here}
        pieces = [(sessions[d], documents[d].piece([before[d]], [before[d] + lengths[d]])) for d in here]
        for d, rows in zip(here, engine.append(pieces), strict=True):
            assert rows_that_differ(rows, hidden[d][before[d] : before[d] + lengths[d]]) == 0
            if data.draw(st.booleans(), label="commit") or sessions[d].rows - sessions[d].committed > 300:
                engine.commit(sessions[d])


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_what_was_undone_leaves_no_trace(model, wholes, data):
    """Rows of another document are appended and rolled back, or aborted, anywhere: nobody can tell afterwards."""
    (one, other, _), (hidden, _, _) = wholes
    engine = Engine(model, LIMITS)
    session, at = engine.open("a", rows=2 * LENGTHS[0]), 0
    for length in data.draw(cuts(LENGTHS[0])):
        if data.draw(st.booleans()):
            strange = data.draw(st.integers(1, 39))
            engine.append([(session, other.piece([0], [strange]))])
            engine.roll_back(session, at) if data.draw(st.booleans()) and at > session.committed else engine.abort(session)
            at = session.rows
        if at == LENGTHS[0]:
            break
        stop = min(at + length, LENGTHS[0])
        (rows,) = engine.append([(session, one.piece([at], [stop]))])
        assert rows_that_differ(rows, hidden[at:stop]) == 0
        at = stop
        if data.draw(st.booleans()) or session.rows - session.committed > 300:
            engine.commit(session)


@pytest.mark.parametrize("at", [1, 64, 100])
def test_a_session_goes_on_elsewhere(model, wholes, at, tmp_path):
    (one, *_), (hidden, *_) = wholes
    engine = Engine(model, LIMITS)
    session = engine.open("a", rows=LENGTHS[0])
    engine.append([(session, one.piece([0], [at]))])
    with pytest.raises(SessionError, match="uncommitted"):
        Snapshot.of(engine, session, "this model")
    engine.commit(session)
    Snapshot.of(engine, session, "this model").save(tmp_path / "a.safetensors")
    elsewhere = Engine(model, LIMITS)
    elsewhere.open("somebody", rows=500)
    found = Snapshot.load(tmp_path / "a.safetensors")
    with pytest.raises(SessionError, match="belongs to the model"):
        found.restore(elsewhere, "another model")
    again = found.restore(elsewhere, "this model")
    for side, there in ((engine, session), (elsewhere, again)):
        (rows,) = side.append([(there, one.piece([at], [LENGTHS[0]]))])
        assert rows_that_differ(rows, hidden[at:]) == 0


def test_documents_that_are_packed_do_not_meet(model, wholes):
    from microturn.trainer.model.inputs import joined

    documents, hidden = wholes
    with torch.no_grad():
        packed = model(joined(documents, [0] * 3)).hidden_TD
    assert rows_that_differ(packed, torch.cat(hidden)) == 0


def test_memory_that_was_never_written_is_never_read(model, wholes):
    (one, *_), (hidden, *_) = wholes
    engine = Engine(model, LIMITS)
    for pool in (*engine.pools.keys, *engine.pools.values):
        pool.fill_(float("nan"))
    session = engine.open("a", rows=LENGTHS[0])
    got = []
    for start in range(0, LENGTHS[0], 30):
        got += engine.append([(session, one.piece([start], [min(start + 30, LENGTHS[0])]))])
        engine.commit(session)
    assert rows_that_differ(torch.cat(got), hidden) == 0


def test_a_state_that_is_lost_shows(model, wholes):
    """The negative control: forget the convolutions' past of one append, and the rows after it are others."""
    (one, *_), (hidden, *_) = wholes
    engine = Engine(model, LIMITS)
    session = engine.open("a", rows=LENGTHS[0])
    engine.append([(session, one.piece([0], [80]))])
    session.marks[-1] = dataclasses.replace(session.marks[-1], convs=engine._no_past())
    (rows,) = engine.append([(session, one.piece([80], [99]))])
    assert rows_that_differ(rows, hidden[80:99]) > 0


def test_the_work_of_an_append_does_not_grow(model):
    """Counted, not timed: rows computed, and the pages that windowed layers own however long a session may get."""
    engine = Engine(model, LIMITS)
    session, one = engine.open("a", rows=400), document(400, seed=9, patches=False)
    for start in range(0, 400, 20):
        engine.append([(session, one.piece([start], [start + 20]))])
        engine.commit(session)
    assert engine.computed == 400
    assert ring_pages(model.spec, 1000, LIMITS) == ring_pages(model.spec, 10**7, LIMITS)
    growth = session_bytes(model.spec, 64_000, LIMITS, model.dtype) - session_bytes(model.spec, 32_000, LIMITS, model.dtype)
    assert growth == 2 * 32_000 * model.spec.kv_heads * model.spec.head_dim * model.dtype.itemsize  # the one global layer
