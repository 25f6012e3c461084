"""How far a build is, for whoever watches: workers leave notes in the staging folder, the driver reads them now and then.

A worker has one note, however many sessions and shards it does, so that looking costs a file a worker. Notes are advice: one that cannot be
written or read changes nothing, and work that a runner does twice may be told twice. What a build has taken is summed up from them too, for
times may not stand in receipts, which are content.
"""

import contextlib
import hashlib
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ..schemas.clock import SAMPLE_RATE_HZ
from ..schemas.receipts import Outcome, WorkItem
from ..schemas.strict import Strict
from .estimate.figures import Spent, input_bytes
from .sessions.child import children_cpu_s
from .storage.folders import Folder

UNDER_WAY = "under-way"
EVERY_S = 1.0  # between two writings of a note
PATIENCE = 20  # or, when a session is finished, so many times as long as a writing takes: a worker may end without a last word
LOOK_S = 0.5  # between two looks; where looking is slow, at least 20 times as long as a look takes
_LIVE: "weakref.WeakSet[WorkerNote]" = weakref.WeakSet()  # notes of this process, whose last second is still to be written


class _Note(Strict):
    """What one worker has done.

    Attributes:
        sessions, dropped, input_bytes: finished, of them dropped whole, and the bytes of their files.
        samples: of the session under way, 0 when there is none; featurised, samples_done: sessions that were decoded, and theirs.
        shard_bytes: written to shards; shard_total: to be written in all, known to the worker that assigns windows to shards.
        cpu_from_s, cpu_to_s: processor time of its own process, when it began and now; media_from_s, media_to_s: of its decoder processes.
        host, process: which machine, and which process on it, hashed.
    """

    sessions: int = 0
    dropped: int = 0
    input_bytes: int = 0
    samples: int = 0
    featurised: int = 0
    samples_done: int = 0
    shard_bytes: int = 0
    shard_total: int = 0
    cpu_from_s: float = 0.0
    cpu_to_s: float = 0.0
    media_from_s: float = 0.0
    media_to_s: float = 0.0
    host: str = ""
    process: str = ""


class WorkerNote:
    """The note of one worker. What changes within a second of the last writing is written when the second is over."""

    def __init__(self, staging: Folder) -> None:
        self._staging, self._local, self._name = staging, staging.local, f"{UNDER_WAY}/{uuid.uuid4().hex}.json"
        host = socket.gethostname()
        names = {"host": _hashed(host), "process": _hashed(f"{host} {os.getpid()}")}
        self._note = _Note(**names, cpu_from_s=time.process_time(), media_from_s=children_cpu_s())
        self._shard_before = 0
        self._written = self._took = 0.0
        self._is_begun = self._is_late = self._is_closed = False
        self._lock = threading.Lock()
        _LIVE.add(self)

    def reached(self, num_samples: int) -> None:
        """So much of the session under way is done."""
        self._change(samples=num_samples)

    def finished(self, item: WorkItem, outcome: Outcome | None = None) -> None:
        """A session is done; `outcome` is what became of it."""
        note = self._note
        self._change(
            PATIENCE * self._took,
            sessions=note.sessions + 1,
            dropped=note.dropped + (outcome is not None and outcome.status == "rejected"),
            input_bytes=note.input_bytes + input_bytes(item),
            samples=0,
            featurised=note.featurised + (note.samples > 0),
            samples_done=note.samples_done + note.samples,
        )

    def to_write(self, num_bytes: int) -> None:
        """So many bytes are to go into shards."""
        self._change(shard_total=num_bytes)

    def shard(self, num_bytes: int) -> None:
        """So much of the shard under way is written."""
        self._change(shard_bytes=self._shard_before + num_bytes)

    def shard_finished(self) -> None:
        """The next call of `shard` speaks of another one."""
        self._shard_before = self._note.shard_bytes

    def close(self) -> None:
        """Writes what has not been written. Nothing is written after that."""
        self._write_late()
        self._is_closed = True

    def of(self, staging: Folder) -> bool:
        """Whether it lies in this staging folder."""
        return self._staging == staging

    def _change(self, pause_s: float = EVERY_S, **counts: int) -> None:
        with self._lock:
            self._note = self._note.model_copy(update=counts)
            now = time.monotonic()
            if not self._is_begun or now - self._written >= min(pause_s, EVERY_S):
                self._write(now)
            elif not self._is_late:
                self._is_late = True
                late = threading.Timer(EVERY_S, self._write_late)
                late.daemon = True
                late.start()

    def _write_late(self) -> None:
        with self._lock:
            if self._is_late and not self._is_closed:
                self._write(time.monotonic())

    def _write(self, now: float) -> None:
        self._is_begun, self._is_late, self._written = True, False, now
        self._note = self._note.model_copy(update={"cpu_to_s": time.process_time(), "media_to_s": children_cpu_s()})
        with contextlib.suppress(OSError):
            self._put(self._note.model_dump_json().encode())
        self._took = time.monotonic() - now

    def _put(self, data: bytes) -> None:
        """The file, whole; on a disk without waiting for the disk, for a note that is lost changes nothing."""
        if self._local is None:
            self._staging.write(self._name, data)
            return
        path = self._local / self._name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".tmp").write_bytes(data)
        os.replace(path.with_suffix(".tmp"), path)


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """How far a build is.

    Attributes:
        phase: what is being done; done, total: in bytes: of input while featurising, of shards then.
        sessions: finished; dropped: of them dropped whole; longest_s: how many seconds of the longest session under way are done.
        conversation_s: seconds of conversation featurised in this run, of sessions under way too; under_way_s: of these alone.
        spent: what the run has taken, once it is done.
    """

    phase: Literal["featurising", "writing shards", "done"]
    done: int
    total: int
    sessions: int
    longest_s: int
    dropped: int = 0
    conversation_s: float = field(default=0.0, compare=False)
    under_way_s: float = field(default=0.0, compare=False)
    spent: Spent | None = field(default=None, compare=False)


