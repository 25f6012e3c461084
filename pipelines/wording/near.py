"""Near misses of mistyped names, or none: a far guess is worse than no guess."""

import difflib
import re
from collections.abc import Iterable, Sequence

from ...schemas import keys

CUTOFF = 0.75  # of difflib's ratio: lengths then differ by a factor of 1.7 at most
MIN_BEGUN = 3  # letters of a name that is only begun


def near(text: str, known: Iterable[str], n: int = 1) -> list[str]:
    """At most `n` of the known names that `text` may stand for, the nearest first. Leading dashes, case, and - or _ make no difference."""
    plain: dict[str, str] = {}
    for name in known:
        plain.setdefault(_plain(name), name)
    typed = _plain(text)
    begun = [name for name in plain if len(typed) >= MIN_BEGUN and name.startswith(typed) and len(name) <= 2 * len(typed)]
    close = difflib.get_close_matches(typed, plain, n=n, cutoff=CUTOFF)
    return [plain[name] for name in dict.fromkeys([*([typed] if typed in plain else ()), *close, *begun])][:n]


def keys_told(text: str, known: Sequence[str]) -> str:
    """A hint that names the keys near to what was typed for one of these, or any of them."""
    if not known:
        return "the corpus holds no window"
    close = near_keys(text, known)
    return f"near: {', '.join(close)}" if close else f"for example {known[0]}"


def near_keys(text: str, known: Iterable[str], n: int = 3) -> list[str]:
    """At most `n` window keys, of the sessions and views whose names are near: ticks, of which all keys have the same, make none near."""
    wanted, first = re.sub(r"-\d*$", "", text), {}
    for key in known:
        session, view, _ = keys.parse_window_key(key)
        for name in (f"{session}-{view}", session):
            if key == f"{name}{text[len(wanted) :]}":
                first[name] = key  # the tick that was typed
            first.setdefault(name, key)
    return list(dict.fromkeys(first[name] for name in near(wanted, first, n=n)))


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()
