"""From shard summaries to dataset.json, the only commit point: written last, by itself, whole. Readers list shards from it.

Beside it, for readers that are not ours: the dataset card (README.md), Energon's `.nv-meta`, croissant.json.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...schemas.errors import CorpusError
from ...schemas.layout import LayoutSpec
from ...schemas.receipts import Receipt, ShardSummary
from ...schemas.spec import FeatureSpec
from ...schemas.strict import sha256_hex
from ..sessions.drops import COUNTS
from ..sessions.toolchain import digest_of
from ..storage.folders import Folder
from ..storage.tables import read_table
from . import cards, rejected

DATASET = "dataset.json"
FORMAT_VERSION = 1
ROWS_AT_ONCE = 10_000


def dataset_digest(out: Folder) -> str:
    """sha256 of dataset.json as it lies there, "" when there is none: what a build starts from, and what it must find at its end."""
    return hashlib.sha256(out.read(DATASET)).hexdigest() if out.exists(DATASET) else ""


def read_dataset(out: Folder) -> dict[str, Any] | None:
    """dataset.json of a corpus, None when nothing has been committed there. Raises CorpusError when it is not ours."""
    if not out.exists(DATASET):
        return None
    try:
        dataset = json.loads(out.read(DATASET))
        if dataset["format"] != "microturn" or dataset["version"] != FORMAT_VERSION:
            raise KeyError("format")
    except (ValueError, KeyError, TypeError):
        raise CorpusError(f"{out.uri}/{DATASET}: not the dataset.json of a microturn corpus, version {FORMAT_VERSION}") from None
    return dataset


def content_digest(out: Folder, names: Iterable[str]) -> str:
    """sha256 over the sorted lines `key sha256(members)` of these shards' windows: equal however the corpus grew or was resharded."""
    tables = [read_table(out, f"index/{name}.parquet", ["key", "digest"]) for name in names]
    table = pa.concat_tables(tables) if tables else pa.table({"key": [], "digest": []})
    order = pc.sort_indices(table, sort_keys=[("key", "ascending")])
    running, before = hashlib.sha256(), None
    for start in range(0, len(order), ROWS_AT_ONCE):  # as Python objects all rows at once would take five times as much
        rows = table.take(order[start : start + ROWS_AT_ONCE])
        for key, digest in zip(rows["key"].to_pylist(), rows["digest"].to_pylist(), strict=True):
            if key == before:
                raise CorpusError(f"the window {key} stands twice in the index")
            running.update(f"{key} {digest}\n".encode())
            before = key
    return running.hexdigest()


def layout_digest(shards: Iterable[Mapping[str, Any]], refused: Iterable[Mapping[str, Any]]) -> str:
    """sha256 over the sorted names and digests of shards, index rows and ledger rows: equal for equal plans."""
    lines = [f"{s['name']} {s['sha256']} {s['index_digest']} {s['ledger_digest']}" for s in shards]
    lines += [f"{r['name']} {r['ledger_digest']}" for r in refused]
    return sha256_hex("".join(line + "\n" for line in sorted(lines)))


