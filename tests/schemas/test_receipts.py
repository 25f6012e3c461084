"""A receipt is found by what was done: the row, the spec, the toolchain; and it is still itself after it was written down."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.keys import session_key, session_order
from microturn.schemas.manifest import Session
from microturn.schemas.receipts import FileIdentity, MemberAt, Outcome, Receipt, WindowReceipt, WorkItem
from microturn.schemas.spec import FeatureSpec

ROW = {"id": "call 7", "streams": [{"id": "a", "path": "a.wav", "kind": "audio", "participant": "anna"}]}


def item_of(row=ROW, **change):
    session = Session.parse(row, where="m")
    files = (FileIdentity(path="a.wav", size_bytes=44, stamp="1"),)
    same = dict(split="train", order=session_order(session.id), root="/data", files=files, spec=FeatureSpec(), toolchain="t1")
    return WorkItem(**{**same, "session": session, "key": session_key(session.id), **change})


NAME = item_of().receipt_name()


@pytest.mark.parametrize(
    "change",
    [
        {"root": "s3://bucket"},
        {"split": "val"},
        {"order": "0"},
        {"files": (FileIdentity(path="a.wav", size_bytes=45, stamp="2"),)},
        {"files": ()},
    ],
)
def test_where_and_when_the_input_lies_is_not_in_the_name(change):
    assert item_of(**change).receipt_name() == NAME


@pytest.mark.parametrize(
    "change",
    [
        {"toolchain": "t2"},
        {"spec": FeatureSpec(window_ticks=299)},
        {"spec": FeatureSpec.parse({"pictures": {"codec": "png"}}, where="")},
        {"row": ROW | {"id": "call 8"}},
        {"row": ROW | {"language": "en"}},
        {"row": ROW | {"custom": {"room": "5"}}},
        {"row": ROW | {"streams": [ROW["streams"][0] | {"gain": 2}]}},
        {"row": ROW | {"streams": [ROW["streams"][0] | {"path": "b.wav"}]}},
    ],
)
def test_every_difference_in_row_spec_or_toolchain_is_another_name(change):
    assert item_of(**change).receipt_name() != NAME


def test_a_row_written_otherwise_is_the_same_work():
    written = {"custom": None, "streams": [ROW["streams"][0] | {"start": 0.0, "gain": "1.00", "channel": None}], "id": "call 7"}
    assert item_of(written).receipt_name() == NAME == item_of(ROW | {"streams": [ROW["streams"][0] | {"index": 0}]}).receipt_name()


@given(session_id=st.text(min_size=1, max_size=100).filter(lambda s: s.isprintable()))
@settings(deadline=None)
def test_the_name_is_a_file_name(session_id):
    name = item_of(ROW | {"id": session_id}).receipt_name()
    assert name.startswith(session_key(session_id) + "-") and name.endswith(".json") and "/" not in name and len(name) <= 48 + 22


def members(*sizes):
    return tuple(MemberAt(name=f"m{n}", part=f"parts/{n // 2}", offset=0, size=size, sha256="") for n, size in enumerate(sizes))


@given(sizes=st.lists(st.integers(0, 10**6)))
@settings(deadline=None)
def test_a_windows_tar_bytes_are_whole_blocks(sizes):
    window = WindowReceipt(view="anna", first_tick=0, num_ticks=300, members=members(*sizes))
    assert window.tar_bytes() == sum(512 * (1 + (size + 511) // 512) for size in sizes)


def test_a_receipt_is_the_same_after_it_was_written_down():
    windows = (WindowReceipt(view="anna", first_tick=0, num_ticks=3, members=members(*range(16))),)
    same = dict(session="call-7", session_id="call 7", split="train", order="0", spec="s", toolchain="t", source_digest="d")
    receipt = Receipt(**same, files=(), session_ticks=3, windows=windows, tail_codes={"anna": "00"}, ledger=())
    assert Receipt.model_validate_json(receipt.model_dump_json()) == receipt and receipt.parts() == tuple(f"parts/{n}" for n in range(8))
    assert WorkItem.model_validate(item_of().model_dump(mode="json")) == item_of()
    outcome = Outcome(status="done", session="s", split="val", order="0", window_bytes=(1024,))
    assert Outcome(**json.loads(json.dumps(asdict(outcome)))) == outcome
