"""The manifest's rules, FORMAT.md section 1: what a row may say, and that JSON lines and Parquet say the same."""

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from microturn.schemas.clock import to_samples
from microturn.schemas.errors import InputError
from microturn.schemas.manifest import Event, Session, Stream

STREAM = {"id": "a", "path": "a.wav", "kind": "audio", "participant": "anna"}
ROW = {"id": "call", "streams": [STREAM]}
FULL = {
    "id": "call 7",
    "streams": [
        STREAM | {"index": 1, "channel": 0, "start": 0.1, "gain": 0.5},
        {"id": "v", "path": "s3://bucket/b.mp4", "kind": "video", "participant": "bob"},
        {"id": "t", "path": "typed.jsonl", "kind": "text", "participant": "bob"},
    ],
    "participants": [{"id": "anna", "speaker": "Anna A.", "role": "assistant"}, {"id": "bob"}, {"id": "radio", "role": "other"}],
    "transcripts": [
        {"path": "a.json", "participant": "anna", "clock": "stream", "stream": "a", "format": "moshi"},
        {"path": "b.stm", "clock": "session", "speakers": {"A": "anna", "B": "bob"}},
        {"path": "c.ctm", "clock": "file", "speakers": {"1": "bob"}},
    ],
    "events": [
        {"kind": "typed", "at": 1.5, "participant": "bob", "text": "hm"},
        {"kind": "delegate", "at": 2, "participant": "anna", "slot": 4},
        {"kind": "background", "at": 3, "participant": "anna", "slot": 4, "text": "42", "complete": True},
        {"kind": "cancel", "at": 4, "slot": 0},
    ],
    "group": "anna",
    "split": "val",
    "language": "en",
    "source": "synth",
    "license": "CC0-1.0",
    "consent": "yes",
    "custom": {"room": "5"},
}
TYPED = {"kind": "typed", "at": 0}
TWO_ASSISTANTS = [{"id": "anna", "role": "assistant"}, {"id": "bob", "role": "assistant"}]


def parse(row, **change):
    return Session.parse({**row, **change}, where="m.jsonl:3")


def test_a_row_says_all_that_the_format_names():
    session = parse(FULL)
    assert set(FULL) == set(Session.model_fields)
    assert json.loads(json.dumps(session.model_dump(mode="json")["streams"][0])) == STREAM | {
        "index": 1,
        "channel": 0,
        "start": "0.1",
        "gain": "0.5",
    }
    assert (session.transcripts[1].speakers, session.events[2].complete, session.custom) == ({"A": "anna", "B": "bob"}, True, {"room": "5"})


def test_what_is_left_out_has_its_default():
    session = parse(ROW)
    stream = session.streams[0]
    assert (stream.index, stream.channel, stream.start, stream.gain) == (0, None, Decimal(0), Decimal(1))
    assert (session.participants, session.transcripts, session.events, session.group, session.custom) == ((), (), (), "", {})


@pytest.mark.parametrize("key", ["id", "streams"])
def test_a_session_has_an_id_and_streams(key):
    with pytest.raises(InputError, match=rf"m\.jsonl:3: {key}: Field required"):
        Session.parse({name: value for name, value in ROW.items() if name != key}, where="m.jsonl:3")
    with pytest.raises(InputError, match=f"{key}: .* at least 1"):
        parse(ROW, **{key: type(ROW[key])()})


@pytest.mark.parametrize("key", ["id", "path", "kind", "participant"])
def test_a_stream_says_what_and_whose_it_is(key):
    with pytest.raises(InputError, match=rf"streams\.0\.{key}: Field required"):
        parse(ROW, streams=[{name: value for name, value in STREAM.items() if name != key}])


