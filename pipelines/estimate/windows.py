"""How large the windows of a session will be, member by member, before there are any: what an array takes follows from its axes.

Exact for sound, codes and pictures as `npy`. What depends on the content is assumed, or taken from sessions that were tried: how much of a
conversation is own voice (tokens), how well pictures pack (`png`), how many events there are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...schemas.clock import num_ticks
from ...schemas.layout import LayoutSpec
from ...schemas.record import ARRAY_MEMBERS
from ...schemas.spec import FeatureSpec
from ..sessions.foresee import Attempt, Foreseen, ViewForeseen
from ..storage.tar import BLOCK

NPY_HEADER = 128
META_BYTES, EVENT_BYTES, EVENTS_A_TICK = 1_900, 117, 0.2  # synthesised calls: 1876–2138, 116–120, 0.19–0.28
TOKENS_A_TICK, TOKENS_SPOKEN = 6, 4  # of a silent tick; a speaking one has so many more (FORMAT.md section 4)
IDS_A_WORD = 1.4  # of tokenizers that are not of bytes
OWN_SHARE, PNG_SHARE = 0.4, 0.6  # where nothing was tried
ITEM_BYTES = {"uint8": 1, "uint16": 2, "int16": 2, "int32": 4, "int64": 8}
TOKEN_NAMES = ("tokens", "token_slot", "token_tick")


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """What headers do not tell, for all sessions alike: the share of ticks with own voice, and payload to raw bytes of a picture."""

    own_share: float = OWN_SHARE
    picture_share: float = 1.0


def habits(attempts: list[Attempt], spec: FeatureSpec, raw_picture_bytes: int) -> Habits:
    """As the attempts have shown them. `raw_picture_bytes`: of all pairs that they made, unpacked."""
    ticks = sum(attempt.view_ticks for attempt in attempts)
    packed = sum(attempt.picture_bytes for attempt in attempts)
    own = sum(attempt.own_ticks for attempt in attempts) / ticks if ticks else OWN_SHARE
    if spec.pictures.codec == "npy":
        return Habits(own_share=own)
    return Habits(own_share=own, picture_share=packed / raw_picture_bytes if raw_picture_bytes else PNG_SHARE)


def pair_bytes(view: ViewForeseen) -> int:
    """Bytes of one pair of pictures, unpacked."""
    return view.rows * view.cols * math.prod(axis for axis in ARRAY_MEMBERS["patches"].axes if isinstance(axis, int))


def windows(session: Foreseen, spec: FeatureSpec, layout: LayoutSpec, how: Habits) -> Iterator[tuple[int, dict[str, int]]]:
    """(ticks, member → bytes of its payload) of every window of every view."""
    total = num_ticks(session.samples)
    for view in session.views:
        for start in range(0, total, spec.window_ticks):
            ticks = min(spec.window_ticks, total - start)
            yield ticks, _members(session, view, ticks, ticks / total, spec, layout, how)


def part_bytes(members: dict[str, int]) -> int:
    """What shards are filled by: the members that lie in parts, in a tar."""
    return sum(_in_tar(size) for name, size in members.items() if name not in TOKEN_NAMES)


def tar_bytes(members: dict[str, int]) -> int:
    """What a window takes in its shard."""
    return sum(map(_in_tar, members.values()))


def _members(
    session: Foreseen, view: ViewForeseen, ticks: int, share: float, spec: FeatureSpec, layout: LayoutSpec, how: Habits
) -> dict[str, int]:
    pairs = round(view.pairs * share)
    ids = view.word_bytes + view.words * len(layout.word_prefix.encode()) if layout.tokenizer == "bytes" else IDS_A_WORD * view.words
    tokens = round(ticks * (TOKENS_A_TICK + TOKENS_SPOKEN * how.own_share) + ids * share + pairs * (1 + view.rows * view.cols))
    lengths = {"H+1": view.heard + 1, "H": view.heard, "T": ticks, "T+1": ticks + 1, "K": ticks * spec.keep_heard_pcm}
    lengths |= {"P": pairs, "rows": view.rows, "cols": view.cols, "N": tokens}
    members = {}
    for name, member in ARRAY_MEMBERS.items():
        count = math.prod(axis if isinstance(axis, int) else lengths[axis] for axis in member.axes)
        members[name] = NPY_HEADER + ITEM_BYTES[member.dtype] * count
    members["patches"] = round((members["patches"] - NPY_HEADER) * how.picture_share) + NPY_HEADER
    members["words"] = round(session.words_json_bytes * share)
    members["events"] = round(ticks * EVENTS_A_TICK * EVENT_BYTES)
    members["meta"] = META_BYTES
    return members


def _in_tar(size: int) -> int:
    return BLOCK + -(-size // BLOCK) * BLOCK
