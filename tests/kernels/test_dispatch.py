"""Who computes what: CPU tensors take the CPU form whatever the environment says, and Triton stays unimported until a GPU tensor comes."""

import os
import subprocess
import sys

import pytest
import torch
from microturn.kernels import linear, rms_norm
from microturn.kernels.dispatch import by_triton, triton_computes
from tensors import randn


def test_the_device_chooses_and_nothing_else():
    assert not triton_computes(torch.device("cpu")) and triton_computes(torch.device("cuda:1"))
    assert by_triton("op", torch.zeros(2), torch.zeros(3, dtype=torch.uint8)) is False


def test_tensors_of_two_devices_are_refused():
    with pytest.raises(ValueError, match="linear takes tensors of one device; got cpu and meta"):
        linear(randn(1, 3, 8), torch.empty(4, 8, device="meta"))
    with pytest.raises(ValueError, match="on the CPU and on CUDA devices; got a tensor on meta"):
        rms_norm(torch.empty(3, 8, device="meta"), torch.empty(8, device="meta"), 1e-6)


def test_cpu_ops_leave_triton_alone_even_where_its_interpreter_is_asked_for():
    code = (
        "import sys, torch; from microturn.kernels import linear, rms_norm;"
        "rms_norm(linear(torch.zeros(3, 8), torch.zeros(4, 8)), torch.ones(4), 1e-6);"
        "print([name for name in sys.modules if name == 'triton' or name.startswith('microturn.kernels.gpu')])"
    )
    asked = {**os.environ, "TRITON_INTERPRET": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True, check=True).stdout == "[]\n"
