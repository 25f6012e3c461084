"""Timed words of SubRip and WebVTT subtitles.

Read leniently where files differ from the books (commas or points, no index lines, no signature); text that no line of times claims
becomes a row. A WebVTT cue ends at a blank line, a SubRip cue at the next line of times. Roll-up captions that repeat the line before are
not undone.
"""

import html
import re
from collections.abc import Iterator
from typing import Literal

from .timed_words import Timing, WordSheet, shown, split_lines

_TIMES = re.compile(r"\s*(-?[\d:.,]+)\s*-->\s*(-?[\d:.,]+)(?:\s.*)?", re.ASCII)
_ALMOST_TIMES = re.compile(r"\s*-?\d[\d:.,]*\s*[-–—=]*>\s*-?\d[\d:.,]*.*", re.ASCII)
_STAMP = re.compile(r"\s*(\d+:[\d:.]+)\s*", re.ASCII)
_VTT_TAG = re.compile(r"<([^<>]*)>")
_SRT_TAG = re.compile(r"</?(?:i|b|u|s|c|font)(?:\s[^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
_NOT_A_CUE = ("WEBVTT", "NOTE", "STYLE", "REGION")

Times = tuple[str, str]


def read_captions(text: str, format: Literal["srt", "vtt"], sheet: WordSheet) -> None:
    """Writes the words of each cue to the sheet, spread over the cue, or between its word stamps; `<v Ann>` names the speaker."""
    vtt = format == "vtt"
    sheet.shaped += text.startswith("WEBVTT")
    for number, times, body in _cues(split_lines(text), vtt=vtt):
        if times is None:
            sheet.reject("bad_entry", f"{shown(body)}: no line of times", number, len(body.split()))
            continue
        sheet.shaped += 1
        if vtt:
            for start, stop, words, timing in _vtt_spans(times, body):
                sheet.add(words, start, stop, timing, number)
        else:
            sheet.add([(word, "") for word in _SRT_TAG.sub("", body).split()], *times, "segment", number)


def _cues(lines: list[str], *, vtt: bool) -> Iterator[tuple[int, Times | None, str]]:
    """(first line, times, text) in the order of the file; times are None for text that has none."""
    number, times, body = 1, None, list[str]()
    for line_number, line in enumerate([*lines, None], 1):
        found = None if line is None else _TIMES.fullmatch(line)
        almost = line is not None and not found and _ALMOST_TIMES.fullmatch(line)
        if line is not None and not (found or almost) and (line.strip() or not vtt):
            body.append(line)
            continue
        if (found or almost) and body and (body[-1].strip().isdigit() or (vtt and times is None)):
            body.pop()  # the index of the cue that begins here, or its identifier
        text = "\n".join(body).strip()
        if times is not None or (text and not (vtt and text.startswith(_NOT_A_CUE))):
            yield number, times, text
        number = line_number if found or almost else line_number + 1
        times, body = (found[1], found[2]) if found else None, [line] if almost and line else []


def _vtt_spans(times: Times, body: str) -> Iterator[tuple[str, str, list[tuple[str, str]], Timing]]:
    """(start, stop, (word, speaker) …, timing): one of the whole cue, or one for each stretch between word stamps."""
    start, speaker, text, stamped = times[0], "", "", False
    words: list[tuple[str, str]] = []
    for place, part in enumerate([*_VTT_TAG.split(body), None]):
        stamp = place % 2 and part is not None and _STAMP.fullmatch(part)
        if part is not None and place % 2 == 0:
            text += html.unescape(part)
        elif part is None or stamp or part == "/v" or re.match(r"v[\s.]", part):
            words += [(word, speaker) for word in text.split()]
            text = ""
            if part is None or stamp:
                stop = stamp[1] if stamp else times[1]
                if words or not (stamp or stamped):
                    yield start, stop, words, "word" if (stamped or stamp) and len(words) == 1 else "segment"
                start, words, stamped = stop, [], True
            else:  # "<v.loud Ann>" names Ann, "</v>" nobody
                speaker = html.unescape(" ".join(part.split()[1:]))
