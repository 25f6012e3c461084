"""What a session refuses, in words, and that nothing has changed afterwards; who is reaped; files that are no snapshots."""

import json
import threading
import time
from dataclasses import replace

import pytest
import torch
from documents_by_hand import document
from microturn.kernels import ragged
from microturn.schemas.errors import CorpusError
from microturn.trainer.model import InteractionModel, ModelSpec, initialise
from microturn.trainer.model.inputs import joined
from microturn.trainer.session import Engine, Limits, SessionError, Snapshot
from runs import SIZES
from safetensors.torch import load_file, save_file
from tensors import same_bits

LIMITS = Limits(sessions=2, rows=192, uncommitted_rows=40)
ROWS = 100


@pytest.fixture(scope="module")
def model():
    return initialise(InteractionModel(ModelSpec.parse(SIZES, where="tiny")), seed=1)


@pytest.fixture(scope="module")
def whole(model):
    """A document and its hidden rows."""
    inputs = document(ROWS, seed=4, patches=False)
    with torch.no_grad():
        return inputs, model(inputs).hidden_TD


@pytest.fixture
def engine(model):
    return Engine(model, LIMITS)


def piece(whole, start, stop):
    return whole[0].piece([start], [stop])


def refused(words, hint, call):
    """`call()` is refused with these words and this remedy."""
    with pytest.raises(SessionError, match=words) as found:
        call()
    assert hint in (found.value.hint or "")


def test_opening_is_refused_when_it_could_not_be_kept(engine):
    first = engine.open("a", rows=64)
    refused("'a' is open already", "another key", lambda: engine.open("a", rows=1))
    refused("'b' wants 0 rows", "", lambda: engine.open("b", rows=0))
    refused("'b' wants 300 rows, 256 are free", "Limits.rows", lambda: engine.open("b", rows=300))
    second = engine.open("b", rows=256)
    refused("2 of 2 sessions are open", "Limits.sessions", lambda: engine.open("c", rows=1))
    engine.close(second)
    assert list(engine.sessions.values()) == [first] and engine.open("b", rows=256).rows == 0


def test_what_was_refused_has_taken_no_memory(engine):
    before = [*engine.pools.free_global], [*engine.pools.free_ring]
    for rows in (0, 10**6):
        with pytest.raises(SessionError):
            engine.open("a", rows=rows)
    engine.close(engine.open("a", rows=192))
    assert (sorted(before[0]), sorted(before[1])) == (sorted(engine.pools.free_global), sorted(engine.pools.free_ring))


def test_an_append_that_is_refused_changes_nothing(engine, whole):
    one, other = engine.open("a", rows=ROWS), engine.open("b", rows=10)
    engine.append([(one, piece(whole, 0, 30))])
    half = piece(whole, 30, 50)
    refused("40 are allowed", "smaller pieces", lambda: engine.append([(one, half)]))
    refused("exceed its capacity of 10", "enough rows", lambda: engine.append([(other, half)]))
    refused("an append of 0 pieces", "", lambda: engine.append([]))
    refused("2 pieces for 1 sessions", "", lambda: engine.append([(one, piece(whole, 30, 35)), (one, piece(whole, 35, 38))]))
    refused("exceed its capacity", "", lambda: engine.append([(one, piece(whole, 30, 35)), (other, half)]))  # whole or not at all
    refused("an append of no rows", "", lambda: engine.append([(one, replace(whole[0], rows=ragged([])))]))
    refused(
        "rows of 2 documents", "open one for each", lambda: engine.append([(one, joined([piece(whole, 0, 2), piece(whole, 0, 3)], [0, 0]))])
    )
    assert (one.rows, one.committed, other.rows, engine.computed) == (30, 0, 0, 30)
    engine.commit(one)
    (rows,) = engine.append([(one, half)])
    assert same_bits(rows, whole[1][30:50])


def test_a_session_returns_only_where_it_has_been(engine, whole):
    session = engine.open("a", rows=ROWS)
    for start, stop in ((0, 10), (10, 13), (13, 20)):
        engine.append([(session, piece(whole, start, stop))])
    for call in (engine.roll_back, engine.commit):
        refused("cannot return to 11 rows", "are [0, 10, 13, 20]", lambda call=call: call(session, 11))
    engine.commit(session, 10)
    refused("cannot return to 0 rows", "are [10, 13, 20]", lambda: engine.roll_back(session, 0))
    engine.roll_back(session, 13)
    (rows,) = engine.append([(session, piece(whole, 13, 25))])
    assert same_bits(rows, whole[1][13:25])
    engine.abort(session)
    assert session.rows == session.committed == 10


