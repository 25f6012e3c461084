"""Timed words from a transcript file, their times exact as written.

In: the bytes of a file in one of six formats. Out: the words in order of start, and a row for everything that could not be one. Times are
read as decimals and stay fractions of a second: the caller rounds them to samples, once, with `clock.to_samples`. One bad entry costs that
entry; only a file that is not of its format at all is an error. Text is stripped and otherwise kept as written: case, tags and spelling
are nobody's here.

| format | what it is |
|---|---|
| moshi | `{"alignments": [[text, [start, stop], speaker], …]}` |
| words | a list, or JSON lines, of `{word, start, end, speaker}` or segments `{text, start, end, words: […]}`; or an object with one |
| srt, vtt | subtitles; WebVTT with voices (`<v Ann>`) and word stamps (`<00:00:01.000>`) |
| stm | NIST: `file channel speaker start stop [<label>] text` |
| ctm | NIST: `file channel start duration word [confidence [type [speaker]]]` |

Where only a segment has times, its words (split at white space) are spread evenly over it and say so: `timing="segment"`.
"""

import json
import re
from typing import Literal

from ...schemas.spec import LimitSpec
from .captions import read_captions
from .json_words import read_moshi, read_words
from .nist_words import fields_of, is_comment, read_nist
from .timed_words import Rejected, TimedWord, WordSheet, not_a_transcript, split_lines

__all__ = ["Format", "Rejected", "TimedWord", "parse"]

Format = Literal["auto", "moshi", "words", "srt", "vtt", "stm", "ctm"]

DETECTION_LINES = 1_000


def parse(data: bytes, *, format: Format, where: str, limits: LimitSpec) -> tuple[list[TimedWord], list[Rejected]]:
    """(words sorted by start, entries that gave none). `auto` decides by the ending of `where`, then by content.

    Raises:
        MediaError: `bad_transcript`: not of that format at all, neither UTF-8 nor UTF-16 or -32, or several recordings in one file.
    """
    text = _decoded(data, where)
    if format == "auto":
        format = _detected(text, where)
    sheet = WordSheet(limits)
    match format:
        case "moshi":
            read_moshi(text, where, sheet)
        case "words":
            read_words(text, where, sheet)
        case "srt" | "vtt":
            read_captions(text, format, sheet)
        case "stm" | "ctm":
            read_nist(text, format, where, sheet)
        case _:
            raise ValueError(f"no transcript format {format!r}")
    rows = sheet.rows()
    if rows and not sheet.shaped:
        raise not_a_transcript(where, f"nothing in it is {format}; {rows[0].message} (entry or line {rows[0].number})")
    return sorted(sheet.words, key=lambda word: word.start), rows


def _decoded(data: bytes, where: str) -> str:
    encoding = json.detect_encoding(data)  # by the byte order mark, or by where the first NULs are
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise not_a_transcript(where, f"byte {error.start} is not {encoding}", "convert the file to UTF-8") from None


def _detected(text: str, where: str) -> Format:
    ending = where.lower().rpartition(".")[2]
    if ending in ("srt", "vtt", "stm", "ctm"):
        return ending  # type: ignore[return-value]
    head = text.lstrip()
    if head.startswith(("{", "[")):
        return "moshi" if head[0] == "{" and re.search(r'"alignments"\s*:\s*\[', head) else "words"
    if head.startswith("WEBVTT"):
        return "vtt"
    if "-->" in text:
        return "srt"
    lines = [line for line in split_lines(text)[:DETECTION_LINES] if not is_comment(line)]
    nist: tuple[Literal["stm"], Literal["ctm"]] = ("stm", "ctm")
    fits = [format for format in nist if 2 * sum(fields_of(line, format) is not None for line in lines) > len(lines)]
    if len(fits) == 1:
        return fits[0]
    found = "could be stm or ctm" if fits else "in no transcript format that is known here"
    raise not_a_transcript(where, found, "name its `format`: moshi, words, srt, vtt, stm or ctm")
