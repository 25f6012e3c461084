"""`verify` believes nothing: every single thing that is changed in a corpus is reported, even when all hashes have been made to agree."""

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import Raw, build, copied, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines import tar
from microturn.pipelines.against import against
from microturn.pipelines.commit import content_digest, layout_digest, totals
from microturn.pipelines.corpus import Corpus, grouped
from microturn.pipelines.describe import DESCRIBED, describe
from microturn.pipelines.storage import Folder
from microturn.pipelines.verify import verify
from microturn.schemas import record
from microturn.schemas.errors import MicroturnError
from microturn.schemas.tables import FREE_TEXT, INDEX_SCHEMA, LEDGER_SCHEMA, rows_digest


@pytest.fixture(scope="module")
def vault(raw, tmp_path_factory) -> Path:
    """A small corpus of two splits, several shards, a film and a session that was dropped whole."""
    rows = [
        row | {"split": "val" if row["id"] == "film" else "train"} for row in raw.rows if row["id"] in ("call-wav", "film", "talkative")
    ]
    rows.append({"id": "gone", "streams": [{"id": "a", "path": "gone.wav", "kind": "audio", "participant": "p"}]})
    out = tmp_path_factory.mktemp("vault") / "out"
    build(rows, raw.folder, out, shard_bytes=200_000)
    return out


@pytest.fixture
def out(vault, tmp_path) -> Path:
    """A copy to tamper with."""
    return copied(vault, tmp_path / "out")


def faults(out: Path) -> list[str]:
    """What verify says; an error of ours that stops it is something it says too."""
    try:
        return verify(Corpus.open(str(out))).faults
    except MicroturnError as error:
        return [str(error)]


def test_a_good_corpus_verifies(vault, corpus):
    for good in (vault, corpus):
        found = verify(Corpus.open(str(good)))
        dataset = json.loads((good / "dataset.json").read_bytes())
        assert found.faults == []
        assert (found.num_shards, found.num_windows) == (len(dataset["shards"]), dataset["totals"]["num_windows"])
        assert found.num_bytes == dataset["totals"]["size_bytes"] and found.num_ledger_rows == dataset["totals"]["ledger_rows"]


# One thing is changed, hashes stay as they are.


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
    assert (what, change) == ("ledger", "two rows changed places") or faults(out)  # a ledger is a set


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


def test_every_value_of_dataset_json_is_checked(out):
    """But for what nothing in the corpus can bear witness of: which splits and what size of shards were asked for."""
    good = json.loads((out / "dataset.json").read_bytes())
    middle = range(1, len(good["shards"]) - 1)
    leaves = [
        leaf for leaf in _leaves(good) if leaf[0] not in ("splits", "shard_bytes") and not (leaf[0] == "shards" and leaf[1] in middle)
    ]
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
        if not _quick_faults(out):
            silent.append((*path, last))
    assert len(shown) > 60 and silent == []


def _quick_faults(out: Path) -> list[str]:
    try:
        found = faults(out)
    except Exception as error:
        raise AssertionError(f"verify died of {error!r}") from error
    return found


# All hashes agree again after the change: only what the bytes mean gives it away.

Windows = dict[str, dict[str, bytes]]  # key → member → bytes, in the order in which they lie
Edit = Callable[[dict[str, Windows]], None]  # of shard → windows


