"""From shard summaries to dataset.json, the only commit point: written last, by itself, whole. Readers list shards from it.

Beside it, for readers that are not ours: the dataset card (README.md), Energon's `.nv-meta`, croissant.json.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..schemas.errors import CorpusError
from ..schemas.layout import LayoutSpec
from ..schemas.receipts import Receipt, ShardSummary
from ..schemas.spec import FeatureSpec
from ..schemas.strict import sha256_hex
from ..schemas.tables import LEDGER_SCHEMA, LedgerRow, rows_digest
from . import cards
from .gather import audio_totals, read_table, write_table
from .plan import DUPLICATE_KEPT
from .storage import Folder
from .toolchain import digest_of

DATASET = "dataset.json"
FORMAT_VERSION = 1


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
    if not tables:
        return sha256_hex("")
    table = pa.concat_tables(tables).sort_by("key")
    twice = table.num_rows - len(table["key"].unique())
    if twice:
        raise CorpusError(f"{twice} window keys stand twice in the index")
    running = hashlib.sha256()
    for key, digest in zip(table["key"].to_pylist(), table["digest"].to_pylist(), strict=True):
        running.update(f"{key} {digest}\n".encode())
    return running.hexdigest()


def layout_digest(shards: Iterable[Mapping[str, Any]], rejected: Iterable[Mapping[str, Any]]) -> str:
    """sha256 over the sorted names and digests of shards, index rows and ledger rows: equal for equal plans."""
    lines = [f"{s['name']} {s['sha256']} {s['index_digest']} {s['ledger_digest']}" for s in shards]
    lines += [f"{r['name']} {r['ledger_digest']}" for r in rejected]
    return sha256_hex("".join(line + "\n" for line in sorted(lines)))


def totals(shards: Sequence[Mapping[str, Any]], rejected: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What dataset.json says of the whole: sums over its parts."""
    counts = {
        key: sum(shard[key] for shard in shards)
        for key in ("num_windows", "num_sessions", "num_ticks", "num_tokens", "num_pairs", "size_bytes")
    }
    counts |= {key: sum(part[key] for part in [*shards, *rejected]) for key in ("audio_decoded", "audio_dropped", "ledger_rows")}
    return counts | {"rejected_sessions": sum(part["num_sessions"] for part in rejected)}


def num_dropped_whole(rows: Iterable[LedgerRow]) -> int:
    """Sessions of which nothing is kept. A row that only repeats one that is kept is none."""
    return len({row.session for row in rows if row.entry == "session" and row.reason != DUPLICATE_KEPT})


def write_rejected(out: Folder, receipts: Sequence[Receipt], before: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What dataset.json says of all ledgers of sessions that gave no window: those `before`, and the one of these receipts, now written.

    A part with the same rows that was there before is this one: a runner may run its last step twice.
    """
    rows = [row for receipt in sorted(receipts, key=lambda r: (r.order, r.source_digest)) for row in receipt.ledger]
    dumped = [row.model_dump() for row in rows]
    digest = rows_digest(dumped)
    if not rows or any(part["ledger_digest"] == digest for part in before):
        return list(before)
    name = f"rejected-{len(before):06d}"
    write_table(out, f"ledger/{name}.parquet", dumped, LEDGER_SCHEMA)
    decoded, dropped = audio_totals(rows)
    part = {
        "name": name,
        "ledger_digest": digest,
        "ledger_rows": len(rows),
        "num_sessions": num_dropped_whole(rows),
        "audio_decoded": decoded,
        "audio_dropped": dropped,
    }
    return [*before, part]


def commit(
    out: Folder,
    *,
    before: Mapping[str, Any] | None,
    summaries: Sequence[ShardSummary],
    rejected: Sequence[Receipt],
    spec: FeatureSpec,
    layout: LayoutSpec,
    toolchain: Mapping[str, str],
    splits: Mapping[str, float],
    shard_bytes: int,
    is_mixed: bool,
) -> dict[str, Any]:
    """Writes dataset.json over the shards that were there (`before`) and these; removes files of shards that are in neither; gives it.

    `is_mixed`: other toolchains than this one may have made some of it; a corpus that was marked so stays marked. Doing it twice is doing
    it once: a shard that was there already is the same shard.
    """
    by_name = {shard["name"]: shard for shard in [*(before["shards"] if before else ()), *(summary.model_dump() for summary in summaries)]}
    shards = [by_name[name] for name in sorted(by_name)]
    refused = write_rejected(out, rejected, before["rejected"] if before else ())
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
        "mixed_toolchain": is_mixed or bool(before and before["mixed_toolchain"]),
        "shards": shards,
        "rejected": refused,
    }
    sweep(out, dataset)  # before the commit: leavings would outlive a build that is killed behind it
    cards.write(out, dataset)
    out.write(DATASET, (json.dumps(dataset, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return dataset


def sweep(out: Folder, dataset: Mapping[str, Any]) -> None:
    """Removes what builds that were interrupted, or had another plan, left in the corpus folders."""
    names = [shard["name"] for shard in dataset["shards"]]
    listed = {f"shards/{name}.tar{end}" for name in names for end in ("", ".idx")} | {f"index/{name}.parquet" for name in names}
    listed |= {f"ledger/{name}.parquet" for name in [*names, *(part["name"] for part in dataset["rejected"])]}
    for folder in ("shards", "index", "ledger"):
        for name in out.names(folder):
            if name not in listed:
                out.delete(name)
