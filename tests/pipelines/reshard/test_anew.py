"""Whatever a reshard makes is what one build of the same recordings would have made, to the byte of every file: that is the oracle.

Builds here share a staging folder with all parts, so that the oracle decodes nothing either.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import Raw, build, copied, faults, ledger, tree
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.withdrawn import mark
from microturn.pipelines.reshard import run, steps
from microturn.pipelines.sessions import receipts
from microturn.pipelines.storage.folders import Folder
from microturn.schemas import keys
from microturn.schemas.clock import FRAME_SAMPLES, TICK_SAMPLES
from microturn.schemas.errors import CorpusError, InputError
from microturn.schemas.layout import LayoutSpec
from microturn.transforms import dmel

few = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
layouts = st.builds(
    LayoutSpec,
    say_quota=st.sampled_from([2, 3, 8, 64]),
    typed_quota=st.sampled_from([1, 8]),
    text_lead_ticks=st.integers(0, 2),
    speak_hangover_ticks=st.integers(0, 1),
    max_tail_ticks=st.sampled_from([0, 3, 25, 300]),
)


@pytest.fixture(scope="module")
def parts(raw, tmp_path_factory) -> Path:
    """A staging folder in which every session of `raw` is featurised."""
    staging = tmp_path_factory.mktemp("parts")
    build(raw.rows, raw.folder, tmp_path_factory.mktemp("first") / "out", staging=str(staging), keep_parts=True)
    return staging


@pytest.fixture(scope="module")
def built(raw, parts, tmp_path_factory) -> Callable[..., Path]:
    """Corpora of rows of `raw`, built from parts."""

    def make(rows=None, *more, **options) -> Path:
        out = tmp_path_factory.mktemp("built") / "out"
        for some in (raw.rows if rows is None else rows, *more):
            assert not build(some, raw.folder, out, staging=str(parts), keep_parts=True, **options).blocks
        return out

    return make


def dataset(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_bytes())


def differ(a: Path, b: Path) -> list[str]:
    """Names of files that two corpora do not have alike."""
    one, other = tree(a), tree(b)
    assert len(one) >= 10
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def test_a_corpus_made_anew_as_it_is_has_the_same_bytes(corpus, reshard, tmp_path):
    reshard([corpus], tmp_path / "out")
    assert differ(corpus, tmp_path / "out") == []


@few
@given(
    shard_bytes=st.integers(1, 600_000),
    share=st.integers(0, 10),
    dropped=st.sets(st.sampled_from(["call-wav", "call-flac", "meeting", "film", "talkative"]), max_size=4),
    steps=st.permutations(range(5)),
)
def test_shard_size_splits_growth_and_drops_give_the_corpus_of_one_build(
    raw, built, reshard, tmp_path_factory, shard_bytes, share, dropped, steps
):
    grown = built([raw.rows[n] for n in steps[:2]], [raw.rows[n] for n in steps], shard_bytes=250_000)
    splits = {"train": share / 10, "val": 1 - share / 10}
    out = tmp_path_factory.mktemp("anew") / "out"
    reshard([grown], out, shard_bytes=shard_bytes, splits=splits, drop=sorted(dropped))
    direct = built([row for row in raw.rows if row["id"] not in dropped], shard_bytes=shard_bytes, splits=splits)
    assert differ(out, direct) == (["dataset.json"] if dropped else [])
    assert dataset(out) | {"withdrawn": []} == dataset(direct) and dataset(out)["withdrawn"] == sorted(map(mark, dropped))
    assert dropped or dataset(out)["digests"]["content"] == dataset(grown)["digests"]["content"]
    assert dataset(out)["digests"]["layout"] != dataset(grown)["digests"]["layout"]  # there was something to do
    assert faults(out) == []


@few
@given(a=layouts, b=layouts)
@example(a=LayoutSpec(), b=LayoutSpec(max_tail_ticks=0))
@example(a=LayoutSpec(say_quota=2, max_tail_ticks=3), b=LayoutSpec())
def test_another_layout_gives_the_corpus_that_was_built_with_it(built, parts, reshard, tmp_path_factory, a, b):
    """Tails are cut, made, lengthened, and spill into windows of their own: `talkative` has more text than time."""
    out = tmp_path_factory.mktemp("anew") / "out"
    source = built(layout=a, shard_bytes=200_000)
    reshard([source], out, layout=b, shard_bytes=150_000, staging=str(parts))
    assert differ(out, built(layout=b, shard_bytes=150_000)) == [] and faults(out) == []


def test_the_sound_after_the_end_is_silence_where_a_shard_says_so(raw, parts, built, reshard, tmp_path):
    """A recording that ends 50 ms before its last tick does tells what rings out; the receipts say the same. Others do not."""
    found = [receipts.read(Folder(str(parts)), path.name) for path in (parts / "receipts").glob("*.json")]
    ends = {row["session"]: row for row in Corpus.open(str(built())).rows()}
    corpus = Corpus.open(str(built()))
    silent = dmel.silence().tobytes().hex()
    told = {True: 0, False: 0}
    for receipt in found:
        meta = corpus.read(ends[receipt.session]).meta
        is_past = meta["session_samples"] <= receipt.session_ticks * TICK_SAMPLES - FRAME_SAMPLES
        for codes in receipt.tail_codes.values():
            told[is_past] += 1
            assert not is_past or codes == silent
    assert min(told.values()) > 0


def test_what_no_shard_tells_is_asked_for(built, reshard, tmp_path):
    """Without a tail, a shard does not hold what the frame after the end hears; without receipts nobody does. A tail keeps it."""
    short, long = LayoutSpec(max_tail_ticks=0), LayoutSpec()
    with pytest.raises(CorpusError, match="session talkative, view left: its text outlasts it") as error:
        reshard([built(layout=short)], tmp_path / "out", layout=long)
    assert "--staging" in error.value.hint and not (tmp_path / "out/dataset.json").exists()
    reshard([built(layout=long)], tmp_path / "other", layout=LayoutSpec(say_quota=2))
    assert differ(tmp_path / "other", built(layout=LayoutSpec(say_quota=2))) == []


def test_receipts_go_along_so_that_growth_hashes_nothing_again(raw, corpus, parts, reshard, tmp_path, featurised):
    reshard([corpus], tmp_path / "out", shard_bytes=100_000, drop=["film"])
    there = {path.name[:-22] for path in (tmp_path / "out/.staging/receipts").glob("*.json")}
    assert there == {row["id"] for row in raw.rows} - {"film"}
    rows = [row for row in raw.rows if row["id"] != "film"]
    assert build(rows, raw.folder, tmp_path / "out", shard_bytes=100_000).known == 4 and featurised == []


def test_two_corpora_become_one(raw, built, reshard, tmp_path):
    """What both hold is taken once; what one dropped whole and the other holds is mended."""
    gone = {"id": "talkative", "streams": [{"id": "a", "path": "gone.wav", "kind": "audio", "participant": "p"}]}
    lost = gone | {"id": "lost"}
    one, other = built([*raw.rows[:3], gone, lost], shard_bytes=200_000), built([*raw.rows[2:], lost], shard_bytes=100_000)
    reshard([one, other], tmp_path / "out", shard_bytes=300_000)
    assert differ(tmp_path / "out", built([*raw.rows, lost], shard_bytes=300_000)) == []
    assert [row["session_id"] for row in ledger(tmp_path / "out") if row["entry"] == "session"] == ["lost"]


def test_one_session_of_two_contents_is_refused_by_name(raw, built, reshard, tmp_path):
    changed = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")))
    changed.dyad("call-wav", seconds=2, seed=9)
    build(changed.rows, changed.folder, tmp_path / "other")
    with pytest.raises(CorpusError, match="differ between the corpora: call-wav"):
        reshard([built(), tmp_path / "other"], tmp_path / "out")
    reshard([built(), tmp_path / "other"], tmp_path / "out", drop=["call-wav"])
    assert faults(tmp_path / "out") == []


@pytest.mark.parametrize("what", ["spec", "toolchain"])
def test_only_what_one_build_could_have_made_goes_together(what, built, reshard, tmp_path):
    one, other = built(), copied(built(), tmp_path / "other")
    claims = dataset(other)
    claims["digests"][what] = "f" * 64
    (other / "dataset.json").write_text(json.dumps(claims))
    with pytest.raises(CorpusError, match=rf"another .*{what}.*{one}.*{other}"):
        reshard([one, other], tmp_path / "out")


def test_groups_stay_together(raw, built, reshard, tmp_path):
    rows = [row | {"group": "a family"} if row["id"].startswith("call") else row for row in raw.rows]
    reshard([built(rows)], tmp_path / "out", splits={name: 1.0 for name in "abcdefgh"}, shard_bytes=10**9)
    split = {row["session"]: row["split"] for row in Corpus.open(str(tmp_path / "out")).rows()}
    assert split["call-wav"] == split["call-flac"] == keys.split_of("", "a family", {name: 1.0 for name in "abcdefgh"})
    assert len(set(split.values())) > 1


def test_a_split_that_a_manifest_named_is_not_undone_by_the_way(raw, built, reshard, tmp_path):
    rows = [row | ({"split": "val"} if row["id"] == "film" else {}) for row in raw.rows]
    with pytest.raises(CorpusError, match="session film is in val, where its manifest put it") as error:
        reshard([built(rows)], tmp_path / "out", splits={"train": 1.0})
    assert "--move-given" in error.value.hint
    reshard([built(rows)], tmp_path / "out", splits={"train": 1.0}, move_given=True)
    assert {row["split"] for row in Corpus.open(str(tmp_path / "out")).rows()} == {"train"} and faults(tmp_path / "out") == []
    reshard([built(rows)], tmp_path / "kept", shard_bytes=100_000)  # without other splits it stays where it is
    assert differ(tmp_path / "kept", built(rows, shard_bytes=100_000)) == []


@pytest.mark.parametrize("layout", [None, LayoutSpec(say_quota=2)], ids=["same layout", "another"])
@pytest.mark.parametrize("member", ["heard_dmel.npy", "own_pcm.npy", "meta.json", "words.json", "patches.npy"])
def test_a_damaged_member_is_named_and_nothing_is_made(member, layout, corpus, parts, reshard, tmp_path):
    broken = copied(corpus, tmp_path / "broken")
    row = next(row for row in Corpus.open(str(broken)).rows() if row["session"] == "talkative")
    at = next(at for at in row["members"] if at["name"] == member)
    with open(broken / f"shards/{row['shard']}.tar", "r+b") as file:
        file.seek(at["offset"] + at["size"] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    before = tree(broken)
    with pytest.raises(CorpusError, match=rf"shards/{row['shard']}\.tar: window {row['key']}: {member} at byte {at['offset']} "):
        reshard([broken], tmp_path / "out", layout=layout, staging=str(parts))
    assert not (tmp_path / "out/dataset.json").exists() and tree(broken) == before


@pytest.mark.parametrize("table", ["index", "ledger"])
def test_a_table_that_is_not_the_committed_one_is_named(table, corpus, reshard, tmp_path):
    broken = copied(corpus, tmp_path / "broken")
    shards = dataset(broken)["shards"]
    shutil.copy(broken / f"{table}/{shards[1]['name']}.parquet", broken / f"{table}/{shards[0]['name']}.parquet")
    with pytest.raises(CorpusError, match=f"{table}/{shards[0]['name']}.parquet: its rows are not those"):
        reshard([broken], tmp_path / "out")


def test_an_interrupted_run_goes_on_with_what_it_has(corpus, reshard, tmp_path, monkeypatch):
    real, written = steps._rewrite, []

    def interrupted(task, *others):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(task.task.name)
        return real(task, *others)

    monkeypatch.setattr(steps, "_rewrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reshard([corpus], tmp_path / "out", shard_bytes=100_000)
    assert not (tmp_path / "out/dataset.json").exists()
    before, written[:] = list(written), []
    monkeypatch.setattr(steps, "_rewrite", lambda task, *others: written.append(task.task.name) or real(task, *others))
    reshard([corpus], tmp_path / "out", shard_bytes=100_000)
    assert written and not set(written) & set(before)
    reshard([corpus], tmp_path / "whole", shard_bytes=100_000)
    assert differ(tmp_path / "out", tmp_path / "whole") == []


def test_corpora_of_different_shares_are_divided_anew_or_refused(raw, built, reshard, tmp_path):
    """98 to 2 are the shares that 0.98 to 0.02 are."""
    some, others = raw.rows[:2], raw.rows[2:]
    one, other = built(some, splits={"train": 0.5, "val": 0.5}), built(others, splits={"train": 1.0})
    with pytest.raises(CorpusError, match="different shares") as refusal:
        reshard([one, other], tmp_path / "out")
    assert f"{other} has train=1" in str(refusal.value) and refusal.value.hint.endswith("--split train=0.5,val=0.5")
    reshard([one, other], tmp_path / "out", splits={"train": 1.0})
    same = built(others, splits={"train": 3.0, "val": 3.0})
    reshard([one, same], tmp_path / "same")
    assert dataset(tmp_path / "same")["digests"]["content"] == dataset(built(splits={"train": 1.0, "val": 1.0}))["digests"]["content"]


def test_a_corpus_that_changes_while_it_is_read_is_noticed(corpus, reshard, tmp_path, monkeypatch):
    source, real = copied(corpus, tmp_path / "source"), run.refuse_lost

    def changed(*args):
        (source / "dataset.json").write_text(json.dumps(dataset(source) | {"withdrawn": [mark("film")]}))
        real(*args)

    monkeypatch.setattr(run, "refuse_lost", changed)
    with pytest.raises(CorpusError, match=r"source: dataset\.json has changed while it was read"):
        reshard([source], tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()


def test_a_finished_reshard_stands_and_another_one_is_refused(corpus, reshard, tmp_path):
    reshard([corpus], tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/shards").iterdir()}
    reshard([corpus], tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out/shards").iterdir()} == before
    with pytest.raises(InputError, match="holds a corpus already"):
        reshard([corpus], tmp_path / "out", shard_bytes=1)
    for place in (corpus, corpus / "inside", corpus.parent):
        with pytest.raises(InputError, match="lie in each other"):
            reshard([corpus], place)
