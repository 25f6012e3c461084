"""The one codec between a window of a view and its bytes. Writer, verify, loader and explorer all use it. FORMAT.md section 3.

A record is a mapping of member name → bytes: `.npy` without pickles, `.json`, `.png` where the spec says so. It reads without this code.

Letters: H heard streams, T ticks, F frames of a tick (4), B bands (80), P picture pairs, N tokens.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .clock import TICK_FRAMES, TICK_SAMPLES
from .errors import CorpusError
from .meta import check_meta
from .pieces import Pieces, Runs, npy_runs
from .spec import NUM_BANDS, PATCH_PX
from .strict import canonical_json, sha256_hex


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One array of a record: its dtype and its axes. A number is a fixed length, a letter one that the whole record shares."""

    dtype: str
    axes: tuple[str | int, ...]


# What featurising makes from the media: heavy, copied as byte ranges from part to shard.
MEDIA_MEMBERS = {
    "activity": Member(dtype="uint8", axes=("H+1", "T")),
    "heard_dmel": Member(dtype="uint8", axes=("H", "T", TICK_FRAMES, NUM_BANDS)),
    "heard_pcm": Member(dtype="int16", axes=("H", "K", TICK_SAMPLES)),
    "heard_valid": Member(dtype="uint16", axes=("H", "T")),
    "own_pcm": Member(dtype="int16", axes=("T+1", TICK_SAMPLES)),
    "own_valid": Member(dtype="uint16", axes=("T+1",)),
    "patches": Member(dtype="uint8", axes=("P", "rows", "cols", 2, PATCH_PX, PATCH_PX, 3)),
    "picture_pts": Member(dtype="int64", axes=("P", 2)),
    "picture_tick": Member(dtype="uint16", axes=("P",)),
}
# What a layout makes from words, events, activity and the number of patches, when a shard is gathered.
TOKEN_MEMBERS = {
    "token_slot": Member(dtype="uint8", axes=("N",)),
    "token_tick": Member(dtype="uint16", axes=("N",)),
    "tokens": Member(dtype="int32", axes=("N",)),
}
LABEL_MEMBERS = ("events", "meta", "words")
ARRAY_MEMBERS = MEDIA_MEMBERS | TOKEN_MEMBERS

_DTYPES = {dtype.str: dtype for dtype in (np.dtype(member.dtype).newbyteorder("<") for member in ARRAY_MEMBERS.values())}
_SHAPE = rb"(?P<shape>|[0-9]{1,15},|[0-9]{1,15}(?:, [0-9]{1,15}){1,31})"
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<size>..){'descr': '(?P<dtype>[^']{1,16})', 'fortran_order': False, 'shape': \(" + _SHAPE + rb"\), } *\n",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One window of one view, as arrays and plain JSON values. Arrays are read-only.

    ARRAY_MEMBERS has dtypes and axes (K is T where heard PCM is kept, else 0). `words` and `events` are lists of mappings with times in
    session samples; `meta` is a mapping with the same keys and types in every window.
    """

    activity: np.ndarray
    heard_dmel: np.ndarray
    heard_pcm: np.ndarray
    heard_valid: np.ndarray
    own_pcm: np.ndarray
    own_valid: np.ndarray
    patches: np.ndarray
    picture_pts: np.ndarray
    picture_tick: np.ndarray
    token_slot: np.ndarray
    token_tick: np.ndarray
    tokens: np.ndarray
    words: list[dict[str, Any]]
    events: list[dict[str, Any]]
    meta: dict[str, Any]

    @property
    def num_ticks(self) -> int:
        """T, the ticks of the window."""
        return self.heard_valid.shape[1]


def encode_array(array: np.ndarray) -> bytes:
    """The bytes of an `.npy` file, version 1.0, C order, little endian."""
    return b"".join(npy_runs(array))


def decode_array(data: bytes, *, where: str) -> np.ndarray:
    """The array that `encode_array` wrote, read-only, not copied. Raises CorpusError naming `where` for any other bytes.

    The header must be as numpy writes it, of a dtype that a record has: nothing is evaluated, unpickled, or allocated by what it claims.
    """
    header = _HEADER.match(data)
    if not header or header.end() != 10 + int.from_bytes(header["size"], "little"):
        raise CorpusError(f"{where}: not an .npy array, or not with the plain header of version 1.0")
    dtype = _DTYPES.get(header["dtype"].decode("latin-1"))
    if dtype is None:
        raise CorpusError(f"{where}: dtype {header['dtype'].decode('latin-1')!r}, a record has only {', '.join(sorted(_DTYPES))}")
    shape = tuple(int(length) for length in header["shape"].split(b",") if length)
    count, size = math.prod(shape), len(data) - header.end()
    if count * dtype.itemsize != size:
        raise CorpusError(f"{where}: {dtype} {list(shape)} is {count * dtype.itemsize} bytes, found {size}")
    try:
        return np.frombuffer(data, dtype, count, header.end()).reshape(shape)  # read-only, as bytes are
    except ValueError as error:  # nothing, but of lengths beyond what an array may have
        raise CorpusError(f"{where}: {dtype} {list(shape)}: {error}") from None


def encode_json(value: Any) -> bytes:
    """Canonical JSON (sorted keys, no spaces), UTF-8, one final newline."""
    return (canonical_json(value) + "\n").encode()


def decode_json(data: bytes, *, where: str) -> Any:
    """The JSON value. Raises CorpusError naming `where`."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where}: not JSON ({error})") from None


