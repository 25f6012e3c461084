"""The order: a function of (seed, epoch, position) that loses nothing, survives resharding and costs little for a million windows."""

import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import Raw
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.errors import CorpusError, InputError
from microturn.trainer.bench.restore import made_up_index, restored
from microturn.trainer.data import Cursor, DataSpec, Mixture, OpenCorpus, Place
from microturn.trainer.data.index import WindowIndex
from microturn.trainer.data.making import nearest
from microturn.trainer.data.mixture import BLOCK
from microturn.trainer.data.order import Dropped, EpochOrder, Stretches, stretches
from talks import build_talks

WHERE = "here"


def small(num_windows: int = 400, **spec) -> tuple[Stretches, DataSpec]:
    """The stretches of a made-up index, and the spec."""
    data = DataSpec(**{"sequence_tokens": 4096} | spec)
    return stretches(made_up_index(num_windows), data, where=WHERE), data


@pytest.mark.parametrize("has_holes", [False, True])
def test_stretches_hold_every_window_once_and_stay_inside_a_view(has_holes: bool) -> None:
    index, spec = made_up_index(3000), DataSpec(document_ticks=1000)
    if has_holes:
        there = np.arange(3000) % 7 != 3
        index = replace(index, **{field: getattr(index, field)[there] for field in WindowIndex.__slots__ if field.endswith("_W")})
    found = stretches(index, spec, where=WHERE)
    assert found.num_windows_D.max() == 3  # 900 ticks
    windows = np.concatenate([np.arange(a, a + n) for a, n in zip(found.window_D, found.num_windows_D, strict=True)])
    assert windows.tolist() == list(range(len(index)))
    for a, n in zip(found.window_D, found.num_windows_D, strict=True):
        assert len(set(zip(index.session_W[a : a + n], index.view_W[a : a + n], strict=True))) == 1
        assert (np.diff(index.first_tick_W[a : a + n].astype(int)) == 300).all()


@settings(deadline=None, max_examples=40)
@given(data=st.data(), epoch=st.integers(0, 5), drop=st.sampled_from([0.0, 0.4, 1.0]), sides=st.sampled_from(["all", "one"]))
def test_however_the_stream_is_cut_its_pieces_are_the_whole(data: st.DataObject, epoch: int, drop: float, sides: str) -> None:
    order = EpochOrder(*small(drop_pictures=drop, sides=sides), epoch)
    cuts = data.draw(st.lists(st.integers(1, order.num_tokens - 1), max_size=50, unique=True), label="cuts")
    edges = [0, *sorted(cuts), order.num_tokens]
    sequences = [order.pieces(a, b) for a, b in pairwise(edges)]
    assert [sum(piece.stop - piece.start for piece in pieces) for pieces in sequences] == np.diff(edges).tolist()
    flat = [piece for pieces in sequences for piece in pieces]
    assert all((b.window == a.window and b.start == a.stop) or b.start == 0 for a, b in pairwise(flat))
    assert len({piece.window for piece in flat}) == sum(piece.start == 0 for piece in flat) == len(order.stretch_E)


def test_an_order_is_another_for_another_seed_or_epoch_and_the_same_otherwise() -> None:
    found, _ = small()
    orders = [[EpochOrder(found, DataSpec(seed=seed), epoch).pieces(0, 9999) for _ in range(2)] for seed in (0, 1) for epoch in (0, 1)]
    assert all(a == b for a, b in orders)
    assert len({str(a) for a, _ in orders}) == 4


def test_neighbours_are_torn_apart() -> None:
    found, spec = small(5000)
    order = EpochOrder(found, spec, 0)
    places = np.argsort(order.stretch_E)
    assert abs(np.corrcoef(np.arange(len(places)), places)[0, 1]) < 0.05


