"""The graph stays inside what every runner does, carries no bytes, and gives one answer whatever the runner does to it."""

import dataclasses
import pickle
import random
import socket
import tempfile
import types
import typing
from itertools import pairwise
from pathlib import Path
from unittest import mock

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that
from corpora import LAYOUT, ONE_SPLIT, SMALL, Raw, build, mono_stream, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines import graph, run
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.input import worklist
from microturn.pipelines.input.plan import Plan
from microturn.pipelines.input.worklist import WorkList
from microturn.pipelines.sessions.toolchain import toolchain_digest
from microturn.pipelines.settle import Verdict, settle
from microturn.pipelines.shards.gather import assign
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.watch import Standing
from microturn.schemas.errors import InputError, MicroturnError
from microturn.schemas.receipts import Outcome, ShardSummary, ShardTask, WorkSlice
from pydantic import BaseModel

CROSSING = (WorkSlice, Outcome, ShardTask, ShardSummary, Verdict)


def build_of(out, **changes) -> graph.Build:
    known = {"out": str(out), "staging": f"{out}/.staging", "spec": SMALL, "layout": LAYOUT, "tokenizer_path": "", "splits": ONE_SPLIT}
    known |= {
        "shard_bytes": 1 << 29,
        "lease": "",
        "base": "",
        "next_number": {},
        "work": WorkList(SMALL),
        "num_committed": 0,
        "rehash": False,
    }
    return graph.Build(**known | {"allow_mixed_toolchain": False, "silence_s": 60.0} | changes)


def _types_in(kind: typing.Any) -> set[typing.Any]:
    if isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or issubclass(kind, tuple)):
        return {kind}.union(*(_types_in(field) for field in typing.get_type_hints(kind).values()))
    args = typing.get_args(kind)
    if args and not isinstance(kind, types.GenericAlias | types.UnionType) and typing.get_origin(kind) is typing.Literal:
        return {str}
    return set.union({kind} if not args else set(), *(_types_in(arg) for arg in args))


@pytest.mark.parametrize("kind", CROSSING)
def test_what_crosses_the_graph_has_no_room_for_bytes(kind):
    assert not {bytes, bytearray, memoryview, np.ndarray, typing.Any, object} & _types_in(kind)


def test_what_crosses_the_graph_stays_small_however_long_a_session_is(tmp_path, monkeypatch):
    """A hundred times the audio is a few bytes a window more."""
    sizes = {}
    for seconds in (1, 100):
        made = Raw(tmp_path / f"{seconds}")
        made.dyad("call", seconds=seconds, rate_hz=8_000)
        crossing: list[object] = []
        steps = {name: getattr(graph, name) for name in ("_assign", "_commit")}
        for name, step in steps.items():
            monkeypatch.setattr(graph, name, lambda keyed, b, step=step, seen=crossing: (seen.extend(keyed[1]), step(keyed, b))[1])
        build(made.rows, made.folder, tmp_path / f"out-{seconds}")
        monkeypatch.undo()
        assert {type(x) for x in crossing} == {Outcome, ShardSummary, Verdict}
        sizes[seconds] = sum(len(pickle.dumps(x)) for x in crossing)
        num_windows = len(list(Corpus.open(str(tmp_path / f"out-{seconds}")).rows()))
    assert sizes[100] - sizes[1] < 20 * num_windows < 10_000


def test_the_composite_turns_items_into_one_verdict(raw, tmp_path):
    plan = plan_of(raw.rows[:2], raw.folder)
    slices = (work := WorkList(SMALL)).write(plan, {}, {}, Folder(f"{tmp_path}/.staging"))

    def one_verdict(found):
        (verdict,) = found
        assert (verdict.fresh, verdict.blocks) == (2, False)

    with test_pipeline.TestPipeline() as pipeline:
        verdicts = pipeline | beam.Create(slices) | graph.BuildCorpus(build_of(tmp_path, work=work))
        assert_that(verdicts, one_verdict)
    assert Corpus.open(str(tmp_path)).dataset["totals"]["num_sessions"] == 2


def test_doing_every_step_twice_and_out_of_order_changes_nothing(raw, corpus, tmp_path):
    """What runners do when a worker dies, or is thought to have died."""
    plan = plan_of(raw.rows, raw.folder)
    steps = build_of(tmp_path, shard_bytes=300_000)
    slices = steps.work.write(plan, {}, {}, Folder(steps.staging))
    featurise = graph.Featurise(steps)
    outcomes = [o for part in [*slices, *slices[::-1]] for o in featurise.process(part)]
    assert outcomes[:5] == outcomes[:4:-1]
    tasks = graph._assign((0, outcomes[:5]), steps)
    assert graph._assign((0, outcomes[5:]), steps) == tasks
    rows = [graph._write(task, steps) for task in tasks]
    assert [graph._write(task, steps) for task in tasks[::-1]] == rows[::-1]
    graph._commit((0, rows[::-1]), steps)
    first = (tmp_path / "dataset.json").read_bytes()
    graph._commit((0, rows), steps)
    assert (tmp_path / "dataset.json").read_bytes() == first == (corpus / "dataset.json").read_bytes()


