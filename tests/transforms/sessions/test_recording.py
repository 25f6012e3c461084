"""A whole session: what its meta, labels and ledger say, and what of its row or files becomes a reason instead of a failure."""

import json
from fractions import Fraction
from io import BytesIO

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_makers import clap_film, riff_wav, sound_file, steady_times
from microturn.schemas.errors import MediaError
from microturn.schemas.layout import LayoutSpec
from microturn.schemas.manifest import Session
from microturn.schemas.meta import WindowMeta
from microturn.schemas.rows import EventRow, WordRow
from microturn.schemas.spec import FeatureSpec, LimitSpec
from microturn.schemas.tables import LEDGER_SCHEMA, open_sums, rows_digest
from microturn.transforms.sessions.ledger import unsaid_rows
from microturn.transforms.sessions.recording import Recording
from microturn.transforms.tokens.interleave import Carry
from microturn.transforms.tokens.queues import NOTHING_RETURNED, NOTHING_TO_SAY, NOTHING_TYPED, background_add, say_add, typed_add
from microturn.transforms.tokens.tokenizer import BytesTokenizer
from signals import noise

SPEC = FeatureSpec(window_ticks=5)
BYTES = BytesTokenizer()
PEOPLE = [{"id": "x", "role": "assistant"}, {"id": "y", "role": "user"}]


def wav(seconds=2.0, channels=1):
    return riff_wav((noise(int(16_000 * seconds) * channels, 1) * 3_000).astype("<i2").tobytes(), channels=channels)


def audio(name, path, who, **more):
    return {"id": name, "path": path, "kind": "audio", "participant": who, **more}


def lived(row, files, spec=SPEC):
    """(labels of every window, ledger rows) of a session whose files are these bytes; a file that is None is a folder."""

    def open_source(path):
        if path not in files:
            raise FileNotFoundError(path)
        if files[path] is None:
            raise IsADirectoryError(path)
        return BytesIO(files[path])

    session = Session.parse({"id": "s", "participants": PEOPLE, **row}, where="row")
    with Recording(session, open_source, spec) as recording:
        for _ in recording.windows():
            pass
        return [labels for *_, labels in recording.labels("source")], recording.ledger()


def told(rows, *columns, **only):
    return [tuple(getattr(row, column) for column in columns) for row in rows if all(getattr(row, k) == v for k, v in only.items())]


# ---- meta and labels: one shape


def test_every_window_of_every_kind_of_session_has_the_same_keys_and_types():
    """As strangers' readers see it: the types that pyarrow infers from a rich session hold all of a poor one."""
    film = clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(25), 40), light=20)
    rich = {
        "streams": [audio("a", "a.wav", "x", gain=0.5), audio("b", "v.mp4", "y")]
        + [{"id": name, "path": "v.mp4", "kind": "video", "participant": "y"} for name in ("v", "unused")],
        "transcripts": [{"path": "w.json", "participant": "x"}],
        "events": [{"kind": "typed", "at": 0.5, "participant": "y", "text": "hm"}],
        "custom": {"room": "5"}, "license": "CC0-1.0", "group": "g",
    }  # fmt: skip
    words = json.dumps([{"word": "hi", "start": 0.1, "end": 0.2}]).encode()
    poor = {"streams": [audio("b", "a.wav", "y")], "participants": [{"id": "y"}]}
    files = {"a.wav": wav(), "v.mp4": film, "w.json": words}
    rich_labels, poor_labels = (lived(row, files)[0] for row in (rich, poor))
    both = [*rich_labels, *poor_labels]
    for name, row_type in (("words", WordRow), ("events", EventRow)):
        assert all({k: type(v) for k, v in row.items()} == row_type.__annotations__ for label in both for row in label[name])
    kind = pa.infer_type([label["meta"] for label in rich_labels])
    assert not any(pa.types.is_null(field.type) for field in kind)
    for meta in (label["meta"] for label in both):
        assert pa.array([meta], kind).to_pylist() == [meta]
        assert WindowMeta.model_validate_json(json.dumps(meta), strict=True).to_json() == meta
    assert any(label["words"] for label in both) and {e["kind"] for label in both for e in label["events"]} >= {"typed", "turn"}