def totals(shards: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What dataset.json says of the whole: sums over its parts."""
    counts = {
        key: sum(shard[key] for shard in shards)
        for key in ("num_windows", "num_sessions", "num_ticks", "num_tokens", "num_pairs", "size_bytes")
    }
    counts |= {key: sum(part["drops"][key] for part in [*shards, *refused]) for key in COUNTS}
    counts["ledger_rows"] = sum(part["ledger_rows"] for part in [*shards, *refused])
    return counts | {"rejected_sessions": sum(part["num_sessions"] for part in refused)}


def is_committed(
    out: Folder,
    dataset: Mapping[str, Any] | None,
    summaries: Sequence[ShardSummary],
    receipts: Sequence[Receipt],
    superseded: Collection[str],
) -> bool:
    """Whether a corpus holds all of this already."""
    if dataset is None:
        return False
    shards = {shard["name"]: shard for shard in dataset["shards"]}
    there = all(shards.get(summary.name) == summary.model_dump() for summary in summaries)
    return there and rejected.stand(out, dataset["rejected"], receipts, superseded)


def commit(
    out: Folder,
    *,
    before: Mapping[str, Any] | None,
    summaries: Sequence[ShardSummary],
    receipts: Sequence[Receipt],
    superseded: Collection[str],
    spec: FeatureSpec,
    layout: LayoutSpec,
    toolchain: Mapping[str, str],
    splits: Mapping[str, float],
    shard_bytes: int,
    is_mixed: bool,
) -> dict[str, Any]:
    """Writes dataset.json over the shards that were there (`before`) and these; removes files of shards that are in neither; gives it.

    `receipts` are of sessions newly dropped whole; rows of `superseded` ones, dropped in an earlier build, go. `is_mixed`: other toolchains
    than this one may have made some of it; a corpus that was marked so stays marked.
    """
    refused = rejected.write(out, before["rejected"] if before else (), receipts, superseded)
    return publish(
        out,
        before=before,
        shards=in_order(before["shards"] if before else (), summaries),
        refused=refused,
        spec=spec,
        layout=layout,
        toolchain=toolchain,
        splits=splits,
        shard_bytes=shard_bytes,
        is_mixed=is_mixed or bool(before and before["mixed_toolchain"]),
        withdrawn=before.get("withdrawn", ()) if before else (),
    )


def in_order(there: Iterable[Mapping[str, Any]], summaries: Iterable[ShardSummary]) -> list[Mapping[str, Any]]:
    """What dataset.json lists: by split, those that are there as they stand, then the new ones. A session goes on in the next of its split,
    so this order is that of the sessions; a number says only which shard was named first."""
    new = sorted((summary.model_dump() for summary in summaries), key=lambda shard: shard["name"])
    return sorted([*there, *new], key=lambda shard: shard["split"])


def next_numbers(shards: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Split → the number of its next shard: beyond all that are there, for a purge leaves gaps."""
    numbers: dict[str, int] = {}
    for shard in shards:
        number = int(shard["name"].rpartition("-")[2])
        numbers[shard["split"]] = max(numbers.get(shard["split"], 0), number + 1)
    return numbers


def publish(
    out: Folder,
    *,
    before: Mapping[str, Any] | None,
    shards: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]],
    spec: FeatureSpec,
    layout: LayoutSpec,
    toolchain: Mapping[str, str],
    splits: Mapping[str, float],
    shard_bytes: int,
    is_mixed: bool,
    withdrawn: Iterable[str],
) -> dict[str, Any]:
    """Writes dataset.json over these shards and ledgers of sessions dropped whole, in place of `before`; gives it.

    What neither of the two names is removed first, what only `before` named when the new one stands: whoever is killed between has the one
    or the other, whole. `withdrawn`: marks of sessions that may not come back (corpus/withdrawn.py).
    """
    names = [shard["name"] for shard in shards]
    dataset = {
        "format": "microturn",
        "version": FORMAT_VERSION,
        "digests": {
            "content": content_digest(out, names),
            "layout": layout_digest(shards, refused),
            "spec": spec.digest(),
            "layout_spec": layout.digest(),
            "toolchain": digest_of(toolchain),
        },
        "totals": totals(shards, refused),
        "splits": dict(splits),
        "shard_bytes": shard_bytes,
        "spec": spec.model_dump(mode="json"),
        "layout": layout.model_dump(mode="json"),
        "toolchain": dict(toolchain),
        "mixed_toolchain": is_mixed,
        "shards": list(shards),
        "rejected": list(refused),
        "withdrawn": sorted(set(withdrawn)),
    }
    sweep(out, dataset, *([before] if before else []))  # before the commit: leavings would outlive a build that is killed behind it
    for name, data in cards.files(out, dataset).items():
        out.write(name, data)
    out.write(DATASET, (json.dumps(dataset, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    sweep(out, dataset)
    return dataset


def sweep(out: Folder, *datasets: Mapping[str, Any]) -> None:
    """Removes what none of these lists from the corpus folders: what builds that were interrupted, or had another plan, left there."""
    listed: set[str] = set()
    for dataset in datasets:
        names = [shard["name"] for shard in dataset["shards"]]
        listed |= {f"shards/{name}.tar{end}" for name in names for end in ("", ".idx")} | {f"index/{name}.parquet" for name in names}
        listed |= {f"ledger/{name}.parquet" for name in [*names, *(part["name"] for part in dataset["rejected"])]}
    for folder in ("shards", "index", "ledger"):
        for name in out.names(folder):
            if name not in listed:
                out.delete(name)
