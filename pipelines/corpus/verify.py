"""Everything a corpus claims, recomputed: hashes, digests, schemas, counts, ledger sums, tokens, and how windows continue each other.

A fault is a sentence; nothing is repaired. Not looked at: README.md, which people edit, and report.html; croissant.json and `.nv-meta` only
where this version of microturn wrote them. What only the raw files can tell is pipelines/corpus/against.py.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ... import __version__
from ...schemas import keys, record
from ...schemas.errors import CorpusError
from ...schemas.layout import LayoutSpec
from ...schemas.tables import LedgerRow, open_sums, rows_digest
from ...transforms.tokens.tokenizer import Tokenizer
from ...transforms.tokens.tokenizer import load as load_tokenizer
from ...transforms.tokens.view_window import tokens_again
from ..sessions.drops import drops, num_dropped_whole
from ..sessions.toolchain import digest_of
from ..shards.describe import DESCRIBED, describe
from ..storage import tar
from ..storage.folders import sha256_of
from ..storage.tables import read_table
from . import cards
from .commit import content_digest, layout_digest, totals
from .reader import Corpus, grouped
from .withdrawn import are_withdrawn

Tell = Callable[[int, int], None]  # bytes verified, bytes in all
FOLDERS = ("shards", "index", "ledger")


@dataclass(slots=True)
class Findings:
    """What was looked at, and every fault found."""

    num_shards: int = 0
    num_windows: int = 0
    num_bytes: int = 0
    num_ledger_rows: int = 0
    faults: list[str] = field(default_factory=list)


def verify(corpus: Corpus, tokenizer_path: str = "", tell: Tell = lambda done, total: None) -> Findings:
    """Reads every byte of the corpus once and compares it with what is claimed. Raises only for what makes going on useless."""
    found = Findings()
    words = load_tokenizer(corpus.layout, tokenizer_path or None)
    total = sum(shard["size_bytes"] for shard in corpus.shards)
    last: record.Record | None = None
    for shard in corpus.shards:
        try:
            last = _shard(corpus, shard, words, last, found)
        except Exception as error:  # whatever damage makes a library raise is a finding
            last = None
            found.faults.append(f"shard {shard['name']}: {type(error).__name__}: {error}")
        found.num_shards += 1
        found.num_bytes += shard["size_bytes"]
        tell(found.num_bytes, total)
    if last is not None:
        found.faults += _open_end(last, corpus.layout)
    for part in [*corpus.shards, *corpus.dataset["rejected"]]:
        try:
            _ledger(corpus, part, found)
        except Exception as error:
            found.faults.append(f"ledger/{part['name']}.parquet: {type(error).__name__}: {error}")
    _claims(corpus, found)
    return found


def _shard(corpus: Corpus, shard: dict[str, Any], words: Tokenizer, last: record.Record | None, found: Findings) -> record.Record | None:
    """Verifies a shard; `last` is the window before its first, the answer its own last, None where that is damaged."""
    name, folder = shard["name"], corpus.folder
    with folder.open(f"shards/{name}.tar") as file:
        digest = sha256_of(file)
    if digest != shard["sha256"]:
        found.faults.append(f"shards/{name}.tar: sha256 {digest}, dataset.json says {shard['sha256']}")
    index = corpus.index(name)
    if rows_digest(index) != shard["index_digest"]:
        found.faults.append(f"index/{name}.parquet: its rows are not those that dataset.json was written over")
    offsets = [row["offset"] for row in index] + ([index[-1]["offset"] + index[-1]["size"]] if index else [0])
    if folder.read(f"shards/{name}.tar.idx") != struct.pack(f"<{len(offsets)}Q", *offsets):
        found.faults.append(f"shards/{name}.tar.idx: not the offsets of the index")
    sessions = [last.meta["session"] if last else ""] + [row["session"] for row in index]
    with folder.open(f"shards/{name}.tar") as file:
        windows = grouped(tar.members(file))
        for row, (key, members) in zip(index, windows, strict=True):
            found.num_windows += 1
            where = f"{row['shard']}.tar:{key}"
            try:
                last = _window(corpus, row, key, members, words, last, found.faults, where)
            except Exception as error:
                last = None
                found.faults.append(str(error) if isinstance(error, CorpusError) else f"{where}: {type(error).__name__}: {error}")
    for claim, value in (
        ("split", name.rpartition("-")[0]),
        ("size_bytes", folder.size(f"shards/{name}.tar")),
        ("num_windows", len(index)),
        ("num_ticks", sum(row["num_ticks"] for row in index)),
        ("num_tokens", sum(row["num_tokens"] for row in index)),
        ("num_pairs", sum(row["num_pairs"] for row in index)),
        ("num_sessions", sum(a != b for a, b in pairwise(sessions))),  # a session belongs to the shard in which it begins
    ):
        if shard[claim] != value:
            found.faults.append(f"shard {name}: {claim} {shard[claim]}, recomputed {value}")
    if {(row["shard"], row["split"]) for row in index} != {(name, shard["split"])}:
        found.faults.append(f"index/{name}.parquet: rows of another shard or split")
    return last


def _window(
    corpus: Corpus,
    row: dict[str, Any],
    key: str,
    members: dict[str, tuple[int, bytes]],
    words: Tokenizer,
    last: record.Record | None,
    faults: list[str],
    where: str,
) -> record.Record:
    at: list[dict[str, Any]] = [
        {"name": name, "offset": offset, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, (offset, data) in members.items()
    ]
    if key != row["key"]:
        faults.append(f"{where}: the index has {row['key']} here")
    if at != row["members"]:
        names = [a["name"] for a, b in zip(at, row["members"], strict=False) if a != b] or ["their number"]
        faults.append(f"{where}: members differ from the index: {', '.join(names)}")
    digest = record.window_digest({member["name"]: member["sha256"] for member in at})
    if digest != row["digest"]:
        faults.append(f"{where}: digest {digest}, the index says {row['digest']}")
    window = record.decode({name: data for name, (_, data) in members.items()}, where=where)
    counted = describe(num_tokens=len(window.tokens), **{name: getattr(window, name) for name in DESCRIBED})
    faults += [f"{where}: {name} is {value!r}, the index says {row[name]!r}" for name, value in counted.items() if value != row[name]]
    faults += [f"{where}: {fault}" for fault in _own_faults(window, key, corpus)]
    again = tokens_again(window, corpus.layout, words)
    for name in record.TOKEN_MEMBERS:
        if getattr(again, name).tobytes() != getattr(window, name).tobytes():
            faults.append(f"{where}: {name}.npy is not what its words, events and activity give")
    if again.carry.to_json() != window.meta["carry_out"]:
        faults.append(f"{where}: carry_out is not what its words leave over")
    if last is not None and (last.meta["session"], last.meta["view"]) == (window.meta["session"], window.meta["view"]):
        faults += [f"{where}: {fault}" for fault in _broken_joint(last, window)]
    else:
        faults += _open_end(last, corpus.layout) if last is not None else []
        if window.meta["first_tick"]:
            faults.append(f"{where}: no sound window before it")
    return window


def _own_faults(window: record.Record, key: str, corpus: Corpus) -> Iterator[str]:
    """What a window says of itself and is not so."""
    meta = window.meta
    if keys.window_key(meta["session"], meta["view"], meta["first_tick"]) != key:
        yield f"its meta is that of {meta['session']}-{meta['view']}, tick {meta['first_tick']}"
    if meta["digests"]["spec"] != corpus.spec.digest() or meta["layout"] != corpus.layout.digest():
        yield "made by another spec or layout than dataset.json has"


def _open_end(window: record.Record, layout: LayoutSpec) -> Iterator[str]:
    """What is wrong with a window that is the last of its view."""
    meta = window.meta
    where, stop = keys.window_key(meta["session"], meta["view"], meta["first_tick"]), meta["first_tick"] + meta["num_ticks"]
    if not 0 <= stop - meta["session_ticks"] <= layout.max_tail_ticks:
        yield f"{where}: the view ends at tick {stop}, its session at {meta['session_ticks']}"
    if any(meta["carry_out"].values()) and stop - meta["session_ticks"] < layout.max_tail_ticks:
        yield f"{where}: the view ends with text left over"


def _broken_joint(a: record.Record, b: record.Record) -> Iterator[str]:
    """What does not continue from one window of a view to the next."""
    if a.meta["first_tick"] + a.meta["num_ticks"] != b.meta["first_tick"]:
        yield f"starts at tick {b.meta['first_tick']}, the one before ends at {a.meta['first_tick'] + a.meta['num_ticks']}"
    if a.meta["carry_out"] != b.meta["carry_in"]:
        yield "carry_in is not the carry_out before it"
    if a.own_pcm[-1].tobytes() != b.own_pcm[0].tobytes() or a.own_valid[-1] != b.own_valid[0]:
        yield "own speech of its first tick is not what the window before performs last"
    if a.meta["after"]["own_active"] != b.activity[-1][0] or a.activity[-1][-1] != b.meta["before"]["own_active"]:
        yield "own activity at the joint differs"


def _ledger(corpus: Corpus, part: dict[str, Any], found: Findings) -> None:
    """Verifies the ledger of a shard, or of sessions that were dropped whole. A session's rows lie in one file."""
    table = corpus.ledger(part["name"])
    if rows_digest(table) != part["ledger_digest"]:
        found.faults.append(f"ledger/{part['name']}.parquet: its rows are not those that dataset.json was written over")
    rows = [LedgerRow(**row) for row in table]
    found.faults += [f"ledger/{part['name']}.parquet: {fault}" for fault in open_sums(rows)]
    found.num_ledger_rows += len(rows)
    claims: dict[str, Any] = {"ledger_rows": len(rows), "drops": drops(rows).model_dump()}
    if "sha256" not in part:
        claims["num_sessions"] = num_dropped_whole(rows)
    for name, value in claims.items():
        if part[name] != value:
            found.faults.append(f"ledger/{part['name']}.parquet: {name} {part[name]}, recomputed {value}")


