"""A window of a view as tokens: what was perceived in each tick and what was performed after it. FORMAT.md section 4, to the letter.

In: counts of patches, own voice activity, the texts of each tick, and the queues that the window before left behind. Out: three arrays and
the queues for the window after. Cut a session into windows anywhere: the tokens are the same. No audio, picture or clock is needed: gather
and loader both call it. BOS and the prologue belong to a document and are the loader's. Costs under 0.1 s an hour (18,000 ticks, 9,000
words).

Letters: T ticks of the window, R rows (T, and one more before them where the session starts), C columns of a row, N tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np

from ...schemas.clock import TICK_FRAMES
from ...schemas.errors import CorpusError
from ...schemas.layout import NUM_SLOTS, LayoutSpec, Slot
from .queues import (
    NOTHING_RETURNED,
    NOTHING_TYPED,
    BackgroundQueues,
    IdQueue,
    SayQueue,
    background_add,
    background_step,
    say_add,
    say_step,
    typed_add,
    typed_step,
)
from .tokenizer import Tokenizer

MAX_TICKS = 65_536  # `token_tick` is uint16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ViewWindow:
    """All that the tokens of a window depend on. Ticks count from the window's start.

    Attributes:
        starts_session: G(-1) comes first.
        first_tick: tick of the session at which the window starts.
        patches_T: patch tokens in the tick; 0: no picture.
        own_active_T2: own voice activity in ticks -1 … T: the tick before, and the one that the last tick performs.
        say: own words by the tick in which they start, 0 … T + text_lead_ticks. Ticks 0 … lead matter only where the session starts:
            otherwise their words were said in the window before.
        typed: texts typed to the model.
        background: (slot, text, complete) of what background requests returned, in order.
        control: what the participant did in ticks 0 … T, in order; tick 0 matters only where the session starts.
    """

    starts_session: bool
    first_tick: int
    patches_T: np.ndarray
    own_active_T2: np.ndarray
    say: tuple[tuple[str, ...], ...]
    typed: tuple[tuple[str, ...], ...]
    background: tuple[tuple[tuple[int, str, bool], ...], ...]
    control: tuple[tuple[tuple[Literal["delegate", "cancel"], int], ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Carry:
    """What still waits at a window's edge: `meta` holds its JSON as `carry_in` and `carry_out`.

    Attributes:
        say_ids, say_slots, say_due: own words and control: ids, Slot of each, tick of the session in whose G it should have stood.
        typed_ids: what was typed.
        background_ids, background_slots: what background requests returned, `<end>` among it, and the slot of each id; sorted by slot.
    """

    say_ids: tuple[int, ...] = ()
    say_slots: tuple[int, ...] = ()
    say_due: tuple[int, ...] = ()
    typed_ids: tuple[int, ...] = ()
    background_ids: tuple[int, ...] = ()
    background_slots: tuple[int, ...] = ()

    @classmethod
    def empty(cls) -> "Carry":
        """Nothing waits: the start of a session."""
        return cls()

    @classmethod
    def of(cls, say: SayQueue, typed: IdQueue, background: BackgroundQueues) -> "Carry":
        """What waits in the three queues."""
        waiting = [(slot, id_) for slot, queue in enumerate(background) for id_ in queue.ids[queue.done :]]
        return cls(
            say_ids=say.ids[say.done :],
            say_slots=say.slots[say.done :],
            say_due=say.due[say.done :],
            typed_ids=typed.ids[typed.done :],
            background_ids=tuple(id_ for _, id_ in waiting),
            background_slots=tuple(slot for slot, _ in waiting),
        )

    def queues(self) -> tuple[SayQueue, IdQueue, BackgroundQueues]:
        """The three queues, as `of` took them."""
        slots: list[list[int]] = [[] for _ in range(NUM_SLOTS)]
        for slot, id_ in zip(self.background_slots, self.background_ids, strict=True):
            slots[slot].append(id_)
        say = SayQueue(self.say_ids, self.say_slots, self.say_due)
        return say, IdQueue(self.typed_ids), tuple(IdQueue(tuple(ids)) if ids else NOTHING_TYPED for ids in slots)

    def to_json(self) -> dict[str, list[int]]:
        """The six fields as lists of ints: the same keys and types in every window."""
        return {name: list(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str = "carry") -> "Carry":
        """The carry that `to_json` described. Raises CorpusError naming `where`."""
        if set(value) != set(cls.__slots__) or not all(
            isinstance(ids, list) and all(type(i) is int for i in ids) for ids in value.values()
        ):
            raise CorpusError(f"{where}: not a carry: expected lists of ints under {', '.join(cls.__slots__)}")
        carry = cls(**{name: tuple(ids) for name, ids in value.items()})
        together = len(carry.say_ids) == len(carry.say_slots) == len(carry.say_due)
        together &= len(carry.background_ids) == len(carry.background_slots) and set(carry.background_slots) <= set(range(NUM_SLOTS))
        if not together:
            raise CorpusError(f"{where}: not a carry: ids, slots and ticks do not belong together")
        return carry


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interleaved:
    """The tokens of a window.

    Attributes:
        tokens: int32 [N], ids.
        token_tick: uint16 [N], the window's tick k of P(k) and G(k); 0 for G(-1).
        token_slot: uint8 [N], schemas.layout.Slot: what the position is.
        carry: what still waits after the window.
        max_lag_ticks: the most ticks by which an id of own text or control came later than it was due; 0 when none did.
    """

    tokens: np.ndarray
    token_tick: np.ndarray
    token_slot: np.ndarray
    carry: Carry
    max_lag_ticks: int


def interleave(window: ViewWindow, layout: LayoutSpec, tokenizer: Tokenizer, carry: Carry) -> Interleaved:
    """The tokens of a window: G(-1) where the session starts, then P(0) G(0) … P(T-1) G(T-1). Raises ValueError where lengths disagree."""
    num_ticks = _checked_ticks(window, layout)
    lead, before = layout.text_lead_ticks, int(window.starts_session)  # `before`: the row of G(-1)
    num_rows = before + num_ticks
    say, typed, background = carry.queues()

    said: list[int] = []  # what every row brings of each kind, one after the other
    said_slots: list[int] = []
    typed_ids: list[int] = []
    returned: list[int] = []
    said_R, typed_R, returned_R = ([0] * num_rows for _ in range(3))
    max_lag_ticks = 0
    for row in range(num_rows):
        k = row - before
        if k < 0:  # G(-1) also says what should have been said before the session
            words = tuple(chain.from_iterable(window.say[: lead + 1]))
        else:
            words = window.say[k + 1 + lead]
            if window.typed[k] or typed.ids:
                ids, typed = typed_step(typed_add(typed, window.typed[k], tokenizer), layout)
                typed_ids += ids
                typed_R[row] = len(ids)
            if window.background[k] or background != NOTHING_RETURNED:
                ids, background = background_step(background_add(background, window.background[k], layout, tokenizer), layout)
                returned += ids
                returned_R[row] = len(ids)
        if words or window.control[k + 1]:
            say = say_add(say, window.first_tick + k, words, window.control[k + 1], layout, tokenizer)
        if say.ids:
            said_now, slots_now, lag_ticks, say = say_step(say, window.first_tick + k, layout)
            said += said_now
            said_slots += slots_now
            said_R[row] = len(said_now)
            max_lag_ticks = max(max_lag_ticks, lag_ticks)

    active_T2 = np.asarray(window.own_active_T2, bool)
    speak_T1 = active_T2[1:] | active_T2[:-1] if layout.speak_hangover_ticks else active_T2[1:]  # in ticks 0 … T
    speak_R = speak_T1[1 - before :]
    patches_R = np.zeros(num_rows, np.int64)
    patches_R[before:] = window.patches_T
    heard_R = np.full(num_rows, TICK_FRAMES)
    heard_R[:before] = 0

    columns = (  # in the order of a tick: what a position is, its id, how many of them a row has
        (Slot.PICTURE, layout.ids.picture, patches_R > 0),
        (Slot.PATCH, layout.ids.patch, patches_R),
        (Slot.HEARD, layout.ids.heard, heard_R),
        (Slot.TYPED, 0, typed_R),
        (Slot.BACKGROUND, 0, returned_R),
        (Slot.PERFORM, layout.ids.perform, np.ones(num_rows)),
        (Slot.SAY, 0, said_R),
        (Slot.VOICE, 0, np.ones(num_rows)),
        (Slot.OWN, layout.ids.own, speak_R * TICK_FRAMES),
    )
    counts_RC = np.column_stack([counts for _, _, counts in columns]).astype(np.int64)
    token_slot = np.repeat(np.tile(np.array([slot for slot, _, _ in columns], np.uint8), num_rows), counts_RC.ravel())
    tokens = np.repeat(np.tile(np.array([id_ for _, id_, _ in columns], np.int32), num_rows), counts_RC.ravel())
    tick_R = np.maximum(np.arange(num_rows) - before, 0).astype(np.uint16)

    tokens[token_slot == Slot.TYPED] = typed_ids
    tokens[token_slot == Slot.BACKGROUND] = returned
    tokens[token_slot == Slot.VOICE] = np.where(speak_R, layout.ids.speak, layout.ids.silent)
    said_N = token_slot == Slot.SAY  # control is said too
    tokens[said_N] = said
    token_slot[said_N] = said_slots
    return Interleaved(
        tokens=tokens,
        token_tick=np.repeat(tick_R, counts_RC.sum(axis=1)),
        token_slot=token_slot,
        carry=Carry.of(say, typed, background),
        max_lag_ticks=max_lag_ticks,
    )


def tail_ticks(carry: Carry, layout: LayoutSpec) -> int:
    """How many ticks without audio empty all queues. A session's end adds them; the caller stops at the layout's `max_tail_ticks`."""
    say, typed, background = carry.queues()
    ticks = 0
    while say.ids or typed.ids or background != NOTHING_RETURNED:
        *_, say = say_step(say, 0, layout)
        _, typed = typed_step(typed, layout)
        _, background = background_step(background, layout)
        ticks += 1
    return ticks


def _checked_ticks(window: ViewWindow, layout: LayoutSpec) -> int:
    num_ticks = len(window.patches_T)
    if not 1 <= num_ticks <= MAX_TICKS:
        raise ValueError(f"a window has 1 … {MAX_TICKS} ticks, got {num_ticks}")
    if layout.speak_hangover_ticks > 1:  # own_active_T2 knows one tick before the window
        raise ValueError(f"speak_hangover_ticks is 0 or 1, got {layout.speak_hangover_ticks}")
    if layout.say_quota < 2:
        raise ValueError(f"say_quota is at least 2, for a control pair is never cut; got {layout.say_quota}")
    lengths = {
        "own_active_T2": num_ticks + 2,
        "say": num_ticks + 1 + layout.text_lead_ticks,
        "typed": num_ticks,
        "background": num_ticks,
        "control": num_ticks + 1,
    }
    for name, want in lengths.items():
        if (found := len(getattr(window, name))) != want:
            raise ValueError(f"{name} has {found} ticks, expected {want} for a window of {num_ticks}")
    return num_ticks
