"""Windows by what people type: a key, or the beginning of one; and the few members of a window that a look at it needs.

Keys are read from the index, members by their byte ranges: nothing is read that was not asked for.
"""

from collections.abc import Iterable
from typing import Any

from ..pipelines.corpus import Corpus
from ..pipelines.wording.near import keys_told
from ..schemas import keys, record
from ..schemas.errors import InputError
from .survey import read_index

IndexRow = dict[str, Any]
_NEAR_BYTES = 256 << 10  # members closer than this are read together: a request costs more than the bytes between


def shard_of_keys(corpus: Corpus) -> dict[str, str]:
    """Window key → the shard that holds it, in the order of the shards."""
    found: dict[str, str] = {}
    for shard in corpus.shards:
        found |= dict.fromkeys(read_index(corpus, ("key",), [shard["name"]])["key"].to_pylist(), shard["name"])
    return found


def full_key(text: str, known: Iterable[str]) -> str:
    """The key that `text` is, or is the beginning of. Raises InputError naming the near ones when it is none, or the first of several."""
    known = list(known)
    if text in known:
        return text
    begun = [key for key in known if key.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        more = f" … and {len(begun) - 3} more" if len(begun) > 3 else ""
        raise InputError(f"{len(begun)} windows begin with {text!r}", hint=f"they are {', '.join(begun[:3])}{more}")
    raise InputError(f"no window begins with {text!r}", hint=keys_told(text, known))


def row_of(corpus: Corpus, key: str, known: dict[str, str]) -> IndexRow:
    """The index row of a window; `known` is `shard_of_keys`."""
    return next(row for row in corpus.index(known[key]) if row["key"] == key)


def events_before(corpus: Corpus, row: IndexRow, known: dict[str, str]) -> list[dict[str, Any]]:
    """The events of the window before this one in its view; [] at a session's start."""
    session, view, first_tick = keys.parse_window_key(row["key"])
    before = keys.window_key(session, view, max(0, first_tick - corpus.spec.window_ticks))
    if first_tick == 0 or before not in known:
        return []
    return members(corpus, row_of(corpus, before, known), ("events",))["events"]


def members(corpus: Corpus, row: IndexRow, names: Iterable[str]) -> dict[str, Any]:
    """Name without ending → value of some members of a window; near ones in one read. Raises CorpusError when one does not decode."""
    wanted = {name: None for name in names}
    at = sorted((m["offset"], m["size"], m["name"]) for m in row["members"] if m["name"].partition(".")[0] in wanted)
    found: dict[str, Any] = {}
    while at:
        start, size, _ = at[0]
        stop, together = start + size, 1
        while together < len(at) and at[together][0] - stop <= _NEAR_BYTES:
            stop = at[together][0] + at[together][1]
            together += 1
        data = corpus.folder.read_range(f"shards/{row['shard']}.tar", start, stop - start)
        for offset, length, name in at[:together]:
            stem, _, kind = name.partition(".")
            decode = record.decode_json if kind == "json" else record.decode_array
            found[stem] = decode(data[offset - start : offset - start + length], where=f"{row['shard']}.tar:{row['key']}.{name}")
        del at[:together]
    return found
