"""How a tick becomes tokens: ids, quotas and weights. FORMAT.md section 4. Parts do not depend on it: another tokenizer decodes nothing."""

from enum import IntEnum
from typing import Literal

from pydantic import Field

from .spec import OwnMelSpec
from .strict import Strict

NUM_SLOTS = 5  # background requests that can be under way at once


class Slot(IntEnum):
    """What a position of the token sequence is: the value of `token_slot.npy`. It alone decides a position's embedding table and target.

    An id does not: with the byte tokenizer a typed `a` and a spoken `a` are both 97.
    """

    PICTURE = 0  # <picture>
    PATCH = 1  # the next patch of the tick's pair, row by row
    HEARD = 2  # the next of the tick's four heard frames
    TYPED = 3  # <typed> and the ids typed
    BACKGROUND = 4  # <background>, <slot i>, the ids returned, <end>
    PERFORM = 5  # <perform>: first position of G
    SAY = 6  # x1 … xm: text of own words
    CONTROL = 7  # <delegate> or <cancel> and its <slot i>
    VOICE = 8  # d: <speak> or <silent>
    OWN = 9  # the next of the four frames of own speech


class ControlIds(Strict):
    """Token ids of everything that is not text."""

    bos: int
    picture: int
    perform: int
    speak: int
    silent: int
    own: int
    typed: int
    background: int
    delegate: int
    cancel: int
    end: int
    slots: tuple[int, int, int, int, int]
    heard: int
    patch: int


BYTES_IDS = ControlIds(
    bos=256, picture=257, perform=258, speak=259, silent=260, own=261, typed=262, background=263, delegate=264, cancel=265, end=266,
    slots=(267, 268, 269, 270, 271), heard=272, patch=273,
)  # fmt: skip

# unused ids of the open model's vocabulary; HEARD and PATCH are its own placeholders (facts: transformers.models.inkling)
INKLING_IDS = ControlIds(
    bos=200028, picture=200005, perform=200029, speak=200030, silent=200031, own=200032, typed=200033, background=200034, delegate=200035,
    cancel=200036, end=200037, slots=(200038, 200039, 200040, 200041, 200042), heard=200053, patch=200054,
)  # fmt: skip


class LayoutSpec(Strict):
    """Everything that tokens depend on besides the features. The digest of it is in dataset.json.

    Attributes:
        tokenizer: `bytes` (UTF-8, embedded), `inkling` (o200k) or `file` (a tokenizer.json).
        tokenizer_sha256: of the tokenizer.json; "" for the other two, whose bytes their name fixes.
        word_prefix: goes before every word that is said; "" for scripts without spaces.
        say_quota: ids of own text and control in one tick; typed_quota and background_quota likewise, the latter per slot.
        text_lead_ticks: text is said so many ticks before its word starts to sound (0: in the tick that performs it).
        speak_hangover_ticks: `<speak>` lasts so many ticks after own activity.
        max_tail_ticks: ticks without audio that may be added at a session's end until its backlog is empty.
        quiet_weight, quiet_ticks: w(k) when nobody was active and nothing was typed or returned in ticks k - quiet_ticks + 1 … k.
    """

    version: Literal[1] = 1
    tokenizer: Literal["bytes", "inkling", "file"] = "bytes"
    tokenizer_sha256: str = ""
    ids: ControlIds = BYTES_IDS
    word_prefix: str = " "
    say_quota: int = Field(8, ge=2)  # a control pair is never split
    typed_quota: int = Field(8, ge=1)
    background_quota: int = Field(16, ge=1)
    text_lead_ticks: int = Field(0, ge=0)
    speak_hangover_ticks: int = Field(1, ge=0, le=1)  # a window knows one tick before it
    max_tail_ticks: int = Field(300, ge=0)
    quiet_weight: float = Field(0.2, ge=0, le=1)
    quiet_ticks: int = Field(10, ge=1)
    own_mel: OwnMelSpec = OwnMelSpec()

    @classmethod
    def named(cls, name: str) -> "LayoutSpec":
        """The layout of an embedded tokenizer: `bytes` or `inkling`."""
        match name:
            case "bytes":
                return cls()
            case "inkling":
                return cls(tokenizer="inkling", ids=INKLING_IDS, say_quota=4)
            case _:
                raise ValueError(f"no embedded tokenizer {name!r}: bytes or inkling")
