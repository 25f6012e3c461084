"""Shards read from their first byte to their last, without dataset.json or index: for streams, and for corpora that are only tars.

Order is that of the tars; sequences are filled one after the other, each up to the tick edge nearest to `sequence_tokens`; a view's windows
join into one document until the sequence is full. There is nothing to shuffle with and no place to resume from: `Loader` has both.
"""

import tarfile
from collections.abc import Iterable, Iterator
from typing import Literal

import fsspec
import numpy as np

from ...schemas import record
from ...schemas.errors import CorpusError
from ...schemas.layout import LayoutSpec
from ...schemas.strict import sha256_hex
from ...transforms.tokens import tokenizer
from .batch import Batch, of_documents
from .document import Document, Making, Window, make
from .making import Damage, nearest, tick_edges
from .order import Dropped, drop_bits
from .spec import DataSpec


def batches(
    urls: Iterable[str],
    layout: LayoutSpec,
    spec: DataSpec,
    *,
    tokenizer_path: str = "",
    on_damage: Literal["error", "skip"] = "error",
) -> Iterator[Batch]:
    """One sequence after the other from these tars (paths or URIs), `Batch.damaged` naming what was left out.

    Raises CorpusError for a window that is none, or of another layout; with `skip` only where a tar itself ends early.
    """
    ids = tuple(tokenizer.load(layout, tokenizer_path or None).encode(spec.prologue)) if spec.prologue else ()
    making = Making(layout=layout, spec=spec, prologue_ids=ids)
    filling = _Filling(making)
    damaged: list[Damage] = []
    for window in windows(urls, layout):
        if isinstance(window, CorpusError):
            if on_damage == "error":
                raise window
            damaged.append(Damage(0, -1, str(window)))
            continue
        for documents in filling.add(window):
            yield of_documents(documents, [0] * len(documents), damaged=damaged)
            damaged = []
    if documents := filling.end():
        yield of_documents(documents, [0] * len(documents), damaged=damaged)


def windows(urls: Iterable[str], layout: LayoutSpec) -> Iterator[record.Record | CorpusError]:
    """Every window of these tars in order, or the error that names it. Raises CorpusError where a tar ends early."""
    for url in urls:
        key, members = "", dict[str, bytes]()
        try:
            with fsspec.open(url, "rb") as file, tarfile.open(fileobj=file, mode="r|", format=tarfile.USTAR_FORMAT) as tar:
                for info in tar:
                    payload = tar.extractfile(info)
                    found, _, member = info.name.partition(".")
                    if found != key and members:
                        yield _decoded(members, layout, f"{url}: {key}")
                        members = {}
                    key, members[member] = found, payload.read() if payload else b""  # None for what is no file
        except tarfile.TarError as error:
            raise CorpusError(f"{url}: {error}, after window {key or 'none'}") from None
        if members:
            yield _decoded(members, layout, f"{url}: {key}")


def _decoded(members: dict[str, bytes], layout: LayoutSpec, where: str) -> record.Record | CorpusError:
    try:
        window = record.decode(members, where=where)
        if window.meta.get("layout") != layout.digest():
            raise CorpusError(f"{where}: tokens of the layout {window.meta.get('layout')}, expected {layout.digest()}")
    except CorpusError as error:
        return error
    return window


class _Filling:
    """A sequence under way: its finished documents, and the windows of the one that is still open."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._done: list[Document] = []
        self._open: list[Window] = []
        self._start = self._stop = 0  # ticks of the open document
        self._rows = 0

    def add(self, window: record.Record) -> Iterator[list[Document]]:
        """The sequences that this window fills; what is left of it stays open."""
        meta = window.meta
        if not (self._open and _view(self._open[0].record) == _view(window) and self._stop == meta["first_tick"]):
            self._close_document()
            self._begin(meta["first_tick"])
        kept = Window.of(window, self._making.layout)
        dropped = self._dropped(window)
        edges = tick_edges(window, dropped)
        at = 0
        while at < window.num_ticks:
            room = self._making.spec.sequence_tokens - self._rows
            stop = nearest(edges[at:] - edges[at], room) + at
            if stop == at and not self._done and not self._open:
                stop = at + 1  # one tick larger than a sequence
            if stop > at:
                self._open.append(kept)
                self._stop = meta["first_tick"] + stop
                self._rows += int(edges[stop] - edges[at])
                at = stop
            if at < window.num_ticks:
                yield self.end()
                self._begin(meta["first_tick"] + at)

    def end(self) -> list[Document]:
        """The documents of the sequence, which is full or the last."""
        self._close_document()
        done, self._done, self._rows = self._done, [], 0
        return done

    def _begin(self, tick: int) -> None:
        self._start = self._stop = tick
        self._rows += 1 + len(self._making.prologue_ids)

    def _close_document(self) -> None:
        if self._open:
            self._done.append(make(self._open, self._start, self._stop, self._making, dropped=self._dropped(self._open[0].record)))
        self._open = []

    def _dropped(self, window: record.Record) -> Dropped:
        """What a view does without."""
        identity = np.array([int(sha256_hex("-".join(_view(window)))[:16], 16)], np.uint64)
        return Dropped(int(drop_bits(identity, self._making.spec, epoch=0)[0]))


def _view(window: record.Record) -> tuple[str, str]:
    return window.meta["session"], window.meta["view"]
