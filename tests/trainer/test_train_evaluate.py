"""Looking at what was held out: the same every time, beside floors that are right; the best is kept; what a person is told."""

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from microturn.trainer.data import DataSpec, Loader, Mixture, OpenCorpus
from microturn.trainer.model import InteractionModel, initialise
from microturn.trainer.train import checkpoint
from microturn.trainer.train.evaluate import Evaluation
from microturn.trainer.train.progress import Shown, clock
from microturn.trainer.train.run_folder import RunFolder
from microturn.trainer.train.spec import TrainSpec
from rich.console import Console
from runs import Listener, config, go, rows

STEPS = 9
OFTEN = {"evaluate_every": 3, "evaluate_sequences": 3, "checkpoint_every": 2, "keep": 1}


@pytest.fixture(scope="module")
def run(held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("runs") / "run"
    go(folder, config(held_out, STEPS, pace=OFTEN))
    yield folder
    torch.set_num_threads(before)


def test_what_is_held_out_is_looked_at_in_time_and_changes_nothing(run, held_out, tmp_path):
    with_it = rows(run)
    assert [row["step"] for row in with_it if "held_out_loss" in row] == [3, 6, 9]
    assert with_it[2]["held_out_loss"] == pytest.approx(with_it[2]["held_out_text"] + with_it[2]["held_out_flow"])
    go(tmp_path / "run", config(held_out, STEPS))
    assert rows(tmp_path / "run") == [{k: v for k, v in row.items() if not k.startswith(("held_out", "floor"))} for row in with_it]


def test_an_evaluation_is_the_same_after_a_resume(run, held_out, tmp_path):
    go(tmp_path / "run", config(held_out, 4, pace=OFTEN))
    go(tmp_path / "run", config(held_out, STEPS, pace=OFTEN | {"workers": 1}))
    assert rows(tmp_path / "run") == rows(run)
    assert checkpoint.read(tmp_path / "run/checkpoints/best").best == checkpoint.read(run / "checkpoints/best").best


def test_the_best_and_the_newest_checkpoints_stay(run):
    found = {row["step"]: row["held_out_loss"] for row in rows(run) if "held_out_loss" in row}
    best = min(found, key=lambda step: found[step])
    kept = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert kept == {checkpoint.name_of(best), checkpoint.name_of(STEPS)}
    assert (run / "checkpoints/best").resolve().name == checkpoint.name_of(best)
    assert (run / "checkpoints/last").resolve().name == checkpoint.name_of(STEPS)
    assert checkpoint.read(run / "checkpoints/best").best == checkpoint.Best(step=best, loss=found[best])


def test_an_older_best_outlives_the_newest_ones(tmp_path):
    for step in (2, 4, 6, 8):
        (tmp_path / checkpoint.name_of(step)).mkdir()
    checkpoint.drop_old(tmp_path, 2, step=8, best=checkpoint.Best(step=2, loss=1.0))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [checkpoint.name_of(step) for step in (2, 6, 8)]


def test_the_checkpoint_just_written_outlives_what_has_a_later_name(tmp_path):
    """Later names were passed over as damaged when the run went on."""
    for name in (*map(checkpoint.name_of, (2, 4, 6, 8)), ".step-00000005.part"):
        (tmp_path / name).mkdir()
    checkpoint.drop_old(tmp_path, 1, step=4, best=None)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name_of(4)]


def test_without_anything_held_out_the_run_says_so_and_goes_on(folder, tmp_path):
    go(tmp_path / "run", config(folder, 2, pace={"evaluate_every": 1}), listener := Listener())
    assert any("no split 'val'" in told and "microturn build --split" in told for told in listener.told)
    assert len(rows(tmp_path / "run")) == 2 and not any("held_out_loss" in row for row in rows(tmp_path / "run"))


def test_held_out_sessions_without_the_views_of_training_take_no_part(held_out):
    told: list[str] = []
    spec = TrainSpec.of(config(held_out, 1, pace=OFTEN, data={"views": ["nobody"]}), where="test")
    training = SimpleNamespace(corpora=[OpenCorpus.open(str(held_out))])
    assert Evaluation(spec, training, told.append).is_empty
    assert len(told) == 1 and "split 'val'" in told[0] and "no view 'nobody'" in told[0] and "nothing of it is held out" in told[0]