def forge(out: Path, edit: Edit) -> None:
    """Changes windows, then makes shards, index and dataset.json agree with them."""
    corpus = Corpus.open(str(out))
    shards: dict[str, Windows] = {}
    for shard in corpus.shards:
        with (out / f"shards/{shard['name']}.tar").open("rb") as file:
            shards[shard["name"]] = {key: {n: d for n, (_, d) in m.items()} for key, m in grouped(tar.members(file))}
    rows = {row["key"]: row for row in corpus.rows()}
    edit(shards)
    last = ""
    for shard in corpus.shards:
        index, sink = [], io.BytesIO()
        writer = tar.TarWriter(sink)
        for key, members in shards[shard["name"]].items():
            start = writer.position
            at = [
                {"name": n, "offset": writer.add(f"{key}.{n}", d), "size": len(d), "sha256": hashlib.sha256(d).hexdigest()}
                for n, d in members.items()
            ]
            digest = record.window_digest({m["name"]: m["sha256"] for m in at})
            place = {"key": key, "shard": shard["name"], "offset": start, "size": writer.position - start, "members": at, "digest": digest}
            index.append(rows.get(key, next(iter(rows.values()))) | place | _described(members))
        offsets = [row["offset"] for row in index] + [writer.position]
        writer.close()
        (out / f"shards/{shard['name']}.tar").write_bytes(sink.getvalue())
        (out / f"shards/{shard['name']}.tar.idx").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))
        pq.write_table(pa.Table.from_pylist(index, schema=INDEX_SCHEMA), out / f"index/{shard['name']}.parquet")
        sessions = [last, *(row["session"] for row in index)]
        last = sessions[-1]
        shard |= {
            "sha256": writer.sha256.hexdigest(),
            "size_bytes": writer.position,
            "index_digest": rows_digest(pq.read_table(out / f"index/{shard['name']}.parquet").to_pylist()),
            "num_windows": len(index),
            "num_sessions": sum(a != b for a, b in pairwise(sessions)),
            **{f"num_{what}": sum(row[f"num_{what}"] for row in index) for what in ("ticks", "tokens", "pairs")},
        }
    sign(out, corpus.dataset)


def _described(members: dict[str, bytes]) -> dict[str, Any]:
    try:
        window = record.decode(members, where="forged")
        return describe(num_tokens=len(window.tokens), **{name: getattr(window, name) for name in DESCRIBED})
    except (MicroturnError, ValueError, KeyError):
        return {}


def sign(out: Path, dataset: dict[str, Any]) -> None:
    """Writes dataset.json with the digests and totals that its parts give."""
    dataset["digests"]["layout"] = layout_digest(dataset["shards"], dataset["rejected"])
    dataset["digests"]["content"] = content_digest(Folder(str(out)), [shard["name"] for shard in dataset["shards"]])
    dataset["totals"] = totals(dataset["shards"], dataset["rejected"])
    (out / "dataset.json").write_text(json.dumps(dataset))


def array(name: str, change: Callable[[np.ndarray], np.ndarray], window: int = 0) -> Edit:
    """An edit of one array of one window."""

    def edit(shards: dict[str, Windows]) -> None:
        members = [members for windows in shards.values() for members in windows.values()][window]
        old = record.decode_array(members[f"{name}.npy"], where="forged").copy()
        new = change(old)
        members[f"{name}.npy"] = record.encode_array(new) if new.dtype != object else _pickled(new)

    return edit


def _pickled(value: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, value, allow_pickle=True)
    return sink.getvalue()


def label(name: str, change: Callable[[Any], Any], window: int = 0) -> Edit:
    """An edit of one label of one window."""

    def edit(shards: dict[str, Windows]) -> None:
        members = [members for windows in shards.values() for members in windows.values()][window]
        members[f"{name}.json"] = record.encode_json(change(json.loads(members[f"{name}.json"])))

    return edit


def plus_one(a: np.ndarray) -> np.ndarray:
    """One value is another one."""
    a[(0,) * a.ndim] ^= 1
    return a


def without(place: int) -> Edit:
    """An edit that leaves a window out."""

    def edit(shards: dict[str, Windows]) -> None:
        shard, key = [(windows, key) for windows in shards.values() for key in windows][place]
        del shard[key]

    return edit


def swapped(shards: dict[str, Windows]) -> None:
    """Two windows of one view change places."""
    name, windows = next((n, w) for n, w in shards.items() if len(w) > 1)
    first, second, *rest = windows
    shards[name] = {key: windows[key] for key in (second, first, *rest)}


def members(change: Callable[[dict[str, bytes]], Any]) -> Edit:
    """An edit of the members of the first window."""
    return lambda shards: change(next(iter(next(iter(shards.values())).values()))) and None


