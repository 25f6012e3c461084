"""How fast a build is and when it will be done, from how far it was each time somebody looked; and the file in which a machine reads it.

The file is one JSON object (Progress), replaced whole once a second at most, so that whoever reads it never sees half of it.
"""

import time
from collections import deque
from datetime import UTC, datetime

from ..schemas.clock import SAMPLE_RATE_HZ, clock_text
from ..schemas.strict import Strict
from .storage import folders
from .storage.folders import Folder
from .watch import Standing

PROGRESS = "progress.json"  # in the staging folder
EVERY_S = 1.0  # between two writings
SPAN_S = 120.0  # of the past that a rate is taken over


class Progress(Strict):
    """What the progress file says. Keys and units stay as they are while `version` does.

    Attributes:
        phase: `featurising`, `writing shards`, then one of `done`, `unsettled`, `conflict`, `failed`, `interrupted`.
        done_bytes, total_bytes: of this phase: of input files, then of shards. Never less than before within a phase.
        sessions_done, sessions_total, sessions_dropped: finished in any way, in the plan, dropped whole.
        conversation_s: seconds of conversation featurised in this run; what was featurised before is not in it.
        real_time_rate: seconds of conversation a second; bytes_per_s: of this phase. Over the last two minutes; 0 where nothing is known.
        eta_s: seconds until this phase is over, -1 where nothing is known. Writing shards is short beside featurising.
        started, updated: UTC, ISO 8601.
    """

    version: int = 1
    phase: str
    done_bytes: int
    total_bytes: int
    sessions_done: int
    sessions_total: int
    sessions_dropped: int
    conversation_s: float
    real_time_rate: float
    bytes_per_s: float
    eta_s: float
    started: str
    updated: str


class Pace:
    """Standings, one after the other, as Progress.

    `settled`: sessions that the plan itself has dropped; `conversation_s`: what an estimate expects of all sessions, 0 for no estimate.
    """

    def __init__(self, num_sessions: int, settled: int = 0, conversation_s: float = 0.0) -> None:
        self._num_sessions, self._settled, self._conversation_s = num_sessions, settled, conversation_s
        self._started = _now()
        self._past: deque[tuple[float, str, int, float]] = deque()
        self._most = (0, 0)  # sessions done and dropped: a note that cannot be read takes nothing back

    def at(self, standing: Standing) -> Progress:
        """The progress, now that the build stands there."""
        now = time.monotonic()
        self._past.append((now, standing.phase, standing.done, standing.conversation_s))
        while len(self._past) > 2 and (now - self._past[0][0] > SPAN_S or self._past[0][1] != standing.phase):
            self._past.popleft()
        then, phase, done, conversation_s = self._past[0]
        passed = now - then if phase == standing.phase else 0.0
        bytes_per_s = max(0.0, (standing.done - done) / passed) if passed else 0.0
        rate = max(0.0, (standing.conversation_s - conversation_s) / passed) if passed and standing.phase == "featurising" else 0.0
        self._most = max(self._most[0], standing.sessions), max(self._most[1], standing.dropped)
        return Progress(
            phase=standing.phase,
            done_bytes=standing.done,
            total_bytes=standing.total,
            sessions_done=self._most[0] + self._settled,
            sessions_total=self._num_sessions + self._settled,
            sessions_dropped=self._most[1] + self._settled,
            conversation_s=round(standing.conversation_s, 3),
            real_time_rate=round(rate, 3),
            bytes_per_s=round(bytes_per_s, 3),
            eta_s=round(self._eta(standing, bytes_per_s, rate), 3),
            started=self._started,
            updated=_now(),
        )

    def _eta(self, standing: Standing, bytes_per_s: float, rate: float) -> float:
        """By conversation where an estimate says how much there is, for bytes move only when a session is finished; else by bytes."""
        left = standing.total - standing.done
        if not left:
            return 0.0
        if self._conversation_s and standing.phase == "featurising" and standing.total:
            left_s = max(0.0, self._conversation_s * left / standing.total - standing.under_way_s)
            return left_s / rate if rate else -1.0
        return left / bytes_per_s if bytes_per_s else -1.0


class ProgressFile:
    """The file at `uri`. What cannot be written changes nothing for the build."""

    def __init__(self, uri: str) -> None:
        self._folder, self._name = Folder(folders.parent(uri)), uri.rpartition("/")[2]
        self._written = 0.0
        self._last: Progress | None = None
        self.fault = ""

    def write(self, progress: Progress) -> None:
        """Replaces the file, unless that was done a moment ago and the phase is still the same."""
        now = time.monotonic()
        if self._last is None or progress.phase != self._last.phase or now - self._written >= EVERY_S:
            self._put(progress)
            self._written = now
        self._last = progress

    def end(self, phase: str, dropped: int = 0) -> None:
        """The last word: how the build has ended. Nothing where none was ever written. `dropped`: sessions, as the verdict counts them."""
        if self._last is not None:
            dropped = max(dropped, self._last.sessions_dropped)
            self._put(self._last.model_copy(update={"phase": phase, "eta_s": 0.0, "updated": _now(), "sessions_dropped": dropped}))

    def _put(self, progress: Progress) -> None:
        try:
            self._folder.write(self._name, progress.model_dump_json(indent=1).encode() + b"\n")
        except OSError as error:
            self.fault = str(error)


def told(progress: Progress) -> str:
    """The rates and the expected end in a few words, "" where nothing is known yet."""
    words = []
    if progress.real_time_rate:
        words.append(f"{progress.real_time_rate:.0f} × real time")
    if progress.bytes_per_s:
        words.append(f"{progress.bytes_per_s / 1e6:.1f} MB/s")
    if progress.eta_s > 0:
        left = clock_text(round(progress.eta_s) * SAMPLE_RATE_HZ)[:-4]
        at = datetime.now().astimezone().timestamp() + progress.eta_s
        words.append(f"{left} left, until {datetime.fromtimestamp(at):%H:%M}")
    return " · ".join(words)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
