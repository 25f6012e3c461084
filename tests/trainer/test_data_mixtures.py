"""Several corpora in one run whose world changes under way: the same sequences in the same order, whoever makes them; one side of a talk an
epoch; damage that is named through any number of workers."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import Raw, copied
from microturn.schemas.record import Record
from microturn.trainer.data import Damage, DataSpec, Loader, Mixture, OpenCorpus, Place, Segment
from talks import build_talks, fingerprint

SPEC = DataSpec(sequence_tokens=500, document_ticks=40, seed=11, sides="one", drop_pictures=0.3, cut_played=0.2)
STEP = 6


@pytest.fixture(scope="module")
def mixture(raw: Raw, corpus: OpenCorpus, tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    """The talks, twice as often as two of them alone; their epochs end at different sequences."""
    folder = tmp_path_factory.mktemp("few") / "corpus"
    build_talks([row for row in raw.rows if row["id"] in ("short", "meeting")], raw.folder, folder)
    return Mixture.of([corpus, OpenCorpus.open(str(folder))], SPEC, weights=[2, 1])


Step = tuple[list[Segment], Place]


def steps(mixture: Mixture, place: Place | None, world: int, workers: int, batch_sequences: int, count: int) -> list[Step]:
    """The next steps: documents of all ranks in order of rank, and the place after each."""
    found: list[Step] = []
    for rank in range(world):
        loader = Loader(mixture, step_sequences=STEP, batch_sequences=batch_sequences, place=place, rank=rank, world=world, workers=workers)
        for number, (segments, after) in zip(range(count), whole_steps(loader), strict=False):
            if rank == 0:
                found.append((segments, after))
            else:
                assert after == found[number][1]
                found[number][0].extend(segments)
    return found


def whole_steps(loader: Loader) -> Iterator[Step]:
    """What one rank gets in each step."""
    segments: list[Segment] = []
    for batch in loader:
        segments = segments + [segment for segment in batch.segments if segment.num_ticks]
        if batch.place is not None:
            yield segments, batch.place
            segments = []


def test_a_mixture_goes_on_from_the_middle_of_its_epochs_in_any_world(mixture: Mixture) -> None:
    alone = steps(mixture, None, 1, 0, 1, 10)
    epochs = [{cursor.epoch for cursor in after.cursors} for _, after in alone]
    assert any(len(each) == 2 for each in epochs)  # one corpus is epochs ahead
    assert all(after.cursors[0].token > 0 for _, after in alone)
    assert {segment.corpus for segments, _ in alone for segment in segments} == {0, 1}
    went, place = [], None
    for world, workers, batch_sequences, count in ((2, 1, 1, 3), (3, 0, 2, 2), (1, 2, 4, 2), (4, 0, 1, 1), (2, 0, 3, 2)):
        went += steps(mixture, place, world, workers, batch_sequences, count)
        place = Place.model_validate_json(went[-1][1].model_dump_json())
    assert went == alone


def test_rows_of_a_mixture_do_not_depend_on_the_workers(mixture: Mixture) -> None:
    marks = [
        [fingerprint(batch) for batch, _ in zip(Loader(mixture, step_sequences=1, workers=workers), range(30), strict=False)]
        for workers in (0, 2)
    ]
    assert marks[0] == marks[1] and len(set(marks[0])) == 30


def test_a_talk_is_heard_from_one_side_an_epoch_and_from_both_in_time(
    corpus: OpenCorpus, views: dict[tuple[str, str], list[Record]]
) -> None:
    mixture = Mixture.of([corpus], SPEC)
    sides: dict[tuple[int, str], set[str]] = defaultdict(set)
    ticks: dict[tuple[int, str, str], int] = defaultdict(int)
    for batch in Loader(mixture, step_sequences=1, epochs=8):
        for segment in batch.segments:
            session, view, _ = segment.key.rsplit("-", 2)
            sides[segment.epoch, session].add(view)
            ticks[segment.epoch, session, view] += segment.num_ticks
    assert all(len(names) == 1 for names in sides.values()) and len(sides) == 8 * 6
    whole = {view: windows[-1].meta["first_tick"] + windows[-1].num_ticks for view, windows in views.items()}
    assert all(count == whole[session, view] for (_, session, view), count in ticks.items())
    seen = set().union(*(names for (_, session), names in sides.items() if session == "long"))
    assert seen == {"left", "right"}


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Mixture:
    """A copy of the talks with two windows damaged, mixed with the whole one."""
    out = copied(folder, tmp_path / "copy")
    hurt, index = OpenCorpus.open(str(out)), OpenCorpus.open(str(folder)).index
    for number in (3, len(index) - 2):
        shard = out / "shards" / f"{index.shards[index.shard_W[number]]}.tar"
        data = bytearray(shard.read_bytes())
        data[int(index.offset_W[number]) + int(index.size_W[number]) // 2] ^= 1
        shard.write_bytes(data)
    other = OpenCorpus.open(str(folder))
    return Mixture.of([hurt, replace(other, identity=other.identity | {"content": "another"})], SPEC.model_copy(update={"sides": "all"}))


def test_damage_is_named_once_whoever_makes_the_batches(damaged: Mixture) -> None:
    """Workers have caches and counts of their own; what the run is told is the same."""
    found: list[tuple[set[Damage], list[str]]] = []
    for workers in (0, 1, 2):
        loader = Loader(damaged, step_sequences=1, workers=workers, on_damage="skip")
        marks = [fingerprint(batch) for batch, _ in zip(loader, range(40), strict=False)]
        assert len(loader.damaged) == len(set(loader.damaged)) == 2
        found.append((set(loader.damaged), marks))
    assert all(each == found[0] for each in found)
    assert {damage.corpus for damage in found[0][0]} == {0} and all("is damaged: digest" in damage.message for damage in found[0][0])


def test_damage_of_all_ranks_together_is_that_of_one(damaged: Mixture) -> None:
    alone, ranks = (
        [Loader(damaged, step_sequences=4, rank=rank, world=world, on_damage="skip") for rank in range(world)] for world in (1, 2)
    )
    for loader in [*alone, *ranks]:
        for _ in zip(range(80 // len(ranks if loader in ranks else alone)), loader, strict=False):
            pass
    assert {damage for loader in ranks for damage in loader.damaged} == set(alone[0].damaged) != set()
