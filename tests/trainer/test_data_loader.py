"""The loader: one order for any number of workers and ranks, restored anywhere; packing that loses nothing; damage that is named."""

import json
import pickle
import random
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import copied
from microturn.schemas.errors import CorpusError, InputError
from microturn.schemas.layout import Slot
from microturn.schemas.record import Record
from microturn.trainer.data import Batch, DataSpec, Loader, Mixture, OpenCorpus, Place
from microturn.trainer.data.document import OPENING
from talks import LAYOUT, fingerprint, tensor_names

SPEC = DataSpec(sequence_tokens=700, document_ticks=40, seed=5, drop_pictures=0.3, drop_typed=0.3)


@pytest.fixture(scope="module")
def mixture(corpus: OpenCorpus) -> Mixture:
    return Mixture.of([corpus], SPEC)


def prints(loader: Loader, count: int) -> list[str]:
    """Fingerprints of the next batches."""
    return [fingerprint(batch) for batch in islice(loader, count)]


@pytest.fixture(scope="module")
def stream(mixture: Mixture) -> list[tuple[str, Place]]:
    """(fingerprint, place after it) of 60 sequences, more than two epochs, made in this process one by one."""
    assert mixture.order(0, 0).num_tokens < 25 * SPEC.sequence_tokens
    return [(fingerprint(batch), batch.place) for batch in islice(Loader(mixture, step_sequences=1), 60)]


def test_batches_do_not_depend_on_the_number_of_workers(mixture: Mixture, stream: list) -> None:
    for workers in (1, 2):
        assert prints(Loader(mixture, step_sequences=1, workers=workers), 20) == [mark for mark, _ in stream[:20]]


def test_every_place_restores_exactly(mixture: Mixture, corpus: OpenCorpus, stream: list) -> None:
    """Also after another seed has run in between, and through JSON."""
    for number in range(0, 55):
        place = Place.model_validate_json(stream[number][1].model_dump_json())
        if number % 10 == 0:
            prints(Loader(Mixture.of([corpus], SPEC.model_copy(update={"seed": 99})), step_sequences=1), 1)
        assert prints(Loader(mixture, step_sequences=1, place=place), 2) == [mark for mark, _ in stream[number + 1 : number + 3]]


def test_another_seed_gives_another_order(corpus: OpenCorpus, stream: list) -> None:
    other = Loader(Mixture.of([corpus], SPEC.model_copy(update={"seed": 99})), step_sequences=1)
    assert not set(prints(other, 20)) & {mark for mark, _ in stream[:20]}


@pytest.mark.parametrize(("world", "batch_sequences"), [(2, 1), (3, 1), (4, 2), (1, 3)])
def test_a_step_is_the_same_sequences_for_any_world(mixture: Mixture, stream: list, world: int, batch_sequences: int) -> None:
    """Documents of all ranks, in order of rank, are those of the sequences one by one; the place after a step is everybody's."""
    steps: list[list[tuple]] = [[] for _ in range(4)]
    for rank in range(world):
        loader = Loader(mixture, step_sequences=6, batch_sequences=batch_sequences, rank=rank, world=world)
        step, passes = 0, 0
        for batch in loader:
            steps[step] += [segment for segment in batch.segments if segment.num_ticks]
            passes += 1
            if batch.place is not None:
                assert batch.place == stream[6 * step + 5][1]
                step += 1
                if step == 4:
                    break
        assert passes == 4 * ceil(ceil(6 / world) / batch_sequences)  # all ranks make equally many
    alone = [batch.segments for batch in islice(Loader(mixture, step_sequences=1), 24)]
    for step, segments in enumerate(steps):
        assert segments == [segment for each in alone[6 * step : 6 * step + 6] for segment in each]


def test_a_run_may_go_on_in_another_world(mixture: Mixture, stream: list) -> None:
    first = Loader(mixture, step_sequences=4, batch_sequences=2, rank=1, world=2, workers=1)
    place = next(batch.place for batch in first if batch.place is not None)
    assert place == stream[3][1]
    assert prints(Loader(mixture, step_sequences=4, place=place), 8) == [mark for mark, _ in stream[4:12]]


def test_a_rank_without_sequences_gets_batches_that_teach_nothing(mixture: Mixture) -> None:
    batch = next(iter(Loader(mixture, step_sequences=3, rank=3, world=4)))
    assert batch.ids.tolist() == [LAYOUT.ids.bos] and batch.segments[0].key == "" and batch.num_ticks == 0
    assert not len(batch.text_weights) and not len(batch.flow_weights)
    assert batch.place is not None


