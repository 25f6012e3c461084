"""Tiny recordings, manifests and corpora: `from corpora import SMALL, Raw, build`. Sound is `signals.speech`: equal calls, equal bytes.

A build here is the whole one, from plan to commit, but the graph's steps are called one after the other instead of on a Beam runner, which
costs 0.7 s a build; `on_beam=True` runs the graph itself, and tests/pipelines/test_law2.py shows that both give the same bytes. The decoder
process is lent (tests/pipelines/conftest.py), for starting one costs two seconds.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import soundfile
from microturn.pipelines import graph, run
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.input.plan import Plan, make_plan
from microturn.pipelines.sessions import featurise
from microturn.pipelines.sessions.toolchain import toolchain_digest
from microturn.pipelines.settle import Verdict
from microturn.pipelines.shards.lay import lay_out
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.parts import PartReader
from microturn.schemas import record
from microturn.schemas.errors import MicroturnError
from microturn.schemas.layout import LayoutSpec
from microturn.schemas.manifest import Session
from microturn.schemas.receipts import Receipt, WorkSlice
from microturn.schemas.record import Record
from microturn.schemas.spec import FeatureSpec, PictureSpec
from microturn.transforms.tokens import tokenizer
from numpy.typing import NDArray
from signals import speech

SMALL = FeatureSpec(window_ticks=10, pictures=PictureSpec(max_width_px=80, max_height_px=80))
LAYOUT = LayoutSpec()
ONE_SPLIT = {"train": 1.0}
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass
class Raw:
    """A folder of raw input under way: files are written at once, `rows` is the manifest so far."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def sound(self, name: str, samples_CS: NDArray[np.float32], rate_hz: int = 16_000) -> str:
        """A wav of 16 bits, a flac or whatever else the name's ending says; gives the name."""
        path = self.file(name)
        soundfile.write(path, np.atleast_2d(samples_CS).T, rate_hz)
        return name

    def bytes(self, name: str, data: bytes) -> str:
        """A file with these bytes; gives the name."""
        self.file(name).write_bytes(data)
        return name

    def words(self, name: str, words: Iterable[tuple[str, float, float]]) -> str:
        """A list of `{word, start, end}`; gives the name."""
        rows = [{"word": text, "start": start, "end": stop} for text, start, stop in words]
        self.file(name).write_text(json.dumps(rows), encoding="utf-8")
        return name

    def file(self, name: str) -> Path:
        """Where a file lies; its folder is there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, **row: Any) -> dict[str, Any]:
        """A row of the manifest."""
        self.rows.append(row)
        return row

    def dyad(
        self, session_id: str, *, seconds: float = 3.0, seed: int = 0, rate_hz: int = 16_000, ending: str = "wav", **more: Any
    ) -> dict:
        """Two people, left and right of one stereo file, `left` with words; whatever else the row shall hold in `more`."""
        count = round(seconds * rate_hz)
        name = more.pop("file", f"dyad-{seed}")
        sound = np.stack([speech(count, seed * 2 + 1), speech(count, seed * 2 + 2)])
        row = {
            "id": session_id,
            "streams": [stereo_stream("left", f"{name}.{ending}", 0), stereo_stream("right", f"{name}.{ending}", 1)],
            "participants": [{"id": "left", "role": "assistant"}, {"id": "right"}],
            "transcripts": [{"path": self.words(f"{name}.words.json", spoken(seconds)), "participant": "left"}],
        }
        self.sound(f"{name}.{ending}", sound, rate_hz)
        return self.add(**row | more)

    def manifest(self, name: str = "manifest.jsonl", rows: Sequence[Mapping[str, Any]] | None = None) -> Path:
        """The manifest, as JSON lines."""
        path = self.file(name)
        path.write_text("".join(json.dumps(row) + "\n" for row in (self.rows if rows is None else rows)), encoding="utf-8")
        return path


def stereo_stream(participant: str, path: str, channel: int) -> dict[str, Any]:
    """A stream of a row: one channel of a file."""
    return {"id": f"{participant}-audio", "path": path, "kind": "audio", "channel": channel, "participant": participant}


def mono_stream(participant: str, path: str, **more: Any) -> dict[str, Any]:
    """A stream of a row: a file of one's own."""
    return {"id": f"{participant}-audio", "path": path, "kind": "audio", "participant": participant, **more}


