"""What was dropped, counted once: from ledger rows to the shares that the exit code, the summary and verify speak of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...schemas.clock import SAMPLE_RATE_HZ
from ...schemas.receipts import Drops
from ...schemas.tables import LedgerRow

DUPLICATE_KEPT = "duplicate_identical"  # the ledger's reason for a row that repeats another, which is kept
COUNTS = tuple(Drops.model_fields)


def drops(rows: Iterable[LedgerRow]) -> Drops:
    """The counts of a ledger."""
    counts = dict.fromkeys(COUNTS, 0)
    for row in rows:
        if row.unit == "sample" and row.rate_hz:
            _count_audio(counts, row)
        elif row.unit == "word" and row.stage != "plan":
            counts["words_found"] += row.decoded
            counts["words_unsaid"] += row.dropped if row.entry == "unsaid" else 0
            counts["words_kept"] += row.kept
            counts["transcripts"] += row.entry in ("stream", "unused")
            counts["unreadable"] += row.entry == "unused"
    return Drops(**counts)


def num_dropped_whole(rows: Iterable[LedgerRow]) -> int:
    """Sessions of which nothing is kept. A row that only repeats one that is kept is none."""
    return len({row.session for row in rows if row.entry == "session" and row.reason != DUPLICATE_KEPT})


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Shares that were dropped, 0.0 where there was nothing.

    Attributes:
        words: of the words, or of the transcripts that could not be read, whichever is larger.
    """

    audio: float
    sessions: float
    words: float

    @property
    def largest(self) -> float:
        """What `--max-drop-ratio` is compared with."""
        return max(self.audio, self.sessions, self.words)


def shares(totals: Mapping[str, int]) -> Shares:
    """The shares of a corpus, from the totals of its dataset.json."""
    lost = totals["words_found"] - totals["words_kept"] + totals["words_unsaid"]
    return Shares(
        audio=_share(totals["audio_dropped"], totals["audio_decoded"]),
        sessions=_share(totals["rejected_sessions"], totals["rejected_sessions"] + totals["num_sessions"]),
        words=max(_share(lost, max(lost, totals["words_found"])), _share(totals["unreadable"], totals["transcripts"])),
    )


def _count_audio(counts: dict[str, int], row: LedgerRow) -> None:
    """Samples at 16 kHz. Padding that an encoder added is not the recording's, so it counts in neither."""
    if row.entry == "stream":
        counts["audio_decoded"] += row.decoded * SAMPLE_RATE_HZ // row.rate_hz
    elif row.entry == "missing":
        lost = (row.stop - row.start) * SAMPLE_RATE_HZ // row.rate_hz
        counts["audio_decoded"] += lost
        counts["audio_dropped"] += lost
    elif row.entry == "dropped" and row.reason == "codec_padding":
        counts["audio_decoded"] -= row.dropped * SAMPLE_RATE_HZ // row.rate_hz
    elif row.entry == "dropped":
        counts["audio_dropped"] += row.dropped * SAMPLE_RATE_HZ // row.rate_hz


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
