"""Names that survive hostile ids: session keys, window keys, the split of a session. Keys are parsed from the right."""

import hashlib
import re

from .strict import sha256_hex

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,48}")
_WINDOW_KEY = re.compile(r"(?P<session>[A-Za-z0-9_-]{1,48})-(?P<view>[a-z0-9_]{1,16})-(?P<tick>[0-9]{7})")
PARTICIPANT_ID = r"^[a-z0-9_]{1,16}$"


def session_key(session_id: str) -> str:
    """The id itself if it is plain, else its slug (at most 32) + `-` + 12 hex of sha256(id). Matches `[A-Za-z0-9_-]{1,48}`."""
    if _PLAIN_ID.fullmatch(session_id):
        return session_id
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", session_id).strip("-")[:32].strip("-") or "session"
    return f"{slug}-{sha256_hex(session_id)[:12]}"


def window_key(session: str, view: str, first_tick: int) -> str:
    """`<session>-<view>-<tick7>`. Source: FORMAT.md section 3."""
    assert 0 <= first_tick < 10**7, f"tick {first_tick} has no place in a key: the spec's limit on a session lies far below"
    return f"{session}-{view}-{first_tick:07d}"


def parse_window_key(key: str) -> tuple[str, str, int]:
    """(session, view, first tick) of a window key. Raises ValueError on anything else."""
    found = _WINDOW_KEY.fullmatch(key)
    if not found:
        raise ValueError(f"{key!r} is not <session>-<view>-<tick7>")
    return found["session"], found["view"], int(found["tick"])


def split_of(session_id: str, group: str, ratios: dict[str, float]) -> str:
    """The split that the hash of the group, or of the session where there is no group, falls into.

    `ratios` maps a split's name to its share; the shares are laid end to end in the order of their names.
    """
    point = int.from_bytes(hashlib.sha256(f"split\0{group or session_id}".encode()).digest()[:8], "big") / 2**64
    total, edge = sum(ratios.values()), 0.0
    for name in sorted(ratios):
        edge += ratios[name] / total
        if point < edge:
            return name
    return max(ratios)  # the shares, summed as floats, may end an ulp below 1


def session_order(session_id: str) -> str:
    """sha256(id): the order in which sessions fill shards."""
    return sha256_hex(session_id)