def test_one_side_of_each_session_is_taken_and_another_in_other_epochs() -> None:
    found, spec = small(2000, sides="one")
    taken = []
    for epoch in range(6):
        order = EpochOrder(found, spec, epoch).stretch_E
        sides = dict(zip(found.session_identity_D[order].tolist(), found.side_D[order].tolist(), strict=True))
        assert len(sides) == len(set(found.session_identity_D.tolist()))
        for session, side in zip(found.session_identity_D[order].tolist(), found.side_D[order].tolist(), strict=True):
            assert sides[session] == side
        taken.append([sides[session] for session in sorted(sides)])
    assert 0.35 < np.mean(taken) < 0.65
    assert all(len(set(sides)) == 2 for sides in zip(*taken, strict=True)) or np.std(taken, axis=0).mean() > 0.3


def test_what_is_dropped_is_as_likely_as_asked_and_leaves_the_stream() -> None:
    found, spec = small(20_000, drop_pictures=0.25, drop_typed=0.5)
    order = EpochOrder(found, spec, 0)
    dropped = order.dropped_E
    assert abs((dropped & Dropped.PICTURES > 0).mean() - 0.25) < 0.02 and abs((dropped & Dropped.TYPED > 0).mean() - 0.5) < 0.02
    assert not (dropped & Dropped.BACKGROUND).any()
    less = found.picture_tokens_D[order.stretch_E][dropped & Dropped.PICTURES > 0].sum()
    assert order.num_tokens == found.tokens_D.sum() + len(found) - less


def test_the_order_is_of_contents_not_of_shards(raw: Raw, folder: Path, corpus: OpenCorpus, tmp_path: Path) -> None:
    other = OpenCorpus.open(str(build_talks(raw.rows, raw.folder, tmp_path / "one", shard_bytes=10**9)))
    assert other.identity == corpus.identity and len(other.index.shards) == 1 < len(corpus.index.shards)
    spec = DataSpec(sequence_tokens=512, document_ticks=30)
    names = []
    for one in (corpus, other):
        order = Mixture.of([one], spec).order(0, 0)
        names.append([one.index.digest_W[piece.window].tobytes() for piece in order.pieces(0, order.num_tokens)])
    assert names[0] == names[1]


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), place=st.integers(-5, 60))
def test_the_nearest_edge_is_the_nearest(sizes: list[int], place: int) -> None:
    edges = np.concatenate([[0], np.cumsum(np.array(sizes) + 1)])
    found = nearest(edges, place)
    assert found == int(np.argmin(np.abs(edges - place)))  # argmin: the first of equals


def test_a_million_windows_restore_in_under_a_second_and_fit_in_little_memory(tmp_path: Path) -> None:
    saved, spec = tmp_path / "index.npz", DataSpec(seed=3, drop_pictures=0.1)
    made_up_index(1_000_000).save(saved)
    assert saved.stat().st_size < 100 * 1_000_000
    cpu = time.process_time()
    assert restored(saved, spec, epoch=7) == spec.sequence_tokens
    assert time.process_time() - cpu < 1.0
    found = stretches(WindowIndex.load(saved), spec, where=WHERE)
    tracemalloc.start()
    order = EpochOrder(found, spec, epoch=7)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) > 100_000 and kept < 20 * len(found) and order.num_tokens > 10**9


def test_a_saved_index_is_the_same_and_a_broken_one_is_named(folder: Path, corpus: OpenCorpus, tmp_path: Path) -> None:
    first = OpenCorpus.open(str(folder), cache=tmp_path).index
    (file,) = tmp_path.iterdir()
    again = OpenCorpus.open(str(folder), cache=tmp_path).index
    for one in (first, again):
        assert all(np.array_equal(getattr(one, name), getattr(corpus.index, name)) for name in WindowIndex.__slots__)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CorpusError, match=str(file)):
        OpenCorpus.open(str(folder), cache=tmp_path)


def mixture_of(corpus: OpenCorpus, weights: list[float], **spec) -> Mixture:
    """As many corpora as weights, all alike but for their content digests."""
    twins = [replace(corpus, identity=corpus.identity | {"content": str(n)}) for n in range(len(weights))]
    return Mixture.of(twins, DataSpec(**{"sequence_tokens": 512} | spec), weights=weights)


