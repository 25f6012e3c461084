"""The record codec: what is written comes back, bit for bit, and every other byte is refused by the name of its member.

Letters as in schemas/record.py: H heard streams, T ticks, P picture pairs, N tokens; K is T where heard PCM is kept, else 0.
"""

import hashlib
import io
import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
from bits import same_bits
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from microturn.schemas import record
from microturn.schemas.errors import CorpusError
from microturn.schemas.meta import Meta, WindowMeta

CODECS = ("npy", "png")
shapes = st.fixed_dictionaries(
    {
        "H": st.integers(0, 3),
        "T": st.integers(1, 4),
        "keep": st.booleans(),
        "P": st.integers(0, 2),
        "rows": st.integers(0, 2),
        "cols": st.integers(0, 2),
    }
    | {"N": st.integers(0, 50), "seed": st.integers(0, 2**32 - 1)}
)
NOTHING_WAITS = {name: [] for name in ("say_ids", "say_slots", "say_due", "typed_ids", "background_ids", "background_slots")}
META = {
    "session": "s", "session_id": "s", "session_ticks": 9, "session_samples": 28_800, "window_ticks": 300, "group": "", "language": "",
    "source": "", "license": "", "consent": "", "custom": [{"key": "room", "value": "5"}],
    "participants": [{"id": "p0", "speaker": "", "role": "user"}], "levels": [{"participant": "p0", "db": -20.5, "samples": 28_800}],
    "streams": [
        {"id": "a", "participant": "p0", "kind": "audio", "used": True, "codec": "flac", "start_samples": 0, "offset_samples": 0,
         "drift_samples": 0, "jitter_samples": 0, "num_spans": 1, "rate_hz": 16_000, "channels": 1, "channel": -1, "gain": "1", "peak": 0.5}
    ],
    "digests": {"source": "x", "spec": "y"}, "view": "p0", "role": "user", "speaker": "", "heard": [["p0"]],
    "pictures": {"stream": "", "participant": "", "rows": 0, "cols": 0, "height_px": 0, "width_px": 0, "tiling": "plain", "codec": "npy"},
    "first_tick": 0, "num_ticks": 3, "tail_ticks": 0, "layout": "z", "before": {"own_active": 0},
    "after": {"own_active": 1, "say": [["hi", "you"]], "control": [["delegate", 4]]},
    "carry_in": NOTHING_WAITS, "carry_out": NOTHING_WAITS | {"typed_ids": [97]}, "max_lag_ticks": 0,
}  # fmt: skip
SMALL = {"H": 2, "T": 3, "keep": True, "P": 2, "rows": 1, "cols": 2, "N": 7, "seed": 0}


def record_of(H, T, keep, P, rows, cols, N, seed, codec="npy"):
    """A record of these lengths, full of random values of each dtype."""
    rng, K = np.random.default_rng(seed), T if keep else 0
    lengths = {"H": H, "H+1": H + 1, "T": T, "T+1": T + 1, "K": K, "P": P, "rows": rows, "cols": cols, "N": N}
    arrays = {}
    for name, member in record.ARRAY_MEMBERS.items():
        info = np.iinfo(member.dtype)
        shape = [axis if isinstance(axis, int) else lengths[axis] for axis in member.axes]
        arrays[name] = rng.integers(info.min, info.max, shape, info.dtype, endpoint=True)
    pictures = META["pictures"] | {"rows": rows, "cols": cols, "codec": codec}
    meta = META | {"heard": [[f"p{h}"] for h in range(H)], "num_ticks": T, "pictures": pictures}
    return record.Record(**arrays, words=[{"text": "né", "start": 1}], events=[], meta=meta)


def members_of(whole):
    """The record's members as a shard holds them."""
    members = record.encode_media({name: getattr(whole, name) for name in record.MEDIA_MEMBERS}, whole.meta["pictures"]["codec"])
    members |= {f"{name}.npy": record.encode_array(getattr(whole, name)) for name in record.TOKEN_MEMBERS}
    return members | {f"{name}.json": record.encode_json(getattr(whole, name)) for name in record.LABEL_MEMBERS}


