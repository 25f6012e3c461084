"""What all tests share. Modules beside this file are imported by name: `from bits import same_bits`, `from signals import speech`."""

import os
import sys
from pathlib import Path

import pytest

# before torch comes: threads that wait by spinning make two threads on a busy machine a hundred times as slow
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # pytest's importlib mode adds nothing to the path


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings beside the checkout; tests that want it are skipped where it is absent."""
    folder = HERE.parent.parent / "shared" / "media"
    if not folder.is_dir():
        pytest.skip("no real recordings beside the checkout (../shared/media)")
    return folder
