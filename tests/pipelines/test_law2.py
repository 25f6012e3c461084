"""Law 2: the same input, spec and toolchain give the same corpus, byte for byte, however and wherever it was built."""

import json
import os
import shutil
from pathlib import Path

import pytest
from corpora import SMALL, Raw, build, tree
from microturn.pipelines.corpus import Corpus


def digests(out: Path) -> dict[str, str]:
    return json.loads((out / "dataset.json").read_bytes())["digests"]


def test_the_corpus_has_something_to_compare(corpus):
    found = Corpus.open(str(corpus))
    assert len(found.shards) >= 4 and found.dataset["totals"]["num_pairs"] and found.dataset["totals"]["num_sessions"] == 5
    assert any(row["max_lag_ticks"] for row in found.rows())


def test_a_second_build_gives_the_same_bytes(raw, corpus, tmp_path, featurised):
    build(raw.rows, raw.folder, tmp_path / "out", shard_bytes=300_000, on_beam=True)
    assert len(featurised) == 5
    assert tree(tmp_path / "out") == tree(corpus)


def test_the_order_of_the_manifest_changes_nothing(raw, corpus, tmp_path):
    build(raw.rows[::-1], raw.folder, tmp_path / "out", shard_bytes=300_000)
    assert tree(tmp_path / "out") == tree(corpus)


def test_where_the_input_and_the_staging_lie_and_when_files_were_written_changes_nothing(raw, corpus, tmp_path):
    elsewhere = Path(shutil.copytree(raw.folder, tmp_path / "far" / "away", copy_function=shutil.copyfile))
    for number, path in enumerate(elsewhere.rglob("*")):
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    build(raw.rows, elsewhere, tmp_path / "out", staging=str(tmp_path / "staging"), shard_bytes=300_000)
    assert tree(tmp_path / "out", staging=True) == tree(corpus)  # and nothing is staged in the corpus


def test_absolute_paths_give_the_same_digests(raw, corpus, tmp_path):
    def absolute(entry: dict) -> dict:
        return entry | {"path": str(raw.folder / entry["path"])}

    rows = [row | {key: [absolute(e) for e in row.get(key, [])] for key in ("streams", "transcripts")} for row in raw.rows]
    build(rows, Path("/"), tmp_path / "out", shard_bytes=300_000)
    assert digests(tmp_path / "out") == digests(corpus)


def test_the_size_of_shards_changes_the_layout_and_not_the_content(raw, corpus, tmp_path):
    build(raw.rows, raw.folder, tmp_path / "out")
    one, many = (Corpus.open(str(out)).dataset for out in (tmp_path / "out", corpus))
    assert len(one["shards"]) == 1
    assert one["digests"]["content"] == many["digests"]["content"] and one["digests"]["layout"] != many["digests"]["layout"]
    sizes = {"size_bytes"}  # each shard has an end of its own
    assert {k: v for k, v in one["totals"].items() if k not in sizes} == {k: v for k, v in many["totals"].items() if k not in sizes}


@pytest.mark.parametrize("change", ["spec", "sound", "word", "gain"])
def test_whatever_matters_changes_the_content(raw, corpus, tmp_path, change):
    """The negative control: the digests above would also be equal if they said nothing."""
    moved = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=json.loads(json.dumps(raw.rows)))
    spec = SMALL
    if change == "spec":
        spec = SMALL.model_copy(update={"keep_heard_pcm": True})
    elif change == "sound":
        data = bytearray((moved.folder / "dyad-1.wav").read_bytes())
        data[20_000] ^= 1
        moved.bytes("dyad-1.wav", bytes(data))
    elif change == "word":
        moved.words("long.json", [("short", 2.0, 2.5)])
    elif change == "gain":
        moved.rows[0]["streams"][0]["gain"] = 0.5
    build(moved.rows, moved.folder, tmp_path / "out", spec=spec, shard_bytes=300_000)
    assert digests(tmp_path / "out")["content"] != digests(corpus)["content"]