def media_runs(arrays: Mapping[str, np.ndarray | Pieces], codec: str) -> dict[str, Runs]:
    """Member name → its bytes, as runs, of the arrays that featurising makes; sorted by name. Pictures lie as the spec's codec says."""
    members: dict[str, Runs] = {f"{name}.npy": npy_runs(arrays[name]) for name in MEDIA_MEMBERS if name != "patches" or codec == "npy"}
    if codec == "png":
        from .tall_png import to_png  # Pillow is needed by this codec only

        members["patches.png"] = [to_png(Pieces.of(arrays["patches"]).whole())]
    return dict(sorted(members.items()))


def encode_media(arrays: Mapping[str, np.ndarray], codec: str) -> dict[str, bytes]:
    """Member name → bytes of the arrays that featurising makes, sorted by name."""
    return {name: b"".join(runs) for name, runs in media_runs(arrays, codec).items()}


def decode_media(members: Mapping[str, bytes], pictures: Mapping[str, Any], *, where: str) -> dict[str, np.ndarray]:
    """The arrays that featurising makes; `pictures` is the meta's mapping with `rows`, `cols` and `codec`. Raises CorpusError."""
    arrays = {name: decode_array(members[f"{name}.npy"], where=f"{where}.{name}.npy") for name in MEDIA_MEMBERS if f"{name}.npy" in members}
    if pictures["codec"] == "png":
        from .tall_png import from_png

        grid = (len(arrays["picture_tick"]), pictures["rows"], pictures["cols"])
        arrays["patches"] = from_png(members["patches.png"], grid, where=f"{where}.patches.png")
        arrays["patches"].setflags(write=False)
    return arrays


def member_names(codec: str) -> tuple[str, ...]:
    """Every member of a record, sorted: the order in which a shard holds them."""
    arrays = [f"{name}.npy" for name in ARRAY_MEMBERS if name != "patches"]
    return tuple(sorted([*arrays, f"patches.{codec}", *(f"{name}.json" for name in LABEL_MEMBERS)]))


def window_digest(member_sha256: dict[str, str]) -> str:
    """sha256 over the sorted lines `member sha256(bytes)`: the `sha256(members)` of the content digest."""
    return sha256_hex("".join(f"{name} {digest}\n" for name, digest in sorted(member_sha256.items())))


def decode(members: Mapping[str, bytes], *, where: str) -> Record:
    """The record of a window's members, every dtype and shape checked. Raises CorpusError naming `where` and the member."""
    codec = "png" if "patches.png" in members else "npy"
    expected = set(member_names(codec))
    if set(members) != expected:
        missing, extra = sorted(expected - set(members)), sorted(set(members) - expected)
        raise CorpusError(f"{where}: members missing: {missing or 'none'}, unknown: {extra or 'none'}")
    values: dict[str, Any] = {name: decode_json(members[f"{name}.json"], where=f"{where}.{name}.json") for name in LABEL_MEMBERS}
    check_meta(members["meta.json"], where=f"{where}.meta.json")
    lengths = _lengths(values, codec, where)
    for name in TOKEN_MEMBERS:
        values[name] = decode_array(members[f"{name}.npy"], where=f"{where}.{name}.npy")
    values |= decode_media(members, values["meta"]["pictures"], where=where)
    record = Record(**values)
    _check(record, lengths, where)
    return record


def _lengths(labels: Mapping[str, Any], codec: str, where: str) -> dict[str, tuple[int, str]]:
    """Axis → (its length, who says so), of all that `meta` says. Raises CorpusError for another codec, or a label that is no list."""
    for name in ("events", "words"):
        if not isinstance(labels[name], list) or not all(isinstance(entry, dict) for entry in labels[name]):
            raise CorpusError(f"{where}.{name}.json: not a list of mappings")
    meta = labels["meta"]
    if meta["pictures"]["codec"] != codec:
        raise CorpusError(f"{where}.meta.json: pictures as {meta['pictures']['codec']!r}, they lie as {codec!r}")
    found = {"H": len(meta["heard"]), "T": meta["num_ticks"], "rows": meta["pictures"]["rows"], "cols": meta["pictures"]["cols"]}
    return {axis: (length, "meta") for axis, length in found.items()}


def _check(record: Record, lengths: dict[str, tuple[int, str]], where: str) -> None:
    """Nothing if every array has its dtype and its lengths; else raises CorpusError naming the member."""
    for name, member in ARRAY_MEMBERS.items():
        array = getattr(record, name)
        if array.dtype != np.dtype(member.dtype) or array.ndim != len(member.axes):
            axes = ", ".join(map(str, member.axes))
            raise CorpusError(f"{where}.{name}: {array.dtype} with {array.ndim} axes, expected {member.dtype} [{axes}]")
        for axis, length in zip(member.axes, array.shape, strict=True):
            if isinstance(axis, int):
                want, who = axis, "the format"
            elif axis.endswith("+1"):
                want, who = lengths[axis[:-2]][0] + 1, lengths[axis[:-2]][1]
            else:
                want, who = lengths.setdefault(axis, (length, name))
            if length != want:
                raise CorpusError(f"{where}.{name}: axis {axis} has length {length}, {who} says {want}")
    if lengths["K"][0] not in (0, lengths["T"][0]):
        raise CorpusError(f"{where}.heard_pcm: {lengths['K'][0]} ticks, expected none or all {lengths['T'][0]}")


def same(a: Record, b: Record) -> bool:
    """Whether two records hold the same bytes in every member."""
    for field in fields(Record):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
                return False
        elif canonical_json(x) != canonical_json(y):  # Python takes 1, 1.0 and True for equal
            return False
    return True
