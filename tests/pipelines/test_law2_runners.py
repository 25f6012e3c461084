"""Law 2 across runners: two local processes and a Dask cluster give the bytes of one process in memory."""

import pytest
from corpora import build, tree
from microturn.pipelines import runners


def test_two_worker_processes_give_the_bytes_of_one(raw, corpus, tmp_path):
    verdict = build(raw.rows, raw.folder, tmp_path / "out", shard_bytes=300_000, on_beam=True, beam=runners.workers(2))
    assert (verdict.fresh, verdict.blocks) == (5, False)
    assert tree(tmp_path / "out") == tree(corpus)


def test_a_dask_cluster_gives_the_bytes_of_one_process(raw, corpus, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        beam = ["--runner=DaskRunner", f"--dask_client_address={cluster.scheduler_address}"]
        verdict = build(raw.rows, raw.folder, tmp_path / "out", shard_bytes=300_000, on_beam=True, beam=beam)
        distributed.default_client().close()  # the runner leaves it open, and it would look for its cluster for ever
    assert (verdict.fresh, verdict.blocks) == (5, False)
    assert tree(tmp_path / "out") == tree(corpus)