def refusal(members):
    """The sentence with which these members are refused."""
    with pytest.raises(CorpusError) as refused:
        record.decode(members, where="a.tar:key")
    return str(refused.value)


@given(lengths=shapes, codec=st.sampled_from(CODECS))
@example(lengths=SMALL | {"P": 0, "rows": 0, "cols": 0}, codec="png")  # a view that sees nothing
@example(lengths=SMALL | {"H": 0, "N": 0, "keep": False}, codec="npy")
@settings(deadline=None, max_examples=40)
def test_what_is_written_comes_back(lengths, codec):
    whole = record_of(**lengths, codec=codec)
    members = members_of(whole)
    again = record.decode(members, where="w")
    assert record.same(again, whole) and members_of(again) == members
    assert tuple(sorted(members)) == record.member_names(codec) and again.num_ticks == lengths["T"]
    assert not any(getattr(again, name).flags.writeable for name in record.ARRAY_MEMBERS)


def test_the_codecs_hold_the_same_pictures():
    npy, png = (record.decode(members_of(record_of(**SMALL, codec=codec)), where="w") for codec in CODECS)
    assert same_bits(npy.patches, png.patches) and npy.patches.size > 0


def test_numpy_reads_it_without_our_code():
    whole = record_of(**SMALL)
    for name, data in members_of(whole).items():
        if name.endswith(".npy"):
            assert same_bits(np.load(io.BytesIO(data), allow_pickle=False), getattr(whole, name[:-4]))


def test_the_header_is_where_it_was():
    """Golden: the bytes before the data, and the digest of a whole member."""
    data = record.encode_array(np.array([[1, -2, 3]], np.int16))
    header = b"{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }"
    assert data == b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + struct.pack("<3h", 1, -2, 3)
    assert hashlib.sha256(record.encode_array(np.zeros((2, 0, 4, 80), np.uint8))).hexdigest()[:16] == "cbedef2dcc9e8fc6"


@given(order=st.sampled_from("CF"), endian=st.sampled_from("<>"), step=st.integers(1, 3))
@settings(deadline=None)
def test_equal_arrays_give_equal_bytes_however_they_lie_in_memory(order, endian, step):
    values = np.arange(60, dtype=np.int32).reshape(6, 10)[::step]
    laid = np.array(np.repeat(values, 2, axis=1), dtype=f"{endian}i4", order=order)[:, ::2]
    assert record.encode_array(laid) == record.encode_array(np.ascontiguousarray(values))


@pytest.mark.parametrize("codec", CODECS)
def test_each_member_must_be_there_and_no_other(codec):
    members = members_of(record_of(**SMALL, codec=codec))
    for name in members:
        said = refusal({other: data for other, data in members.items() if other != name})
        assert said.startswith("a.tar:key: members missing") and repr(name if name != "patches.png" else "patches.npy") in said
    assert "unknown: ['x.txt']" in refusal(members | {"x.txt": b""})
    assert "unknown: ['patches.npy']" in refusal(members_of(record_of(**SMALL)) | members_of(record_of(**SMALL, codec="png")))


@pytest.mark.parametrize("name", sorted(record.ARRAY_MEMBERS))
def test_another_dtype_is_refused_by_name(name):
    whole = record_of(**SMALL)
    for dtype in {"uint8", "uint16", "int16", "int32", "int64"} - {record.ARRAY_MEMBERS[name].dtype}:
        said = refusal(members_of(replace(whole, **{name: getattr(whole, name).astype(dtype)})))
        assert f"a.tar:key.{name}: {dtype} with" in said and f"expected {record.ARRAY_MEMBERS[name].dtype}" in said


