"""Errors cross processes whole: a runner pickles them, a ledger row wants the reason, a person the hint."""

import copy
import pickle

import pytest
from microturn.schemas.errors import CorpusError, InputError, MediaError, MicroturnError

ERRORS = [
    MicroturnError("nothing was committed", hint="build into another folder"),
    InputError("m.jsonl:3: unknown key 'pth'"),
    MediaError("a.mp4: no audio", reason="no_such_stream", hint="`ffprobe` lists them"),
    CorpusError("train-000000.tar: ends early"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("carry", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_an_error_arrives_with_its_hint_and_reason(error, carry):
    arrived = carry(error)
    assert type(arrived) is type(error) and str(arrived) == str(error) and arrived.hint == error.hint
    assert getattr(arrived, "reason", None) == getattr(error, "reason", None)


def test_notes_arrive_too():
    error = MediaError("a.mp4: no audio", reason="no_such_stream")
    error.add_note("while probing")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while probing"]


def test_the_tree_is_as_drawn():
    assert issubclass(MediaError, InputError) and issubclass(InputError, MicroturnError) and issubclass(CorpusError, MicroturnError)
    assert not issubclass(CorpusError, InputError) and not issubclass(MicroturnError, OSError)


def test_a_recording_without_a_reason_is_no_error_of_ours():
    with pytest.raises(TypeError, match="reason"):
        MediaError("a.mp4: no audio")
