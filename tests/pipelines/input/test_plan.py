"""The plan is a function of the manifest's content; rows that are not a manifest's refuse the build, naming file, line and near miss."""

import json
import os
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import SMALL, Raw, mono_stream, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.pipelines.input.plan import make_plan, read_manifest
from microturn.pipelines.sessions.receipts import NOT_THERE
from microturn.pipelines.storage import folders
from microturn.schemas.errors import InputError
from microturn.schemas.manifest import Session

GOOD = {"id": "s", "streams": [mono_stream("a", "a.wav")]}
STRING = pa.string()
STREAM = {"id": STRING, "path": STRING, "kind": STRING, "participant": STRING, "channel": pa.int64()}
STREAM |= {"start": pa.float64(), "gain": pa.float32()}
EVENT = {"kind": STRING, "at": pa.decimal128(12, 6), "participant": STRING, "text": STRING, "complete": pa.bool_(), "slot": pa.int8()}
TABLE = pa.schema(
    [
        ("id", STRING),
        *(
            (name, pa.list_(pa.struct(list(fields.items()))))
            for name, fields in (
                ("streams", STREAM),
                ("participants", dict.fromkeys(("id", "role", "speaker"), STRING)),
                ("transcripts", dict.fromkeys(("path", "participant"), STRING)),
                ("events", EVENT),
            )
        ),
        *((name, STRING) for name in ("group", "split", "language", "source", "license", "consent")),
        ("custom", pa.map_(STRING, STRING)),
    ]
)


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict], path: Path) -> bytes:
    typed = [
        row | {"custom": list(row.get("custom", {}).items()), "events": [e | {"at": Decimal(str(e["at"]))} for e in row.get("events", [])]}
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(typed, schema=TABLE), path)
    return path.read_bytes()


def test_json_lines_and_parquet_give_the_same_plan(raw, tmp_path):
    rows = [row | {"custom": {"b": "2", "a": "1"}, "group": "g"} for row in json.loads(json.dumps(raw.rows))]
    for row, changed in zip(rows, ({"start": 0.1, "gain": 0.5}, {"start": 1, "gain": 2.0}), strict=False):
        for stream in row["streams"]:
            stream |= changed
    manifests = (lines(*rows), parquet(rows, tmp_path / "m.parquet"))
    plans = [
        make_plan(read_manifest(data, "m"), root=str(raw.folder), spec=SMALL, toolchain="t", splits={"x": 1, "y": 1}) for data in manifests
    ]
    assert plans[0] == plans[1] and len(plans[0].items) == 5
    assert [item.receipt_name() for item in plans[0].items] == [item.receipt_name() for item in plans[1].items]


def test_a_plan_does_not_depend_on_the_order_of_rows(raw):
    plan = plan_of(raw.rows, raw.folder, splits={"x": 1, "y": 1})
    assert plan == plan_of(raw.rows[::-1], raw.folder, splits={"x": 1, "y": 1})
    assert [(i.split, i.order) for i in plan.items] == sorted((i.split, i.order) for i in plan.items)


@pytest.mark.parametrize(
    ("row", "said", "hint"),
    [
        (GOOD | {"licence": "x"}, "unknown key 'licence'", "'license'"),
        (GOOD | {"streams": [mono_stream("a", "a.wav", chanel=1)]}, "chanel", "'channel'"),
        (GOOD | {"streams": []}, "streams", ""),
        (GOOD | {"streams": [mono_stream("A!", "a.wav")]}, "participant", ""),
        (GOOD | {"streams": [GOOD["streams"][0]] * 2}, "stands twice", ""),
        (GOOD | {"id": ""}, "id", ""),
        (GOOD | {"events": [{"kind": "typd", "at": 1}]}, "typd", ""),
        ({"streams": GOOD["streams"]}, "id", ""),
    ],
)
def test_a_row_that_is_none_is_refused_with_its_place_and_near_miss(row, said, hint):
    with pytest.raises(InputError) as error:
        read_manifest(lines(GOOD, row), "calls.jsonl")
    assert str(error.value).startswith("calls.jsonl:2: ") and said in str(error.value) and hint in str(error.value)


def test_all_bad_rows_are_told_at_once_a_line_each():
    with pytest.raises(InputError) as error:
        read_manifest(lines(*[GOOD | {"x": 1}] * 30), "m.jsonl")
    told = str(error.value).splitlines()
    assert told[0].startswith("m.jsonl:1: ") and told[19].startswith("m.jsonl:20: ") and told[20:] == ["… and 10 more"]
    with pytest.raises(InputError, match=r"m.parquet, row 1: streams"):
        rows = [{"id": "a", "streams": GOOD["streams"]}, {"id": "b", "streams": []}]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        read_manifest(sink.getvalue().to_pybytes(), "m.parquet")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no session"),
        (b"\n\n", "no session"),
        (b"{", "m:1: not JSON"),
        (lines(GOOD) + b"[]", "m:2: found list"),
        (lines(GOOD) + b"\xff\xfe", "not UTF-8"),
        (b"PAR1 and nothing", "begins as Parquet"),
        (b"[" * 100_000, "m:1: not JSON"),
        (b'{"id": NaN}', "m:1"),
    ],
)
def test_what_is_no_manifest_is_refused_in_words(data, said):
    with pytest.raises(InputError) as error:
        read_manifest(data, "m")
    assert said in str(error.value)