@pytest.mark.parametrize("name", sorted(record.ARRAY_MEMBERS))
def test_another_shape_is_refused_by_name(name):
    whole, axes = record_of(**SMALL), record.ARRAY_MEMBERS[name].axes
    array = getattr(whole, name)
    assert f"a.tar:key.{name}: " in refusal(members_of(replace(whole, **{name: array[None]})))
    for axis in range(array.ndim):
        longer = np.concatenate([array, array.take([0], axis)], axis)
        said = refusal(members_of(replace(whole, **{name: longer})))
        shared = {"P": ("patches", "picture_pts", "picture_tick"), "N": ("token_slot", "token_tick", "tokens")}.get(axes[axis], (name,))
        assert any(f"a.tar:key.{other}" in said for other in shared) and name in said  # of two that differ, both are named


def test_the_lengths_are_those_of_meta():
    whole = record_of(**SMALL)
    for change in ({"num_ticks": 4}, {"heard": []}, {"pictures": whole.meta["pictures"] | {"rows": 2}}):
        assert "meta says" in refusal(members_of(replace(whole, meta=whole.meta | change)))


def meta_refusal(meta):
    return refusal(members_of(record_of(**SMALL)) | {"meta.json": record.encode_json(meta)})


@pytest.mark.parametrize(
    "meta",
    [None, [], {}, META | {"heard": 1}, META | {"pictures": []}]
    + [META | {"num_ticks": n} for n in (-1, 3.0, "3", True, None, 10**30)]
    + [META | {"pictures": META["pictures"] | {"codec": codec}} for codec in ("png", None, [])],
)
def test_a_meta_that_does_not_say_them_is_refused(meta):
    assert meta_refusal(meta).startswith("a.tar:key.meta.json: ")


@pytest.mark.parametrize(
    "key", [*META, *(f"{k}.{n}" for k in ("pictures", "digests", "carry_in", "after") for n in META[k]), "streams.0.gain"]
)
def test_a_meta_has_every_key_and_no_other(key):
    *path, name = key.split(".")
    short, long = json.loads(json.dumps(META)), json.loads(json.dumps(META))
    for meta in (short, long):
        at = meta
        for part in path:
            at = at[int(part) if part.isdigit() else part]
        if meta is short:
            del at[name]
        else:
            at[name + "_"] = at[name]
    assert meta_refusal(short).startswith(f"a.tar:key.meta.json: {key}: Field required")
    assert meta_refusal(long).startswith(f"a.tar:key.meta.json: {key}_: Extra inputs")


def test_a_meta_is_the_json_of_its_model():
    assert Meta.model_validate_json(json.dumps(META), strict=True).to_json() == META
    added = ("layout", "carry_in", "carry_out", "max_lag_ticks")
    known = {key: value for key, value in META.items() if key not in added}
    assert Meta.laid(known, **{key: META[key] for key in added}).to_json() == META
    known = {key: value for key, value in known.items() if key not in ("before", "after")}
    assert WindowMeta.model_validate_json(json.dumps(known), strict=True).to_json() == known


@pytest.mark.parametrize("name", ["words", "events"])
def test_labels_are_lists_of_mappings(name):
    for value in ({}, ["hi"], None, 3):
        assert f"{name}.json: not a list of mappings" in refusal(
            members_of(record_of(**SMALL)) | {f"{name}.json": record.encode_json(value)}
        )


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "not utf-8", "deep"])
def test_what_is_not_json_is_refused(data):
    assert "a.tar:key.meta.json: not JSON" in refusal(members_of(record_of(**SMALL)) | {"meta.json": data})


def header_of(text, version=b"\x01\x00"):
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\x01\x00" else "<I", len(text)) + text


def plain(descr="<i2", order="False", shape="(3,)"):
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117).encode() + b"\n"