# ---- what the row says


def test_who_delegates_is_the_only_assistant_unless_the_row_names_somebody():
    events = [{"kind": kind, "at": 0.5} for kind in ("delegate", "cancel", "background", "typed")]
    events.append({"kind": "delegate", "at": 0.6, "participant": "y"})
    labels, rows = lived({"streams": [audio("a", "a.wav", "y")], "events": events}, {"a.wav": wav()})
    given_ones = [(e["kind"], e["participant"]) for e in labels[0]["events"] if e["kind"] in ("delegate", "cancel", "background", "typed")]
    assert sorted(given_ones) == [("background", ""), ("cancel", "x"), ("delegate", "x"), ("delegate", "y"), ("typed", "")]
    assert told(rows, "decoded", "kept", "dropped", unit="event") == [(5, 5, 0)]


def test_a_word_is_whose_the_row_says_then_whose_the_file_says():
    words = json.dumps([{"word": name, "start": 0.1, "end": 0.2, "speaker": name} for name in ("A", "x", "stranger")]).encode()

    def owners(**transcript):
        row = {"streams": [audio("a", "a.wav", "y")], "transcripts": [{"path": "w.json", "speakers": {"A": "y"}, **transcript}]}
        labels, rows = lived(row, {"a.wav": wav(), "w.json": words})
        return {w["text"]: w["participant"] for w in labels[0]["words"]}, told(rows, "reason", unit="word", entry="dropped")

    assert owners() == ({"A": "y", "x": "x"}, [("unknown_speaker",)])
    assert owners(participant="y") == ({"A": "y", "x": "y", "stranger": "y"}, [])  # as the row says, though one is called x


# ---- the ledger


def test_no_name_in_the_ledger_is_a_path_and_none_is_two_accounts():
    """The same recording under two names gives one digest; a stream may be called as a transcript's account was."""
    stereo, srt = sound_file("matroska", "flac", noise(32_000, 1), 16_000), b"1\n00:00:00,100 --> 00:00:00,200\nhello there\n\n"
    film = clap_film("matroska", "libx264", "flac", times=steady_times(Fraction(25), 40), light=20)
    digests = []
    for name in ("one.mkv", "folder/another one.mkv"):
        row = {
            "streams": [
                audio("a", name, "y"),
                audio("b", "b.mkv", "x"),
                {"id": "transcript-0", "path": "t.srt", "kind": "text", "participant": "x"},
            ],
            "transcripts": [{"path": "t.srt", "participant": "x"}],
            "events": [{"kind": "typed", "at": 0.1, "participant": "y", "text": "x"}],
        }
        _, rows = lived(row, {name: film, "b.mkv": stereo, "t.srt": srt})
        assert open_sums(rows) == [] and ("#file-0-video0",) in told(rows, "stream", entry="unused")
        digests.append(rows_digest(row.model_dump() for row in rows))
        assert not any("one" in row.stream for row in rows) and told(rows, "kept", unit="word", entry="stream") == [(2,), (2,)]
    assert digests[0] == digests[1]


def test_a_ledger_fits_its_table_whatever_a_container_claims():
    data = sound_file("matroska", "flac", noise(32_000, 1), 16_000)
    data = data.replace(b"00:00:02.000000000", b"999999999999:59:59")
    _, rows = lived({"streams": [audio("a", "a.mkv", "y")]}, {"a.mkv": data})
    assert told(rows, "declared", "decoded", entry="stream") == [(0, 32_000)]
    assert told(rows, "reason", "dropped", entry="dropped") == [("absurd_length", 0)]
    assert pa.Table.from_pylist([row.model_dump() for row in rows], schema=LEDGER_SCHEMA).num_rows == len(rows)