def test_lines_end_where_json_says():
    """U+2028 ends a line for `str.splitlines`, and may stand in a JSON string; a file may come from Windows, or with a mark."""
    row = GOOD | {"id": "a\u2028b\x85c", "source": "d\x0ce"}
    text = json.dumps(row, ensure_ascii=False).replace("\\f", "\\u000c")
    (session,) = read_manifest(("\ufeff" + text + "\r\n\r\n").encode(), "m")
    assert session.id == row["id"]


def test_decimals_are_read_as_they_are_written():
    data = (
        b'{"id": "s", "streams": [{"id": "a", "path": "a", "kind": "audio", "participant": "a", "start": 0.1000000000000000055511151231}]}'
    )
    (session,) = read_manifest(data, "m")
    assert session.streams[0].start == Decimal("0.1000000000000000055511151231")


def test_a_row_names_each_file_once_and_a_missing_one_is_planned_as_missing(tmp_path):
    made = Raw(tmp_path)
    made.bytes("a.wav", b"12345")
    row = {"id": "s", "streams": [mono_stream("a", "a.wav"), {**mono_stream("b", "a.wav"), "channel": 1}, mono_stream("c", "no/such.wav")]}
    (item,) = plan_of([row], tmp_path).items
    assert [(f.path, f.size_bytes) for f in item.files] == [("a.wav", 5), ("no/such.wav", NOT_THERE)]


@pytest.mark.parametrize("path", ["a\0b.wav", "x" * 300 + ".wav", "a.wav/b.wav", "loop/x.wav", "\ud800.wav"])
def test_a_path_that_can_name_nothing_names_nothing(tmp_path, path):
    Raw(tmp_path).bytes("a.wav", b"12345")
    os.symlink("loop", tmp_path / "loop")
    try:
        (item,) = plan_of([GOOD | {"streams": [mono_stream("a", path)]}], tmp_path).items
    except InputError:
        assert path == "\ud800.wav"  # no text at all: the row is refused
        return
    assert item.files[0].size_bytes == NOT_THERE


@pytest.mark.parametrize("path", ["nosuchstore://bucket/a.wav", "s3://bucket/a.wav"])
def test_a_store_that_nothing_can_reach_is_refused_in_words(tmp_path, path, monkeypatch):
    def no_package(uri, **more):
        if uri.startswith("s3"):
            raise ImportError("Install s3fs to access S3")
        return real(uri, **more)

    real = folders.fsspec.core.url_to_fs
    monkeypatch.setattr(folders.fsspec.core, "url_to_fs", no_package)
    with pytest.raises(InputError, match=r"s3fs|nosuchstore"):
        plan_of([GOOD | {"streams": [mono_stream("a", path)]}], tmp_path)


def test_input_may_lie_in_a_store(raw):
    """Any filesystem of fsspec; its memory one stands for a bucket."""
    store = folders.fsspec.filesystem("memory")
    store.pipe_file("/bucket/in/a.wav", b"12345")
    (item,) = make_plan([Session.parse(GOOD, where="")], root="memory://bucket/in", spec=SMALL, toolchain="t", splits={"x": 1}).items
    assert item.files[0].size_bytes == 5
    assert folders.open_source("memory://bucket/in", "a.wav").read() == b"12345"
    assert folders.locate("memory://bucket/in", "/elsewhere/a.wav") == "/elsewhere/a.wav"


@settings(deadline=None, max_examples=50)
@given(ids=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=8), shares=st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_splits_depend_on_the_session_alone(ids, shares):
    splits = {f"s{k}": float(share) for k, share in enumerate(shares)} | {"rest": 1.0}
    rows = [GOOD | {"id": name} for name in dict.fromkeys(ids)]
    together = {item.session.id: item.split for item in plan_of(rows, Path("nowhere"), splits=splits).items}
    alone = {row["id"]: plan_of([row], Path("nowhere"), splits=splits).items[0].split for row in rows}
    assert together == alone and all(splits[split] for split in alone.values())


@pytest.mark.parametrize(("uri", "folder"), [("a/b.jsonl", "a"), ("b.jsonl", "."), ("/b.jsonl", "/"), ("s3://x/b.jsonl", "s3://x")])
def test_paths_in_a_manifest_start_where_it_lies(uri, folder):
    assert folders.parent(uri) == folder