@given(name=st.text(max_size=20))
@example(name="anna\n")
@example(name="Anna")
@example(name="a-b")
@example(name="a" * 17)
@example(name="")
@example(name="ａ")
@settings(deadline=None)
def test_a_participant_is_named_by_16_plain_characters(name):
    plain = 1 <= len(name) <= 16 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    try:
        assert parse(ROW, streams=[STREAM | {"participant": name}]).streams[0].participant == name and plain
    except InputError as error:
        assert not plain and "streams.0.participant: String should match pattern" in str(error)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"streams": [STREAM | {"kind": "sound"}]}, "streams.0.kind: Input should be 'audio', 'video' or 'text'"),
        ({"streams": [STREAM | {"channel": -1}]}, "streams.0.channel"),
        ({"streams": [STREAM | {"gain": 0}]}, "streams.0.gain"),
        ({"streams": [STREAM | {"gain": "nan"}]}, "streams.0.gain"),
        ({"streams": [STREAM | {"start": 86_400 * 367}]}, "streams.0.start"),
        ({"streams": [STREAM | {"start": "soon"}]}, "streams.0.start"),
        ({"streams": [STREAM | {"path": ""}]}, "streams.0.path"),
        ({"streams": STREAM}, "streams: Input should be a valid tuple"),
        ({"streams": [STREAM, STREAM]}, "stream id 'a' stands twice"),
        ({"participants": [{"id": "anna"}, {"id": "anna"}]}, "participant id 'anna' stands twice"),
        ({"participants": [{"id": "bob"}]}, "participant 'anna' is not in `participants` (bob)"),
        ({"participants": [{"id": "anna", "role": "host"}]}, "participants.0.role"),
        ({"participants": [{"id": "anna"}], "transcripts": [{"path": "t", "participant": "eve"}]}, "participant 'eve' is not in"),
        ({"participants": [{"id": "anna"}], "transcripts": [{"path": "t", "speakers": {"1": "eve"}}]}, "participant 'eve' is not in"),
        ({"participants": [{"id": "anna"}], "events": [{"kind": "typed", "at": 0, "participant": "eve"}]}, "participant 'eve' is not in"),
        ({"transcripts": [{"path": "t", "clock": "wall"}]}, "transcripts.0.clock"),
        ({"transcripts": [{"path": "t", "format": "docx"}]}, "transcripts.0.format"),
        ({"transcripts": [{"path": "t", "stream": "b"}]}, "transcript 't' names stream 'b', which is not in `streams`"),
        ({"transcripts": [{"path": "t", "participant": "Eve"}]}, "transcripts.0.participant: String should match pattern"),
        ({"events": [{"kind": "clap", "at": 0}]}, "events.0.kind"),
        ({"events": [{"kind": "typed"}]}, "events.0.at: Field required"),
        ({"events": [{"kind": "cancel", "at": 0, "slot": 5}]}, "events.0.slot"),  # five slots, 0 to 4
        ({"streams": [STREAM | {"id": "#events"}]}, "streams.0.id: String should match pattern"),  # the ledger's own names
        ({"streams": [STREAM, STREAM | {"id": "b", "start": 1.5}]}, "'a.wav', which starts once: found start 0 and 1.5"),
        ({"streams": [STREAM] * 129}, "streams: Tuple should have at most 128 items"),
        ({"participants": [{"id": f"p{n}"} for n in range(65)]}, "participants: Tuple should have at most 64 items"),
        ({"transcripts": [{"path": "t"}] * 257}, "transcripts: Tuple should have at most 256 items"),
        ({"events": [{"kind": "typed", "at": 0}] * 100_001}, "events: Tuple should have at most 100000 items"),
        ({"custom": {str(n): "x" for n in range(1_001)}}, "custom: Value should have at most 1000 items"),
        ({"custom": [("a", "1"), ("a", "2")]}, "custom: key 'a' stands twice"),
        ({"custom": [("a", "1", "2")]}, "custom: Input should be a valid dictionary"),
        ({"events": [{"kind": "delegate", "at": 0}]}, "events.0: who does delegate? `participant` is needed, for the row has 0 assistants"),
        ({"participants": TWO_ASSISTANTS, "events": [TYPED, {"kind": "cancel", "at": 0}]}, "events.1: who does cancel?"),
        ({"participants": [{"id": "anna"}, {"id": "radio", "role": "other"}],
          "events": [{"kind": "cancel", "at": 0, "participant": "radio"}]},
         "events.0: 'radio' does cancel, and has the role `other`"),
        ({"split": "Train"}, "split: String should match pattern"),
        ({"split": "../x"}, "split: String should match pattern"),
        ({"custom": {"room": 5}}, "custom.room"),
        ({"id": "x" * 1025}, "id: String should have at most 1024 characters"),
        ({"id": "\ud800"}, "id: "),  # half a surrogate has no UTF-8, and so no digest
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_refused_with_its_place(change, said):
    with pytest.raises(InputError) as refused:
        parse(ROW, **change)
    assert str(refused.value).startswith("m.jsonl:3: ") and said in str(refused.value)