def waiting(say=(), control=(), typed=(), background=()):
    layout = LayoutSpec(word_prefix=" ")
    return Carry.of(
        say_add(NOTHING_TO_SAY, 3, say, control, layout, BYTES),
        typed_add(NOTHING_TYPED, typed, BYTES),
        background_add(NOTHING_RETURNED, background, layout, BYTES),
    )


names = st.text("abc", min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(
    say=st.lists(names, max_size=4), control=st.integers(0, 3), typed=st.lists(names, max_size=3), background=st.lists(names, max_size=3)
)
def test_every_word_beyond_the_tail_is_counted_once(say, control, typed, background):
    left = waiting(say, [("delegate", 1)] * control, typed, [(2, text + " ", True) for text in background])
    rows = unsaid_rows("key", "id", "x", left, LayoutSpec(), BYTES)
    counts = {"own": len(say), "control": control, "typed": len(typed), "background": len(background)}
    assert {row.stream.rpartition("-")[2]: row.dropped for row in rows} == {name: count for name, count in counts.items() if count}
    assert {(r.entry, r.reason, r.session, r.session_id) for r in rows} <= {("unsaid", "limit_tail", "key", "id")} and open_sums(rows) == []


def test_a_word_that_is_cut_and_an_end_that_is_left_over_count_too():
    cut = Carry(say_ids=(105, 32, 97), say_slots=(6, 6, 6), say_due=(0, 0, 0), background_ids=(266,), background_slots=(0,))
    assert [(row.stream, row.unit, row.dropped) for row in unsaid_rows("k", "i", "x", cut, LayoutSpec(), BYTES)] == [
        ("#view-x-own", "word", 2),
        ("#view-x-background", "word", 1),
    ]


# ---- what cannot be read


def test_a_folder_is_content_not_a_failing_machine():
    with pytest.raises(MediaError, match="rec: a folder") as refused:
        lived({"streams": [audio("a", "rec", "y")]}, {"rec": None})
    assert refused.value.reason == "not_a_file"
    row = {"streams": [audio("a", "a.wav", "y")], "transcripts": [{"path": "w", "participant": "y"}]}
    _, rows = lived(row, {"a.wav": wav(), "w": None})
    assert told(rows, "stream", "reason", entry="unused") == [("#transcript-0", "not_a_file")]


class Endless(BytesIO):
    """A file of any size that counts what is read of it."""

    most = 0

    def read(self, size=-1):
        Endless.most = max(Endless.most, size if size >= 0 else 1 << 62)
        return b"[" * size if size >= 0 else b""


def test_no_more_is_read_of_a_transcript_than_the_limit():
    session = Session.parse(
        {"id": "s", "streams": [audio("a", "a.wav", "y")], "transcripts": [{"path": "w", "participant": "y"}]}, where="r"
    )
    spec = FeatureSpec(limits=LimitSpec(max_transcript_bytes=1_000))
    with Recording(session, lambda path: Endless() if path == "w" else BytesIO(wav()), spec) as recording:
        list(recording.windows())
        assert told(recording.ledger(), "reason", "message", entry="unused") == [
            ("limit_transcript", "w: more than 1000 bytes, the limit for a transcript")
        ]
    assert Endless.most == 1_001


def test_a_transcript_of_just_the_limit_is_read():
    words = json.dumps([{"word": "hi", "start": 0.1, "end": 0.2}]).encode()
    row = {"streams": [audio("a", "a.wav", "y")], "transcripts": [{"path": "w.json", "participant": "y"}]}
    spec = FeatureSpec(limits=LimitSpec(max_transcript_bytes=len(words)))
    labels, _ = lived(row, {"a.wav": wav(), "w.json": words}, spec)
    assert [word["text"] for word in labels[0]["words"]] == ["hi"]
