"""`verify` believes nothing: every single thing that is changed in a corpus is reported. Here hashes stay as they are when it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import faults
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.schemas.tables import FREE_TEXT, INDEX_SCHEMA, LEDGER_SCHEMA


def test_a_good_corpus_verifies(vault, corpus):
    for good in (vault, corpus):
        found = verify(Corpus.open(str(good)))
        dataset = json.loads((good / "dataset.json").read_bytes())
        assert found.faults == []
        assert (found.num_shards, found.num_windows) == (len(dataset["shards"]), dataset["totals"]["num_windows"])
        assert found.num_bytes == dataset["totals"]["size_bytes"] and found.num_ledger_rows == dataset["totals"]["ledger_rows"]


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_shard_is_reported(vault, data):
    path = sorted((vault / "shards").glob("*.tar"))[data.draw(st.integers(0, 1), label="shard")]
    good = path.read_bytes()
    at = data.draw(st.integers(0, 8 * len(good) - 1), label="bit")
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    try:
        path.write_bytes(bad)
        assert any(path.name in fault for fault in faults(vault))
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("name", [f"{name}-000000.{end}" for name, end in (("shards/val", "tar"), ("shards/val", "tar.idx"),
                                  ("index/val", "parquet"), ("ledger/val", "parquet"), ("ledger/rejected", "parquet"))])  # fmt: skip
@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
def test_a_file_that_is_gone_or_cut_short_is_reported(out, name, damage):
    path = out / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[: len(data) // 2] if damage == "half" else b"")
    assert any(name.split(".")[0].split("/")[1] in fault for fault in faults(out))


@pytest.mark.parametrize("name", ["shards/train-999999.tar", "shards/x", "index/extra.parquet", "ledger/a/b.parquet"])
def test_a_stray_file_is_reported(out, name):
    (out / name).parent.mkdir(exist_ok=True)
    shutil.copy(out / "index/val-000000.parquet", out / name)
    assert faults(out) == [f"{name}: not in dataset.json"]


@pytest.mark.parametrize("column", INDEX_SCHEMA.names)
def test_a_changed_value_in_the_index_is_reported(out, column):
    assert _with_other_value(out / "index/train-000000.parquet", column, INDEX_SCHEMA)
    assert any("train-000000" in fault for fault in faults(out))


@pytest.mark.parametrize("column", [name for name in LEDGER_SCHEMA.names if name not in FREE_TEXT])
@pytest.mark.parametrize("part", ["train-000000", "rejected-000000"])
def test_a_changed_value_in_the_ledger_is_reported(out, column, part):
    assert _with_other_value(out / f"ledger/{part}.parquet", column, LEDGER_SCHEMA)
    assert any(part in fault for fault in faults(out))


@pytest.mark.parametrize("what", ["index", "ledger"])
@pytest.mark.parametrize("change", ["a row is gone", "a row stands twice", "two rows changed places", "a column is gone"])
def test_a_table_with_other_rows_is_reported(out, what, change):
    path = sorted((out / what).glob("train-*.parquet"))[0]
    table = pq.read_table(path)
    if change == "a column is gone":
        table = table.drop_columns(["session"])
    else:
        order = {"a row is gone": [*range(1, len(table))], "a row stands twice": [0, *range(len(table))], "two rows changed places": [1, 0]}
        table = table.take(order[change] + ([*range(2, len(table))] if change.startswith("two") else []))
    pq.write_table(table, path)
    assert bool(faults(out)) == ((what, change) != ("ledger", "two rows changed places"))  # a ledger is a set


def _with_other_value(path: Path, column: str, schema: pa.Schema) -> bool:
    """Changes one value of a table that its schema can hold; whether it is another one."""
    rows = pq.read_table(path).to_pylist()
    old = rows[0][column]
    match old:
        case str():
            new: Any = "stream" if old == "session" else "session" if column == "entry" else old + "x"
        case int():
            new = old + 1
        case [(str(), int()), *_] | []:
            new = [*old, ("laughter", 3)]
        case _:
            new = [old[0] | {"size": old[0]["size"] + 1}, *old[1:]]
    rows[0][column] = new
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return pq.read_table(path).to_pylist()[0][column] != old


def _leaves(value: Any, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in _leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for place, item in enumerate(value) for leaf in _leaves(item, (*path, place))]
    return [path]


@pytest.mark.parametrize("name", ["croissant.json", ".nv-meta/split.yaml", ".nv-meta/.info.json"])
def test_what_other_readers_are_told_is_verified_and_the_card_is_peoples_own(out, name):
    (out / "README.md").write_text("edited by hand")
    assert faults(out) == []
    data = (out / name).read_bytes()
    (out / name).write_bytes(data.replace(b"train", b"trian"))
    assert faults(out) == [f"{name}: not what dataset.json gives"]
    (out / name).unlink()
    assert faults(out) == [f"{name}: not what dataset.json gives"]


UNSEEN = ("splits", "shard_bytes", "mixed_toolchain")


def test_every_value_of_dataset_json_is_checked(out):
    """But for what nothing in the corpus can bear witness of: which splits, what size of shards and which machines were asked for."""
    good = json.loads((out / "dataset.json").read_bytes())
    middle = range(1, len(good["shards"]) - 1)
    leaves = [leaf for leaf in _leaves(good) if leaf[0] not in UNSEEN and not (leaf[0] == "shards" and leaf[1] in middle)]
    shown = [leaf for leaf in leaves if leaf[0] not in ("spec", "layout")] + [leaf for leaf in leaves if leaf[0] in ("spec", "layout")][::7]
    silent = []
    for *path, last in shown:
        changed = json.loads(json.dumps(good))
        place = changed
        for key in path:
            place = place[key]
        old = place[last]
        place[last] = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, (int, float)) else f"{old}0"
        (out / "dataset.json").write_text(json.dumps(changed))
        if not faults(out):
            silent.append((*path, last))
    assert len(shown) > 60 and silent == []
