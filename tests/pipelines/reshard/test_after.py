"""A corpus goes on growing after a purge: the numbers of its shards are beyond all that are there, and who was withdrawn stays away."""

import json
from pathlib import Path

import pytest
from corpora import Raw, build, copied, faults, records
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.reshard import run as reshard_run
from microturn.schemas.errors import InputError


@pytest.fixture
def grown(raw, purged, tmp_path) -> Path:
    """Four sessions, one purged: a shard at the beginning is gone, one with a higher number stands in its place."""
    out = tmp_path / "out"
    build([row for row in raw.rows if row["id"] != "call-flac"], raw.folder, out, shard_bytes=150_000)
    purged(out, ["talkative"])
    return out


def test_growth_after_a_purge_takes_no_name_that_is_taken(raw, grown, reshard, tmp_path):
    before = [shard["name"] for shard in Corpus.open(str(grown)).shards]
    assert build([row for row in raw.rows if row["id"] != "talkative"], raw.folder, grown, shard_bytes=150_000).fresh == 1
    now = [shard["name"] for shard in Corpus.open(str(grown)).shards]
    assert set(before) < set(now) and faults(grown) == []
    build([row for row in raw.rows if row["id"] != "talkative"], raw.folder, tmp_path / "one", shard_bytes=150_000)
    reshard([grown], tmp_path / "anew")
    digests = [json.loads((out / "dataset.json").read_bytes())["digests"] for out in (tmp_path / "one", tmp_path / "anew")]
    assert digests[0] == digests[1]


def test_who_was_withdrawn_does_not_come_back(raw, grown, reshard, tmp_path, featurised):
    """Not by the build that once took him, not by one from a corpus made anew; nothing of him is written on the way."""
    reshard([grown], tmp_path / "anew")
    for out in (grown, tmp_path / "anew"):
        verdict = build(raw.rows, raw.folder, out, shard_bytes=150_000)
        assert verdict.fresh == 1 and not verdict.blocks and records(out, session="talkative") == []
        assert "talkative" not in featurised and not [path for path in out.rglob("*") if "talkative" in path.name]
        with pytest.raises(InputError, match="withdrawn"):
            build([row for row in raw.rows if row["id"] == "talkative"], raw.folder, out)


def test_who_has_withdrawn_brings_nothing_new_either(purged, tmp_path, featurised):
    """Another recording of the same speaker is left out, whatever its id; that of a namesake is not."""
    made, out = Raw(tmp_path / "raw"), tmp_path / "out"
    for number, speaker in enumerate(("Ann", "Anna", "Ann", "Anna")):
        made.dyad(
            f"call-{number}",
            seconds=1,
            seed=number,
            participants=[{"id": "left", "role": "assistant"}, {"id": "right", "speaker": speaker}],
        )
    build(made.rows[:2], made.folder, out)
    purged(out, ["speaker:Ann"])
    featurised.clear()
    assert build(made.rows, made.folder, out).fresh == 1 and featurised == ["call-3"]
    assert {row["session"] for row in Corpus.open(str(out)).rows()} == {"call-1", "call-3"} and faults(out) == []


def test_a_build_finishes_a_purge_that_was_killed_behind_its_commit(raw, purged, tmp_path, monkeypatch):
    """Else receipts that name the withdrawn would lie there for ever, and nobody would say so."""
    rows = [row for row in raw.rows if row["id"] != "call-flac"]
    out = tmp_path / "out"
    build(rows, raw.folder, out)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reshard_run, "clean", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        purged(out, ["talkative"])

    def left() -> list[Path]:
        return [path for path in out.rglob("*") if "talkative" in path.name]

    assert left()
    build(rows, raw.folder, out)
    assert left() == [] and faults(out) == []


def test_a_purge_of_one_corpus_says_nothing_to_another(raw, grown, corpus, tmp_path):
    other = copied(corpus, tmp_path / "other")
    assert build(raw.rows, raw.folder, other, shard_bytes=300_000).known == 5
