"""`verify --against` makes windows again from the raw files and compares every byte: equal ones are equal, a changed file is found."""

import json
import os
import shutil
from pathlib import Path

import pytest
from corpora import Raw, build, plan_of
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.against import against


def items_of(raw: Raw, out: Path) -> dict:
    corpus = Corpus.open(str(out))
    return {item.key: item for item in plan_of(raw.rows, raw.folder, spec=corpus.spec).items}


def test_windows_made_again_from_the_raw_files_are_the_same(raw, corpus):
    found = against(Corpus.open(str(corpus)), items_of(raw, corpus), 100)
    assert found.faults == [] and found.num_windows == Corpus.open(str(corpus)).dataset["totals"]["num_windows"]
    assert found.num_bytes > 1_000_000


def test_the_windows_to_make_again_are_chosen_by_hash(raw, corpus):
    found = against(Corpus.open(str(corpus)), items_of(raw, corpus), 2)
    assert found.faults == [] and found.num_windows == 2


@pytest.mark.parametrize("change", ["sound", "words", "row", "gone", "not in the input"])
def test_a_raw_file_that_changed_is_reported(raw, tmp_path, change):
    moved = Raw(Path(shutil.copytree(raw.folder, tmp_path / "raw")), rows=json.loads(json.dumps(raw.rows[:1])))
    build(moved.rows, moved.folder, tmp_path / "out")
    if change == "sound":
        data = bytearray((moved.folder / "dyad-1.wav").read_bytes())
        data[20_001] ^= 64
        moved.bytes("dyad-1.wav", bytes(data))
    elif change == "words":
        moved.words("dyad-1.words.json", [("other", 0.5, 0.9)])
    elif change == "row":
        moved.rows[0]["streams"][1]["gain"] = 0.25
    elif change == "gone":
        os.remove(moved.folder / "dyad-1.wav")
    items = {} if change == "not in the input" else items_of(moved, tmp_path / "out")
    assert against(Corpus.open(str(tmp_path / "out")), items, 8).faults
