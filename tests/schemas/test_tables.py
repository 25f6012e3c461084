"""The ledger closes or says where it does not; a table's digest is of its rows and of nothing around them."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.tables import INDEX_SCHEMA, LEDGER_SCHEMA, LedgerRow, open_sums, rows_digest
from pydantic import ValidationError

counts = st.integers(0, 10**15)
STREAM = {"session": "s", "session_id": "s", "stream": "a", "file": "a.wav", "unit": "sample", "rate_hz": 48_000}


def row(entry, **columns):
    return LedgerRow(**{**STREAM, "entry": entry, **columns})


def closed(kept=90, drops=(7, 3), fills=(5,), **columns):
    """The rows of one stream whose sums close."""
    total = row("stream", declared=100, decoded=kept + sum(drops), kept=kept, dropped=sum(drops), inserted=sum(fills), **columns)
    parts = [row("dropped", dropped=units, reason=f"r{n}", **columns) for n, units in enumerate(drops)]
    return [total, *parts, *(row("inserted", inserted=units, **columns) for units in fills)]


@st.composite
def ledgers(draw):
    streams = draw(st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("abc")), unique=True, min_size=1))
    rows = []
    for session, stream in streams:
        drops, fills = (draw(st.lists(counts, max_size=3)) for _ in range(2))
        rows += closed(draw(counts), drops, fills, session=session, stream=stream)
    rows += [row(entry, session="u", declared=9) for entry in draw(st.lists(st.sampled_from(["missing", "unused", "session"])))]
    return draw(st.permutations(rows))


@given(rows=ledgers())
@settings(deadline=None)
def test_a_ledger_that_closes_has_no_faults_in_any_order(rows):
    assert open_sums(rows) == []


@given(rows=ledgers(), data=st.data())
@settings(deadline=None)
def test_one_unit_anywhere_opens_it(rows, data):
    counting = [n for n, r in enumerate(rows) if r.entry in ("stream", "dropped", "inserted")]
    at = data.draw(st.sampled_from(counting))
    column = data.draw(st.sampled_from({"stream": ["decoded", "kept", "dropped", "inserted"]}.get(rows[at].entry, [rows[at].entry])))
    faults = open_sums([*rows[:at], rows[at].model_copy(update={column: getattr(rows[at], column) + 1}), *rows[at + 1 :]])
    assert len(faults) == 1 and faults[0].startswith(f"session {rows[at].session}, stream {rows[at].stream}: ")


@pytest.mark.parametrize(
    "rows, said",
    [
        (closed()[1:], "rows without a total"),
        (closed()[:2] + closed()[3:], "dropped 10, but its rows say 7"),
        (closed()[:3], "inserted 5, but its rows say 0"),
        ([row("stream", decoded=10, kept=9)], "decoded 10 != kept 9 + dropped 0"),
        ([*closed(), closed()[0]], "two totals"),
        ([row("stream", decoded=0, kept=-5, dropped=5), row("dropped", dropped=5)], "a count below 0"),
    ],
)
def test_each_kind_of_open_ledger_is_told(rows, said):
    assert open_sums(rows) == [f"session s, stream a: {said}"]


def test_a_stream_may_bear_the_name_of_another_account():
    words = closed(stream="transcript-0", file="words.json", unit="word")
    assert open_sums([*closed(stream="transcript-0"), *words]) == []


@given(rows=ledgers(), data=st.data())
@settings(deadline=None)
def test_a_digest_is_of_the_rows_in_any_order_and_whatever_the_free_text(rows, data):
    dumped = [r.model_dump() for r in rows]
    turned = data.draw(st.permutations([r | {"message": "libav said otherwise", "file": "elsewhere.wav"} for r in dumped]))
    assert rows_digest(turned) == rows_digest(dumped)
    column = data.draw(st.sampled_from(sorted(LedgerRow.model_fields.keys() - {"file", "message"})))
    value = dumped[0][column]
    assert rows_digest([dumped[0] | {column: value + 1 if isinstance(value, int) else value + "x"}, *dumped[1:]]) != rows_digest(dumped)
    assert rows_digest([*dumped, dumped[0]]) != rows_digest(dumped)  # a row that stands twice counts twice


@given(rows=ledgers())
@settings(deadline=None, max_examples=20)
def test_parquet_gives_the_ledger_back(rows):
    dumped, file = [r.model_dump() for r in rows], io.BytesIO()
    pq.write_table(pa.Table.from_pylist(dumped, schema=LEDGER_SCHEMA), file)
    assert pq.read_table(file).to_pylist() == dumped and [LedgerRow(**r) for r in dumped] == list(rows)


def test_the_ledgers_columns_are_those_of_its_rows():
    assert LEDGER_SCHEMA.names == list(LedgerRow.model_fields)
    for field in LEDGER_SCHEMA:
        assert field.type == (pa.int64() if LedgerRow.model_fields[field.name].annotation is int else pa.string()) and not field.nullable


def test_an_index_has_the_same_digest_before_and_after_parquet():
    samples = {pa.string(): "x", pa.int64(): 2**40, pa.int32(): 7}
    made = {f.name: samples.get(f.type, [("turn", 3), ("gap", 0)] if f.name == "events" else None) for f in INDEX_SCHEMA}
    made["members"] = [{"name": "heard_dmel.npy", "offset": 512, "size": 128, "sha256": "00"}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([made], schema=INDEX_SCHEMA), file)
    assert rows_digest(pq.read_table(file).to_pylist()) == rows_digest([made]) and None not in made.values()


@pytest.mark.parametrize("misfit", [{"entry": "lost"}, {"unit": "second"}, {"kept": 1.5}, {"seconds": 3}])
def test_a_row_of_another_shape_is_refused(misfit):
    with pytest.raises(ValidationError):
        LedgerRow(**{**STREAM, "entry": "stream", **misfit})