def test_a_closed_session_answers_nothing(engine, whole):
    session = engine.open("a", rows=ROWS)
    engine.close(session)
    again = engine.open("a", rows=ROWS)  # the same key is another session
    for call in (engine.close, engine.commit, engine.abort, lambda s: engine.append([(s, piece(whole, 0, 5))])):
        refused("not open here", "open it", lambda call=call: call(session))
    assert again.is_open and again.rows == 0


def test_another_engines_session_is_refused(engine, model, whole):
    strange = Engine(model, LIMITS).open("a", rows=ROWS)
    engine.open("a", rows=ROWS)
    refused("not open here", "snapshot", lambda: engine.append([(strange, piece(whole, 0, 5))]))


def test_a_second_request_in_flight_is_refused(engine, whole, monkeypatch):
    """The first is held inside the model by another thread; the second comes for one of its two sessions."""
    one, other = engine.open("a", rows=ROWS), engine.open("b", rows=ROWS)
    inside, go_on, forward, answers = threading.Event(), threading.Event(), engine.model.forward, []

    def slow(*arguments):
        inside.set()
        assert go_on.wait(30)
        return forward(*arguments)

    monkeypatch.setattr(engine.model, "forward", slow)
    first = threading.Thread(target=lambda: answers.extend(engine.append([(one, piece(whole, 0, 9)), (other, piece(whole, 0, 4))])))
    first.start()
    try:
        assert inside.wait(30)
        one.touched = other.touched = float("-inf")
        assert engine.reap() == []
        refused("'b' already has a request under way", "wait", lambda: engine.append([(other, piece(whole, 0, 9))]))
        refused("'a' already has a request under way", "wait", lambda: engine.append([(one, piece(whole, 0, 9))]))
        for verb in (engine.commit, engine.abort, engine.close):
            refused("'b' already has a request under way", "wait", lambda verb=verb: verb(other))
    finally:
        go_on.set()
        first.join(30)
    assert same_bits(answers[0], whole[1][:9]) and (one.rows, other.rows) == (9, 4)


def test_a_request_that_fails_lets_go(engine, whole, monkeypatch):
    session = engine.open("a", rows=ROWS)
    with monkeypatch.context() as broken, pytest.raises(MemoryError):
        broken.setattr(engine.model, "forward", lambda *_: (_ for _ in ()).throw(MemoryError()))
        engine.append([(session, piece(whole, 0, 9))])
    assert session.rows == 0
    (rows,) = engine.append([(session, piece(whole, 0, 9))])
    assert same_bits(rows, whole[1][:9])


def test_idle_sessions_are_reaped_and_busy_ones_stay(model, whole):
    engine = Engine(model, LIMITS.model_copy(update={"idle_seconds": 0.2}))
    idle, lively = engine.open("idle", rows=64), engine.open("lively", rows=64)
    assert engine.reap() == []
    time.sleep(0.25)
    engine.append([(lively, piece(whole, 0, 5))])
    assert engine.reap() == ["idle"] and not idle.is_open and list(engine.sessions) == ["lively"]
    engine.open("idle", rows=64)


def saved(engine, whole, path):
    """A snapshot of 20 rows, in this file."""
    session = engine.open("a", rows=ROWS)
    engine.append([(session, piece(whole, 0, 20))])
    engine.commit(session)
    Snapshot.of(engine, session, "this model").save(path)
    return path


def forged(path, **changes):
    """The same file with other words about itself."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["microturn"]) | changes
    save_file(load_file(path), path, metadata={"microturn": json.dumps({name: at for name, at in about.items() if at is not None})})


@pytest.mark.parametrize("fault", ["short", "empty", "text", "no word about itself", "another format", "no rows", "rows not a number"])
def test_a_file_that_is_no_snapshot_is_refused_by_name(engine, whole, tmp_path, fault):
    path = saved(engine, whole, tmp_path / "a.safetensors")
    match fault:
        case "short":
            path.write_bytes(path.read_bytes()[:-100])
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("not a snapshot at all")
        case "no word about itself":
            save_file(load_file(path), path)
        case "another format":
            forged(path, format="microturn-session-v2")
        case "no rows":
            forged(path, rows=None)
        case "rows not a number":
            forged(path, rows="many")
    with pytest.raises(CorpusError, match=r"a\.safetensors: not a session of microturn"):
        Snapshot.load(path)


def test_a_snapshot_is_not_restored_beside_itself(engine, whole, tmp_path):
    found = Snapshot.load(saved(engine, whole, tmp_path / "a.safetensors"))
    refused("'a' is open already", "another key", lambda: found.restore(engine, "this model"))
    assert engine.sessions["a"].rows == 20