def test_every_thousand_sequences_hold_each_corpus_by_its_weight(corpus: OpenCorpus) -> None:
    mixture = mixture_of(corpus, [6, 3, 1])
    walk = mixture.walk(mixture.start())
    blocks = [[next(walk).corpus for _ in range(BLOCK)] for _ in range(2)]
    assert all(Counter(block) == {0: 600, 1: 300, 2: 100} for block in blocks)
    assert blocks[0] != blocks[1]
    runs = sum(a != b for a, b in pairwise(blocks[0]))
    assert runs > 400  # mixed, not one after the other


def test_each_corpus_goes_through_its_own_epochs_without_a_gap(corpus: OpenCorpus) -> None:
    mixture = mixture_of(corpus, [3, 1])
    walk = mixture.walk(mixture.start())
    turns = [next(walk) for _ in range(300)]
    for number in (0, 1):
        parts = [part for turn in turns if turn.corpus == number for part in turn.parts]
        epoch = token = 0
        for order, start, stop in parts:
            assert start == token and order.pieces(start, stop)[0].epoch == epoch
            epoch, token = (epoch + 1, 0) if stop == order.num_tokens else (epoch, stop)
        assert epoch > 2 and walk.place.cursors[number] == Cursor(epoch=epoch, token=token)
    assert {sum(stop - start for _, start, stop in turn.parts) for turn in turns} == {512}


def test_so_many_epochs_are_read_and_no_more(corpus: OpenCorpus) -> None:
    mixture = mixture_of(corpus, [1])
    walk = mixture.walk(mixture.start(), epochs=2)
    given_tokens = [sum(stop - start for _, start, stop in turn.parts) for turn in walk]
    assert sum(given_tokens) == mixture.order(0, 0).num_tokens + mixture.order(0, 1).num_tokens and set(given_tokens[:-1]) == {512}
    with pytest.raises(InputError, match="2 corpora, read for 1 epochs"):
        mixture_of(corpus, [1, 1]).walk(mixture_of(corpus, [1, 1]).start(), epochs=1)


@settings(deadline=None, max_examples=20)
@given(taken=st.integers(0, 300))
def test_a_walk_goes_on_from_any_place(corpus: OpenCorpus, taken: int) -> None:
    mixture = mixture_of(corpus, [2, 1], sides="one")
    walk = mixture.walk(mixture.start())
    for _ in range(taken):
        next(walk)
    saved = Place.model_validate_json(walk.place.model_dump_json())
    resumed = mixture.walk(saved)
    for _ in range(40):
        a, b = next(walk), next(resumed)
        assert (a.corpus, a.pieces()) == (b.corpus, b.pieces())


def test_a_place_of_another_order_is_refused_with_both_digests(corpus: OpenCorpus) -> None:
    mixture, other = mixture_of(corpus, [1, 1]), mixture_of(corpus, [1, 1], seed=1)
    with pytest.raises(InputError) as refused:
        other.walk(mixture.start())
    assert mixture.digest in str(refused.value) and other.digest in str(refused.value)


@pytest.mark.parametrize("weights", [[1, 0], [1, -1], [1, float("nan")], [1, 1e-6]])
def test_weights_that_are_none_are_refused(corpus: OpenCorpus, weights: list[float]) -> None:
    with pytest.raises(InputError, match="weight"):
        mixture_of(corpus, weights)


def test_corpora_of_different_layouts_do_not_mix(corpus: OpenCorpus) -> None:
    other = replace(corpus, name="other", identity=corpus.identity | {"layout_spec": "f00"})
    with pytest.raises(InputError, match=r"other differ in layout: .* and f00"):
        Mixture.of([corpus, other], DataSpec())


def test_a_sequence_that_a_tick_may_not_fit_into_is_refused(corpus: OpenCorpus) -> None:
    with pytest.raises(InputError, match="sequence_tokens is 64, one tick may have 1"):
        Mixture.of([corpus], DataSpec(sequence_tokens=64))


def test_an_unknown_view_is_refused_with_those_there_are(corpus: OpenCorpus) -> None:
    with pytest.raises(InputError, match="no view 'nobody'") as refused:
        Mixture.of([corpus], DataSpec(views=("nobody",)))
    assert "left, right" in refused.value.hint
