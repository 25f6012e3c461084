"""A process of its own for untrusted media: one decoder crash or hang costs one recording, not the job.

The parent (`MediaProcess`) asks in JSON lines, the child answers in JSON lines; between them the child says when it has got further, so
that silence means a hang. `subprocess` and no pool: Dask's workers are daemonic and may have no multiprocessing children.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from ..schemas.errors import MediaError, MicroturnError

# The machine killed it, or it hung: retried, then unsettled. Any other signal is the decoder's own crash on this content.
_MACHINE_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SILENCE_S = 600.0  # a child that has got no further for so long hangs
COMMAND = (sys.executable, "-P", "-m", "microturn.pipelines.child")  # -P: no module of the folder that we happen to stand in


class ChildLost(MicroturnError):
    """The child hung or was killed: the machine's fault until shown otherwise."""


class ChildFault(MicroturnError):
    """A fault of ours, with its traceback: the recording waits, unsettled, until it is mended."""


class ChildCrashed(MediaError):
    """The child crashed on this content, twice."""


class MediaProcess:
    """One child, started when first needed and reused until it dies. Close it, or use it as a context."""

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def call(self, verb: str, request: dict[str, Any], on_progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        """The child's answer. What may be the machine's fault is tried once more, in a new child if this one is lost.

        Raises:
            ChildCrashed: the child died of a signal of its own, twice: content that crashes the decoder.
            ChildLost: it hung or was killed, twice.
            OSError: it could not read or write, or had no memory, twice.
            ChildFault, MediaError: as the child raised them.
        """
        for attempt in (1, 2):
            try:
                return self._ask(verb, request, on_progress)
            except (ChildLost, ChildCrashed, OSError) as error:
                if not isinstance(error, OSError):  # with which it has answered: it lives
                    self.close()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> "MediaProcess":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, verb: str, request: dict[str, Any], on_progress: Callable[[int], None]) -> dict[str, Any]:
        child = self._started()
        try:
            child.stdin.write(json.dumps({"verb": verb, "request": request}) + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # its end is read below
        while True:
            try:
                line = self._lines.get(timeout=self._silence_s)
            except queue.Empty:
                raise ChildLost(f"nothing heard from the decoder process for {self._silence_s:.0f} s") from None
            if line is None:
                raise _death(child.wait())
            answer = json.loads(line)
            if "progress" in answer:
                on_progress(answer["progress"])
            elif "error" in answer:
                raise _as_raised(answer["error"])
            else:
                return answer["result"]

    def _started(self) -> "subprocess.Popen[str]":
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._lines = queue.Queue()
            self._child = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment())
            threading.Thread(target=_pump, args=(self._child.stdout, self._lines), daemon=True).start()
        return self._child


def _environment() -> dict[str, str]:
    """The parent's, with one thread for every library: the runner's workers are the parallelism."""
    return os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def _pump(stdout: Any, lines: "queue.Queue[str | None]") -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stdout:
            lines.put(line)
    lines.put(None)


def _death(code: int) -> MicroturnError:
    if code < 0 and signal.Signals(-code) not in _MACHINE_SIGNALS:
        return ChildCrashed(f"the decoder died of {signal.Signals(-code).name}", reason="decoder_crash")
    return ChildLost(f"the decoder process ended with {code if code >= 0 else signal.Signals(-code).name}")


def _as_raised(error: dict[str, Any]) -> Exception:
    if error["kind"] == "MediaError":
        return MediaError(error["message"], reason=error["reason"], hint=error["hint"])
    if error["kind"] == "OSError":
        return OSError(error["message"])
    return ChildFault(f"{error['message']}\n{error['trace']}", hint="this is a fault of microturn's: please report it")


def serve() -> None:
    """The child's side: answers requests until its input ends."""
    from . import featurise

    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    verbs = {"featurise": featurise.featurise_request, "look": featurise.look_request}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            result = verbs[asked["verb"]](asked["request"], lambda done: out.write(json.dumps({"progress": done}) + "\n"))
            answer = {"result": result}
        except MediaError as error:
            answer = {"error": {"kind": "MediaError", "message": str(error), "reason": error.reason, "hint": error.hint}}
        except (OSError, MemoryError) as error:
            answer = {"error": {"kind": "OSError", "message": f"{type(error).__name__}: {error}"}}
        except Exception as error:
            import traceback

            answer = {"error": {"kind": "fault", "message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}}
        out.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        serve()
