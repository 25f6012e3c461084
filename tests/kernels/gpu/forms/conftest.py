"""The Triton forms, against `naive_…` and the row law: in Triton's interpreter where TRITON_INTERPRET=1 was set before Python started
(test_interpreter.py does so), on the GPU where there is one; elsewhere nothing is collected here.

In the interpreter, ops on CPU tensors take their Triton form. On a GPU, tensors are made there. In both fp16 is let in (the interpreter's
bf16 is cut off instead of rounded), and fresh memory begins as NaN.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
JUNK = -7_777_777  # what fresh integers hold: no index, no count

if not (INTERPRETED or torch.cuda.is_available()):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        if not INTERPRETED and os.path.dirname(__file__) in str(item.path):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def triton_computes(monkeypatch):
    """Every op takes its Triton form."""
    from microturn.kernels import dispatch

    monkeypatch.setattr(dispatch, "FLOATS", (*dispatch.FLOATS, torch.float16))
    if INTERPRETED:
        monkeypatch.setattr(dispatch, "triton_computes", lambda device: True)
        yield
    else:
        with torch.device("cuda"):
            yield


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """`torch.empty`, `empty_like` and `new_empty` give memory full of NaN, so that reading what nobody wrote shows."""

    def poison(make):
        def made(*args, **kwargs):
            x = make(*args, **kwargs)
            if x.is_floating_point():
                return x.fill_(float("nan"))
            return x.fill_(JUNK if x.dtype in (torch.int32, torch.int64) else 77)

        return made

    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, poison(getattr(place, name)))
