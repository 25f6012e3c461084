"""The cues of a text stream: mov_text, SubRip, WebVTT, ASS, as plain text with exact times on the container's clock."""

import re
from fractions import Fraction
from typing import NamedTuple

from ...schemas.errors import MediaError
from ...schemas.spec import LimitSpec
from .containers import Fault, Source, decoded, name_of, open_media, pick

_OVERRIDE = re.compile(r"(?<!\\)\{[^}]*\}")  # ASS markup; a brace that is text is escaped
_ESCAPED = re.compile(r"\\([Nnh{}\\])")
_MEANS = {"N": "\n", "n": "\n", "h": " "}


class Cue(NamedTuple):
    """What is shown from `start` to `stop`, in seconds of the container's clock."""

    start: Fraction
    stop: Fraction
    text: str


def subtitles(source: Source, index: int, limits: LimitSpec) -> tuple[list[Cue], list[Fault]]:
    """The cues of text stream `index` in the container's order, empty ones left out, and what could not be decoded.

    Raises:
        MediaError: `no_such_stream`, `no_decoder`; `not_text` for subtitles that are pictures; `limit_words`.
    """
    cues: list[Cue] = []
    faults: list[Fault] = []
    with open_media(source, limits) as container:
        stream = pick(container, "text", index, source)
        for item in decoded(container, [stream], limits):
            if isinstance(item, Fault):
                faults.append(item)
                continue
            packet, shown = item
            text = "\n".join(_plain(part, source, index) for part in shown).strip()
            if not text or packet.pts is None:
                continue
            start = packet.pts * Fraction(packet.time_base)
            cues.append(Cue(start, start + (packet.duration or 0) * Fraction(packet.time_base), text))
            if len(cues) > limits.max_words:
                raise MediaError(f"{name_of(source)}, text stream {index}: more than {limits.max_words} cues", reason="limit_words")
    return cues, faults


def _plain(part: object, source: Source, index: int) -> str:
    """The text of one libav subtitle, which is ASS whatever the container held: eight fields, a comma each, then the text."""
    ass = getattr(part, "ass", None)
    if ass is None:
        raise MediaError(f"{name_of(source)}, text stream {index}: subtitles are pictures, not text", reason="not_text")
    text = ass.decode("utf-8", "replace").split(",", 8)[-1]
    return _ESCAPED.sub(lambda found: _MEANS.get(found[1], found[1]), _OVERRIDE.sub("", text))
