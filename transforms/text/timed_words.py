"""A timed word, a rejected entry, and the sheet on which a transcript's reader writes both; exact seconds of text.

Knows nothing of any format: transcripts.py chooses the reader, json_words.py, nist_words.py and captions.py are the readers.
"""

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

from ...schemas.errors import MediaError
from ...schemas.spec import LimitSpec

Timing = Literal["word", "segment"]

MAX_SECONDS = 86_400 * 366  # as in the manifest
MAX_SPEAKER_CHARS = 256
MAX_ROWS_PER_REASON = 100  # the last of them counts all further ones


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedWord:
    """A word and when it sounds.

    Attributes:
        text: stripped, not empty, without lone surrogates.
        start, stop: seconds on the transcript's own clock, exact as written; half-open, start ≤ stop. A stop that the file does not give is
            the start.
        speaker: the file's label; "" when it gives none.
        timing: `word`: the times are this word's; `segment`: only its segment had times, and its words are spread evenly over it.
    """

    text: str
    start: Fraction
    stop: Fraction
    speaker: str = ""
    timing: Timing = "word"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """An entry that gave no word: a ledger row.

    Attributes:
        reason: `bad_entry`, `bad_text`, `empty`, `no_times`, `bad_time`, `negative_time`, `inverted_time`, `word_too_long`,
            `too_many_words`, `alternative` (a second reading of the same stretch), `ignored` (the file itself says not to use it).
        message: what was found.
        number: which entry (JSON) or line (the other formats), from 1.
        count: words lost; 1 for an entry without any.
    """

    reason: str
    message: str
    number: int
    count: int = 1


class WordSheet:
    """Collects words and rejections, and holds the limits.

    Attributes:
        words: in the file's order.
        shaped: entries that had the format's shape, good or bad; a file without any is not of the format.
    """

    def __init__(self, limits: LimitSpec) -> None:
        self.words: list[TimedWord] = []
        self.shaped = 0
        self._limits = limits
        self._rejected: dict[str, list[Rejected]] = {}

    def add(self, words: Sequence[tuple[str, str]], start: Any, stop: Any, timing: Timing, number: int) -> None:
        """Takes the (text, speaker) of one entry, several spread evenly over its times; times that are none reject them all."""
        if not words:
            self.reject("empty", "no text", number)
            return
        first = seconds(start)
        last = first if stop is None else seconds(stop)
        if start is None:
            self.reject("no_times", f"no start of {shown(words[0][0])}", number, len(words))
        elif first is None or last is None:
            self.reject("bad_time", f"{shown(start)} … {shown(stop)}: no time in seconds", number, len(words))
        elif first.numerator < 0:
            self.reject("negative_time", f"{shown(start)} … {shown(stop)}", number, len(words))
        elif last < first:
            self.reject("inverted_time", f"{shown(start)} … {shown(stop)}: stops before it starts", number, len(words))
        elif len(words) == 1:  # the common one, without arithmetic
            self._keep(words[0], first, last, timing, number)
        else:
            step = (last - first) / len(words)
            for place, word in enumerate(words):
                self._keep(word, first + step * place, first + step * (place + 1), timing, number)

    def reject(self, reason: str, message: str, number: int, count: int = 1) -> None:
        """Notes an entry that gives no word."""
        rows = self._rejected.setdefault(reason, [])
        if len(rows) < MAX_ROWS_PER_REASON:
            rows.append(Rejected(reason=reason, message=message, number=number, count=count))
        else:
            lost = rows[-1].count + count
            rows[-1] = Rejected(reason=reason, message=f"{lost} words from here on", number=rows[-1].number, count=lost)

    def rows(self) -> list[Rejected]:
        """What was rejected, in the file's order."""
        return sorted((row for rows in self._rejected.values() for row in rows), key=lambda row: (row.number, row.reason))

    def _keep(self, word: tuple[str, str], start: Fraction, stop: Fraction, timing: Timing, number: int) -> None:
        text, speaker = (well_formed(part).strip() for part in word)
        if not text:
            self.reject("empty", "no text", number)
        elif len(text) > self._limits.max_word_chars:
            self.reject("word_too_long", f"{len(text)} characters, at most {self._limits.max_word_chars}", number)
        elif len(self.words) >= self._limits.max_words:
            self.reject("too_many_words", f"more than {self._limits.max_words} words", number)
        else:
            self.words.append(TimedWord(text=text, start=start, stop=stop, speaker=speaker[:MAX_SPEAKER_CHARS], timing=timing))


_DECIMAL = re.compile(r"[+-]?(\d{1,12}(\.\d{0,60})?|\.\d{1,60})([eE][+-]?\d{1,2})?", re.ASCII)
_CLOCK = re.compile(r"(-?)(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,12}))?", re.ASCII)


def seconds(value: Any) -> Fraction | None:
    """Exact seconds of `12.5`, `1e-3`, `01:02.5` or `1:02:03,500`; None when it is no time, or beyond a year. No float can come here."""
    if isinstance(value, Fraction):
        exact = value
    elif not isinstance(value, str):
        return None
    elif _DECIMAL.fullmatch(value := value.strip()):
        exact = Fraction(Decimal(value))
    elif (clock := _CLOCK.fullmatch(value)) and int(clock[3]) < 60 and int(clock[4]) < 60:
        whole = int(clock[2] or 0) * 3600 + int(clock[3]) * 60 + int(clock[4])
        exact = Fraction(f"{clock[1]}{whole}.{clock[5] or 0}")
    else:
        return None
    return exact if abs(exact.numerator) <= MAX_SECONDS * exact.denominator else None


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 4, 4, 50, 50


def shown(value: Any) -> str:
    """A value for a message: short however large it is, and nothing in it can move a cursor or turn the direction of writing."""
    text = str(value) if isinstance(value, Fraction) else _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def split_lines(text: str) -> list[str]:
    """The lines of a text file. `str.splitlines` also cuts at form feeds and U+2028, which can stand in somebody's words."""
    return re.split(r"\r\n|\r|\n", text)


def not_a_transcript(where: str, found: str, hint: str = "") -> MediaError:
    """The error of a file that is not of its format at all."""
    return MediaError(f"{where}: {found}", reason="bad_transcript", hint=hint)


def well_formed(text: str) -> str:
    """The text with every lone surrogate replaced by U+FFFD and every pair of them joined; other text comes back as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
