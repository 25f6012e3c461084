"""What was dropped is counted once, from ledger rows; every share that is told comes from those counts."""

import pytest
from microturn.pipelines.sessions.drops import COUNTS, drops, num_dropped_whole, shares
from microturn.schemas.tables import LedgerRow

NOTHING = dict.fromkeys((*COUNTS, "rejected_sessions", "num_sessions"), 0)


def row(**columns) -> LedgerRow:
    return LedgerRow(session=columns.pop("session", "s"), session_id="s", **columns)


def audio(entry: str, **columns) -> LedgerRow:
    return row(entry=entry, unit="sample", rate_hz=8_000, **columns)


def test_audio_is_counted_at_16_khz_and_padding_not_at_all():
    rows = [
        audio("stream", decoded=1000, kept=600, dropped=400),
        audio("dropped", reason="overlap", dropped=300),
        audio("dropped", reason="codec_padding", dropped=100),
        audio("missing", start=1000, stop=1500),
        row(entry="stream", unit="picture", decoded=99, dropped=99),
        audio("unused", declared=77),
    ]
    assert (drops(rows).audio_decoded, drops(rows).audio_dropped) == (2 * (1000 - 100 + 500), 2 * (300 + 500))


def test_words_are_counted_by_transcript():
    rows = [
        row(entry="stream", unit="word", decoded=10, kept=7, dropped=3),
        row(entry="dropped", unit="word", reason="empty", dropped=3),
        row(entry="unused", unit="word", stage="words"),
        row(entry="unused", unit="word", stage="plan"),  # a subtitle stream that the row does not name
        row(entry="unsaid", unit="word", dropped=2),
        row(entry="stream", unit="event", decoded=5, kept=5),
    ]
    found = drops(rows)
    assert (found.words_found, found.words_kept, found.words_unsaid, found.transcripts, found.unreadable) == (10, 7, 2, 2, 1)


def test_a_row_that_repeats_a_kept_one_is_no_session_lost():
    rows = [row(entry="session", reason="not_media", session=name) for name in "aab"]
    rows.append(row(entry="session", reason="duplicate_identical", session="c"))
    assert num_dropped_whole(rows) == 2


@pytest.mark.parametrize(
    ("counts", "name", "share"),
    [
        ({}, "largest", 0.0),
        ({"audio_decoded": 8, "audio_dropped": 2}, "audio", 0.25),
        ({"rejected_sessions": 1, "num_sessions": 3}, "sessions", 0.25),
        ({"words_found": 8, "words_kept": 7, "words_unsaid": 1}, "words", 0.25),
        ({"words_unsaid": 3}, "words", 1.0),
        ({"transcripts": 4, "unreadable": 1, "words_found": 8, "words_kept": 8}, "words", 0.25),
    ],
)
def test_shares(counts, name, share):
    found = shares(NOTHING | counts)
    assert getattr(found, name) == share and found.largest == share
