"""A session's ledger rows, from the reports of its tracks and the accounts of its words. FORMAT.md section 7."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...schemas.errors import MediaError
from ...schemas.layout import LayoutSpec, Slot
from ...schemas.manifest import Session, Stream
from ...schemas.tables import LedgerRow
from ..media.account import Drop, PictureReport
from ..media.place import TrackReport
from ..tokens.interleave import Carry
from ..tokens.tokenizer import Tokenizer
from .streams import OpenStreams
from .words import Sheet, Words

_UNIT = {"audio": "sample", "video": "picture"}
_ELSEWHERE = re.compile(r"[/\\~]|[A-Za-z]:")  # how a path begins that is not relative, here or on Windows


def rows(session: Session, streams: OpenStreams, words: Words) -> list[LedgerRow]:
    """Every row of the session, stream by stream: totals, drops, gap fill, what is missing, what nothing was taken from."""
    found: list[LedgerRow] = []
    for stream in session.streams:
        if stream.id in streams.tracks:
            report = streams.tracks[stream.id].report()
            found += _track_rows(stream, report, report.kept, report.dropped)
        elif stream.id in streams.pictures:
            seen = streams.pictures[stream.id].report()
            between = Drop(
                reason="between", stage="pictures", message="no deadline chose them", start=0, stop=seen.decoded, units=seen.between
            )
            found += _track_rows(stream, seen, seen.used, (*seen.dropped, *([between] if seen.between else [])))
        elif stream.kind == "video":
            probe = streams.probes[stream.path].stream("video", stream.index)
            found.append(_unused(stream.id, stream.path, "picture", probe.declared, "not_seen", "no view sees it"))
    named = {(stream.path, stream.kind, stream.index) for stream in session.streams}
    for number, (path, file) in enumerate(streams.probes.items()):
        for other in file.streams:
            if (path, other.kind, other.index) not in named:
                unit = _UNIT.get(other.kind, "word")
                name = f"#file-{number}-{other.kind}{other.index}"  # no path: the row's digest depends on this name
                found.append(_unused(name, path, unit, other.declared, "not_in_manifest", "the session does not name it"))
    for sheet in words.sheets:
        found += _sheet_rows(sheet)
    return found


def dropped_whole(found: Iterable[LedgerRow], error: MediaError) -> list[LedgerRow]:
    """The rows of a session that is dropped whole: what was kept, or not yet settled, is dropped for the error's reason."""
    after: list[LedgerRow] = []
    for row in found:
        if row.entry == "stream" and row.decoded > row.dropped:
            same = {"stream": row.stream, "file": row.file, "unit": row.unit, "rate_hz": row.rate_hz}
            left = row.decoded - row.dropped
            after.append(row.model_copy(update={"kept": 0, "dropped": row.decoded}))
            after.append(_row("dropped", **same, reason=error.reason, stage="session", message=str(error), dropped=left))
        else:
            after.append(row)
    return after


def unsaid_rows(session: str, session_id: str, view: str, left: Carry, layout: LayoutSpec, tokenizer: Tokenizer) -> list[LedgerRow]:
    """A row for each queue of a view that still holds something after its last tick, the tail's included; none for most views.

    `left` is the `carry_out` of the view's last window. Words count whole or cut alike, a control pair counts as an event.
    """
    own = [id_ for id_, slot in zip(left.say_ids, left.say_slots, strict=True) if slot == Slot.SAY]
    texts = {"own": own, "typed": left.typed_ids, "background": left.background_ids}  # a message's newline, an `<end>`: alone a word too
    counts = {queue: max(len(tokenizer.decode(_text(ids, layout)).split()), 1) for queue, ids in texts.items() if ids}
    if len(own) < len(left.say_ids):
        counts["control"] = (len(left.say_ids) - len(own)) // 2
    return [
        LedgerRow(
            session=session,
            session_id=session_id,
            entry="unsaid",
            stream=f"#view-{view}-{queue}",
            unit="event" if queue == "control" else "word",
            reason="limit_tail",
            stage="layout",
            message=f"beyond a tail of {layout.max_tail_ticks} ticks",
            dropped=count,
        )
        for queue, count in counts.items()
    ]


def _text(ids: Sequence[int], layout: LayoutSpec) -> list[int]:
    return [id_ for id_ in ids if id_ != layout.ids.end]


def _track_rows(stream: Stream, report: TrackReport | PictureReport, kept: int, drops: tuple[Drop, ...]) -> list[LedgerRow]:
    unit = _UNIT[stream.kind]
    same = {"stream": stream.id, "file": stream.path, "unit": unit, "rate_hz": getattr(report, "rate_hz", 0)}
    inserted = getattr(report, "inserted", 0)
    found = [
        _row(
            "stream",
            **same,
            declared=max(report.declared, 0),
            decoded=report.decoded,
            kept=kept,
            dropped=sum(drop.units for drop in drops),
            inserted=inserted,
        )
    ]
    for drop in drops:
        message = drop.message if drop.events == 1 else f"{drop.message} (and {drop.events - 1} more)"
        place = {"start": drop.start, "stop": drop.stop}
        found.append(_row("dropped", **same, **place, reason=drop.reason, stage=drop.stage, message=message, dropped=drop.units))
    if inserted:
        found.append(_row("inserted", **same, reason="gap", stage="place", message="silence, marked as not real", inserted=inserted))
    if report.missing:
        message = f"the container declares {report.declared} {unit}s and holds {report.declared - report.missing}"
        place = {"start": report.declared - report.missing, "stop": report.declared}
        found.append(_row("missing", **same, **place, reason="missing", stage="decode", message=message))
    return found


def _sheet_rows(sheet: Sheet) -> list[LedgerRow]:
    same = {"stream": sheet.name, "file": sheet.path, "unit": sheet.unit}
    if sheet.fault:
        reason, message = sheet.fault
        return [_row("unused", **same, reason=reason, stage="words", message=message)]
    dropped = sum(count for count, _ in sheet.dropped.values())
    found = [_row("stream", **same, declared=sheet.decoded, decoded=sheet.decoded, kept=sheet.kept, dropped=dropped)]
    for reason, (count, first) in sorted(sheet.dropped.items()):
        found.append(_row("dropped", **same, reason=reason, stage="words", message=first, dropped=count))
    return found


def _unused(name: str, path: str, unit: str, declared: int, reason: str, message: str) -> LedgerRow:
    return _row("unused", stream=name, file=path, unit=unit, reason=reason, stage="plan", message=message, declared=max(declared, 0))


def _row(entry: str, **columns: Any) -> LedgerRow:
    """A row; the session is filled in by whoever knows its key. An absolute path leaves its folders behind."""
    columns["file"] = shown_path(columns["file"])
    return LedgerRow(session="", session_id="", entry=entry, **columns)


def shown_path(path: str) -> str:
    """A path as outputs may show it: as the manifest has it if it is relative, else its last name alone.

    Of a URL neither host, query nor fragment is shown: it may hold a password or a signature. "…" stands for a name that is empty.
    """
    is_url = "://" in path or path[:5].lower() == "file:"
    if not (is_url or _ELSEWHERE.match(path) or ".." in re.split(r"[/\\]", path)):
        return path
    if is_url:
        names = re.split(r"[/\\]", re.split(r"[?#]", path)[0].rpartition("://")[2])[1:]  # the first is the host, or `file:`
    else:
        names = re.split(r"[/\\]", re.sub(r"^[A-Za-z]:", "", path))
    return "".join(names[-1:]) or "…"