def test_parquet_and_json_say_the_same():
    """A Parquet row has every column, absent ones as nulls, and structs have every field."""
    rows = pa.Table.from_pylist([FULL | {"custom": None}, ROW]).to_pylist()
    assert rows[1]["streams"][0]["gain"] is None and rows[1]["events"] is None and rows[0]["streams"][1]["channel"] is None
    assert rows[0]["transcripts"][2]["speakers"]["A"] is None
    assert parse(rows[0]) == parse(FULL, custom={}) and parse(rows[1]) == parse(ROW)
    assert parse(rows[1]).digest() == parse(ROW).digest()


def test_a_parquet_map_says_the_same_as_a_struct():
    pairs = pa.map_(pa.string(), pa.string())
    transcript = pa.struct([("path", pa.string()), ("speakers", pairs)])
    transcripts = pa.array([[{"path": "b.stm", "speakers": [("A", "anna"), ("B", None)]}]], pa.list_(transcript))
    table = pa.table({"id": ["call"], "streams": [[STREAM]], "transcripts": transcripts, "custom": pa.array([[("room", "5")]], pairs)})
    (row,) = table.to_pylist()
    assert row["custom"] == [("room", "5")]  # pyarrow gives pairs
    assert parse(row) == parse(ROW, transcripts=[{"path": "b.stm", "speakers": {"A": "anna"}}], custom={"room": "5"})


def test_the_only_assistant_is_known_by_their_role():
    assert parse(FULL).only_assistant() == "anna"
    assert parse(ROW).only_assistant() == parse(ROW, participants=TWO_ASSISTANTS).only_assistant() == ""


@given(ms=st.integers(-(10**9), 10**9))
@example(ms=100)
@settings(deadline=None)
def test_a_float_is_the_decimal_that_was_written(ms):
    exact = Decimal(ms) / 1000
    stream = Stream.parse(STREAM | {"start": float(exact)}, where="m")
    assert stream.start == exact and stream == Stream.parse(STREAM | {"start": str(exact)}, where="m")
    assert to_samples(stream.start) == ms * 16


@pytest.mark.parametrize(
    "ways",
    [
        [1, 1.0, "1", "1.0", "1.000", Decimal("1.00"), "1e0"],
        [0.25, "0.250", Decimal("0.25000000")],
        [0, -0.0, "0.0", "-0"],
        [100, "1e2", 100.0],
    ],
)
def test_a_number_has_one_digest_however_it_is_written(ways):
    digests = {Event.parse({"kind": "typed", "at": way}, where="m").digest() for way in ways}
    assert len(digests) == 1 and digests != {Event.parse({"kind": "typed", "at": 7}, where="m").digest()}


@pytest.mark.parametrize("bomb", ["1e-999999999", "1e999999999", Decimal("1e-41")])
def test_a_time_that_would_take_forever_to_compute_is_refused(bomb):
    with pytest.raises(InputError, match=r"streams\.0\.start"):
        parse(ROW, streams=[STREAM | {"start": bomb}])


def test_the_cast_is_who_is_named_else_whose_streams_there_are():
    assert [(p.id, p.role) for p in parse(FULL).cast()] == [("anna", "assistant"), ("bob", "user"), ("radio", "other")]
    streams = [STREAM | {"id": str(n), "participant": name} for n, name in enumerate(["zoe", "anna", "zoe"])]
    assert [(p.id, p.role) for p in parse(ROW, streams=streams).cast()] == [("anna", "user"), ("zoe", "user")]
