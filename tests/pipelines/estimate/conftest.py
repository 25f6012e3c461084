"""Estimates in the lent decoder process, and the same plan estimated and built."""

from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import ONE_SPLIT, SMALL, Raw, build, plan_of
from microturn.pipelines import dry_run, run
from microturn.pipelines.corpus.commit import read_dataset
from microturn.pipelines.estimate import account, look
from microturn.pipelines.estimate.figures import Estimate, Figures
from microturn.pipelines.storage.folders import Folder
from microturn.schemas.spec import FeatureSpec

Both = tuple[Estimate, Figures]


@pytest.fixture(autouse=True)
def lent_to_looks(lent, monkeypatch):
    """Looking asks the process that builds ask."""
    monkeypatch.setattr(look, "MediaProcess", lambda silence_s: lent)


@pytest.fixture
def both(tmp_path) -> Callable[..., Both]:
    """(estimate, what the build then gave) of the rows."""

    def made(raw: Raw, *, spec: FeatureSpec = SMALL, shard_bytes: int = run.SHARD_BYTES, sample: int = 0) -> Both:
        out = tmp_path / "both"
        wanted = run.Settings(out=str(out), spec=spec, splits=ONE_SPLIT, shard_bytes=shard_bytes)
        expected = dry_run.estimate(plan_of(raw.rows, raw.folder, spec=spec), wanted, sample=sample, cores=4)
        verdict = build(raw.rows, raw.folder, out, spec=spec, shard_bytes=shard_bytes)
        return expected, given(out, verdict.rejected)

    return made


def given(out: Path, rejected: tuple[str, ...] = ()) -> Figures:
    """What the corpus's only build gave."""
    folder = Folder(str(out))
    dropped = account.reasons(Folder(str(out / ".staging")), rejected)
    return account.actual(folder, None, read_dataset(folder), dropped, -1.0)
