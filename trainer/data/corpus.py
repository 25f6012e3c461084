"""A corpus as a loader sees it: dataset.json, its digests, the index, and any window by its byte range.

Reads what `microturn build` wrote (FORMAT.md section 6) and nothing else; shards are listed by dataset.json alone, never by looking into
folders. Costs at opening: the Parquet of every shard of the split, once; with `cache` a later start reads one file instead.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...schemas.errors import CorpusError, InputError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import FeatureSpec
from .files import Files
from .index import WindowIndex

IDENTITY = {"content": "content", "spec": "spec", "layout_spec": "layout and tokenizer"}  # digest of dataset.json → what it is of
SHARD = {"name": str, "split": str, "index_digest": str, "num_windows": int, "num_tokens": int, "num_ticks": int}  # what we read of a shard


@dataclass(frozen=True, kw_only=True)
class OpenCorpus:
    """One split of a corpus, open for reading by any number of processes.

    Attributes:
        name: the folder as it was named by whoever opened it.
        identity: the digests that a run is bound to: `content`, `spec`, `layout_spec`.
        index: where every window of the split lies.
    """

    name: str
    files: Files
    identity: dict[str, str]
    spec: FeatureSpec
    layout: LayoutSpec
    split: str
    index: WindowIndex

    @classmethod
    def open(
        cls, uri: str, *, split: str = "train", started_with: Mapping[str, str] | None = None, cache: Path | None = None
    ) -> "OpenCorpus":
        """The corpus in this folder.

        Args:
            started_with: the `identity` of the corpus that a run was started with; None for a new run.
            cache: a folder in which to keep the index as one file; None to read the Parquet every time.

        Raises:
            InputError: nothing is committed there; it is another corpus than the run's; it has no such split; a model cannot hear it.
            CorpusError: dataset.json or an index is not what it should be.
        """
        files = Files(uri)
        dataset = read_dataset(files)
        identity = {name: dataset["digests"][name] for name in IDENTITY}
        if started_with is not None:
            refuse_another(identity, started_with, where=files.path("dataset.json"))
        where = files.path("dataset.json")
        spec = FeatureSpec.parse(dataset["spec"], where=f"{where}, spec")
        layout = LayoutSpec.parse(dataset["layout"], where=f"{where}, layout")
        for what, claimed, found in (("spec", identity["spec"], spec.digest()), ("layout", identity["layout_spec"], layout.digest())):
            if claimed != found:
                raise CorpusError(f"{where}: says digest {claimed} of its {what}, which has {found}: another version of microturn wrote it")
        if spec.heard != "sum":
            raise InputError(f"{uri}: built with heard={spec.heard!r}, the model hears one stream", hint="build it with heard: sum")
        shards = [shard for shard in dataset["shards"] if shard["split"] == split]
        if not shards:
            splits = sorted({shard["split"] for shard in dataset["shards"]})
            raise InputError(f"{uri}: no split {split!r}", hint=f"it has: {', '.join(splits) or 'no windows at all'}")
        index = WindowIndex.open(files, shards, spec.window_ticks, cache=cache)
        return cls(name=uri, files=files, identity=identity, spec=spec, layout=layout, split=split, index=index)


def read_dataset(files: Files) -> dict[str, Any]:
    """dataset.json; digests and shards are what `OpenCorpus` takes them for.

    Raises InputError when nothing has been committed there, CorpusError naming the place when it is not ours.
    """
    where = files.path("dataset.json")
    try:
        data = files.read("dataset.json")
    except FileNotFoundError:
        hint = "`microturn build INPUT OUT` writes it last; was the build interrupted?"
        if "://" not in files.uri and not Path(files.uri).is_absolute():
            hint += " The path is taken from the folder you are in; if the corpus lies elsewhere, --data names the corpus anew"
        raise InputError(f"{where}: not there", hint=hint) from None
    try:
        dataset = json.loads(data)
        ours = dataset["format"] == "microturn" and dataset["version"] == 1
    except (ValueError, KeyError, TypeError, RecursionError):
        ours = False
    if not ours:
        raise CorpusError(f"{where}: not the dataset.json of a microturn corpus, version 1")
    _refuse_shape(dataset, where)
    return dataset


def _refuse_shape(dataset: Mapping[str, Any], where: str) -> None:
    """Nothing if digests and shards have the types that are read of them. Raises CorpusError naming the first that has not."""

    def expect(kind: type, value: Any, place: str) -> None:
        if not isinstance(value, kind):
            raise CorpusError(f"{where}: {place}: found {type(value).__name__}, expected {kind.__name__}")

    for name in ("spec", "layout", "digests"):
        expect(dict, dataset.get(name), name)
    expect(list, dataset.get("shards"), "shards")
    for name in IDENTITY:
        expect(str, dataset["digests"].get(name), f"digests.{name}")
    for number, shard in enumerate(dataset["shards"]):
        expect(dict, shard, f"shards.{number}")
        for name, kind in SHARD.items():
            expect(kind, shard.get(name), f"shards.{number}.{name}")


def refuse_another(found: Mapping[str, str], started_with: Mapping[str, str], *, where: str) -> None:
    """Nothing if these are the digests that the run was started with. Raises InputError naming what differs, and both digests."""
    unlike = [
        f"{what} {found[name]}, the run was started with {started_with.get(name, 'none')}"
        for name, what in IDENTITY.items()
        if found[name] != started_with.get(name)
    ]
    if unlike:
        raise InputError(f"{where}: {'; '.join(unlike)}", hint="bring back the corpus of the run, or start a new run on this one")
