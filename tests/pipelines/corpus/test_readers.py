"""Shards open without our code: plain webdataset, Hugging Face datasets, Megatron-Energon; croissant.json validates. What they read is what
our codec reads.
"""

import io
import json
import subprocess
import sys
import tarfile
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from bits import same_bits
from corpora import Raw, build, records
from microturn.pipelines.corpus import Corpus
from microturn.schemas import record


@pytest.fixture(scope="module")
def ours(corpus) -> dict[str, record.Record]:
    """Key → record, as our codec reads it."""
    found = Corpus.open(str(corpus))
    return {row["key"]: found.read(row) for row in found.rows()}


def test_every_member_is_in_every_window_and_no_array_needs_a_pickle(corpus, ours):
    names = set(record.member_names("npy"))
    seen = set()
    for path in sorted(corpus.glob("shards/*.tar")):
        with tarfile.open(path) as tar:
            members: dict[str, set[str]] = {}
            for info in tar:
                key, _, name = info.name.partition(".")
                members.setdefault(key, set()).add(name)
                if name.endswith(".npy"):
                    np.load(io.BytesIO(tar.extractfile(info).read()), allow_pickle=False)
                else:
                    json.loads(tar.extractfile(info).read())
        assert all(found == names for found in members.values())
        seen |= members.keys()
    assert seen == ours.keys()


def _shape(value: Any) -> Any:
    """The types in a JSON value: equal shapes make equal columns."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_merged([_shape(item) for item in value])]
    return type(value).__name__


def _merged(shapes: list[Any]) -> Any:
    """The one shape that all of these have, where an empty list may be one of anything; a set where they differ."""
    if all(isinstance(shape, dict) for shape in shapes) and shapes and all(shape.keys() == shapes[0].keys() for shape in shapes):
        return {key: _merged([shape[key] for shape in shapes]) for key in shapes[0]}
    if all(isinstance(shape, list) for shape in shapes) and shapes:
        return [_merged([item for shape in shapes for item in shape if item != "nothing"])]
    return shapes[0] if shapes and all(shape == shapes[0] for shape in shapes) else {str(shape) for shape in shapes} or "nothing"


def _differences(shape: Any) -> list[Any]:
    if isinstance(shape, set):
        return [shape]
    children = shape.values() if isinstance(shape, dict) else shape if isinstance(shape, list) else []
    return [found for child in children for found in _differences(child)]


def test_labels_have_the_same_keys_and_types_in_every_window_and_no_nulls(ours):
    for name in record.LABEL_MEMBERS:
        shape = _merged([_shape(getattr(window, name)) for window in ours.values()])
        assert _differences(shape) == [] and "NoneType" not in str(shape)
    assert _differences(_merged([_shape({"a": 1}), _shape({"a": 1, "b": 2})]))  # it can fail
    assert _differences(_merged([_shape([]), _shape([1]), _shape(["x"])]))


def test_plain_webdataset_reads_what_our_codec_reads(corpus, ours):
    webdataset = pytest.importorskip("webdataset")
    shards = [str(path) for path in sorted(corpus.glob("shards/*.tar"))]
    seen = set()
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        window = ours[sample["__key__"]]
        for name in record.ARRAY_MEMBERS:
            assert same_bits(np.asarray(sample[f"{name}.npy"]), getattr(window, name))
        for name in record.LABEL_MEMBERS:
            assert sample[f"{name}.json"] == getattr(window, name)
        seen.add(sample["__key__"])
    assert seen == ours.keys()


HUGGING_FACE = """
import json, sys
import datasets, numpy
found = datasets.load_dataset(sys.argv[1], streaming=True)
for split, rows in found.items():
    for row in rows:
        arrays = [numpy.asarray(row[name]).tolist() for name in ("tokens.npy", "picture_pts.npy")]
        print(json.dumps([split, row["__key__"], *arrays, *(row[name] for name in ("words.json", "events.json", "meta.json"))]))
"""


def test_hugging_face_datasets_streams_what_our_codec_reads(raw, tmp_path):
    """Six windows without words, events or pictures come first: a reader that infers types from them must not be surprised by the rest."""
    pytest.importorskip("datasets")
    bare = Raw(raw.folder, rows=[])
    for number in range(3):
        bare.dyad(f"bare-{number}", seconds=1.0, seed=40 + number, transcripts=[])
    rows = sorted([*bare.rows, *raw.rows], key=lambda row: "bare" not in row["id"])
    for row in rows[:3]:
        build([row], raw.folder, tmp_path / "out")
    build(rows, raw.folder, tmp_path / "out")
    build([*rows, rows[0] | {"id": "held out", "split": "val"}], raw.folder, tmp_path / "out")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", HUGGING_FACE, str(tmp_path / "out")], env=offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = {key: (split, *values) for split, key, *values in map(json.loads, done.stdout.splitlines())}
    windows = {row["key"]: row for row in Corpus.open(str(tmp_path / "out")).rows()}
    assert theirs.keys() == windows.keys() and len(next(iter(theirs.values()))) == 6
    for window in records(tmp_path / "out"):
        key = f"{window.meta['session']}-{window.meta['view']}-{window.meta['first_tick']:07d}"
        split, tokens, pts, words, events, meta = theirs[key]
        assert split == windows[key]["split"]
        assert (tokens, pts, words, events) == (window.tokens.tolist(), window.picture_pts.tolist(), window.words, window.events)
        assert meta == window.meta


ENERGON = """
import sys
from megatron.energon import (Cooker, DefaultTaskEncoder, Sample, SampleDecoder, WorkerConfig, basic_sample_keys, edataclass, get_loader,
                              get_train_dataset, get_val_dataset, stateless)

