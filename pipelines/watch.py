"""How far a build is, for whoever watches: workers leave notes in the staging folder, the driver reads them now and then.

A worker has one note, however many sessions and shards it does, so that looking costs a file a worker. Notes are advice: one that cannot be
written or read changes nothing, and work that a runner does twice may be told twice.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..schemas.clock import SAMPLE_RATE_HZ
from ..schemas.receipts import WorkItem
from ..schemas.strict import Strict
from .storage.folders import Folder

UNDER_WAY = "under-way"
EVERY_S = 1.0  # between two writings of a note
LOOK_S = 0.5  # between two looks; where looking is slow, at least 20 times as long as a look takes


class _Note(Strict):
    """What one worker has done.

    Attributes:
        sessions, input_bytes: finished, and the bytes of their files; samples: of the session under way, 0 when there is none.
        shard_bytes: written to shards; shard_total: to be written in all, known to the worker that assigns windows to shards.
    """

    sessions: int = 0
    input_bytes: int = 0
    samples: int = 0
    shard_bytes: int = 0
    shard_total: int = 0


class WorkerNote:
    """The note of one worker."""

    def __init__(self, staging: Folder) -> None:
        self._staging, self._name = staging, f"{UNDER_WAY}/{uuid.uuid4().hex}.json"
        self._note = _Note()
        self._shard_before = 0
        self._written = -EVERY_S

    def reached(self, num_samples: int) -> None:
        """So much of the session under way is done."""
        self._change(samples=num_samples)

    def finished(self, item: WorkItem) -> None:
        """A session is done, kept or not."""
        size = self._note.input_bytes + input_bytes(item)
        self._change(sessions=self._note.sessions + 1, input_bytes=size, samples=0)

    def to_write(self, num_bytes: int) -> None:
        """So many bytes are to go into shards."""
        self._change(shard_total=num_bytes)

    def shard(self, num_bytes: int) -> None:
        """So much of the shard under way is written."""
        self._change(shard_bytes=self._shard_before + num_bytes)

    def shard_finished(self) -> None:
        """The next call of `shard` speaks of another one."""
        self._shard_before = self._note.shard_bytes

    def _change(self, **counts: int) -> None:
        begins = not any(self._note.model_dump().values())
        self._note = self._note.model_copy(update=counts)
        now = time.monotonic()
        if begins or now - self._written >= EVERY_S:
            self._written = now
            with contextlib.suppress(OSError):
                self._staging.write(self._name, self._note.model_dump_json().encode())


def input_bytes(item: WorkItem) -> int:
    """Bytes of a session's files, of those that are there."""
    return sum(max(identity.size_bytes, 0) for identity in item.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far a build is.

    Attributes:
        phase: what is being done; done, total: in bytes: of input while featurising, of shards then.
        sessions: finished; longest_s: how many seconds of the longest session under way are done.
    """

    phase: Literal["featurising", "writing shards", "done"]
    done: int
    total: int
    sessions: int
    longest_s: int


class Watch:
    """Tells the standing from a thread, while its context is open, and at its end that all is done, unless it ends in an error."""

    def __init__(self, total: int, num_sessions: int, staging: Folder, tell: Callable[[Standing], None]) -> None:
        self._total, self._num_sessions, self._staging, self._tell = total, num_sessions, staging, tell
        self._furthest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._staging.delete(UNDER_WAY)  # of a build that died
        self._tell(self._standing())  # a build shorter than a look is told of too
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._staging.delete(UNDER_WAY)
        if kind is None:
            self._tell(Standing(phase="done", done=self._total, total=self._total, sessions=self._num_sessions, longest_s=0))

    def _run(self) -> None:
        pause = LOOK_S
        while not self._over.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                self._tell(self._standing())
            pause = max(LOOK_S, 20 * (time.monotonic() - began))

    def _standing(self) -> Standing:
        notes = []
        for name in self._staging.names(UNDER_WAY):
            with contextlib.suppress(OSError, ValueError):
                notes.append(_Note.model_validate_json(self._staging.read(name)))
        sessions = min(sum(note.sessions for note in notes), self._num_sessions)
        if shard_total := max((note.shard_total for note in notes), default=0):
            done = min(sum(note.shard_bytes for note in notes), shard_total)
            return Standing(phase="writing shards", done=done, total=shard_total, sessions=self._num_sessions, longest_s=0)
        self._furthest = max(self._furthest, min(sum(note.input_bytes for note in notes), self._total))
        longest_s = max((note.samples for note in notes), default=0) // SAMPLE_RATE_HZ
        return Standing(phase="featurising", done=self._furthest, total=self._total, sessions=sessions, longest_s=longest_s)
