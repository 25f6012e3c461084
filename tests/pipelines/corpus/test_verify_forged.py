"""`verify` looks at what the bytes mean: a corpus is changed, then shards, index and dataset.json are made to agree with it again."""

import hashlib
import io
import json
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import Raw, copied, faults, plan_of
from microturn.pipelines.corpus import cards
from microturn.pipelines.corpus.against import against
from microturn.pipelines.corpus.commit import content_digest, layout_digest, totals
from microturn.pipelines.corpus.reader import Corpus, grouped
from microturn.pipelines.shards.describe import DESCRIBED, describe
from microturn.pipelines.storage import tar
from microturn.pipelines.storage.folders import Folder
from microturn.schemas import record
from microturn.schemas.errors import MicroturnError
from microturn.schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, rows_digest

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
                {"name": n, "offset": writer.add(f"{key}.{n}", [d]), "size": len(d), "sha256": hashlib.sha256(d).hexdigest()}
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
    for name, data in cards.files(corpus.folder, corpus.dataset).items():
        (out / name).write_bytes(data)


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
    "a key of meta is gone": (label("meta", lambda m: {k: v for k, v in m.items() if k != "carry_in"}), "carry_in"),
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
    edit, said = FORGERIES[name]
    forge(out, edit)
    found = faults(out)
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