@edataclass
class Window(Sample):
    members: dict

@stateless
def cook(sample):
    return Window(**basic_sample_keys(sample), members={k: v for k, v in sample.items() if k.endswith((".npy", ".json"))})

class Encoder(DefaultTaskEncoder[Window, Window, Window, Window]):
    cookers = [Cooker(cook)]
    decoder = SampleDecoder()
    def batch(self, samples):
        return samples[0]

workers = WorkerConfig(rank=0, world_size=1, num_workers=0)
train = get_train_dataset(sys.argv[1], worker_config=workers, batch_size=1, shuffle_buffer_size=None, max_samples_per_sequence=None,
                          task_encoder=Encoder(), repeat=False, virtual_epoch_length=0)
val = get_val_dataset(sys.argv[1], worker_config=workers, batch_size=1, task_encoder=Encoder())
for split, found in (("train", train), ("val", val)):
    for window in get_loader(found):
        total = sum(int(value.sum()) for name, value in window.members.items() if name.endswith(".npy"))
        print(split, window.__key__, len(window.members), total, len(window.members["words.json"]))
"""


def test_megatron_energon_reads_it_without_preparing_anything(raw, tmp_path):
    pytest.importorskip("megatron.energon")
    rows = [row | {"split": "val" if row["id"] == "film" else "train"} for row in raw.rows]
    build(rows, raw.folder, tmp_path / "out", shard_bytes=300_000)
    done = subprocess.run([sys.executable, "-c", ENERGON, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = {}
    for line in done.stdout.splitlines():
        split, key, *numbers = line.split()
        theirs[key] = (split, *map(int, numbers))
    found = Corpus.open(str(tmp_path / "out"))
    expected = {}
    for row in found.rows():
        window = found.read(row)
        total = sum(int(getattr(window, name).sum()) for name in record.ARRAY_MEMBERS)
        expected[row["key"]] = (row["split"], len(record.member_names("npy")), total, len(window.words))
    assert theirs == expected and {split for split, *_ in theirs.values()} == {"train", "val"}


def test_the_offsets_beside_a_shard_are_those_of_its_windows(corpus):
    for path in sorted(corpus.glob("shards/*.tar")):
        offsets = np.frombuffer(path.with_name(path.name + ".idx").read_bytes(), "<u8").tolist()
        with tarfile.open(path) as tar:
            firsts = {info.name.partition(".")[0]: info.offset for info in reversed(list(tar))}
        assert offsets[:-1] == sorted(firsts.values()) and offsets[-1] == path.stat().st_size - 1024


def test_croissant_is_valid_and_finds_the_index(corpus, ours):
    mlcroissant = pytest.importorskip("mlcroissant")
    found = mlcroissant.Dataset(jsonld=str(corpus / "croissant.json"))
    assert not found.metadata.issues.errors
    assert {row["windows/key"].decode() for row in found.records("windows")} == ours.keys()
    shards = {item.id: item for item in found.metadata.distribution if item.id.startswith("shards/")}
    dataset = json.loads((corpus / "dataset.json").read_bytes())
    assert {name: item.sha256 for name, item in shards.items()} == {f"shards/{s['name']}.tar": s["sha256"] for s in dataset["shards"]}


def test_rights_travel_to_record_index_card_and_croissant(raw, corpus, ours):
    """`Ann` and `Bob` are the speakers of the meeting."""
    card = (corpus / "README.md").read_text()
    croissant = json.loads((corpus / "croissant.json").read_text())
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0" and header["language"] == ["en"]
    assert header["configs"][0]["data_files"][0]["split"] == "train"
    for name, value in (("license", "CC-BY-4.0"), ("consent", "written"), ("source", "laws"), ("language", "en")):
        assert {window.meta[name] for window in ours.values()} == {value}
        assert {row[name] for path in corpus.glob("index/*.parquet") for row in pq.read_table(path).to_pylist()} == {value}
        assert value in card.split("---", 2)[2] and value in json.dumps(croissant)
    views = {window.meta["view"]: window.meta["speaker"] for window in ours.values() if window.meta["session"] == "meeting"}
    assert views == {"a": "Ann", "b": "Bob"}
    assert {row["speaker"] for row in Corpus.open(str(corpus)).rows()} == {"", "Ann", "Bob"}
    fields = {field["name"] for field in croissant["recordSet"][0]["field"]}
    assert fields >= {"license", "consent", "source", "speaker", "language"}
    assert "Ann" in card
