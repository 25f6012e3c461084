"""The figures that an estimate and a finished build share, so that one can stand beside the other.

Counts are of one build: of what it adds to a corpus, not of the corpus.
"""

from collections.abc import Mapping

from pydantic import Field

from ...schemas.receipts import WorkItem
from ...schemas.strict import Strict

MODALITIES = {
    "pictures": ("patches", "picture_pts", "picture_tick"),
    "what is heard, as codes": ("heard_dmel",),
    "what is heard, as PCM": ("heard_pcm",),
    "own speech, as PCM": ("own_pcm",),
    "tokens": ("tokens", "token_slot", "token_tick"),
    "words, events, meta": ("words", "events", "meta"),
    "activity, validity": ("activity", "heard_valid", "own_valid"),
}
OVERHEAD = "tar headers and padding"


class Figures(Strict):
    """What a build adds to a corpus.

    Attributes:
        sessions: that give windows; rejected: reason → sessions dropped whole.
        session_ticks: of those sessions, each once; view_ticks: of all their views, as their windows have them.
        shards: split → how many; bytes: of them, by modality (MODALITIES), tar headers and padding besides.
        cpu_s: processor seconds of all workers; -1 where nobody has measured.
    """

    sessions: int = 0
    rejected: dict[str, int] = {}
    session_ticks: int = 0
    view_ticks: int = 0
    windows: int = 0
    shards: dict[str, int] = {}
    bytes: dict[str, int] = {}
    cpu_s: float = -1.0

    @property
    def size_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(self.bytes.values())


MAX_NAMED = 20


class Range(Strict):
    """Where a figure is likely to lie; `low` = `high` where it is known."""

    low: float
    high: float


class Estimate(Strict):
    """What a build is expected to give.

    Attributes:
        plan: digest of the sessions and their files, which a build's can be compared with.
        sessions_planned: all that the plan names; sessions_known: those that the corpus holds already; sessions_done: of those looked at,
            the ones whose work a build before this one has left behind.
        looked_at, of: sessions whose headers were read, and how many there were to read.
        unsaid: of them those of which a header says no length, or says one that the file does not have; unreadable: those that the machine
            could not read.
        dropped: `id: reason` of sessions that are expected to be dropped whole, of the first MAX_NAMED that were seen.
        hours, cpu_s: where session hours and processor seconds are likely to lie (about two standard errors, and the attempts' spread).
        attempts: pieces of sessions that were featurised; attempted_s: their seconds of conversation.
        kinds: codecs and sizes of a session's streams → (sessions of it, processor seconds an hour of conversation, -1 if none was tried).
        wall_s: workers → seconds; no session is shared between workers, so the longest one is a floor.
    """

    version: int = Field(1, ge=1, le=1)
    plan: str
    sessions_planned: int
    sessions_known: int
    sessions_done: int
    looked_at: int
    of: int
    unsaid: int
    unreadable: int
    input_bytes: int
    figures: Figures
    dropped: tuple[str, ...] = ()
    hours: Range
    cpu_s: Range
    attempts: int
    attempted_s: float
    kinds: dict[str, tuple[int, float]]
    wall_s: dict[int, float]


class Spent(Strict):
    """What one run of a build took, from its beginning to its end.

    Attributes:
        wall_s: seconds of the run; media_cpu_s: processor seconds of the decoder processes, in which sessions are featurised; worker_cpu_s:
            of the worker processes around them, which write the shards.
        workers, hosts: processes that worked, and machines that they were on.
        featurised: sessions that were decoded in this run, and their conversation_s; of all others receipts stood already.
    """

    wall_s: float
    media_cpu_s: float
    worker_cpu_s: float
    workers: int
    hosts: int
    featurised: int
    conversation_s: float

    @property
    def cpu_s(self) -> float:
        """Processor seconds in all."""
        return self.media_cpu_s + self.worker_cpu_s


def by_modality(member_bytes: Mapping[str, int], tar_bytes: int) -> dict[str, int]:
    """Modality → bytes of payloads, and what a tar needs besides. `member_bytes`: member's file name → bytes of all its payloads."""
    stems: dict[str, int] = {}
    for name, size in member_bytes.items():
        stem = name.partition(".")[0]
        stems[stem] = stems.get(stem, 0) + size
    sizes = {label: sum(stems.get(name, 0) for name in names) for label, names in MODALITIES.items()}
    return sizes | {OVERHEAD: tar_bytes - sum(member_bytes.values())}


def input_bytes(item: WorkItem) -> int:
    """Bytes of a session's files, of those that are there."""
    return sum(max(identity.size_bytes, 0) for identity in item.files)
