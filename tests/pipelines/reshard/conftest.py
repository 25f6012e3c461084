"""Reshards and purges in this process, their graph's steps called one after the other: as `corpora.build`, and for the same reason."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.withdrawn import look_up
from microturn.pipelines.reshard import graph, run
from microturn.pipelines.reshard.graph import AnewFromShards
from microturn.pipelines.watch import WorkerNote


def step_by_step(elements: Sequence[tuple[int, Any]], transform: Any) -> None:
    """Runs the transform; what a runner may shuffle is shuffled."""
    told, note_of = transform._told, transform._note_of
    chance = random.Random(7)

    def shuffled(rows: list) -> list:
        return chance.sample(rows, len(rows))

    if isinstance(transform, AnewFromShards):
        rows = [row for number, at in shuffled(list(elements)) for row in graph.look_all((number, [at]), told)]
        elements = list(graph.assign_all((0, shuffled(rows)), told, note_of))
    step = graph.WriteShard(told, note_of)
    rows = [row for number, task in shuffled(list(elements)) for row in step.process((number, [task]))]
    graph.settle((0, shuffled(rows)), told)


def anew(sources: Sequence[Path | str], out: Path | str, *, drop: Sequence[str] = (), **settings: Any) -> dict[str, Any]:
    """dataset.json of a corpus made anew; `settings` as in pipelines.reshard.run.Settings."""
    listed = look_up(drop, [Corpus.open(str(source)) for source in sources])
    wanted = run.Settings(out=str(out), drop=listed, **settings)
    return run.anew([str(source) for source in sources], wanted, step_by_step, WorkerNote, lambda sentence: None)


def purge(out: Path | str, drop: Sequence[str], staging: str = "") -> dict[str, Any]:
    """dataset.json of the corpus without these sessions."""
    return run.purge(str(out), staging, look_up(drop, [Corpus.open(str(out))]), step_by_step, WorkerNote, lambda sentence: None)


@pytest.fixture(scope="session")
def reshard() -> Callable[..., dict[str, Any]]:
    return anew


@pytest.fixture(scope="session")
def purged() -> Callable[..., dict[str, Any]]:
    return purge
