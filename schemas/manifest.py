"""What the user gives us: one session a row. FORMAT.md section 1. Unknown keys are refused, near misses named."""

from collections import Counter
from decimal import Context, Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from .keys import PARTICIPANT_ID
from .layout import NUM_SLOTS
from .strict import Strict

ParticipantId = Annotated[str, Field(pattern=PARTICIPANT_ID)]
ParticipantIdOrNone = Annotated[str, Field(pattern=f"{PARTICIPANT_ID}|^$")]
MAX_STREAMS, MAX_PARTICIPANTS, MAX_TRANSCRIPTS, MAX_EVENTS, MAX_LABELS = 128, 64, 256, 100_000, 1_000  # of a row
MAX_DECIMALS = 40  # the shortest text of a float of a picosecond has 29; a power of ten without bound would never be computed


def _exact(value: Any) -> Any:
    """Decimals are read as written: a float goes through its shortest text, as JSON and Parquet writers meant it."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def _shortest(value: Decimal) -> Decimal:
    """1, 1.0 and 1.00 are one number: JSON, a column of floats and one of decimals give one digest."""
    whole = Decimal(int(value))
    return whole if whole == value else value.normalize(Context(prec=MAX_DECIMALS + 8))


def _from_pairs(value: Any) -> Any:
    """A Parquet map is read as a list of pairs. Raises ValueError for a key that stands twice."""
    if not isinstance(value, list | tuple) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        return value
    value = [pair for pair in value if pair[1] is not None]
    keys = [repr(key) for key, _ in value]
    if len(set(keys)) < len(keys):
        raise ValueError(f"key {Counter(keys).most_common(1)[0][0]} stands twice")
    return dict(value)


_MAP = (BeforeValidator(_from_pairs), Field(max_length=MAX_LABELS))
_EXACT = (BeforeValidator(_exact), Field(allow_inf_nan=False, decimal_places=MAX_DECIMALS), AfterValidator(_shortest))
Seconds = Annotated[Decimal, *_EXACT, Field(ge=-86_400 * 366, le=86_400 * 366)]
Gain = Annotated[Decimal, *_EXACT, Field(gt=0, le=1000)]


class Stream(Strict):
    """One track of a session.

    Attributes:
        id: unique in the session; `<participant>-<kind>` style names read well. `#` begins the ledger's own names.
        path: relative to the manifest, absolute, or a URI.
        index: which stream of that kind in the file, counted from 0; the first if left out.
        channel: audio only: which channel, from 0; left out, all channels are averaged.
        participant: who is heard, seen or quoted.
        start: seconds on the session's clock at which the *file* starts, so the same for all streams of a file; 0 if left out.
        gain: linear factor for audio; recorded, never changed silently.
    """

    id: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^#]")]
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
        participant: whose words they are, but for speakers that `speakers` names; "" when the file names participants itself.
        clock: where times count from: `stream`: the first presented sample of `stream`; `file`: the start of its file; `session`: the
            session's clock.
        stream: id of the stream that `clock` means; "" means the participant's first audio stream, else the session's first.
        speakers: speaker label in the file → participant.
        format: `auto` decides by name and content; see transforms/text/transcripts.py.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    participant: ParticipantIdOrNone = ""
    clock: Literal["stream", "file", "session"] = "stream"
    stream: str = ""
    speakers: Annotated[dict[str, ParticipantId], *_MAP] = {}
    format: Literal["auto", "moshi", "words", "srt", "vtt", "stm", "ctm"] = "auto"


class Event(Strict):
    """Something that is not sound or sight.

    Attributes:
        kind: `typed`: text typed to the model; `background`: text a background model returns; `delegate`, `cancel`: what the assistant did.
        at: seconds on the session's clock.
        participant: who typed, or who delegates and is answered. "" means every view for what is typed or returned, and the row's only
            assistant for what is delegated or cancelled.
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
    streams: Annotated[tuple[Stream, ...], Field(min_length=1, max_length=MAX_STREAMS)]
    participants: Annotated[tuple[Participant, ...], Field(max_length=MAX_PARTICIPANTS)] = ()
    transcripts: Annotated[tuple[Transcript, ...], Field(max_length=MAX_TRANSCRIPTS)] = ()
    events: Annotated[tuple[Event, ...], Field(max_length=MAX_EVENTS)] = ()
    group: str = ""
    split: Annotated[str, Field(pattern=r"^([a-z0-9_]{1,16})?$")] = ""
    language: str = ""
    source: str = ""
    license: str = ""
    consent: str = ""
    custom: Annotated[dict[str, str], *_MAP] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        """Parquet has every column in every row: a null is a key that is not there."""
        return _without_nulls(data)

    @model_validator(mode="after")
    def _names_agree(self) -> "Session":
        for kind, names in (("stream", Counter(s.id for s in self.streams)), ("participant", Counter(p.id for p in self.participants))):
            if twice := sorted(name for name, times in names.items() if times > 1):
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

    @model_validator(mode="after")
    def _a_file_starts_once(self) -> "Session":
        starts: dict[str, Stream] = {}
        for stream in self.streams:
            first = starts.setdefault(stream.path, stream)
            if first.start != stream.start:
                raise ValueError(
                    f"streams {first.id!r} and {stream.id!r} lie in one file, {stream.path!r}, which starts once: "
                    f"found start {first.start} and {stream.start}"
                )
        return self

    @model_validator(mode="after")
    def _who_acts_is_known(self) -> "Session":
        roles = {person.id: person.role for person in self.cast()}
        for number, event in enumerate(self.events):
            if event.kind in ("delegate", "cancel"):
                if not event.participant and not self.only_assistant():
                    found = list(roles.values()).count("assistant")
                    raise ValueError(f"events.{number}: who does {event.kind}? `participant` is needed, for the row has {found} assistants")
                if roles.get(event.participant) == "other":
                    raise ValueError(
                        f"events.{number}: {event.participant!r} does {event.kind}, and has the role `other`, which never acts"
                    )
        return self

    def only_assistant(self) -> str:
        """The id of the one participant with the role `assistant`; "" where there is none, or several."""
        found = [person.id for person in self.participants if person.role == "assistant"]
        return found[0] if len(found) == 1 else ""

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