def test_what_is_held_out_is_whole_whatever_training_drops(held_out):
    data = {"sequence_tokens": 256, "cut_played": 1.0, "drop_typed": 1.0}
    made = []
    for changes in ({}, {"data": data}, {"seed": 3}):
        spec = TrainSpec.of(config(held_out, 1, pace=OFTEN, **changes), where="test")
        mixture = Mixture.of([OpenCorpus.open(str(held_out))], spec.data)
        made.append(Evaluation(spec, mixture, lambda told: None)(initialise(InteractionModel(spec.model), 1)))
    assert made[0] == made[2] and made[0].text > 1
    assert made[1] != made[0] or spec.data.document_ticks == 30  # other documents, never other noise


def test_the_floor_of_flow_is_what_the_best_affine_guess_leaves():
    """π σ / 2, beside least squares on draws of one value, time by time."""
    generator = torch.Generator().manual_seed(1)
    for deviation in (0.3, 1.0):
        left = []
        for time in torch.linspace(0.005, 0.995, 100).tolist():
            speech = 0.7 + deviation * torch.randn(4000, generator=generator)
            noise = torch.randn(4000, generator=generator)
            seen = torch.stack([(1 - time) * noise + time * speech, torch.ones(4000)], dim=1).double()
            velocity = (speech - noise).double()[:, None]
            guess = seen @ torch.linalg.lstsq(seen, velocity).solution
            left.append(float((velocity - guess).square().mean()))
        assert sum(left) / len(left) == pytest.approx(math.pi / 2 * deviation, rel=0.03)


def test_the_floors_are_of_the_training_split(run, held_out):
    """Ids counted one by one; the deviation of every value of the frames that are learned."""
    spec = TrainSpec.of(json.loads((run / "config.json").read_text()), where="test")
    counts, frames = [1.0] * 280, []
    for number, batch in enumerate(Loader(Mixture.of([OpenCorpus.open(str(held_out))], spec.data), step_sequences=1)):
        if number == 3:
            break
        for target, weight in zip(batch.text_targets.tolist(), batch.text_weights.tolist(), strict=True):
            counts[target] += weight
        frames += [frame.flatten() for frame, weight in zip(batch.flow_targets, batch.flow_weights, strict=True) if weight]
    nats, total = 0.0, 0.0
    data = DataSpec(**(spec.data.model_dump() | {"split": "val", "seed": 0, "cut_played": 0.0}))
    for number, batch in enumerate(Loader(Mixture.of([OpenCorpus.open(str(held_out), split="val")], data), step_sequences=1, epochs=1)):
        if number == 3:
            break
        for target, weight in zip(batch.text_targets.tolist(), batch.text_weights.tolist(), strict=True):
            nats, total = nats - weight * math.log(counts[target] / sum(counts)), total + weight
    row = rows(run)[2]
    assert row["floor_text"] == pytest.approx(nats / total, rel=1e-6)
    assert row["floor_flow"] == pytest.approx(math.pi / 2 * float(torch.stack(frames).std(0, correction=0).mean()), rel=1e-4)


def test_curves_are_written_for_tensorboard(run):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    found: dict[str, dict[int, float]] = {}
    for file in RunFolder(run).tensorboard.iterdir():
        data = file.read_bytes()
        while data:  # records: length, its crc, the event, its crc
            length = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    written = {row["step"]: row for row in rows(run)}
    assert set(found["loss/loss"]) == set(written) and set(found["held_out/text"]) == {3, 6, 9}
    assert all(value == pytest.approx(written[step]["flow"], rel=1e-6) for step, value in found["loss/flow"].items())


def test_away_from_a_terminal_progress_is_plain_lines(run):
    said = io.StringIO()
    with Shown(Console(file=said, width=300), steps=STEPS) as shown:
        for row in RunFolder(run).rows():
            shown.step(row)
    lines = said.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/9", "3/9", "6/9", "9/9"]
    assert re.search(r"loss [\d.]+  text [\d.]+  flow [\d.]+  [\d,]+ tokens/s  [\d:]+ left  busiest expert ×[\d.]+$", lines[0])
    assert re.search(r"held out: text [\d.]+ \([\d.]+ unheard\), flow [\d.]+ \([\d.]+ unheard\)$", lines[1])


@pytest.mark.parametrize("seconds, text", [(0, "0:00"), (65.4, "1:05"), (3600, "1:00:00"), (90061, "25:01:01")])
def test_clock(seconds, text):
    assert clock(seconds) == text
