"""Timed words of NIST's STM (segments) and CTM (words) files. Source: usnistgov/SCTK, doc/infmts.htm.

One file may describe many recordings there; here it may describe one. Of a CTM's alternative readings the first is taken; text is
otherwise left as written.
"""

import re
from typing import Literal

from .timed_words import WordSheet, not_a_transcript, seconds, shown, split_lines

_SHAPE = {"stm": "file channel speaker start stop text", "ctm": "file channel start duration word"}
_STM_LABEL = re.compile(r"^<([^<>\s]*)>\s*")
_ALTERNATIVES = ("<ALT_BEGIN>", "<ALT>", "<ALT_END>")


def read_nist(text: str, format: Literal["stm", "ctm"], where: str, sheet: WordSheet) -> None:
    """Writes the words to the sheet; a CTM's speaker is its eighth field, else its channel. Raises MediaError for several recordings."""
    recordings: set[str] = set()
    alternative = 0  # 0: none is open, 1: inside the first, which is taken
    for number, line in enumerate(split_lines(text), 1):
        if is_comment(line):
            continue
        fields = line.split()
        if format == "ctm" and len(fields) >= 5 and fields[4].upper() in _ALTERNATIVES:
            alternative = (1, alternative + 1, 0)[_ALTERNATIVES.index(fields[4].upper())]
            continue
        entry = fields_of(line, format)
        if entry is None:
            sheet.reject("bad_entry", f"{shown(line)}: expected {_SHAPE[format]}", number)
            continue
        sheet.shaped += 1
        recordings.add(fields[0])
        start, stop, words = entry
        if alternative > 1:
            sheet.reject("alternative", shown(words[0][0]), number)
        elif words and words[0][0] == "IGNORE_TIME_SEGMENT_IN_SCORING":
            sheet.reject("ignored", f"{start} … {stop}", number)
        elif format == "stm":
            sheet.add(words, start, stop, "segment", number)
        else:  # the second time is a duration
            first, duration = seconds(start), seconds(stop)
            assert first is not None and duration is not None  # fields_of has seen to it
            sheet.add(words, start, first + duration, "word", number)
    if len(recordings) > 1:
        some = ", ".join(sorted(map(shown, recordings))[:3])
        raise not_a_transcript(where, f"words of {len(recordings)} recordings ({some} …)", "cut it into a file for each recording")


def fields_of(line: str, format: Literal["stm", "ctm"]) -> tuple[str, str, list[tuple[str, str]]] | None:
    """(first time, second time, (word, speaker) …) of a line; None when it has not the format's shape."""
    fields = line.split(None, 5) if format == "stm" else line.split()
    first = 3 if format == "stm" else 2
    if len(fields) < 5 or seconds(fields[first]) is None or seconds(fields[first + 1]) is None:
        return None
    if format == "stm":
        text = fields[5] if len(fields) == 6 else ""
        label = _STM_LABEL.match(text)
        if label and ("," in label[1] or label[1].lower() in ("o", "na")):  # "<o,f0,male>"; a "<laugh>" is text
            text = text[label.end() :]
        return fields[3], fields[4], [(word, fields[2]) for word in text.split()]
    return fields[2], fields[3], [(fields[4], fields[7] if len(fields) >= 8 else fields[1])]


def is_comment(line: str) -> bool:
    """Whether a line says nothing: empty, or `;;`."""
    return not line.strip() or line.startswith(";;")