def test_a_worker_of_another_toolchain_stops_the_build_by_its_name(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "toolchain_digest", lambda: "another")
    with pytest.raises(MicroturnError, match="toolchain") as error:
        build(raw.rows[:1], raw.folder, tmp_path / "out", on_beam=True)
    assert socket.gethostname() in str(error.value) and "numpy" in str(error.value)


def test_or_is_allowed_and_marks_the_corpus_for_good(raw, tmp_path, monkeypatch, featurised):
    """What another toolchain made has receipts of its own, which a build of ours does not take."""
    out = tmp_path / "out"
    monkeypatch.setattr(graph, "toolchain_digest", lambda: "another")
    build(raw.rows[:1], raw.folder, out, allow_mixed_toolchain=True, keep_parts=True)
    monkeypatch.undo()
    assert Corpus.open(str(out)).dataset["mixed_toolchain"]
    build(raw.rows[:2], raw.folder, out, keep_parts=True)
    assert Corpus.open(str(out)).dataset["mixed_toolchain"]
    (out / "dataset.json").unlink()
    featurised.clear()
    build(raw.rows[:2], raw.folder, out)
    assert not Corpus.open(str(out)).dataset["mixed_toolchain"] and featurised == ["call-wav"]


def test_what_stops_the_runner_is_told_in_words_and_the_next_build_goes_on(raw, tmp_path, monkeypatch, featurised):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph, "write_shard", full)
    with pytest.raises(MicroturnError, match="No space left") as error:
        build(raw.rows[:1], raw.folder, tmp_path / "out", on_beam=True)
    assert "\n" not in str(error.value) and error.value.hint
    monkeypatch.undo()
    featurised.clear()
    assert build(raw.rows[:1], raw.folder, tmp_path / "out").fresh == 1 and featurised == []


def test_a_build_ends_the_processes_that_it_started(raw, tmp_path, monkeypatch, lent):
    started, ended = [], []

    class Noted(type(lent)):
        def __init__(self) -> None:
            started.append(self)

        call = lent.call

        def close(self) -> None:
            ended.append(self)

    monkeypatch.setattr(graph, "MediaProcess", lambda silence_s: Noted())
    build(raw.rows[:2], raw.folder, tmp_path / "out", on_beam=True)
    assert started and set(ended) == set(started)


def test_a_runner_that_forgets_the_last_step_is_found_out(raw, tmp_path, monkeypatch):
    """Not even the verdict of the build before is taken for this one's."""
    build(raw.rows[:1], raw.folder, tmp_path / "out")
    monkeypatch.setattr(run, "_run_graph", lambda *_: None)
    with pytest.raises(MicroturnError, match="without a verdict"):
        build(raw.rows[:2], raw.folder, tmp_path / "out", on_beam=True)


def test_an_empty_plan_is_refused(tmp_path):
    with pytest.raises(InputError, match="no session"):
        run.run(Plan(items=(), rejected=()), run.Settings(out=str(tmp_path)), toolchain_digest())


def test_a_tokenizer_that_is_not_there_is_missed_before_anything_is_decoded(raw, tmp_path, featurised):
    (tmp_path / "other.json").write_text("{}")
    layout = LAYOUT.model_copy(update={"tokenizer": "file", "tokenizer_sha256": "0" * 64})
    with pytest.raises(MicroturnError, match=r"other\.json"):
        build(raw.rows[:1], raw.folder, tmp_path / "out", layout=layout, tokenizer_path=str(tmp_path / "other.json"))
    assert featurised == []


def test_progress_is_told_in_bytes_of_input_and_ends_at_all_of_it(raw, tmp_path):
    told: list[Standing] = []
    plan = plan_of(raw.rows, raw.folder)
    run.run(plan, run.Settings(out=str(tmp_path), spec=SMALL, splits=ONE_SPLIT), toolchain_digest(), told.append)
    total = sum(f.size_bytes for item in plan.items for f in item.files)
    inputs = [standing for standing in told if standing.phase == "featurising"]
    assert inputs[0].done == 0 and {standing.total for standing in inputs} == {total} and all(a.done <= b.done for a, b in pairwise(inputs))
    assert told[-1] == Standing(phase="done", done=total, total=total, sessions=5, longest_s=0)
    assert not (tmp_path / ".staging/under-way").exists()


