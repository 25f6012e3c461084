"""Tars read from one end to the other, without dataset.json or index: the same rows, in the tars' order."""

from pathlib import Path

import numpy as np
import pytest
from bits import same_bits
from corpora import copied
from microturn.schemas.errors import CorpusError
from microturn.schemas.record import Record
from microturn.trainer.data import Batch, DataSpec, Document, Dropped, tars
from microturn.trainer.data.document import Making, Window, make
from talks import LAYOUT

SPEC = DataSpec(sequence_tokens=600, cut_played=0.2, drop_pictures=0.5)


@pytest.fixture(scope="module")
def urls(folder: Path) -> list[str]:
    return sorted(map(str, (folder / "shards").glob("*.tar")))


@pytest.fixture(scope="module")
def batches(urls: list[str]) -> list[Batch]:
    return list(tars.batches(urls, LAYOUT, SPEC))


def test_windows_are_those_that_webdataset_reads(urls: list[str]) -> None:
    webdataset = pytest.importorskip("webdataset")
    theirs = [sample for url in urls for sample in webdataset.WebDataset(url, shardshuffle=False).decode()]
    ours = list(tars.windows(urls, LAYOUT))
    assert len(ours) == len(theirs) > 30
    for window, sample in zip(ours, theirs, strict=True):
        assert same_bits(window.tokens, sample["tokens.npy"]) and same_bits(window.own_pcm, sample["own_pcm.npy"])


def test_every_document_is_the_one_that_its_windows_give(batches: list[Batch], views: dict[tuple[str, str], list[Record]]) -> None:
    seen: dict[tuple[str, str], int] = {}
    for batch in batches:
        for segment, start, stop in zip(batch.segments, batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
            session, view, _ = segment.key.rsplit("-", 2)
            assert seen.get((session, view), 0) == segment.first_tick  # nothing is left out between two documents of a view
            end = seen[session, view] = segment.first_tick + segment.num_ticks
            windows = [
                w for w in views[session, view] if w.meta["first_tick"] < end and w.meta["first_tick"] + w.num_ticks > segment.first_tick
            ]
            without = [w.tokens for w in windows]
            assert stop - start <= sum(map(len, without)) + 1
            wanted = make(
                [Window.of(w, LAYOUT) for w in windows],
                segment.first_tick,
                end,
                Making(layout=LAYOUT, spec=SPEC),
                dropped=_dropped(batch, start, stop, windows),
            )
            assert same_bits(batch.ids[start:stop].numpy(), wanted.ids.astype(np.int64)) and isinstance(wanted, Document)
    assert seen == {view: windows[-1].meta["first_tick"] + windows[-1].num_ticks for view, windows in views.items()}


def _dropped(batch: Batch, start: int, stop: int, windows: list[Record]) -> Dropped:
    """Whether pictures are dropped, read off the rows."""
    shown = any(len(w.picture_tick) for w in windows)
    return Dropped.PICTURES if shown and not (batch.slots[start:stop] <= 1).any() else Dropped.NOTHING


def test_sequences_are_full_to_half_a_tick(urls: list[str]) -> None:
    rows = [batch.num_rows for batch in tars.batches(urls, LAYOUT, DataSpec(sequence_tokens=600, cut_played=0))][:-1]
    assert len(rows) > 5 and abs(np.mean(rows) - 600) < 6 and max(rows) < 600 + 20 and min(rows) > 600 - 20


def test_a_tick_larger_than_a_sequence_still_comes(urls: list[str], views: dict[tuple[str, str], list[Record]]) -> None:
    batches = list(tars.batches(urls, LAYOUT, DataSpec(sequence_tokens=64, prologue="x" * 60)))
    assert sum(batch.num_ticks for batch in batches) == sum(w.num_ticks for windows in views.values() for w in windows)


def test_a_window_that_is_none_is_named_and_no_document_reaches_over_it(folder: Path, tmp_path: Path) -> None:
    urls = sorted((copied(folder, tmp_path / "copy") / "shards").glob("*.tar"))
    (url,) = [url for url in urls if b"long-left-0000040.own_pcm" in url.read_bytes()]
    data = bytearray(url.read_bytes())
    data[data.index(b"\x93NUMPY", data.index(b"long-left-0000040.own_pcm"))] ^= 1
    url.write_bytes(data)
    with pytest.raises(CorpusError, match=f"{url.name}: long-left-0000040.*npy: not an .npy array"):
        list(tars.batches(map(str, urls), LAYOUT, SPEC))
    skipping = list(tars.batches(map(str, urls), LAYOUT, SPEC, on_damage="skip"))
    assert len([damage for batch in skipping for damage in batch.damaged]) == 1
    parts = [(s.first_tick, s.num_ticks) for batch in skipping for s in batch.segments if s.key.startswith("long-left")]
    ticks = [tick for first, count in parts for tick in range(first, first + count)]
    assert ticks == [*range(40), *range(50, ticks[-1] + 1)] and 50 in [first for first, _ in parts]


def test_a_tar_that_ends_early_is_named(urls: list[str], tmp_path: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(Path(urls[0]).read_bytes()[:-9000])
    with pytest.raises(CorpusError, match=r"cut\.tar: .*, after window [a-z]"):
        list(tars.batches([str(cut)], LAYOUT, SPEC, on_damage="skip"))


def test_tokens_of_another_layout_are_refused(urls: list[str]) -> None:
    with pytest.raises(CorpusError, match=r"tokens of the layout .*, expected "):
        list(tars.batches(urls, LAYOUT.model_copy(update={"say_quota": 4}), SPEC))
