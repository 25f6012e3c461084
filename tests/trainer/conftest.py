"""Small corpora that many laws look at. Do not change them: `corpora.copied` gives one to tamper with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for `talks`; pytest's importlib mode adds nothing to the path

from corpora import Raw, records
from microturn.schemas.record import Record
from microturn.trainer.data import OpenCorpus
from talks import build_talks, raw_talks


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on two threads wait for each other, and for whatever else a busy machine runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Six sessions, eleven views."""
    return raw_talks(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="session")
def folder(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their corpus in windows of 10 ticks and many shards."""
    return build_talks(raw.rows, raw.folder, tmp_path_factory.mktemp("corpora") / "talks")


@pytest.fixture(scope="session")
def corpus(folder: Path) -> OpenCorpus:
    """The corpus, open."""
    return OpenCorpus.open(str(folder))


@pytest.fixture(scope="session")
def views(folder: Path) -> dict[tuple[str, str], list[Record]]:
    """Every window by (session, view), in order of time, read by the pipeline's own reader."""
    windows: dict[tuple[str, str], list[Record]] = {}
    for window in records(folder):
        windows.setdefault((window.meta["session"], window.meta["view"]), []).append(window)
    return windows


@pytest.fixture(scope="session")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two splits."""
    raw = Raw(tmp_path_factory.mktemp("raw"))
    raw.dyad("talk", seconds=16.0, seed=1, split="train")
    raw.dyad("other", seconds=12.0, seed=2, split="val")
    return build_talks(raw.rows, raw.folder, tmp_path_factory.mktemp("corpora") / "two")
