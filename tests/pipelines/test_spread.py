"""On a cluster the work is spread: sessions over the workers, and shards too, which all come out of one step."""

import json

import pytest
from corpora import build
from microturn.pipelines import run
from microturn.pipelines.storage.folders import Folder


def test_on_dask_more_than_one_partition_featurises_and_more_than_one_writes_shards(raw, tmp_path, monkeypatch):
    """Each partition leaves a note. Beam's Reshuffle is nothing on Dask: behind a group of one key it would leave one partition."""
    distributed = pytest.importorskip("distributed")
    delete, out = Folder.delete, tmp_path / "out"
    notes: list[dict[str, int]] = []

    def delete_after_reading(folder: Folder, name: str) -> None:
        if name == "under-way":
            notes.extend(json.loads(folder.read(note)) for note in folder.names(name))
        delete(folder, name)

    monkeypatch.setattr(Folder, "delete", delete_after_reading)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        beam = ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]
        build(raw.rows, raw.folder, out, shard_bytes=300_000, on_beam=True, beam=beam)
        distributed.default_client().close()
    assert run.read_dataset(Folder(str(out)))["totals"]["num_sessions"] == 5
    assert sum(note["shard_bytes"] > 0 for note in notes) >= 2 and sum(note["input_bytes"] + note["samples"] > 0 for note in notes) >= 2
