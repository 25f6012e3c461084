"""Windows by number: one read of their byte range, sha256 compared with the index, decoded by the record's own codec.

A window that is not what the index says is a CorpusError that names it. Windows read last are kept, for a sequence begins where the one
before ended; a small corpus stays as a whole, own mel too. Costs: about 2 ms of reading and hashing for a window of sound (2 MB), 20 ms for
one with a picture pair a second (29 MB).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

from ...schemas import record
from ...schemas.clock import TICK_SAMPLES
from ...schemas.errors import CorpusError
from .corpus import OpenCorpus
from .document import Window
from .index import window_key_at

KEEP_BYTES = 128 << 20  # of a process, for all corpora together
_BLOCK = 512


class Windows:
    """The windows of a corpus, decoded when asked for; the last ones stay, `keep_bytes` of them and at least two."""

    def __init__(self, corpus: OpenCorpus, *, keep_bytes: int = KEEP_BYTES) -> None:
        self._corpus, self._keep_bytes = corpus, keep_bytes
        self._kept: OrderedDict[int, Window | CorpusError] = OrderedDict()
        self._kept_bytes = 0

    def read(self, window: int) -> Window:
        """The window, its arrays read-only. Raises CorpusError, naming key and place, when its bytes are not the indexed ones."""
        if window in self._kept:
            self._kept.move_to_end(window)
        else:
            self._keep(window)
        found = self._kept[window]
        if isinstance(found, CorpusError):
            raise found
        return found

    def _keep(self, window: int) -> None:
        while len(self._kept) > 1 and self._kept_bytes + self._bytes(window) > self._keep_bytes:
            self._kept_bytes -= self._bytes(self._kept.popitem(last=False)[0])
        try:
            self._kept[window] = Window.of(self._decode(window), self._corpus.layout)
        except CorpusError as error:
            self._kept[window] = error
        self._kept_bytes += self._bytes(window)

    def _bytes(self, window: int) -> int:
        """What a window holds, and its own mel if every tick speaks."""
        index, spec = self._corpus.index, self._corpus.layout.own_mel
        return int(index.size_W[window]) + int(index.ticks_W[window]) * (TICK_SAMPLES // spec.hop_samples) * spec.num_bands * 2

    def _decode(self, window: int) -> record.Record:
        index, files = self._corpus.index, self._corpus.files
        shard, offset, size = index.shards[index.shard_W[window]], int(index.offset_W[window]), int(index.size_W[window])
        data = files.read_range(f"shards/{shard}.tar", offset, size)
        place = f"{files.path(f'shards/{shard}.tar')}, byte {offset}"
        if len(data) != size:
            raise CorpusError(f"{place}: window {window_key_at(files, shard, offset)} has {len(data)} of its {size} bytes")
        members = members_of(data)
        digest = record.window_digest({name: hashlib.sha256(payload).hexdigest() for name, payload in members.items()})
        claimed = index.digest_W[window].tobytes().hex()
        if digest != claimed:
            key = window_key_at(files, shard, offset)
            raise CorpusError(f"{place}: window {key} is damaged: digest {digest}, the index says {claimed}")
        return record.decode(cast(Mapping[str, bytes], members), where=place)  # it takes any buffer


def members_of(data: bytes) -> dict[str, bytes | memoryview]:
    """Member name → payload of the tar members in `data`, as far as they can be read: whoever asks compares a digest afterwards.

    Arrays are not copied: a window with pictures has 29 MB.

    Only what our own writer writes is understood (USTAR, names below 100 bytes, octal sizes): 40 times as fast as `tarfile`.
    """
    members: dict[str, bytes | memoryview] = {}
    view = memoryview(data)
    at = 0
    while at + _BLOCK <= len(data) and data[at]:
        name = data[at : at + 100].split(b"\0", 1)[0].decode("ascii", "replace")
        octal = data[at + 124 : at + 136].strip(b"\0 ")
        if not octal.isdigit() or octal.strip(b"01234567"):
            break
        start = at + _BLOCK
        stop = start + int(octal, 8)
        members[name.partition(".")[2]] = data[start:stop] if name.endswith(".json") else view[start:stop]
        at = stop + -stop % _BLOCK
    return members