def _claims(corpus: Corpus, found: Findings) -> None:
    """dataset.json against its own parts, which have been verified one by one, and against the folders."""
    dataset, faults = corpus.dataset, found.faults
    for name, value in (
        ("spec", corpus.spec.digest()),
        ("layout_spec", corpus.layout.digest()),
        ("toolchain", digest_of(dataset["toolchain"])),
        ("layout", layout_digest(corpus.shards, dataset["rejected"])),
    ):
        if dataset["digests"][name] != value:
            faults.append(f"dataset.json: digest {name} is {dataset['digests'][name]}, recomputed {value}")
    try:
        content = content_digest(corpus.folder, [shard["name"] for shard in corpus.shards])
        if dataset["digests"]["content"] != content:
            faults.append(f"dataset.json: content digest {dataset['digests']['content']}, recomputed {content}")
    except Exception as error:
        faults.append(f"index: {type(error).__name__}: {error}")
    if dataset.get("withdrawn"):
        for shard in corpus.shards:
            there = read_table(corpus.folder, f"index/{shard['name']}.parquet", ["session"])["session"].unique().to_pylist()
            faults += [f"shard {shard['name']}: session {name} was withdrawn" for name in are_withdrawn(there, dataset)]
    for name, count in totals(corpus.shards, dataset["rejected"]).items():
        if dataset["totals"].get(name) != count:
            faults.append(f"dataset.json: {name} {dataset['totals'].get(name)}, its parts give {count}")
    listed = {f"shards/{s['name']}.tar{end}" for s in corpus.shards for end in ("", ".idx")}
    listed |= {f"index/{s['name']}.parquet" for s in corpus.shards}
    listed |= {f"ledger/{s['name']}.parquet" for s in [*corpus.shards, *dataset["rejected"]]}
    present = {name for folder in FOLDERS for name in corpus.folder.names(folder)}
    faults += [f"{name}: not in dataset.json" for name in sorted(present - listed)]
    faults += [f"{name}: listed in dataset.json, not there" for name in sorted(listed - present)]
    try:
        faults += _cards(corpus)
    except Exception as error:
        faults.append(f"croissant.json: cannot be compared: {type(error).__name__}: {error}")


def _cards(corpus: Corpus) -> Iterator[str]:
    """What other readers are told, against what dataset.json gives. The card for people, README.md, is theirs to edit."""
    if corpus.dataset["toolchain"]["microturn"] != __version__:
        return  # another version words them otherwise
    for name, data in cards.files(corpus.folder, corpus.dataset).items():
        if name != cards.CARD and (not corpus.folder.exists(name) or corpus.folder.read(name) != data):
            yield f"{name}: not what dataset.json gives"
