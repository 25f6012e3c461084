"""A session's ledger rows, from the reports of its tracks and the accounts of its words. FORMAT.md section 7."""

from collections.abc import Iterable
from typing import Any

from ..schemas.errors import MediaError
from ..schemas.manifest import Session, Stream
from ..schemas.tables import LedgerRow
from .account import Drop, PictureReport
from .place import TrackReport
from .streams import OpenStreams
from .words import Sheet, Words

_UNIT = {"audio": "sample", "video": "picture"}


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
    for path, probe in streams.probes.items():
        for other in probe.streams:
            if (path, other.kind, other.index) not in named:
                unit = _UNIT.get(other.kind, "word")
                name = f"{shown_path(path)}#{other.kind}{other.index}"
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


def stream_metas(session: Session, streams: OpenStreams) -> list[dict[str, Any]]:
    """What a window's meta says of each stream: where it lies, how it drifts, what was made of it. The same keys for every kind."""
    metas = []
    for stream in session.streams:
        track = streams.tracks.get(stream.id) or streams.pictures.get(stream.id)
        report = track.report() if track else None
        probe = streams.probes[stream.path].stream(stream.kind, stream.index) if stream.kind != "text" else None
        metas.append(
            {
                "id": stream.id,
                "participant": stream.participant,
                "kind": stream.kind,
                "used": report is not None,
                "codec": probe.codec if probe else "",
                "start_samples": round(streams.stream_start(stream) * 16_000) if probe else 0,
                "offset_samples": report.offset_samples if report else 0,
                "drift_samples": getattr(report, "drift_samples", 0),
                "jitter_samples": getattr(report, "jitter_samples", 0),
                "num_spans": getattr(report, "num_spans", 0),
                "rate_hz": getattr(report, "rate_hz", 0),
                "channels": getattr(report, "channels", 0),
                "channel": -1 if stream.channel is None else stream.channel,
                "gain": str(stream.gain),
                "peak": round(float(getattr(report, "peak", 0.0)), 6),
            }
        )
    return metas


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
    """A path as outputs may show it: as the manifest has it if it is relative, else its last name."""
    return path.rsplit("/", 1)[-1] if "://" in path or path.startswith(("/", "\\")) or path[1:2] == ":" or ".." in path.split("/") else path
