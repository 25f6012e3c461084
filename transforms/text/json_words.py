"""Timed words of JSON: moshi's alignments, and the lists of words and segments that recognisers and corpora write.

Numbers are kept as the text that the file has, so that no time is ever a float. Known shapes: moshi, KAME and J-Moshi word lists, Whisper
and WhisperX segments with words, NeMo segments, SegLST, chunks with `timestamp`. The file is one JSON value, or JSON lines.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from .timed_words import Timing, WordSheet, not_a_transcript, seconds, shown, split_lines

MAX_DEPTH = 2  # a file of segments of words

_LIST_KEYS = ("words", "segments", "chunks", "metadata:transcript")  # the finest first
_TEXT_KEYS = ("text", "transcript", "words")
_START_KEYS = ("start", "start_time")
_STOP_KEYS = ("stop", "end", "end_time")


def read_moshi(text: str, where: str, sheet: WordSheet) -> None:
    """Writes the words of `{"alignments": [[text, [start, stop], speaker], …]}` to the sheet. Raises MediaError when it is not that."""
    value = _from_json(text, where)
    if not isinstance(value, dict) or not isinstance(value.get("alignments"), list):
        raise not_a_transcript(where, "no list `alignments`", 'moshi is {"alignments": [[text, [start, stop], speaker], …]}')
    for number, entry in enumerate(value["alignments"], 1):
        match entry:
            case [word, [start, stop], *more] if len(more) <= 1:
                sheet.shaped += 1
                _add(word, start, stop, _label(*more), number, sheet, one_word=True)
            case _:
                sheet.reject("bad_entry", f"{shown(entry)}: expected [text, [start, stop], speaker]", number)


def read_words(text: str, where: str, sheet: WordSheet) -> None:
    """Writes the words of a list of words or segments to the sheet. Raises MediaError when it is not one."""
    value = _from_json(text, where)
    if not isinstance(value, (list, dict)):
        raise not_a_transcript(where, f"{shown(value)} is neither a list nor an object of words")
    _read_list(value if isinstance(value, list) else [value], None, None, "", itertools.count(1), 0, sheet)


def _read_list(entries: list[Any], start: Any, stop: Any, speaker: str, numbers: Iterator[int], depth: int, sheet: WordSheet) -> None:
    """The words of a list; `start`, `stop` and `speaker` are those of the segment that holds it, if one does."""
    for entry, (first, last, spread) in zip(entries, _with_times(entries, start, stop), strict=True):
        if not isinstance(entry, dict):
            sheet.reject("bad_entry", f"{shown(entry)}: expected {{word, start, end}}", next(numbers))
            continue
        whose = _label(entry.get("speaker")) or speaker
        lists = [entry[key] for key in _LIST_KEYS if isinstance(entry.get(key), list)]
        text_keys = [key for key in ("word", *_TEXT_KEYS) if key in entry and not isinstance(entry[key], list)]
        if any(lists) and depth == MAX_DEPTH:
            sheet.reject("bad_entry", "lists of words nested too deeply", next(numbers))
        elif any(lists):
            _read_list(next(filter(None, lists)), first, last, whose, numbers, depth + 1, sheet)
        elif text_keys and not (lists and first is None):
            sheet.shaped += 1
            one_word = text_keys[0] == "word"
            _add(entry[text_keys[0]], first, last, whose, next(numbers), sheet, one_word=one_word, spread=spread)
        elif lists:
            sheet.shaped += 1  # a recording in which nobody spoke
        else:
            sheet.reject("bad_entry", f"{shown(list(entry))}: none of word, {', '.join(_TEXT_KEYS)}", next(numbers))


def _add(
    text: Any, start: Any, stop: Any, speaker: str, number: int, sheet: WordSheet, *, one_word: bool = False, spread: bool = False
) -> None:
    if not isinstance(text, str):  # a number is text as it is written, NaN is not
        sheet.reject("bad_text", f"{shown(text)} is no text", number)
        return
    words = [text] if one_word else text.split()
    timing: Timing = "segment" if spread or len(words) > 1 else "word"
    sheet.add([(word, speaker) for word in words], start, stop, timing, number)


def _with_times(entries: list[Any], start: Any, stop: Any) -> list[tuple[Any, Any, bool]]:
    """(start, stop, whether spread) of each entry. Entries without times share evenly what their neighbours, or the segment, leave them."""
    times = [_times(entry) for entry in entries]
    out: list[tuple[Any, Any, bool]] = [(*pair, False) for pair in times]
    untimed = [place for place, (first, _) in enumerate(times) if first is None]
    for _, grouped in itertools.groupby(enumerate(untimed), key=lambda pair: pair[1] - pair[0]):
        run = [place for _, place in grouped]
        earlier, later = run[0] - 1, run[-1] + 1
        before = seconds(start if earlier < 0 else times[earlier][1] or times[earlier][0])
        after = seconds(stop if later == len(times) else times[later][0])
        if before is not None and after is not None and before <= after:
            step = (after - before) / len(run)
            for i, place in enumerate(run):
                out[place] = (before + step * i, before + step * (i + 1), True)
    return out


def _times(entry: Any) -> tuple[Any, Any]:
    if not isinstance(entry, dict):
        return None, None
    if isinstance(pair := entry.get("timestamp"), list) and len(pair) == 2:
        return pair[0], pair[1]
    start, stop = (next((entry[key] for key in keys if entry.get(key) is not None), None) for keys in (_START_KEYS, _STOP_KEYS))
    return start, stop


class _TwiceKeyed:
    """An object in which a key stands twice: which one was meant is unknown."""

    def __repr__(self) -> str:
        return "an object with a key that stands twice"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _TwiceKeyed:
    value = dict(pairs)
    return value if len(value) == len(pairs) else _TwiceKeyed()


# numbers as they are written: a float is rounded, and an integer can have a million digits
_JSON = json.JSONDecoder(strict=False, parse_float=str, parse_int=str, object_pairs_hook=_object)


def _from_json(text: str, where: str) -> Any:
    """The JSON value; of JSON lines a list, with None for each line that is not JSON."""
    try:
        return _JSON.decode(text)
    except json.JSONDecodeError as error:
        lines = [line for line in split_lines(text) if line.strip()]
        if error.msg != "Extra data" or len(lines) < 2:
            raise not_a_transcript(where, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise not_a_transcript(where, "JSON nested too deeply") from None
    return [_line_from_json(line) for line in lines]


def _line_from_json(line: str) -> Any:
    try:
        return _JSON.decode(line)
    except (json.JSONDecodeError, RecursionError):
        return None


def _label(speaker: Any = None) -> str:
    """The speaker's label; a number is one, what is neither text nor number is none."""
    return str(speaker) if isinstance(speaker, str) else ""