FORGERIES: dict[str, tuple[Edit, str]] = {
    "another token": (array("tokens", plus_one, 0), "tokens.npy is not what"),
    "another slot": (array("token_slot", plus_one, 0), "token_slot.npy is not what"),
    "another tick": (array("token_tick", lambda a: (a[::-1]), 0), "token_tick.npy is not what"),
    "a token too few": (array("tokens", lambda a: a[:-1]), "axis N"),
    "own activity": (array("activity", lambda a: 1 - a), "is not what its words, events and activity give"),
    "another word": (label("words", lambda w: [{**x, "text": x["text"] + "!"} for x in w], 1), "tokens.npy is not what"),
    "a word in no tick of the window": (label("words", lambda w: [{**x, "start": 10**9} for x in w], 1), "Error"),
    "a word without a text": (label("words", lambda w: [{"start": 0}, *w]), "Error"),
    "own speech at a joint": (array("own_pcm", lambda a: np.concatenate([a[:-1], a[-1:] + 7])), "own speech"),
    "a dtype": (array("own_valid", lambda a: a.astype("<i4")), "expected uint16"),
    "a length": (array("heard_valid", lambda a: a[:, :-1]), "axis"),
    "a pickle": (array("own_valid", lambda a: np.array([{"x": 1}], dtype=object)), "dtype"),
    "what waits": (label("meta", lambda m: m | {"carry_out": m["carry_in"]}, 2), "carry_out"),
    "who it is": (label("meta", lambda m: m | {"view": "right"}), "its meta is that of"),
    "its length": (label("meta", lambda m: m | {"num_ticks": 9}), "meta says 9"),
    "its spec": (label("meta", lambda m: m | {"digests": m["digests"] | {"spec": "0" * 64}}), "another spec"),
    "its layout": (label("meta", lambda m: m | {"layout": "0" * 64}), "layout"),
    "a key of meta is gone": (label("meta", lambda m: {k: v for k, v in m.items() if k != "carry_in"}), "Error"),
    "the first window is gone": (without(0), "no sound window before it"),
    "a window in the middle is gone": (without(1), "the view ends at|starts at tick|no sound window before"),
    "the last window is gone": (without(-1), "the view ends at tick"),
    "two windows changed places": (swapped, "no sound window before it|starts at tick"),
    "a member is gone": (members(lambda m: m.pop("events.json")), "members missing"),
    "a member too many": (members(lambda m: m.update({"extra.npy": b""}) or True), "unknown"),
    "no JSON": (members(lambda m: m.update({"words.json": b"{"}) or True), "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_corpus_forged_with_all_its_hashes_is_reported(out, name):
    import re

    edit, said = FORGERIES[name]
    forge(out, edit)
    found = _quick_faults(out)
    assert any(re.search(said, fault) for fault in found), found


def test_forging_nothing_is_no_forgery(out):
    """The control: it is the edit that verify finds above, and not the forger's hand."""
    before = {path: path.read_bytes() for path in out.rglob("*.tar")}
    forge(out, lambda shards: None)
    assert faults(out) == [] and before == {path: path.read_bytes() for path in out.rglob("*.tar")}


@pytest.mark.parametrize("column", ["kept", "dropped", "decoded", "inserted"])
def test_a_forged_ledger_does_not_close(out, column):
    dataset = json.loads((out / "dataset.json").read_bytes())
    shard = dataset["shards"][0]
    path = out / f"ledger/{shard['name']}.parquet"
    rows = pq.read_table(path).to_pylist()
    place = next(k for k, row in enumerate(rows) if row["entry"] == "stream" and row["unit"] == "sample")
    rows[place][column] += 16
    pq.write_table(pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA), path)
    shard |= {"ledger_digest": rows_digest(rows)}
    sign(out, dataset)
    assert any("decoded" in fault or "inserted" in fault for fault in faults(out))


# Against the raw files: see test_verify_against.py, too.


def items_of(raw: Raw, out: Path) -> dict:
    corpus = Corpus.open(str(out))
    return {item.key: item for item in plan_of(raw.rows, raw.folder, spec=corpus.spec).items}


def test_a_forged_recording_is_found_against_the_raw_files_only(raw, vault, tmp_path):
    """What `verify` alone cannot know."""
    out = copied(vault, tmp_path / "out")
    forge(out, array("heard_dmel", plus_one))
    rows = [row | {"split": "val" if row["id"] == "film" else "train"} for row in raw.rows]
    assert faults(out) == []
    assert any("heard_dmel.npy" in fault for fault in against(Corpus.open(str(out)), items_of(Raw(raw.folder, rows=rows), out), 99).faults)
