"""A corpus grows: new sessions are appended, what is there is neither decoded nor written again, and what has changed is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest
from corpora import Raw, build, ledger, tree
from microturn.pipelines import graph
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.schemas.errors import CorpusError
from microturn.schemas.layout import LayoutSpec

DATASET = "dataset.json"


def dataset(out: Path) -> dict:
    return json.loads((out / DATASET).read_bytes())


@pytest.fixture
def grown(raw, tmp_path) -> Path:
    """The corpus of `raw`, built in two steps."""
    out = tmp_path / "grown"
    for rows in (raw.rows[:2], raw.rows):
        assert not build(rows, raw.folder, out, shard_bytes=300_000).blocks
    return out


def test_growing_in_two_steps_gives_the_content_of_one(corpus, grown):
    assert dataset(grown)["digests"]["content"] == dataset(corpus)["digests"]["content"]
    assert dataset(grown)["totals"]["num_windows"] == dataset(corpus)["totals"]["num_windows"]
    assert verify(Corpus.open(str(grown))).faults == []


def test_growth_appends_and_decodes_only_what_is_new(raw, grown, tmp_path, featurised):
    out = tmp_path / "out"
    build(raw.rows[:2], raw.folder, out, shard_bytes=300_000)
    before = {name: data for name, data in tree(out).items() if name.startswith(("shards/", "index/", "ledger/"))}
    featurised.clear()
    verdict = build(raw.rows, raw.folder, out, shard_bytes=300_000)
    assert (verdict.fresh, verdict.known) == (3, 2) and set(featurised) == {"meeting", "film", "talkative"}
    assert before and before.items() <= tree(out).items() and tree(out).keys() > before.keys()


@pytest.mark.parametrize("staging", ["kept", "deleted", "another clock"])
def test_an_identical_build_does_nothing(raw, grown, featurised, staging):
    if staging == "deleted":
        shutil.rmtree(grown / ".staging")
    elif staging == "another clock":
        for path in raw.folder.rglob("*.wav"):
            os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)
    before = {path: path.stat().st_mtime_ns for path in grown.rglob("*") if ".staging" not in path.parts}
    verdict = build(raw.rows, raw.folder, grown, shard_bytes=300_000)
    assert (verdict.fresh, verdict.known, verdict.blocks, featurised) == (0, 5, False, [])
    assert {path: path.stat().st_mtime_ns for path in grown.rglob("*") if ".staging" not in path.parts} == before


@pytest.mark.parametrize(
    ("change", "staging"),
    [("sound", "kept"), ("row", "kept"), ("words", "kept"), ("gone", "kept"), ("sound", "deleted"), ("gone", "deleted")],
)
def test_a_session_whose_content_changed_is_a_conflict_and_nothing_is_committed(raw, tmp_path, change, staging, featurised):
    moved, out = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=json.loads(json.dumps(raw.rows))), tmp_path / "out"
    build(moved.rows[:1], moved.folder, out)
    if staging == "deleted":
        shutil.rmtree(out / ".staging")
    if change == "sound":
        data = bytearray((moved.folder / "dyad-1.wav").read_bytes())
        data[20_000] ^= 1
        moved.bytes("dyad-1.wav", bytes(data))
    elif change == "row":
        moved.rows[0]["license"] = "CC0-1.0"
    elif change == "words":
        moved.words("dyad-1.words.json", [("other", 0.5, 0.9)])
    else:
        (moved.folder / "dyad-1.wav").unlink()
    before = tree(out)
    featurised.clear()
    verdict = build(moved.rows[:2] if staging == "kept" else moved.rows[:1], moved.folder, out)
    assert verdict.blocks and len(verdict.conflicts) == 1 and "call-wav" in verdict.conflicts[0]
    assert tree(out) == before
    assert "call-wav" not in featurised


def test_a_file_changed_under_its_old_time_and_size_is_found_by_rehash_only(raw, tmp_path):
    """Why --rehash exists, and that it does something."""
    moved, out = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=raw.rows), tmp_path / "out"
    build(moved.rows[:1], moved.folder, out)
    path, stat = moved.folder / "dyad-1.wav", (moved.folder / "dyad-1.wav").stat()
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not build(moved.rows[:1], moved.folder, out).conflicts
    assert build(moved.rows[:1], moved.folder, out, rehash=True).conflicts


def test_a_session_that_was_dropped_whole_joins_when_it_is_mended(raw, tmp_path):
    moved, out = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=raw.rows), tmp_path / "out"
    good = (moved.folder / "dyad-1.wav").read_bytes()
    moved.bytes("dyad-1.wav", good[: 44 + 4 * 3000])  # under one tick
    first = build(moved.rows[:2], moved.folder, out)
    assert len(first.rejected) == 1 and dataset(out)["totals"]["num_sessions"] == 1
    assert build(moved.rows[:2], moved.folder, out).known == 2  # nothing has been mended yet
    moved.bytes("dyad-1.wav", good)
    second = build(moved.rows[:2], moved.folder, out)
    assert (second.fresh, second.known) == (1, 1) and dataset(out)["totals"]["num_sessions"] == 2
    build(moved.rows[:2], moved.folder, tmp_path / "once")
    assert dataset(out)["totals"] == dataset(tmp_path / "once")["totals"] | {"size_bytes": dataset(out)["totals"]["size_bytes"]}
    assert dataset(out)["digests"]["content"] == dataset(tmp_path / "once")["digests"]["content"]
    assert "too_short" not in {row["reason"] for row in ledger(out)}  # its file says otherwise now
    assert verify(Corpus.open(str(out))).faults == []
    before = tree(out)
    assert build(moved.rows[:2], moved.folder, out).known == 2 and tree(out) == before


def test_a_session_that_is_dropped_for_another_reason_has_the_new_one_in_the_ledger(raw, tmp_path):
    moved, out = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=raw.rows), tmp_path / "out"
    for data, reason in ((b"no media at all", "not_media"), ((raw.folder / "dyad-1.wav").read_bytes()[: 44 + 4 * 3000], "too_short")):
        moved.bytes("dyad-1.wav", data)
        build(moved.rows[:2], moved.folder, out)
        assert [row["reason"] for row in ledger(out) if row["entry"] == "session"] == [reason]
        assert dataset(out)["totals"]["rejected_sessions"] == 1 and verify(Corpus.open(str(out))).faults == []
    assert [path.name for path in (out / "ledger").glob("rejected*")] == ["rejected-000001.parquet"]  # never one name for two contents


def test_rows_that_contradict_a_session_of_the_corpus_have_a_row_of_the_ledger(raw, tmp_path):
    out = tmp_path / "out"
    build(raw.rows[:1], raw.folder, out)
    twice = [raw.rows[0], raw.rows[1] | {"id": raw.rows[0]["id"]}]
    assert not build(twice, raw.folder, out).blocks
    (row,) = [row for row in ledger(out) if row["entry"] == "session"]
    assert (row["session"], row["reason"]) == ("call-wav", "duplicate_id") and dataset(out)["totals"]["num_sessions"] == 1
    before = tree(out)
    build(twice, raw.folder, out)
    assert tree(out) == before  # told once
    build(raw.rows[:1], raw.folder, out)
    assert ledger(out) == [row for row in ledger(out) if row["entry"] != "session"] and verify(Corpus.open(str(out))).faults == []


def test_a_conflict_names_the_files(raw, tmp_path):
    out = tmp_path / "out"
    build(raw.rows[:1], raw.folder, out)
    (conflict,) = build([raw.rows[0] | {"license": "CC0-1.0"}], raw.folder, out).conflicts
    assert "dyad-1.wav" in conflict and "dyad-1.words.json" in conflict and str(raw.folder) not in conflict


def test_sessions_that_the_input_no_longer_names_stay_and_are_counted(raw, tmp_path):
    out = tmp_path / "out"
    assert build(raw.rows[:2], raw.folder, out).absent == 0
    verdict = build(raw.rows[1:3], raw.folder, out)
    assert (verdict.fresh, verdict.known, verdict.absent) == (1, 1, 1) and dataset(out)["totals"]["num_sessions"] == 3


def test_a_corpus_does_not_grow_by_other_splits_which_could_part_a_group(raw, tmp_path):
    rows = [row | {"group": "g"} for row in raw.rows[:2]]
    build(rows[:1], raw.folder, tmp_path, splits={"train": 0.5, "val": 0.5})
    before = tree(tmp_path)
    with pytest.raises(CorpusError, match="split otherwise") as error:
        build(rows, raw.folder, tmp_path, splits={"test": 1})
    assert tree(tmp_path) == before and "--split train=0.5,val=0.5" in error.value.hint
    assert build(rows, raw.folder, tmp_path, splits={"train": 50, "val": 50, "test": 0}).fresh == 1  # the same shares
    assert len({row["split"] for row in Corpus.open(str(tmp_path)).rows()}) == 1


@pytest.mark.parametrize("change", ["spec", "layout", "toolchain"])
def test_a_corpus_takes_only_what_could_have_been_in_it_from_the_start(raw, tmp_path, monkeypatch, change):
    out = tmp_path / "out"
    build(raw.rows[:1], raw.folder, out)
    before, settings = tree(out), {}
    if change == "layout":
        settings["layout"] = LayoutSpec(say_quota=4)
    elif change == "toolchain":
        found = dataset(out)
        found["digests"]["toolchain"] = "0" * 64
        (out / DATASET).write_text(json.dumps(found))
        before = tree(out)
    else:
        from corpora import SMALL

        settings["spec"] = SMALL.model_copy(update={"keep_heard_pcm": True})
    with pytest.raises(CorpusError, match=change) as error:
        build(raw.rows, raw.folder, out, **settings)
    assert error.value.hint and tree(out) == before


@pytest.mark.parametrize("damage", ["gone", "cut short"])
def test_a_damaged_corpus_does_not_grow(raw, tmp_path, damage):
    out = tmp_path / "out"
    build(raw.rows[:1], raw.folder, out)
    shard = out / "shards/train-000000.tar"
    data = shard.read_bytes()
    shard.unlink()
    if damage == "cut short":
        shard.write_bytes(data[:-512])
    before = tree(out)
    with pytest.raises(CorpusError, match="train-000000") as error:
        build(raw.rows[:2], raw.folder, out)
    assert error.value.hint and tree(out) == before


def test_committing_twice_commits_once(raw, tmp_path, monkeypatch):
    """A runner may run the last step again after it was done: its answer got lost."""
    commit = graph._commit
    monkeypatch.setattr(graph, "_commit", lambda keyed, b: (commit(keyed, b), commit(keyed, b))[1])
    rows = [*raw.rows[:2], {"id": "gone", "streams": [{"id": "a", "path": "gone.wav", "kind": "audio", "participant": "p"}]}]
    build(rows, raw.folder, tmp_path / "twice")
    monkeypatch.undo()
    build(rows, raw.folder, tmp_path / "once")
    assert tree(tmp_path / "twice") == tree(tmp_path / "once")


@pytest.mark.parametrize("num_sessions", [1, 2])
def test_what_an_interrupted_build_left_behind_is_gone_after_the_next(raw, tmp_path, num_sessions):
    out = tmp_path / "out"
    build(raw.rows[:1], raw.folder, out)
    left = ["shards/train-000007.tar", "index/train-000007.parquet", "ledger/rejected-000003.parquet", ".0a1b.tmp", ".staging/.2c3d.tmp"]
    for name in left:
        (out / name).write_bytes(b"half")
    build(raw.rows[:num_sessions], raw.folder, out)
    assert not [name for name in left if (out / name).exists()]
    assert verify(Corpus.open(str(out))).faults == []
