"""The whole model on the Triton forms: what the CPU forms compute, the row law for appends, and the gradients of a step.

In the interpreter only: the model's tests make their operands on the CPU.
"""

import sys
from pathlib import Path

import pytest
import torch
from microturn.kernels import dispatch
from tensors import close, rows_that_differ

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "trainer"))
from handmade import SPEC, TICK, made, model_of, pieces

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="makes its operands on the CPU")
SMALL = SPEC.model_copy(update={"layers": 2, "hidden": 32, "dense_width": 48, "window": 9, "bias_extent": 12, "log_floor": 8})
DOCUMENTS = [TICK, "th"]  # 14 rows, past the window, and 2


@torch.no_grad()
def test_the_whole_model_keeps_the_law_and_agrees_with_the_cpu_forms(monkeypatch):
    model, inputs = model_of(SMALL, dtype=torch.float32), made(DOCUMENTS, seed=3)
    whole = model(inputs)
    hidden, counts = pieces(model, inputs, [[1, 0], [4, 2], [9, 0]])
    assert rows_that_differ(hidden, whole.hidden_TD) == 0 and torch.equal(counts, whole.counts_LE)
    monkeypatch.setattr(dispatch, "triton_computes", lambda device: False)
    cpu = model(inputs)
    assert torch.equal(cpu.counts_LE, whole.counts_LE) and close(whole.hidden_TD, cpu.hidden_TD, 1e-5)


@pytest.mark.nightly
def test_its_gradients_agree_with_the_cpu_forms(monkeypatch):
    found = []
    for by_triton in (True, False):
        monkeypatch.setattr(dispatch, "triton_computes", lambda device, answer=by_triton: answer)
        model = model_of(SMALL, dtype=torch.float32)
        output = model(made(DOCUMENTS, seed=3))
        (model.text_logits(output.hidden_TD).square().mean() + output.hidden_TD.square().mean()).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    far = {name: float((g - found[1][name]).abs().max() / found[1][name].abs().max().clamp(min=1e-9)) for name, g in found[0].items()}
    assert {name: error for name, error in far.items() if error > 1e-4} == {}
