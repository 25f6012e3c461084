"""A process of its own for untrusted media: one decoder crash or hang costs one recording, not the job.

The parent (`MediaProcess`) asks in JSON lines, the child answers in JSON lines; between them the child says when it has got further, so
that silence means a hang. `subprocess` and no pool: Dask's workers are daemonic and may have no multiprocessing children.
"""

import contextlib
import json
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...schemas.errors import MediaError, MicroturnError

# The machine killed it, or it hung: retried, then unsettled. Any other signal is the decoder's own crash on this content.
_MACHINE_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SILENCE_S = 600.0  # a child that has got no further for so long hangs
COMMAND = (sys.executable, "-P", "-m", "microturn.pipelines.sessions.child")  # -P: no module of the folder that we happen to stand in


_CPU_S, _COUNTING = [0.0], threading.Lock()


def children_cpu_s() -> float:
    """Processor seconds of all decoder processes that this process has had, as of the last word of each."""
    return _CPU_S[0]


class ChildLost(MicroturnError):
    """The child hung or was killed: the machine's fault until shown otherwise."""


class ChildFault(MediaError):
    """A fault of ours that this content brings out, twice: with the place in our code, for whoever mends it."""


class ChildCrashed(MediaError):
    """The child crashed on this content, twice."""


class MediaProcess:
    """One child, started when first needed and reused until it dies. Close it, or use it as a context."""

    def __init__(self, silence_s: float = SILENCE_S) -> None:
        self._silence_s = silence_s
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._asked = 0
        self._cpu_s = 0.0  # of the child, as of its last words

    def call(self, verb: str, request: dict[str, Any], on_progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        """The child's answer. What may be the machine's fault is tried once more, in a new child if this one is lost.

        Raises:
            ChildCrashed: the child died of a signal of its own, twice: content that crashes the decoder.
            ChildLost: it hung or was killed, twice; or two tries failed in different ways, so that content is not shown to be at fault.
            ChildFault: it raised what it should not, twice.
            OSError: it could not read or write, or had no memory, twice.
            MediaError: as the child raised it.
            Whatever `on_progress` raises, as it is; the child is ended.
        """
        tries: list[Exception] = []
        while len(tries) < 2:
            try:
                answer = self._ask(verb, request, on_progress)
            except (ChildLost, ChildCrashed) as error:
                self.close()
                tries.append(error)
                continue
            except BaseException:  # the callback's own, or Ctrl-C: nobody waits for this answer any more
                self.close()
                raise
            if "result" in answer:
                return answer["result"]
            tries.append(_as_raised(answer["error"]))
            if isinstance(tries[-1], ChildFault):
                self.close()  # a fault may leave anything behind
            elif isinstance(tries[-1], MediaError):
                raise tries[-1]
        first, second = tries
        if isinstance(second, MediaError) and type(first) is not type(second):
            raise ChildLost(f"two tries failed in different ways: {first}; {second}")
        raise second

    def close(self) -> None:
        """Ends the child."""
        child, self._child = self._child, None
        self._cpu_s = 0.0
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
        """The child's answer to this request: its `result` or its `error`. Raises what `on_progress` raises."""
        child = self._started()
        self._asked += 1
        try:
            child.stdin.write(json.dumps({"id": self._asked, "verb": verb, "request": request}) + "\n")
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
            if answer.get("id") != self._asked:
                raise ChildLost(f"the decoder process answers request {answer.get('id')}, asked was {self._asked}")
            self._count(answer.get("cpu_s", self._cpu_s))
            if "progress" not in answer:
                return answer
            on_progress(answer["progress"])

    def _count(self, cpu_s: float) -> None:
        with _COUNTING:
            _CPU_S[0] += cpu_s - self._cpu_s
        self._cpu_s = cpu_s

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
    return ChildFault(error["message"], reason="fault", hint="this is a fault of microturn's: please report it")


def serve() -> None:
    """The child's side: answers requests until its input ends."""
    from . import featurise, foresee

    _raise_open_files()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    verbs = {
        "featurise": featurise.featurise_request,
        "look": featurise.look_request,
        "foresee": foresee.foresee_request,
        "attempt": foresee.attempt_request,
    }
    for line in sys.stdin:
        asked = json.loads(line)

        def say(what: dict[str, Any], number: int = asked["id"]) -> None:
            out.write(json.dumps({"id": number, "cpu_s": time.process_time()} | what) + "\n")

        def progress(done: int, number: int = asked["id"]) -> None:
            say({"progress": done}, number)

        try:
            say({"result": verbs[asked["verb"]](asked["request"], progress)})
        except MediaError as error:
            say({"error": {"kind": "MediaError", "message": str(error), "reason": error.reason, "hint": error.hint}})
        except (OSError, MemoryError, ImportError) as error:  # the last one: of this machine's installation, not of content
            say({"error": {"kind": "OSError", "message": f"{type(error).__name__}: {error}"}})
        except Exception as error:
            say({"error": {"kind": "fault", "message": f"{type(error).__name__}: {error}, raised in {_place(error)}"}})


def _raise_open_files() -> None:
    """As many open files as the machine lets us have: a session may be made of many, and the usual 1024 are soon gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 16), hard))


def _place(error: BaseException) -> str:
    """The last line of our code that the error came through, `pipelines/sessions/featurise.py:120`, without a folder of this machine."""
    home = Path(__file__).resolve().parents[2]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(home)]
    return f"{Path(frames[-1].filename).relative_to(home)}:{frames[-1].lineno}" if frames else "no code of ours"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once: a decoder's callback into Python would print the exception and go on
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        serve()
