"""meta.json of a window, whole: the same keys and types in every window, no nulls, no path. FORMAT.md section 3.

Featurising knows a `WindowMeta`; its layout as tokens makes it a `Meta`. Times are session samples, ticks count from the session's start.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from .errors import CorpusError
from .strict import Strict


class CustomMeta(Strict):
    """One pair of the row's `custom`: a mapping would have other keys in every corpus."""

    key: str
    value: str


class ParticipantMeta(Strict):
    """One of the row's participants."""

    id: str
    speaker: str
    role: Literal["user", "assistant", "other"]


class StreamMeta(Strict):
    """Where a stream of the row lies, how it drifts, what was made of it.

    Attributes:
        used: some view hears or sees it. What follows from decoding is 0 where it is not.
        codec: libav's name; "" for text.
        start_samples: session sample of its first sample or picture, by its container and the row.
        offset_samples: of the same, minus that of its file's zero, as it was decoded.
        drift_samples, jitter_samples: where its last timestamp lies against the count of samples, and the largest distance of any.
        num_spans, rate_hz, channels: of audio.
        channel: the one that was taken; -1 for the mean of all.
        gain: the row's, as a decimal.
        peak: largest absolute value after downmix, gain and resampling; full scale is 1.
    """

    id: str
    participant: str
    kind: Literal["audio", "video", "text"]
    used: bool
    codec: str
    start_samples: int
    offset_samples: int
    drift_samples: int
    jitter_samples: int
    num_spans: int
    rate_hz: int
    channels: int
    channel: int
    gain: str
    peak: float


class LevelMeta(Strict):
    """Level of a participant's audio: dB re full scale, to a tenth, over so many real samples."""

    participant: str
    db: float
    samples: int


class PicturesMeta(Strict):
    """What the view sees: the stream and whose it is ("" for nothing), patches of a picture, its size in pixels before it is cut."""

    stream: str
    participant: str
    rows: int = Field(ge=0, lt=2**31)
    cols: int = Field(ge=0, lt=2**31)
    height_px: int
    width_px: int
    tiling: str
    codec: Literal["npy", "png"]


class DigestsMeta(Strict):
    """What the window was made from: the session's row and files, and the feature spec."""

    source: str
    spec: str


class WindowMeta(Strict):
    """What featurising knows of a window.

    Attributes:
        session, session_id: key, and the manifest's id.
        session_ticks, session_samples: of the recording, without a tail.
        window_ticks: of a full window.
        view, role, speaker: who acts.
        heard: for each heard stream, the participants summed in it.
        tail_ticks: so many of its last ticks lie after the recording's end.
    """

    session: str
    session_id: str
    session_ticks: int
    session_samples: int
    window_ticks: int
    group: str
    language: str
    source: str
    license: str
    consent: str
    custom: tuple[CustomMeta, ...]
    participants: tuple[ParticipantMeta, ...]
    streams: tuple[StreamMeta, ...]
    levels: tuple[LevelMeta, ...]
    digests: DigestsMeta
    view: str
    role: Literal["user", "assistant", "other"]
    speaker: str
    heard: tuple[tuple[str, ...], ...]
    pictures: PicturesMeta
    first_tick: int = Field(ge=0)
    num_ticks: int = Field(ge=0, lt=2**31)
    tail_ticks: int = Field(ge=0)

    def to_json(self) -> dict[str, Any]:
        """The plain JSON value that meta.json holds."""
        return self.model_dump(mode="json")


class BeforeMeta(Strict):
    """The tick before the window: whether the participant was active in it (0 or 1); 0 before the session."""

    own_active: int


class AfterMeta(Strict):
    """The ticks after the window that its last G looks at.

    Attributes:
        own_active: own activity in the next tick, 0 or 1.
        say: own words of the next 1 + `text_lead_ticks` ticks.
        control: (`delegate` or `cancel`, slot) in the next tick.
    """

    own_active: int
    say: tuple[tuple[str, ...], ...]
    control: tuple[tuple[Literal["delegate", "cancel"], int], ...]


class CarryMeta(Strict):
    """The text that waits at a window's edge; see transforms/tokens/interleave.py Carry."""

    say_ids: tuple[int, ...]
    say_slots: tuple[int, ...]
    say_due: tuple[int, ...]
    typed_ids: tuple[int, ...]
    background_ids: tuple[int, ...]
    background_slots: tuple[int, ...]


class Meta(WindowMeta):
    """meta.json of a record: what featurising knew, and what the layout adds.

    Attributes:
        layout: the LayoutSpec's digest.
        before, after, carry_in, carry_out: what the window must know of its neighbours for its tokens to follow from its own members.
        max_lag_ticks: the most ticks by which an id of own text or control came later than it was due.
    """

    layout: str
    before: BeforeMeta
    after: AfterMeta
    carry_in: CarryMeta
    carry_out: CarryMeta
    max_lag_ticks: int = Field(ge=0)

    @classmethod
    def laid(
        cls, known: Mapping[str, Any], *, layout: str, carry_in: Mapping[str, Any], carry_out: Mapping[str, Any], max_lag_ticks: int
    ) -> "Meta":
        """The whole of it, from a WindowMeta's JSON with `before` and `after`, and from what its layout gave."""
        made = {"layout": layout, "carry_in": carry_in, "carry_out": carry_out, "max_lag_ticks": max_lag_ticks}
        return cls.model_validate({**known, **made})


def check_meta(data: bytes, *, where: str) -> None:
    """Nothing, if these bytes of meta.json have the keys and types that every window has. Raises CorpusError naming `where` and the key."""
    try:
        Meta.model_validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise CorpusError(f"{where}: {place}: {first['msg']}") from None
