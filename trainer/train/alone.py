"""A run is trained by one process, or one world of them, at a time: a lock on a file of its folder.

The operating system keeps it, so it ends with the process that took it, however that dies. It is a lock of the process and not of the open
file: workers of the loader are forked, may outlive a kill by seconds, and must not keep the run from going on.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...schemas.errors import MicroturnError
from . import ranks

LOCK = ".training"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class Busy(MicroturnError):
    """Another process trains this run."""


@contextmanager
def alone(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Nobody else trains the run while the context is open. All ranks enter it together.

    Raises:
        Busy: on every rank, naming who does.
    """
    descriptor, holder = -1, ""
    if ranks.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if descriptor >= 0:
            holder = _lock(descriptor, folder, tell)
        if ranks.anywhere(bool(holder)):
            raise Busy(
                f"{folder}: {holder or 'another process'} trains this run",
                hint="wait for its end, or stop it (Ctrl-C saves what is done); or name another folder for another run",
            )
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _lock(descriptor: int, folder: Path, tell: Callable[[str], None]) -> str:
    """Who has the lock already; "" if we have it now."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        tell(f"{folder}: this disk has no locks; nothing keeps a second process from training the same run")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return ""
