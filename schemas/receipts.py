"""What the pipeline tells itself: what is to be done (work items), what has been done (receipts), what a shard holds (summaries).

A receipt names exactly what it is a receipt of: the session's row, the identity and sha256 of every file, the spec, the toolchain.
Work whose receipt still matches is done; that is how a build resumes, and how a corpus grows.
"""

from typing import Literal, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from .manifest import Session
from .spec import FeatureSpec
from .strict import Strict, canonical_json, sha256_hex
from .tables import LedgerRow


class FileIdentity(Strict):
    """One input file as the plan saw it: path as the manifest names it, size, and a stamp (mtime in ns, or an object store's etag)."""

    path: str
    size_bytes: int
    stamp: str


class WorkItem(Strict):
    """One session to featurise.

    Attributes:
        root: URI that relative paths of the row start from; never leaves the plan.
        order: sha256 of the session's id, the place of the session in its split.
        hide_names: no name of an input file stands in what is written.
    """

    session: Session
    key: str
    split: str
    order: str
    root: str
    files: tuple[FileIdentity, ...]
    spec: FeatureSpec
    toolchain: str
    hide_names: bool = False

    def receipt_name(self) -> str:
        """File name of the receipt: a function of the row, the spec and the toolchain, not of where the input lies."""
        work = canonical_json([self.session.model_dump(mode="json"), self.spec.digest(), self.toolchain])
        return f"{self.key}-{sha256_hex(work)[:16]}.json"


class MemberAt(Strict):
    """Where one member of a window lies in a part: the payload's offset and size, its sha256, and its xxh3 where the part was made here.

    Attributes:
        xxh3: 64 bits in hex, what a copy is checked by; "" in a shard, where the sha256 is.
    """

    name: str
    part: str
    offset: int
    size: int
    sha256: str
    xxh3: str = ""


class WindowReceipt(Strict):
    """One featurised window: everything but its tokens."""

    view: str
    first_tick: int
    num_ticks: int
    members: tuple[MemberAt, ...]

    def tar_bytes(self) -> int:
        """Bytes that these members take in a tar: what shards are filled by."""
        return sum(512 + -(-member.size // 512) * 512 for member in self.members)


class FileProof(Strict):
    """The sha256 of an input file, taken while featurising."""

    identity: FileIdentity
    sha256: str


class Receipt(Strict):
    """Proof that a session is featurised: its parts, its windows (view by view, in order of time), its ledger.

    Attributes:
        source_digest: of the session's row without paths and the sha256 of its files.
        tail_codes: view → hex of uint8 [H, 80]: the codes of the frame after the session's end, which still hears the last 50 ms.
    """

    version: Literal[1] = 1
    session: str
    session_id: str
    split: str
    order: str
    spec: str
    toolchain: str
    source_digest: str
    files: tuple[FileProof, ...]
    session_ticks: int
    windows: tuple[WindowReceipt, ...]
    tail_codes: dict[str, str]
    ledger: tuple[LedgerRow, ...]

    def parts(self) -> tuple[str, ...]:
        """Names of the parts that the windows lie in, sorted."""
        return tuple(sorted({member.part for window in self.windows for member in window.members}))


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Outcome:
    """What became of one work item: the only thing about it that crosses the graph besides its number of bytes.

    All outcomes of a build meet in one step, so it is a dataclass: a third of a model's memory.

    Attributes:
        status: `done`: a receipt exists, and the corpus does not hold its windows yet; `known`: the corpus holds them; `conflict`: it holds
            others of that session; `rejected`: dropped as a function of content, a receipt without windows exists; `unsettled`: the
            machine failed it, no receipt.
        reason: of a rejected one, as in its ledger.
        window_bytes: `tar_bytes` of each window of the receipt, in its order.
        message: a sentence about a conflict, or about what the machine failed at.
        committed: the corpus holds windows of this session; refused: the reasons for which its ledger drops the session whole.
    """

    status: Literal["done", "known", "conflict", "rejected", "unsettled"]
    session: str
    split: str
    order: str
    receipt: str = ""
    reason: str = ""
    window_bytes: tuple[int, ...] = ()
    message: str = ""
    committed: bool = False
    refused: tuple[str, ...] = ()


class WorkLine(Strict):
    """A line of the work list: a session to featurise, or one that the plan has settled, with what the corpus holds of it already.

    Attributes:
        committed: source digest of the windows that the corpus holds of the session, "" for none.
        refused: the reasons for which its ledger drops the session whole.
    """

    item: WorkItem | None = None
    settled: Outcome | None = None
    committed: str = ""
    refused: tuple[str, ...] = ()


class WorkSlice(NamedTuple):
    """Some lines of the work list, by their bytes: what a runner is given in place of the sessions."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class ShardSegment:
    """Windows [start, stop) of a receipt, in its order."""

    receipt: str
    start: int
    stop: int


class ShardTask(Strict):
    """One shard to write, from windows of consecutive sessions."""

    name: str
    split: str
    segments: tuple[ShardSegment, ...]


class Drops(Strict):
    """What a ledger counts for the drop ratios.

    Attributes:
        audio_decoded, audio_dropped: samples of audio streams, brought to 16 kHz.
        words_found, words_kept: of transcripts that could be read; unreadable: transcripts that could not.
        words_unsaid: kept, but as labels only: their view ended before they could be said.
    """

    audio_decoded: int
    audio_dropped: int
    words_found: int
    words_kept: int
    words_unsaid: int
    transcripts: int
    unreadable: int


class ShardSummary(Strict):
    """What a shard holds, as dataset.json lists it. `name` is also the name of its index and ledger files.

    Attributes:
        sha256: of the tar; `index_digest`, `ledger_digest`: of the rows (schemas/tables.py `rows_digest`).
        drops: what its ledger counts (pipelines/sessions/drops.py).
    """

    name: str
    split: str
    size_bytes: int
    sha256: str
    index_digest: str
    ledger_digest: str
    num_windows: int
    num_sessions: int
    num_ticks: int
    num_tokens: int
    num_pairs: int
    ledger_rows: int
    drops: Drops