def pickled():
    out = io.BytesIO()
    np.save(out, np.array([{}, None], dtype=object), allow_pickle=True)
    return out.getvalue()


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize(
    "data",
    {
        "empty": b"",
        "not npy": b"PK\x03\x04",
        "magic only": b"\x93NUMPY",
        "pickle": pickle.dumps(Bomb()),
        "object array": pickled(),
        "object array, opened on reading": header_of(plain("|O")) + pickle.dumps(Bomb()),
        "another length of header": b"\x93NUMPY\x01\x00\x10\x00" + plain() + b"\0" * 6,
        "cut": header_of(plain()) + b"\0" * 5,
        "too long": header_of(plain()) + b"\0" * 7,
        "version 2": header_of(plain(), b"\x02\x00") + b"\0" * 6,
        "fortran order": header_of(plain(order="True")) + b"\0" * 6,
        "big endian": header_of(plain(">i2")) + b"\0" * 6,
        "float": header_of(plain("<f4")) + b"\0" * 12,
        "structured": header_of(plain().replace(b"'<i2'", b"[('a', '<i2')]")) + b"\0" * 6,
        "a terabyte": header_of(plain(shape="(1000000000000,)")),
        "wraps to 3": header_of(plain(shape="(9223372036854775807, 2)")) + b"\0" * 6,
        "nothing, endlessly": header_of(plain(shape="(0, 999999999999999, 999999999999999)")),
        "below 0": header_of(plain(shape="(-3,)")) + b"\0" * 6,
        "a call": header_of(plain(shape="(__import__('os').abort(),)")),
        "deep": header_of(b"[" * 60_000),
        "minus": header_of(plain(shape=f"({'-' * 5000}3,)")),
        "long": header_of(plain().rstrip() + b" " * 60_000) + b"\0" * 6,
    }.items(),
    ids=lambda item: item[0],
)  # fmt: skip
def test_what_is_not_such_an_array_is_refused(data):
    with pytest.raises(CorpusError, match=r"^w\.npy: "):
        record.decode_array(data[1], where="w.npy")


@given(place=st.integers(0, 127), byte=st.integers(0, 255), cut=st.integers(0, 140))
@settings(deadline=None, max_examples=400)
def test_whatever_happens_to_a_header_the_error_is_ours(place, byte, cut):
    whole = bytearray(record.encode_array(np.arange(6, dtype=np.int16)))
    whole[place] = byte
    try:
        array = record.decode_array(bytes(whole[:cut]) if cut < 140 else bytes(whole), where="w")
    except CorpusError as error:
        assert str(error).startswith("w: ")
    else:
        assert array.nbytes == 12 and str(array.dtype) in {member.dtype for member in record.ARRAY_MEMBERS.values()}


@given(lengths=shapes)
@settings(deadline=None, max_examples=20)
def test_records_are_the_same_only_with_the_same_bytes_in_every_member(lengths):
    whole = record_of(**lengths)
    assert record.same(whole, record_of(**lengths))
    for name in record.ARRAY_MEMBERS:
        array = getattr(whole, name)
        if array.size:
            other = array.copy()
            other.flat[-1] ^= 1
            assert not record.same(whole, replace(whole, **{name: other}))
        assert not record.same(whole, replace(whole, **{name: array[None]}))


@pytest.mark.parametrize("one, other", [(1, 1.0), (1, True), (0, False), ("a", "b"), ([], {})])
def test_labels_that_only_python_takes_for_equal_are_not_the_same(one, other):
    whole = record_of(**SMALL)
    a, b = (replace(whole, words=[{"text": "x", "value": value}]) for value in (one, other))
    assert members_of(a)["words.json"] != members_of(b)["words.json"] and not record.same(a, b)
    assert record.same(a, replace(a, words=json.loads(json.dumps(a.words))))


@given(names=st.lists(st.sampled_from(record.member_names("npy")), unique=True, min_size=2), seed=st.integers(0, 9))
@settings(deadline=None)
def test_a_windows_digest_is_of_its_members_and_not_of_their_order(names, seed):
    sha256 = {name: hashlib.sha256(f"{name}{seed}".encode()).hexdigest() for name in names}
    swapped = sha256 | {names[0]: sha256[names[1]], names[1]: sha256[names[0]]}
    assume(swapped != sha256)
    assert record.window_digest(dict(reversed(sha256.items()))) == record.window_digest(sha256) != record.window_digest(swapped)
    lines = "".join(sorted(f"{name} {digest}\n" for name, digest in sha256.items()))
    assert record.window_digest(sha256) == hashlib.sha256(lines.encode()).hexdigest()
