"""The Triton forms in Triton's interpreter. It must be chosen before a kernel is defined, so each file of `forms/` runs in a child pytest
of its own, with TRITON_INTERPRET=1; in this process that folder runs on a GPU, or not at all.

    TRITON_INTERPRET=1 python -m pytest tests/kernels/gpu/forms/test_products.py      one of them, by hand
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no wheel for this platform")
FILES = sorted((Path(__file__).parent / "forms").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_in_the_interpreter(file, pytestconfig):
    chosen = ["-m", pytestconfig.getoption("markexpr")] if pytestconfig.getoption("markexpr") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, str(file)]
    ran = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout


def test_there_are_files_to_run():
    assert len(FILES) >= 4
