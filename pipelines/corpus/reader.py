"""A committed corpus, open for reading: its dataset.json, its index, any window by its byte range."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ...schemas import record
from ...schemas.errors import CorpusError, InputError
from ...schemas.layout import LayoutSpec
from ...schemas.spec import FeatureSpec
from ..storage.folders import Folder
from ..storage.tables import read_table
from ..wording.near import keys_told
from .commit import DATASET, read_dataset


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """dataset.json, read. Shards are listed by it alone, never by looking into folders."""

    folder: Folder
    dataset: dict[str, Any]
    spec: FeatureSpec
    layout: LayoutSpec

    @classmethod
    def open(cls, uri: str) -> "Corpus":
        """The corpus in this folder. Raises InputError when nothing has been committed there, CorpusError when it is not ours."""
        folder = Folder(uri)
        dataset = read_dataset(folder)
        if dataset is None:
            raise InputError(f"{uri}: no {DATASET}", hint="`microturn build INPUT OUT` writes it last; was the build interrupted?")
        where = f"{uri}/{DATASET}"
        spec = FeatureSpec.parse(dataset["spec"], where=f"{where}, spec")
        return cls(folder=folder, dataset=dataset, spec=spec, layout=LayoutSpec.parse(dataset["layout"], where=f"{where}, layout"))

    @property
    def shards(self) -> list[dict[str, Any]]:
        """What dataset.json says of each shard, sorted by name."""
        return self.dataset["shards"]

    def index(self, shard: str) -> list[dict[str, Any]]:
        """The index rows of a shard, in the order in which its windows lie."""
        return read_table(self.folder, f"index/{shard}.parquet").to_pylist()

    def ledger(self, name: str) -> list[dict[str, Any]]:
        """The ledger rows of a shard, or of a `rejected-…` part."""
        return read_table(self.folder, f"ledger/{name}.parquet").to_pylist()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every index row of the corpus, shard by shard."""
        for shard in self.shards:
            yield from self.index(shard["name"])

    def read(self, row: dict[str, Any]) -> record.Record:
        """The record of an index row, by its byte range. Raises CorpusError when it does not decode."""
        data = self.folder.read_range(f"shards/{row['shard']}.tar", row["offset"], row["size"])
        start = row["offset"]
        members = {m["name"]: data[m["offset"] - start : m["offset"] - start + m["size"]] for m in row["members"]}
        return record.decode(members, where=f"{row['shard']}.tar:{row['key']}")

    def find(self, key: str) -> dict[str, Any]:
        """The index row of a window. Raises InputError naming near keys when there is none."""
        known = []
        for row in self.rows():
            if row["key"] == key:
                return row
            known.append(row["key"])
        raise InputError(f"no window {key!r} in {self.folder.uri}", hint=keys_told(key, known))


def grouped(members: Iterator[tuple[str, int, bytes]]) -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """(key, member name → (offset, payload)) of consecutive members with one key. Raises CorpusError for a name without key, or twice."""
    key = ""
    window: dict[str, tuple[int, bytes]] = {}
    for name, offset, payload in members:
        found, dot, member = name.partition(".")
        if not dot:
            raise CorpusError(f"{name}: not <key>.<member>")
        if found != key:
            if window:
                yield key, window
            key, window = found, {}
        if member in window:
            raise CorpusError(f"{name} stands twice")
        window[member] = (offset, payload)
    if window:
        yield key, window