def test_packed_rows_are_the_concatenation_of_the_documents(corpus: OpenCorpus, views: dict[tuple[str, str], list[Record]]) -> None:
    """All tokens of every view come once an epoch, in order within a view, with an opening wherever a document begins."""
    mixture = Mixture.of([corpus], DataSpec(sequence_tokens=500, document_ticks=30, cut_played=0))
    pieces: dict[str, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for batch in Loader(mixture, step_sequences=1, epochs=1):
        assert batch.offsets[0] == 0 and batch.offsets[-1] == batch.num_rows
        for segment, start, stop in zip(batch.segments, batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
            assert batch.ids[start] == LAYOUT.ids.bos and batch.slots[start] == OPENING and OPENING not in batch.slots[start + 1 : stop]
            view, tick = segment.key.rsplit("-", 1)
            assert int(tick) == segment.first_tick
            rows = slice(start + 1, stop)
            pieces.setdefault(view, []).append((segment.first_tick, batch.ids[rows].numpy(), batch.slots[rows].numpy()))
    assert len(pieces) == len(views)
    for (session, view), windows in views.items():
        parts = sorted(pieces[f"{session}-{view}"], key=lambda part: part[0])
        assert np.concatenate([ids for _, ids, _ in parts]).tolist() == np.concatenate([w.tokens for w in windows]).tolist()
        assert np.concatenate([slots for _, _, slots in parts]).tolist() == np.concatenate([w.token_slot for w in windows]).tolist()


def test_ninety_eight_of_a_hundred_rows_are_used(corpus: OpenCorpus) -> None:
    """Also beside the longest sequence, which is what memory has to hold."""
    for tokens in (512, 1024, 4096):
        mixture = Mixture.of([corpus], DataSpec(sequence_tokens=tokens, document_ticks=100))
        loader = Loader(mixture, step_sequences=1)
        lengths = [batch.num_rows for batch in islice(loader, 40 * 512 // tokens)]
        assert 0.98 * tokens <= loader.rows / loader.sequences <= 1.02 * tokens
        assert max(lengths) <= mixture.most_rows
    assert loader.rows / loader.sequences >= 0.98 * max(lengths)


def test_rows_of_a_kind_and_what_they_are_made_from_go_together(mixture: Mixture) -> None:
    for batch in islice(Loader(mixture, step_sequences=2, batch_sequences=2), 10):
        for slot, rows, made in (
            (Slot.HEARD, batch.heard_rows, batch.heard_codes),
            (Slot.OWN, batch.own_rows, batch.own_codes),
            (Slot.PATCH, batch.patch_rows, batch.patches),
        ):
            assert len(rows) == len(made) and (batch.slots[rows] == slot).all() and len(rows) == (batch.slots == slot).sum()
        assert torch.isin(batch.slots[batch.text_rows], torch.tensor([Slot.PERFORM, Slot.SAY, Slot.CONTROL])).all()
        assert (batch.ids[batch.flow_rows[batch.slots[batch.flow_rows] == Slot.VOICE]] == LAYOUT.ids.speak).all()
        assert len(batch.text_rows) == len(batch.text_targets) == len(batch.text_weights)
        assert len(batch.flow_rows) == len(batch.flow_targets) == len(batch.flow_weights)


def test_dropped_modalities_are_absent_from_whole_documents(corpus: OpenCorpus) -> None:
    kinds = {"drop_pictures": {Slot.PICTURE, Slot.PATCH}, "drop_typed": {Slot.TYPED}, "drop_background": {Slot.BACKGROUND}}
    for name, slots in kinds.items():
        seen = {}
        for chance in (0.0, 1.0):
            mixture = Mixture.of([corpus], DataSpec(sequence_tokens=700, **{name: chance}))
            seen[chance] = {int(slot) for batch in Loader(mixture, step_sequences=1, epochs=1) for slot in batch.slots.unique()}
        assert seen[0.0] - seen[1.0] == {int(slot) for slot in slots}


def test_only_the_views_that_are_asked_for_come(corpus: OpenCorpus) -> None:
    mixture = Mixture.of([corpus], DataSpec(sequence_tokens=700, views=("left", "teller")))
    assert {segment.key.split("-")[1] for batch in Loader(mixture, step_sequences=1, epochs=1) for segment in batch.segments} == {
        "left",
        "teller",
    }


def test_a_corpus_in_an_object_store_gives_the_same_batches(folder: Path, stream: list) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(str(folder / "*"), "/talks/", recursive=True)
    remote = Mixture.of([OpenCorpus.open("memory://talks")], SPEC)
    assert prints(Loader(remote, step_sequences=1), 8) == [mark for mark, _ in stream[:8]]


def test_a_mixture_can_be_sent_to_another_process(mixture: Mixture, stream: list) -> None:
    sent = pickle.loads(pickle.dumps(mixture))
    assert prints(Loader(sent, step_sequences=1), 3) == [mark for mark, _ in stream[:3]]


def test_loading_leaves_the_generators_of_the_run_alone(mixture: Mixture) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    prints(Loader(mixture, step_sequences=1, workers=1), 2)
    prints(Loader(mixture, step_sequences=1), 2)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_a_batch_can_be_pinned_or_moved_without_change(mixture: Mixture) -> None:
    batch = next(iter(Loader(mixture, step_sequences=1)))
    assert fingerprint(batch.to("cpu")) == fingerprint(batch) and batch.to("cpu").place == batch.place
    assert set(tensor_names()) == {name for name in Batch.__slots__ if isinstance(getattr(batch, name), torch.Tensor)}


# damage


@pytest.fixture
def damaged(folder: Path, corpus: OpenCorpus, tmp_path: Path) -> tuple[OpenCorpus, str]:
    """A copy of the corpus with one byte of one window changed, and the window's key: the fifth of the long talk's left view."""
    out = copied(folder, tmp_path / "copy")
    hurt = OpenCorpus.open(str(out))
    index = hurt.index
    (number,) = [n for n in range(len(index)) if window_key(hurt, n) == "long-left-0000040"]
    shard = out / "shards" / f"{index.shards[index.shard_W[number]]}.tar"
    data = bytearray(shard.read_bytes())
    data[int(index.offset_W[number]) + int(index.size_W[number]) // 2] ^= 1
    shard.write_bytes(data)
    return hurt, "long-left-0000040"


def window_key(corpus: OpenCorpus, number: int) -> str:
    index = corpus.index
    data = corpus.files.read_range(f"shards/{index.shards[index.shard_W[number]]}.tar", int(index.offset_W[number]), 100)
    return data.split(b".", 1)[0].decode()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_window_stops_the_run_and_is_named(damaged: tuple[OpenCorpus, str], workers: int) -> None:
    corpus, key = damaged
    mixture = Mixture.of([corpus], SPEC)
    with pytest.raises(CorpusError, match=f"window {key} is damaged: digest .*, the index says") as stopped:
        list(Loader(mixture, step_sequences=1, workers=workers, epochs=1))
    assert "shards/train-" in str(stopped.value) and str(stopped.value).count("\n") == 0


def test_skipped_damage_is_counted_named_and_moves_nothing_else(damaged: tuple[OpenCorpus, str], corpus: OpenCorpus) -> None:
    hurt, _ = damaged
    spec = DataSpec(sequence_tokens=300, document_ticks=100)
    whole, skipping = (list(epoch_of(Mixture.of([each], spec))) for each in (corpus, hurt))
    assert len(whole) == len(skipping)
    touched = 0
    for a, b in zip(whole, skipping, strict=True):
        assert b.damaged or fingerprint(a) == fingerprint(b)
        touched += bool(b.damaged)
    assert 1 <= touched <= 3
    ticks = {(s.key.rsplit("-", 1)[0], k) for b in skipping for s in b.segments for k in range(s.first_tick, s.first_tick + s.num_ticks)}
    everything = {(s.key.rsplit("-", 1)[0], k) for b in whole for s in b.segments for k in range(s.first_tick, s.first_tick + s.num_ticks)}
    assert everything - ticks == {("long-left", k) for k in range(40, 50)} and ticks < everything


def epoch_of(mixture: Mixture) -> Iterator[Batch]:
    """The first epoch, damage skipped; the loader names it once."""
    loader = Loader(mixture, step_sequences=1, epochs=1, on_damage="skip")
    yield from loader
    assert len(loader.damaged) == len({damage.window for damage in loader.damaged})


def test_a_shard_cut_short_is_damage_and_a_missing_one_is_the_machine(folder: Path, tmp_path: Path) -> None:
    out = copied(folder, tmp_path / "copy")
    mixture = Mixture.of([OpenCorpus.open(str(out))], SPEC)
    last = sorted((out / "shards").glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    loader = Loader(mixture, step_sequences=1, epochs=1, on_damage="skip")
    assert list(loader) and loader.damaged and all("of its" in damage.message for damage in loader.damaged)
    last.unlink()
    mixture = Mixture.of([OpenCorpus.open(str(out))], SPEC)
    with pytest.raises(FileNotFoundError):
        list(Loader(mixture, step_sequences=1, epochs=1, on_damage="skip"))


# refusals


def test_a_corpus_that_is_not_the_runs_is_refused_with_both_digests(folder: Path, corpus: OpenCorpus) -> None:
    assert OpenCorpus.open(str(folder), started_with=corpus.identity).identity == corpus.identity
    for name, what in (("content", "content"), ("spec", "spec"), ("layout_spec", "layout and tokenizer")):
        with pytest.raises(InputError, match=f"{what} {corpus.identity[name]}, the run was started with f00"):
            OpenCorpus.open(str(folder), started_with=corpus.identity | {name: "f00"})


def test_a_folder_without_a_commit_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "shards", tmp_path / "shards")
    with pytest.raises(InputError, match=r"dataset\.json: not there"):
        OpenCorpus.open(str(tmp_path))
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"not the dataset\.json of a microturn corpus"):
        OpenCorpus.open(str(tmp_path))


NONSENSE = {  # what is done to dataset.json → what is said of it
    "shards: found NoneType": lambda dataset: dataset.pop("shards"),
    "shards: found int": lambda dataset: dataset.update(shards=5),
    "shards.1: found int": lambda dataset: dataset["shards"].__setitem__(1, 5),
    "shards.1.split: found NoneType": lambda dataset: dataset["shards"][1].pop("split"),
    "shards.0.num_ticks: found str": lambda dataset: dataset["shards"][0].update(num_ticks="many"),
    "digests: found list": lambda dataset: dataset.update(digests=list(dataset["digests"])),
    "digests.content: found int": lambda dataset: dataset["digests"].update(content=5),
    "spec: found NoneType": lambda dataset: dataset.pop("spec"),
    "layout: found int": lambda dataset: dataset.update(layout=5),
}


@pytest.mark.parametrize("says", NONSENSE)
def test_nonsense_in_dataset_json_is_named_by_its_place(folder: Path, tmp_path: Path, says: str) -> None:
    dataset = json.loads((folder / "dataset.json").read_text())
    NONSENSE[says](dataset)
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(CorpusError, match=re.escape(f"dataset.json: {says}")):
        OpenCorpus.open(str(tmp_path))


def test_a_relative_path_that_leads_nowhere_says_from_where_it_is_taken() -> None:
    with pytest.raises(InputError) as refused:
        OpenCorpus.open("no/such/corpus")
    assert "--data names the corpus anew" in refused.value.hint


def test_an_index_that_is_not_the_committed_one_is_refused(folder: Path, tmp_path: Path) -> None:
    out = copied(folder, tmp_path / "copy")
    first, second = sorted((out / "index").glob("*.parquet"))[:2]
    shutil.copy(second, first)
    with pytest.raises(CorpusError, match=f"{first.name}: num_"):
        OpenCorpus.open(str(out))


def test_a_split_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(InputError, match="no split 'val'") as refused:
        OpenCorpus.open(str(folder), split="val")
    assert "train" in refused.value.hint


def test_numbers_that_make_no_step_are_refused(mixture: Mixture) -> None:
    for numbers in ({"step_sequences": 0}, {"step_sequences": 1, "rank": 2, "world": 2}, {"step_sequences": 1, "batch_sequences": 0}):
        with pytest.raises(InputError, match="none of it is a step"):
            Loader(mixture, **numbers)


def test_shards_that_dataset_json_does_not_list_are_not_read(folder: Path, corpus: OpenCorpus, tmp_path: Path) -> None:
    out = copied(folder, tmp_path / "copy")
    shutil.copy(next((out / "shards").glob("*.tar")), out / "shards" / "train-000099.tar")
    assert len(OpenCorpus.open(str(out)).index) == len(corpus.index)
