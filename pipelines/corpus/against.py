"""Windows of a corpus made again from the raw files, and compared byte for byte: what verify.py cannot know from the corpus alone."""

import tempfile
from typing import Any

from ...schemas.errors import MicroturnError
from ...schemas.receipts import Outcome, WorkItem
from ...schemas.strict import sha256_hex
from ...transforms.tokens.tokenizer import Tokenizer
from ...transforms.tokens.tokenizer import load as load_tokenizer
from ..sessions import receipts
from ..sessions.child import MediaProcess
from ..shards.lay import lay_out
from ..storage.folders import Folder
from ..storage.parts import PartReader
from .reader import Corpus
from .verify import Findings, Tell


def against(
    corpus: Corpus, items: dict[str, WorkItem], num_windows: int, tokenizer_path: str = "", tell: Tell = lambda done, total: None
) -> Findings:
    """Makes `num_windows` windows, chosen by the hash of their keys, again from the raw files and compares every byte.

    `items` is session key → work item. The sessions are featurised from their beginning, in a temporary folder.
    """
    found = Findings()
    words = load_tokenizer(corpus.layout, tokenizer_path or None)
    chosen: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(corpus.rows(), key=lambda row: sha256_hex(row["key"]))[:num_windows]:
        chosen.setdefault(row["session"], []).append(row)
    with MediaProcess() as media:
        for done, (session, rows) in enumerate(sorted(chosen.items())):
            tell(done, len(chosen))
            if session not in items:
                found.faults.append(f"session {session}: not in the input")
                continue
            with tempfile.TemporaryDirectory(prefix="microturn-") as folder:
                try:
                    _compare(corpus, items[session], rows, Folder(folder), words, media, found)
                except (MicroturnError, OSError) as error:
                    found.faults.append(f"session {session}: {error}")
    tell(len(chosen), len(chosen))
    return found


def _compare(
    corpus: Corpus,
    item: WorkItem,
    rows: list[dict[str, Any]],
    staging: Folder,
    words: Tokenizer,
    media: MediaProcess,
    found: Findings,
) -> None:
    name = item.receipt_name()
    request = {"item": item.model_dump(mode="json"), "staging": staging.uri, "receipt": name}
    outcome = Outcome(**media.call("featurise", request))
    made = receipts.read(staging, outcome.receipt)
    with PartReader(staging) as parts:
        again = {window.key: window for window in lay_out(made, 0, len(made.windows), parts, corpus.layout, words)}
    for row in rows:
        found.num_windows += 1
        if row["key"] not in again:
            found.faults.append(f"{row['key']}: the raw files do not give it")
            continue
        window = again[row["key"]]
        stored = corpus.folder.read_range(f"shards/{row['shard']}.tar", row["offset"], row["size"])
        for member in row["members"]:
            start = member["offset"] - row["offset"]
            old, at = stored[start : start + member["size"]], window.members.get(member["name"])
            new = at if isinstance(at, bytes) or at is None else staging.read_range(at.part, at.offset, at.size)
            found.num_bytes += len(old)
            if old != new:
                found.faults.append(f"{row['key']}.{member['name']}: not what the raw files give")
