"""What all tests share. Modules beside this file are imported by name: `from bits import same_bits`, `from signals import speech`."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # pytest's importlib mode adds nothing to the path


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings beside the checkout; tests that want it are skipped where it is absent."""
    folder = HERE.parent.parent / "shared" / "media"
    if not folder.is_dir():
        pytest.skip("no real recordings beside the checkout (../shared/media)")
    return folder
