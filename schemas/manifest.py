"""What the user gives us: one session a row. FORMAT.md section 1. Unknown keys are refused, near misses named."""

from decimal import Context, Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .keys import PARTICIPANT_ID
from .layout import NUM_SLOTS
from .strict import Strict

ParticipantId = Annotated[str, Field(pattern=PARTICIPANT_ID)]
ParticipantIdOrNone = Annotated[str, Field(pattern=f"{PARTICIPANT_ID}|^$")]
MAX_DECIMALS = 40  # the shortest text of a float of a picosecond has 29; a power of ten without bound would never be computed


def _exact(value: Any) -> Any:
    """Decimals are read as written: a float goes through its shortest text, as JSON and Parquet writers meant it."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _shortest(value: Decimal) -> Decimal:
    """1, 1.0 and 1.00 are one number: JSON, a column of floats and one of decimals give one digest."""
    whole = Decimal(int(value))
    return whole if whole == value else value.normalize(Context(prec=MAX_DECIMALS + 8))


_EXACT = (BeforeValidator(_exact), Field(allow_inf_nan=False, decimal_places=MAX_DECIMALS), AfterValidator(_shortest))
Seconds = Annotated[Decimal, *_EXACT, Field(ge=-86_400 * 366, le=86_400 * 366)]
Gain = Annotated[Decimal, *_EXACT, Field(gt=0, le=1000)]


class Stream(Strict):
    """One track of a session.

    Attributes:
        id: unique in the session; `<participant>-<kind>` style names read well.
        path: relative to the manifest, absolute, or a URI.
        index: which stream of that kind in the file, counted from 0; the first if left out.
        channel: audio only: which channel, from 0; left out, all channels are averaged.
        participant: who is heard, seen or quoted.
        start: seconds on the session's clock at which the *file* starts; 0 if left out.
        gain: linear factor for audio; recorded, never changed silently.
    """

    id: Annotated[str, Field(min_length=1, max_length=64)]
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    kind: Literal["audio", "video", "text"]
    index: Annotated[int, Field(ge=0, le=1000)] = 0
    channel: Annotated[int, Field(ge=0, le=1000)] | None = None
    participant: ParticipantId
    start: Seconds = Decimal(0)
    gain: Gain = Decimal(1)


class Participant(Strict):
    """Someone in the session. A view is named by the participant who acts as the assistant; `other` is perceived and never acts."""

    id: ParticipantId
    speaker: str = ""
    role: Literal["user", "assistant", "other"] = "user"


class Transcript(Strict):
    """A file of timed words.

    Attributes:
        participant: whose words they are; "" when the file names speakers itself.
        clock: where times count from: `stream`: the first presented sample of `stream`; `file`: the start of its file; `session`: the
            session's clock.
        stream: id of the stream that `clock` means; "" means the participant's first audio stream, else the session's first.
        speakers: speaker label in the file → participant.
        format: `auto` decides by name and content; see transforms/transcripts.py.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    participant: ParticipantIdOrNone = ""
    clock: Literal["stream", "file", "session"] = "stream"
    stream: str = ""
    speakers: dict[str, ParticipantId] = {}
    format: Literal["auto", "moshi", "words", "srt", "vtt", "stm", "ctm"] = "auto"


class Event(Strict):
    """Something that is not sound or sight.

    Attributes:
        kind: `typed`: text typed to the model; `background`: text a background model returns; `delegate`, `cancel`: what the assistant did.
        at: seconds on the session's clock.
        participant: who typed, or who delegates and is answered; "" means every view.
        slot: which background request.
        complete: a background result ends with this event.
    """

    kind: Literal["typed", "background", "delegate", "cancel"]
    at: Seconds
    participant: ParticipantIdOrNone = ""
    slot: Annotated[int, Field(ge=0, lt=NUM_SLOTS)] = 0
    text: Annotated[str, Field(max_length=10_000)] = ""
    complete: bool = False


class Session(Strict):
    """One conversation: a row of the manifest."""

    id: Annotated[str, Field(min_length=1, max_length=1024)]
    streams: Annotated[tuple[Stream, ...], Field(min_length=1)]
    participants: tuple[Participant, ...] = ()
    transcripts: tuple[Transcript, ...] = ()
    events: tuple[Event, ...] = ()
    group: str = ""
    split: Annotated[str, Field(pattern=r"^([a-z0-9_]{1,16})?$")] = ""
    language: str = ""
    source: str = ""
    license: str = ""
    consent: str = ""
    custom: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """Parquet has every column in every row: a null is a key that is not there."""
        return _without_nulls(data)

    @model_validator(mode="after")
    def _names_agree(self) -> "Session":
        for kind, names in (("stream", [s.id for s in self.streams]), ("participant", [p.id for p in self.participants])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{kind} id {twice[0]!r} stands twice in one session")
        if self.participants:
            known = {p.id for p in self.participants}
            named = [s.participant for s in self.streams] + [t.participant for t in self.transcripts] + [e.participant for e in self.events]
            named += [p for t in self.transcripts for p in t.speakers.values()]
            strangers = sorted({name for name in named if name and name not in known})
            if strangers:
                raise ValueError(f"participant {strangers[0]!r} is not in `participants` ({', '.join(sorted(known))})")
        ids = {s.id for s in self.streams}
        for transcript in self.transcripts:
            if transcript.stream and transcript.stream not in ids:
                raise ValueError(f"transcript {transcript.path!r} names stream {transcript.stream!r}, which is not in `streams`")
        return self

    def cast(self) -> tuple[Participant, ...]:
        """The participants, sorted by id; where the row names none, one `user` for each name that its streams give."""
        given = self.participants or tuple(Participant(id=name) for name in {s.participant for s in self.streams})
        return tuple(sorted(given, key=lambda p: p.id))


def _without_nulls(data: Any, levels: int = 4) -> Any:
    """A row goes four levels deep (row, transcripts, transcript, speakers); what a hostile one nests below is refused as it is."""
    if levels and isinstance(data, dict):
        return {key: _without_nulls(value, levels - 1) for key, value in data.items() if value is not None}
    if levels and isinstance(data, (list, tuple)):
        return [_without_nulls(value, levels - 1) for value in data]
    return data