outcomes = st.lists(
    st.builds(
        lambda split, name, sizes, status, refused: Outcome(
            status=status, session=name, split=split, order=f"{hash(name) % 997:03d}", receipt=f"{name}.json", window_bytes=tuple(sizes),
            reason="not_media", message=name, committed=status in ("known", "conflict"), refused=refused,
        ),
        st.sampled_from(["train", "val"]), st.text("abc", min_size=1, max_size=3),
        st.lists(st.integers(1, 100), max_size=6), st.sampled_from(["done", "done", "done", "rejected", "known", "conflict", "unsettled"]),
        st.sampled_from([(), (), ("not_media",), ("missing_file",)]),
    ),
    unique_by=lambda o: o.session, max_size=8,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(found=outcomes, shard_bytes=st.integers(1, 300), seed=st.integers(0, 99), start=st.integers(0, 3))
def test_windows_fill_shards_in_order_each_exactly_once(found, shard_bytes, seed, start):
    tasks = assign(found, shard_bytes, {"train": start})
    shuffled = random.Random(seed).sample(found, len(found))
    assert assign(shuffled, shard_bytes, {"train": start}) == tasks
    done = {o.receipt: o for o in found if o.status == "done"}
    taken = [(s.receipt, window) for task in tasks for s in task.segments for window in range(s.start, s.stop)]
    ordered = sorted(done.values(), key=lambda o: (o.split, o.order, o.session))
    assert taken == [(o.receipt, window) for o in ordered for window in range(len(o.window_bytes))]
    for split, first in (("train", start), ("val", 0)):
        mine = [task for task in tasks if task.split == split]
        assert [task.name for task in mine] == [f"{split}-{first + k:06d}" for k in range(len(mine))]
        for number, task in enumerate(mine):
            assert {done[s.receipt].split for s in task.segments} == {split}
            sizes = [done[s.receipt].window_bytes[w] for s in task.segments for w in range(s.start, s.stop)]
            assert sum(sizes[:-1]) <= shard_bytes and (sum(sizes) > shard_bytes or number == len(mine) - 1)


@settings(deadline=None, max_examples=100)
@given(found=outcomes, seed=st.integers(0, 99), absent=st.integers(0, 3))
def test_the_verdict_counts_every_session_once_in_any_order(found, seed, absent):
    of = {status: [o for o in found if o.status == status] for status in ("done", "known", "conflict", "rejected", "unsettled")}
    num_committed = len(of["known"]) + len(of["conflict"]) + absent
    verdict, fresh = settle(found, num_committed)
    assert settle(random.Random(seed).sample(found, len(found)), num_committed) == (verdict, fresh)
    mended = {o.session for o in found if o.refused and o.status != "unsettled" and (o.status != "rejected" or o.refused != (o.reason,))}
    assert verdict.superseded == tuple(sorted(mended)) and verdict.absent == absent
    assert sorted(o.session for o in fresh) == sorted(o.session for o in of["done"]) and verdict.fresh == len(fresh)
    assert sorted(verdict.conflicts) == sorted(o.message for o in of["conflict"])
    assert sorted(verdict.unsettled) == sorted(o.message for o in of["unsettled"])
    assert set(verdict.rejected) == {o.receipt for o in of["rejected"] if not o.refused or o.session in mended}
    assert verdict.fresh + verdict.known + len(verdict.rejected) + len(verdict.conflicts) + len(verdict.unsettled) == len(found)


@settings(deadline=None, max_examples=20)
@given(num=st.integers(1, 9), most=st.integers(1, 9))
def test_the_slices_of_a_work_list_hold_every_line_once_and_are_never_more_than_a_runner_takes(num, most):
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(worklist, "MAX_SLICES", most):
        rows = [{"id": f"call-{k}", "streams": [mono_stream("p", f"{k}.wav", start=0.25)]} for k in range(num)]
        plan = plan_of([*rows, *([{**rows[0], "language": "de"}] if num > 3 else [])], Path(folder))
        staging = Folder(folder)
        slices = (work := WorkList(SMALL)).write(plan, {"call-1": "digest"}, {"call-2": ("not_media",)}, staging)
        lines = [line for part in slices for line in work.read(staging, part)]
    assert [line.item for line in lines if line.item] == list(plan.items) and len(slices) <= most
    assert [line.settled.session for line in lines if line.settled] == [receipt.session for receipt in plan.rejected]
    assert {line.item.key: line.committed for line in lines if line.committed} == ({"call-1": "digest"} if num > 1 else {})
    assert {line.item.key: line.refused for line in lines if line.refused} == ({"call-2": ("not_media",)} if num > 2 else {})


def test_what_the_runner_is_given_does_not_grow_with_the_corpus(tmp_path):
    """Neither with what is committed: it stands in the work list."""
    rows = [{"id": f"call-{k}", "streams": [mono_stream("p", f"{k}.wav")]} for k in range(50)]
    staging = Folder(str(tmp_path))
    sizes = []
    for committed in ({}, {f"call-{k}": "0" * 64 for k in range(50)}):
        slices = WorkList(SMALL).write(plan_of(rows, tmp_path), committed, {}, staging)
        sizes.append(len(pickle.dumps((slices, build_of(tmp_path, num_committed=len(committed))))))
    assert len(slices) == 50 and sizes[0] < 10_000 and abs(sizes[1] - sizes[0]) < 300
