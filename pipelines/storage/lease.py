"""The right to build into a folder: one build has it at a time, a second one is refused, and what a dead one left is taken over.

On a disk the operating system keeps it (a lock on the file): it ends with the process that took it, however that dies, and not before.
In an object store it is a file put on condition that there is none, and put anew every RENEW_S; one that has not changed for DEAD_S while
we looked is a dead build's. No clock of another machine is read. Every worker asks for the token before it gives anything its name, so that
workers which outlive their driver stop when another build has begun.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ...schemas.errors import MicroturnError
from .folders import Folder, full_disk_named

LEASE = ".building"
RENEW_S = 10.0
DEAD_S = 60.0
DYING_S = 2.0  # a killed process's own children may hold its lock for a moment longer
MAX_RELEASES = 3  # tries to give a lease back
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # a disk without locks is treated as a store


class Busy(MicroturnError):
    """Another build is at work in this folder."""


class Lease:
    """Held while the context is open.

    Attributes:
        token: what workers show to `refuse_lost`.
    """

    def __init__(self, folder: Folder, tell: Callable[[str], None] = lambda _: None, *, renew_s: float = RENEW_S, dead_s: float = DEAD_S):
        self.token = uuid.uuid4().hex
        self._folder, self._tell, self._renew_s, self._dead_s = folder, tell, renew_s, dead_s
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        self._file: BinaryIO | None = None
        self._over = threading.Event()
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        """Raises Busy when another build has it; OSError when the folder cannot be written."""
        local = self._folder.local
        with full_disk_named(self._folder.uri):
            locked = local is not None and self._lock(local / LEASE)
        if not locked:
            self._put()
            self._renewer = threading.Thread(target=self._renew, daemon=True)
            self._renewer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self._renewer is not None:
            self._renewer.join()
        for _ in range(MAX_RELEASES):  # a store may fail a request; left behind, the lease is found dead, by who waits a minute for it
            with contextlib.suppress(OSError):
                if _token_in(self._folder) == self.token:
                    self._folder.delete(LEASE)
                break
        if self._file is not None:
            self._file.close()

    def _lock(self, path: Path) -> bool:
        """Takes the lock of a local file; False where the disk has no locks."""
        path.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + DYING_S
        while True:
            file = open(path, "a+b")  # noqa: SIM115 - open as long as the lease
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                    break
                file.close()  # its holder has just removed it
            except FileNotFoundError:
                file.close()
            except BlockingIOError:
                with file:
                    file.seek(0)
                    held = file.read()
                if time.monotonic() >= until:
                    raise self._busy(held) from None
                time.sleep(0.05)
            except OSError as error:
                file.close()
                if error.errno not in _NO_LOCKS:
                    raise
                return False
        file.seek(0)
        self._took_over(file.read())
        file.seek(0)
        file.truncate()
        file.write(self._body(0))
        file.flush()
        self._file = file
        return True

    def _put(self) -> None:
        """Takes a store's lease file, waiting for a dead build's to be known as dead."""
        while not self._folder.write_new(LEASE, self._body(0)):
            held = _read(self._folder)
            if _parsed(held).get("token") == self.token:  # it was written; the store's word of it was lost, and its client tried again
                return
            if held and self._is_dead(held):
                self._took_over(held)
                self._folder.write(LEASE, self._body(0))
                time.sleep(min(1.0, self._renew_s))  # two may have found it dead at once: the one who wrote last has it
                if _token_in(self._folder) != self.token:
                    raise self._busy(_read(self._folder))
                return

    def _is_dead(self, held: bytes) -> bool:
        """Whether a lease stays as it is. Raises Busy when it changes; False when it is gone."""
        self._tell(f"{self._folder.uri} may be in use by {_whose(held)}: looking for {self._dead_s:.0f} s whether that build lives")
        until = time.monotonic() + self._dead_s
        while time.monotonic() < until:
            time.sleep(min(1.0, self._dead_s / 10))
            now = _read(self._folder)
            if not now:
                return False
            if now != held:
                raise self._busy(now)
        return True

    def _renew(self) -> None:
        count = 0
        while not self._over.wait(self._renew_s):
            count += 1
            with contextlib.suppress(OSError):  # the store will be back; if it is not, everything fails
                if _token_in(self._folder) != self.token:
                    return
                self._folder.write(LEASE, self._body(count))

    def _body(self, count: int) -> bytes:
        """Who has it. The machine is a hash: nothing under OUT names a host."""
        return json.dumps({"token": self.token, "machine": _machine(), "pid": os.getpid(), "since": self._since, "renewed": count}).encode()

    def _busy(self, held: bytes) -> Busy:
        return Busy(
            f"{self._folder.uri}: another build is at work there: {_whose(held)}", hint="wait for its end, or build into another folder"
        )

    def _took_over(self, held: bytes) -> None:
        if held:
            self._tell(f"{self._folder.uri}: {_whose(held)} did not come to its end; this build takes over and keeps what is finished")


def refuse_lost(folder: Folder, token: str) -> None:
    """Nothing while the build with this token has the folder, or where the token is "". Raises Busy: another one has taken over."""
    if token and _token_in(folder) != token:
        raise Busy(f"{folder.uri}: this build has lost the folder to another one", hint="run it again when the other one is done")


def _read(folder: Folder) -> bytes:
    try:
        return folder.read(LEASE)
    except FileNotFoundError:
        return b""


def _parsed(held: bytes) -> dict[str, Any]:
    try:
        found = json.loads(held)
    except ValueError:  # cut short by a full disk
        return {}
    return found if isinstance(found, dict) else {}


def _token_in(folder: Folder) -> str:
    return str(_parsed(_read(folder)).get("token", ""))


def _whose(held: bytes) -> str:
    found = _parsed(held)
    place = "this machine" if found.get("machine") == _machine() else "another machine"
    return f"a build that began at {found.get('since', 'an unknown time')} as process {found.get('pid', 'unknown')} of {place}"


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]
