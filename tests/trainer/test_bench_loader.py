"""`microturn bench loader`: the peers read the same windows and make the same rows, so that seconds may be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bits import same_bits
from click.testing import CliRunner
from microturn.schemas.errors import InputError
from microturn.schemas.record import Record
from microturn.trainer.bench import peers
from microturn.trainer.bench.loader import OURS, first_shards, loader_bench
from microturn.trainer.data import DataSpec, OpenCorpus
from microturn.trainer.data.document import Making, Window, make
from talks import LAYOUT

pytest.importorskip("webdataset")
pytest.importorskip("lhotse")

ROWS = ("ids", "slots", "text_rows", "text_targets", "text_weights", "flow_rows", "flow_weights", "heard_codes", "patches")


@pytest.fixture(scope="module")
def shar(corpus: OpenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "shar"
    peers.write_shar(corpus, folder)
    return folder


def test_all_of_them_read_the_same_arrays(corpus: OpenCorpus, shar: Path) -> None:
    ours = list(peers.our_windows(corpus))
    assert len(ours) == len(corpus.index) > 30
    for theirs in (peers.webdataset_windows(corpus), peers.lhotse_windows(shar)):
        for a, b in zip(ours, theirs, strict=True):
            assert set(a) == set(b) and all(same_bits(a[name], b[name]) for name in a)


def test_peers_make_the_rows_that_we_make(views: dict[tuple[str, str], list[Record]]) -> None:
    """Of a window as a document; own speech too, but for what its first tick still hears of the window before."""
    making = Making(layout=LAYOUT, spec=DataSpec(cut_played=0))
    num_speaking = 0
    for windows in views.values():
        for window in windows:
            first = window.meta["first_tick"]
            ours = make([Window.of(window, LAYOUT)], first, first + window.num_ticks, making)
            theirs = peers.document({name: getattr(window, name) for name in ("heard_dmel", *peers.ARRAYS)}, LAYOUT)
            for name in ROWS:
                a = getattr(ours, name)
                assert same_bits(a.astype(np.int64) if name == "ids" else a, theirs[name]), name
            late = slice(4 if first else 0, None)  # frames behind the first tick
            for name in ("own_codes", "flow_targets"):
                assert same_bits(getattr(ours, name)[late], theirs[name][late])
            num_speaking += len(theirs["own_codes"])
    assert num_speaking > 200


def test_packing_of_the_peers_loses_nothing(corpus: OpenCorpus) -> None:
    whole = [peers.document(window, LAYOUT) for window in peers.webdataset_windows(corpus)]
    packed = list(peers.batches(peers.webdataset_windows(corpus), LAYOUT, 700))
    assert {len(batch["ids"]) for batch in packed[:-1]} == {700}
    starts = np.cumsum([0, *(len(batch["ids"]) for batch in packed)])
    for name in whole[0]:
        kind = name.removesuffix("_rows")
        if name.endswith("_rows"):
            rows = np.concatenate([batch[name].numpy() + at for batch, at in zip(packed, starts[:-1], strict=True)])
            offsets = np.cumsum([0, *(len(each["ids"]) for each in whole)])
            wanted = np.concatenate([each[name] + at for each, at in zip(whole, offsets[:-1], strict=True)])
            assert rows.tolist() == wanted.tolist(), kind
        else:
            assert torch.equal(
                torch.cat([batch[name] for batch in packed]), torch.from_numpy(np.concatenate([each[name] for each in whole]))
            )


def test_a_part_of_a_corpus_is_whole_shards(corpus: OpenCorpus) -> None:
    in_first = int((corpus.index.shard_W == 0).sum())
    assert len(first_shards(corpus, in_first).index) == len(first_shards(corpus, 1).index) == in_first
    two = first_shards(corpus, in_first + 1)
    assert two.index.shards == corpus.index.shards[:2] and len(two.index) == int((corpus.index.shard_W < 2).sum())
    assert len(first_shards(corpus, 10**9).index) == len(corpus.index)


def test_the_command_prints_speeds_packing_and_restore(folder: Path) -> None:
    args = [str(folder), "--repeat", "1", "--sequence-tokens", "1024", "--restore-windows", "2000"]
    ran = CliRunner().invoke(loader_bench, [*args, "--json"], catch_exceptions=False)
    found = json.loads(ran.stdout)
    ours = [row for row in found["speeds"] if row["who"] == OURS]
    assert [row["what"] for row in ours] == ["decoded", "batches"] and all(row["ratio"] == 1 for row in ours)
    for row in found["speeds"]:
        mine = next(each for each in ours if each["what"] == row["what"])
        assert row["ratio"] == pytest.approx(mine["tokens_per_s"] / row["tokens_per_s"]) and abs(row["tokens"] - mine["tokens"]) < 300
    assert found["packing"]["used"] >= 0.98 and found["packing"]["sequences"] >= 5 and 0 < found["restore"]["cpu_s"] < 1
    table = CliRunner().invoke(loader_bench, args, env={"COLUMNS": "80"}, catch_exceptions=False).stdout
    assert all(word in table for word in ("webdataset", "lhotse", "packing", "restore", "×")) and "…" not in table


def test_a_corpus_smaller_than_a_sequence_is_refused(folder: Path) -> None:
    ran = CliRunner().invoke(loader_bench, [str(folder), "--repeat", "1", "--sequence-tokens", "1000000"])
    assert isinstance(ran.exception, InputError) and "less than a sequence of 1000000 tokens" in str(ran.exception)
