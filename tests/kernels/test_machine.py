"""The self-check and the fingerprint: what a process says about its own arithmetic."""

import json
import os
import subprocess
import sys

import torch
from microturn.kernels import fingerprint, selfcheck
from tensors import threads


def test_a_form_is_tried_once_per_shape_and_thread_count(monkeypatch):
    monkeypatch.setattr(selfcheck, "_FOUND", {})
    calls = []

    def equal(generator):
        calls.append(float(torch.rand(1, generator=generator)))
        return len(calls) == 1

    before = torch.get_rng_state()
    assert [selfcheck.proven("form", (1,), equal) for _ in range(3)] == [True] * 3
    assert not selfcheck.proven("form", (2,), equal)
    with threads(3 - min(torch.get_num_threads(), 2)):
        assert not selfcheck.proven("form", (1,), equal)
    assert len(calls) == 3 and len(set(calls)) == 1  # the same operands every time
    assert torch.equal(before, torch.get_rng_state())
    assert selfcheck.tried() == {"form": (1, 2)}


def test_same_bits_sees_what_equality_does_not():
    zero, nan = torch.tensor([0.0]), torch.tensor([float("nan")])
    assert torch.equal(zero, -zero) and not selfcheck.same_bits(zero, -zero)
    assert not torch.equal(nan, nan) and selfcheck.same_bits(nan, nan)
    assert not selfcheck.same_bits(zero, zero.bfloat16())


def test_the_fingerprint_is_the_same_again_and_with_other_threads():
    first = fingerprint()
    with threads(3 - min(torch.get_num_threads(), 2)):
        second = fingerprint()
    assert first["threads"] != second["threads"]
    assert first == second | {"threads": first["threads"]}
    json.dumps(first)


def test_another_instruction_set_has_another_fingerprint():
    code = "from microturn.kernels import fingerprint; print(fingerprint()['digest'])"
    plain = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    other = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True).stdout.strip()
    assert len(other) == 16 and other != fingerprint()["digest"]