def spoken(seconds: float, first: float = 0.25) -> list[tuple[str, float, float]]:
    """Words every 400 ms of a recording."""
    starts = np.arange(first, seconds - 0.3, 0.4)
    return [(WORDS[k % len(WORDS)], round(float(at), 3), round(float(at) + 0.3, 3)) for k, at in enumerate(starts)]


def plan_of(
    rows: Sequence[Mapping[str, Any]], root: Path, *, spec: FeatureSpec = SMALL, splits: Mapping[str, float] = ONE_SPLIT, salt: str = ""
) -> Plan:
    """The plan of these rows."""
    sessions = [Session.parse(row, where=str(row["id"])[:40]) for row in rows]
    return make_plan(sessions, root=str(root), spec=spec, toolchain=toolchain_digest(), splits=splits, salt=salt)


def build(
    rows: Sequence[Mapping[str, Any]],
    root: Path,
    out: Path | str,
    *,
    spec: FeatureSpec = SMALL,
    splits: Mapping[str, float] = ONE_SPLIT,
    salt: str = "",
    on_beam: bool = False,
    **settings: Any,
) -> Verdict:
    """A build in this process; `settings` as in pipelines.run.Settings."""
    plan = plan_of(rows, root, spec=spec, splits=splits, salt=salt)
    wanted = run.Settings(out=str(out), spec=spec, splits=splits, **settings)
    if on_beam:
        return run.run(plan, wanted, toolchain_digest())
    with mock.patch.object(run, "_run_graph", _one_step_after_the_other):
        return run.run(plan, wanted, toolchain_digest())


def _one_step_after_the_other(slices: list[WorkSlice], build: graph.Build, runner: Any, options: Any) -> None:
    step = graph.Featurise(build)
    outcomes = [outcome for part in slices for outcome in step.process(part)]
    rows = [graph._write(task, build) for task in graph._assign((0, outcomes), build)]
    graph._commit((0, rows), build)


def featurised(
    row: Mapping[str, Any], root: Path, *, spec: FeatureSpec = SMALL, layout: LayoutSpec = LAYOUT
) -> tuple[Receipt, dict[str, list[Record]]]:
    """(receipt, view → windows in order of time) of one session, with tokens, as a shard would hold them; no shard is written."""
    with tempfile.TemporaryDirectory() as folder:
        staging = Folder(folder)
        receipt = featurise.make(plan_of([row], root, spec=spec).items[0], staging)
        views: dict[str, list[Record]] = {}
        for window in lay_out(receipt, 0, len(receipt.windows), PartReader(staging), layout, tokenizer.load(layout)):
            members = {
                n: at if isinstance(at, bytes) else staging.read_range(at.part, at.offset, at.size) for n, at in window.members.items()
            }
            views.setdefault(window.light["meta"]["view"], []).append(record.decode(members, where=window.key))
        return receipt, views


def records(out: Path, session: str = "", view: str = "") -> list[Record]:
    """The windows of a corpus, of one session or view if they are named, in order of time."""
    corpus = Corpus.open(str(out))
    rows = [row for row in corpus.rows() if session in ("", row["session"]) and view in ("", row["view"])]
    return [corpus.read(row) for row in sorted(rows, key=lambda row: (row["session"], row["view"], row["first_tick"]))]


def ledger(out: Path) -> list[dict[str, Any]]:
    """Every ledger row of a corpus."""
    corpus = Corpus.open(str(out))
    return [row for part in [*corpus.shards, *corpus.dataset["rejected"]] for row in corpus.ledger(part["name"])]


def faults(out: Path) -> list[str]:
    """What verify says of a corpus; an error of ours that stops it is something it says too."""
    try:
        return verify(Corpus.open(str(out))).faults
    except MicroturnError as error:
        return [str(error)]


def tree(folder: Path, *, staging: bool = False) -> dict[str, bytes]:
    """Name → bytes of every file below a folder, the staging folder's only if asked for."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if staging or not name.startswith(".staging/")}


def copied(folder: Path, to: Path) -> Path:
    """A copy of a folder of a corpus, to tamper with."""
    return Path(shutil.copytree(folder, to))
