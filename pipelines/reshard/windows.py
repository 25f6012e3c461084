"""A session of a corpus as the receipt that it was once gathered from: its windows without tokens and tails, by byte ranges of the shards.

What a layout added is taken away: whole windows of tail are left out, a last one that holds some is cut back to the recording's end, and
`meta` has again what featurising knew. So a new layout, and the sizes by which shards fill, come out as in a build.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ...schemas import keys, record
from ...schemas.clock import FRAME_SAMPLES, TICK_SAMPLES
from ...schemas.errors import CorpusError
from ...schemas.meta import WindowMeta
from ...schemas.receipts import MemberAt, Receipt, WindowReceipt
from ...schemas.tables import LedgerRow
from ...transforms import dmel
from ...transforms.sessions import tail
from ..sessions import receipts
from .sources import Held, ShardReader

IndexRow = Mapping[str, Any]


def featurised(rows: Sequence[IndexRow]) -> Iterator[list[IndexRow]]:
    """The rows of a session, windows of tail put to the window that they overflow from: what a build counts as one."""
    window: list[IndexRow] = []
    for row in rows:
        if window and row["first_tick"] < row["session_ticks"]:
            yield window
            window = []
        window.append(row)
    if window:
        yield window


def window_receipt(row: IndexRow, reader: ShardReader) -> tuple[WindowReceipt, dict[str, Any]]:
    """(the window as featurising gave it, its meta as it lies). What has to be made anew stays with the reader until it forgets."""
    at = reader.locate(row)
    meta = record.decode_json(reader.read(at["meta.json"]), where=f"{row['shard']}.tar:{row['key']}.meta.json")
    num_ticks = min(row["num_ticks"], row["session_ticks"] - row["first_tick"])
    known = {name: meta[name] for name in WindowMeta.model_fields} | {"num_ticks": num_ticks, "tail_ticks": 0}
    made = {"meta.json": record.encode_json(known)}
    if num_ticks < row["num_ticks"]:
        arrays = _tick_arrays(at, meta, reader, row)
        cut = next(tail.pieces(arrays, num_ticks))[1]
        made |= {f"{name}.npy": record.encode_array(cut[name]) for name in tail.TICK_AXIS}
    names = [name for name in at if name.removesuffix(".npy") not in record.TOKEN_MEMBERS]
    members = tuple(reader.make(row["key"], name, made[name]) if name in made else at[name] for name in sorted(names))
    return WindowReceipt(view=row["view"], first_tick=row["first_tick"], num_ticks=num_ticks, members=members), meta


def session_receipt(held: Held, session: str, rows: Sequence[IndexRow], reader: ShardReader) -> Receipt:
    """The receipt of a session whose index rows these are, but for its ledger; its parts are the shards that `reader` reads."""
    windows, codes = [], _TailCodes(held, session, rows[0]["source_digest"])
    for view, of_view in groupby(rows, key=lambda row: row["view"]):
        meta: dict[str, Any] = {}
        groups = list(featurised(list(of_view)))
        for group in groups:
            window, meta = window_receipt(group[0], reader)
            windows.append(window)
        if (known := _codes_after(groups[-1], meta, reader)) is not None:
            codes[view] = known.tobytes().hex()
    return Receipt.model_construct(
        session=session,
        session_id=rows[0]["session_id"],
        split=rows[0]["split"],
        order=keys.session_order(rows[0]["session_id"]),
        spec=held.corpus.dataset["digests"]["spec"],
        toolchain=held.corpus.dataset["digests"]["toolchain"],
        source_digest=rows[0]["source_digest"],
        files=(),
        session_ticks=rows[0]["session_ticks"],
        windows=tuple(windows),
        tail_codes=codes,
        ledger=(),
    )


def unsaid_of(ledger: Sequence[LedgerRow], view: str) -> list[LedgerRow]:
    """The rows of the text that a view could not say: they lie where the view ends."""
    return [row for row in ledger if row.entry == "unsaid" and row.stream.startswith(f"#view-{view}-")]


def _codes_after(last: Sequence[IndexRow], meta: Mapping[str, Any], reader: ShardReader) -> np.ndarray | None:
    """uint8 [H, 80], the codes of the frame after a view's end, whose FFT window still hears the last 50 ms; None where no shard tells.

    The first frame of a tail has them. Without one they are silence's, if the recording ends before those 50 ms begin.
    """
    for row in last:
        tick = row["session_ticks"] - row["first_tick"]  # the window's tick in which the tail begins
        if tick < row["num_ticks"]:
            at = reader.locate(row)["heard_dmel.npy"]
            return record.decode_array(reader.read(at), where=f"{row['shard']}.tar:{row['key']}.heard_dmel.npy")[:, tick, 0]
    if meta["session_samples"] <= meta["session_ticks"] * TICK_SAMPLES - FRAME_SAMPLES:
        return np.tile(dmel.silence(), (len(meta["heard"]), 1))
    return None


class _TailCodes(dict[str, str]):
    """View → hex of its codes after the end. What no shard tells is looked up in the receipt that the build left, when it is asked for."""

    def __init__(self, held: Held, session: str, source_digest: str) -> None:
        super().__init__()
        self._held, self._session, self._source_digest = held, session, source_digest

    def __missing__(self, view: str) -> str:
        found = receipt_of(self._held, self._session, self._source_digest)
        if found is None or view not in found[1].tail_codes:
            text = f"session {self._session}, view {view}: its text outlasts it in this layout, and how its sound rings out is in no shard"
            raise CorpusError(text, hint=f"--staging FOLDER, that of its build; looked in {self._held.source.staging}/{receipts.RECEIPTS}")
        return found[1].tail_codes[view]


def receipt_of(held: Held, session: str, source_digest: str) -> tuple[str, Receipt] | None:
    """(name, receipt) that the build of these windows left, if it lies in the source's staging folder still."""
    staging, digests = held.staging, held.corpus.dataset["digests"]
    for name in held.receipt_names(session):
        try:
            receipt = receipts.read(staging, name)
        except (CorpusError, OSError):
            continue  # not the proof of anything
        same_make = receipt.toolchain == digests["toolchain"] or held.corpus.dataset["mixed_toolchain"]
        if receipt.windows and (receipt.source_digest, receipt.spec) == (source_digest, digests["spec"]) and same_make:
            return name, receipt
    return None


def _tick_arrays(at: Mapping[str, MemberAt], meta: Mapping[str, Any], reader: ShardReader, row: IndexRow) -> dict[str, np.ndarray]:
    """The media arrays of a window; pictures, which no tail has, are left out."""
    where = f"{row['shard']}.tar:{row['key']}"
    arrays = {name: record.decode_array(reader.read(at[f"{name}.npy"]), where=f"{where}.{name}.npy") for name in tail.TICK_AXIS}
    none = np.zeros(0, np.uint16)
    return arrays | {"picture_tick": none, "picture_pts": none, "patches": none}