class Watch:
    """Tells the standing from a thread, while its context is open, and at its end that all is done, unless it ends in an error."""

    def __init__(self, total: int, num_sessions: int, staging: Folder, tell: Callable[[Standing], None]) -> None:
        self._total, self._num_sessions, self._staging, self._tell = total, num_sessions, staging, tell
        self._furthest = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._staging.delete(UNDER_WAY)  # of a build that died
        self._began = time.monotonic()
        self._tell(self._standing())  # a build shorter than a look is told of too
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        for note in list(_LIVE):
            if note.of(self._staging):
                note.close()
        notes = self._notes()
        with contextlib.suppress(OSError):
            self._staging.delete(UNDER_WAY)
        if kind is None:
            spent = _spent(notes, time.monotonic() - self._began)
            dropped, said = sum(note.dropped for note in notes), spent.conversation_s
            done = Standing(phase="done", done=self._total, total=self._total, sessions=self._num_sessions, longest_s=0, dropped=dropped)
            self._tell(replace(done, conversation_s=said, spent=spent))

    def _run(self) -> None:
        pause = LOOK_S
        while not self._over.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(OSError):
                self._tell(self._standing())
            pause = max(LOOK_S, 20 * (time.monotonic() - began))

    def _notes(self) -> list[_Note]:
        notes = []
        with contextlib.suppress(OSError):
            for name in self._staging.names(UNDER_WAY):
                with contextlib.suppress(OSError, ValueError):
                    notes.append(_Note.model_validate_json(self._staging.read(name)))
        return notes

    def _standing(self) -> Standing:
        notes = self._notes()
        under_way_s = sum(note.samples for note in notes) / SAMPLE_RATE_HZ
        self._furthest = max(self._furthest, min(sum(note.input_bytes for note in notes), self._total))
        standing = Standing(
            phase="featurising",
            done=self._furthest,
            total=self._total,
            sessions=min(sum(note.sessions for note in notes), self._num_sessions),
            longest_s=max((note.samples for note in notes), default=0) // SAMPLE_RATE_HZ,
            dropped=sum(note.dropped for note in notes),
            conversation_s=sum(note.samples_done for note in notes) / SAMPLE_RATE_HZ + under_way_s,
            under_way_s=under_way_s,
        )
        if shard_total := max((note.shard_total for note in notes), default=0):
            done = min(sum(note.shard_bytes for note in notes), shard_total)
            sessions = self._num_sessions
            return replace(standing, phase="writing shards", done=done, total=shard_total, sessions=sessions, longest_s=0)
        return standing


def _spent(notes: list[_Note], wall_s: float) -> Spent:
    """What the workers have taken. A process that left several notes is counted once, from its first to its last."""
    processes: dict[str, list[_Note]] = {}
    for note in notes:
        processes.setdefault(note.process, []).append(note)
    return Spent(
        wall_s=wall_s,
        media_cpu_s=sum(max(n.media_to_s for n in found) - min(n.media_from_s for n in found) for found in processes.values()),
        worker_cpu_s=sum(max(n.cpu_to_s for n in found) - min(n.cpu_from_s for n in found) for found in processes.values()),
        workers=len(processes),
        hosts=len({note.host for note in notes}),
        featurised=sum(note.featurised for note in notes),
        conversation_s=sum(note.samples_done for note in notes) / SAMPLE_RATE_HZ,
    )
