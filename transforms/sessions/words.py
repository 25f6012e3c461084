"""The words and events that a session brings along, on its clock, and what of them could not be placed.

A word or an event that starts outside the session is dropped with a reason; so is a word that belongs to nobody. The rest is kept.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

from ...schemas.clock import clock_text
from ...schemas.errors import MediaError
from ...schemas.manifest import Session, Stream, Transcript
from ...schemas.rows import EventRow
from ...schemas.spec import FeatureSpec
from ..media.subtitles import subtitles
from ..text import transcripts
from ..text.timed_words import TimedWord
from . import labels
from .labels import PlacedWord
from .streams import OpenSource, OpenStreams


@dataclass(slots=True)
class Sheet:
    """The account of one transcript, one text stream, or the row's events: decoded = kept + the sum of dropped.

    Attributes:
        name, path, unit: for the ledger.
        decoded: entries found.
        dropped: reason → (count, what the first was).
        fault: why nothing could be read at all, with its message.
    """

    name: str
    path: str
    unit: str
    decoded: int = 0
    kept: int = 0
    dropped: dict[str, tuple[int, str]] = field(default_factory=dict)
    fault: tuple[str, str] | None = None

    def drop(self, reason: str, message: str, count: int = 1) -> None:
        """Counts entries that were dropped."""
        had, first = self.dropped.get(reason, (0, message))
        self.dropped[reason] = (had + count, first)


class Words:
    """Read on opening; `settle` once the session's length is known.

    Attributes:
        kept: words inside the session, sorted by (start, participant), then as they came.
        events: rows of events.json for the manifest's events inside the session.
        sheets: the account of every source.
    """

    def __init__(self, session: Session, streams: OpenStreams, open_source: OpenSource, spec: FeatureSpec) -> None:
        self.kept: list[PlacedWord] = []
        self.events: list[EventRow] = []
        self.sheets: list[Sheet] = []
        self._session, self._streams, self._open_source, self._spec = session, streams, open_source, spec
        self._cast = [person.id for person in session.cast()]
        self._placed: list[tuple[Sheet, PlacedWord]] = []
        for number, transcript in enumerate(session.transcripts):
            self._read_transcript(number, transcript)
        for stream in session.streams:
            if stream.kind == "text":
                self._read_text_stream(stream)
        self._given = Sheet(name="#events", path="", unit="event", decoded=len(session.events))
        if session.events:
            self.sheets.append(self._given)

    def settle(self, num_samples: int) -> None:
        """Keeps what starts in [0, num_samples)."""
        for sheet, word in self._placed:
            if reason := _outside(word.start, num_samples):
                sheet.drop(reason, f"{word.text[:40]!r} starts at {clock_text(word.start)}, the session has {clock_text(num_samples)}")
            else:
                sheet.kept += 1
                self.kept.append(word)
        self.kept.sort(key=lambda word: (word.start, word.participant))
        for row in labels.given_events(self._session, self._streams.zero):
            if reason := _outside(row["start"], num_samples):
                self._given.drop(reason, f"{row['kind']} at {clock_text(row['start'])}, the session has {clock_text(num_samples)}")
            else:
                self._given.kept += 1
                self.events.append(row)

    def _read_transcript(self, number: int, transcript: Transcript) -> None:
        sheet = Sheet(name=f"#transcript-{number}", path=transcript.path, unit="word")
        self.sheets.append(sheet)
        try:
            with self._open_source(transcript.path) as file:
                data = _read(file, transcript.path, self._spec.limits.max_transcript_bytes)
            words, rejected = transcripts.parse(data, format=transcript.format, where=transcript.path, limits=self._spec.limits)
        except FileNotFoundError:
            sheet.fault = ("missing_file", f"{transcript.path}: no such file")
            return
        except IsADirectoryError:
            sheet.fault = ("not_a_file", f"{transcript.path}: a folder, not a file")
            return
        except MediaError as error:
            sheet.fault = (error.reason, str(error))
            return
        sheet.decoded = len(words) + sum(row.count for row in rejected)
        for row in rejected:
            sheet.drop(row.reason, f"entry {row.number}: {row.message}", row.count)
        self._place(sheet, words, transcript, self._origin(transcript))

    def _read_text_stream(self, stream: Stream) -> None:
        sheet = Sheet(name=stream.id, path=stream.path, unit="word")
        self.sheets.append(sheet)
        try:
            with self._open_source(stream.path) as source:
                cues, faults = subtitles(source, stream.index, self._spec.limits)
        except MediaError as error:
            sheet.fault = (error.reason, str(error))
            return
        words = []
        for cue in cues:
            texts = cue.text.split()
            step = (cue.stop - cue.start) / max(len(texts), 1)
            for place, text in enumerate(texts):
                start = cue.start + step * place
                words.append(TimedWord(text=text, start=start, stop=start + step, timing="segment"))
        sheet.decoded = len(words) + len(faults)
        for fault in faults:
            sheet.drop(fault.reason, fault.message)
        file = self._streams.probes.get(stream.path)
        zero = file.zero if file else Fraction(0)
        whose = Transcript(path=stream.path, participant=stream.participant)
        self._place(sheet, words, whose, self._streams.file_start(stream) - zero)

    def _place(self, sheet: Sheet, words: list[TimedWord], transcript: Transcript, origin: Fraction) -> None:
        for word, placed in zip(words, labels.place_words(words, transcript, origin, self._cast), strict=True):
            if isinstance(placed, str):
                sheet.drop(placed, f"speaker {word.speaker!r} of {word.text[:40]!r} is no participant of the session")
            else:
                self._placed.append((sheet, placed))

    def _origin(self, transcript: Transcript) -> Fraction:
        """Seconds of the session's clock that the transcript's times count from."""
        if transcript.clock == "session":
            return -self._streams.zero
        stream = self._stream_of(transcript)
        return self._streams.file_start(stream) if transcript.clock == "file" else self._streams.stream_start(stream)

    def _stream_of(self, transcript: Transcript) -> Stream:
        media = [stream for stream in self._session.streams if stream.kind != "text"]
        if transcript.stream:
            named = [stream for stream in media if stream.id == transcript.stream]
            if not named:
                raise MediaError(
                    f"{transcript.path}: its clock is the text stream {transcript.stream!r}",
                    reason="bad_clock",
                    hint="name an audio or video stream, or use clock: session",
                )
            return named[0]
        audio = [stream for stream in media if stream.kind == "audio"] or media
        return next((stream for stream in audio if stream.participant == transcript.participant), audio[0])


def _read(file: BinaryIO, path: str, most: int) -> bytes:
    """The whole file. Raises MediaError `limit_transcript` where it is larger than the limit; no more than that is read."""
    data = file.read(most + 1)
    if len(data) > most:
        message = f"{path}: more than {most} bytes, the limit for a transcript"
        raise MediaError(message, reason="limit_transcript", hint="one transcript is of one session: split the file")
    return data


def _outside(start: int, num_samples: int) -> str:
    return "before_session" if start < 0 else "beyond_session" if start >= num_samples else ""
