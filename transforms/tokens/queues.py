"""The queues of text that does not fit into its tick: own words and control, typed text, background results. FORMAT.md section 4.

Each queue is a state and two pure functions: `…_add` puts in what arrives in a tick, `…_step` takes out the ids of that tick, in order and
within the quota; what is left waits. No id is ever dropped. The corpus and a live session step the same queues. A state is never changed:
whoever holds the old one can return to it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...schemas.layout import NUM_SLOTS, LayoutSpec, Slot
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class IdQueue:
    """Ids in order of arrival; `ids[done:]` wait. A step moves `done`, so that nothing is copied until something arrives."""

    ids: tuple[int, ...] = ()
    done: int = 0


@dataclass(frozen=True, slots=True)
class SayQueue:
    """Own words and control pairs, one queue in order of time.

    Attributes:
        ids: what is to be said; `ids[done:]` wait.
        slots: SAY or CONTROL for each id; the two ids of a control pair stand together.
        due: the tick, counted from the session's start, in whose G the id should have stood; -1 is the G before the first tick.
        done: how many are out.
    """

    ids: tuple[int, ...] = ()
    slots: tuple[int, ...] = ()
    due: tuple[int, ...] = ()
    done: int = 0


BackgroundQueues = tuple[IdQueue, ...]  # one a slot; `<end>` stands in it as an id

NOTHING_TYPED = IdQueue()
NOTHING_RETURNED: BackgroundQueues = (NOTHING_TYPED,) * NUM_SLOTS  # the same object: it is compared in every tick
NOTHING_TO_SAY = SayQueue()


def say_add(
    queue: SayQueue,
    tick: int,
    words: Iterable[str],
    control: Iterable[tuple[Literal["delegate", "cancel"], int]],
    layout: LayoutSpec,
    tokenizer: Tokenizer,
) -> SayQueue:
    """The queue with what is due in G(tick): words first, then pairs of control. Raises ValueError for a control or slot that is none."""
    ids: list[int] = []
    for word in words:
        ids += tokenizer.encode(layout.word_prefix + word)
    slots = [int(Slot.SAY)] * len(ids)
    for kind, slot in control:
        ids += control_pair(kind, slot, layout)
        slots += [int(Slot.CONTROL)] * 2
    if not ids:
        return queue
    done = queue.done
    return SayQueue(queue.ids[done:] + tuple(ids), queue.slots[done:] + tuple(slots), queue.due[done:] + (tick,) * len(ids))


def say_step(queue: SayQueue, tick: int, layout: LayoutSpec) -> tuple[tuple[int, ...], tuple[int, ...], int, SayQueue]:
    """(ids, slots, lag in ticks, the queue that is left) of G(tick): at most `say_quota` ids.

    A word may be cut between two ticks, a control pair waits. The lag is that of the oldest id; 0 when nothing is said.
    """
    start = queue.done
    stop = min(start + layout.say_quota, len(queue.ids))
    if (
        queue.slots[start:stop].count(Slot.CONTROL) % 2
    ):  # a step never ends inside a pair, so an odd count means that the last one is cut here
        stop -= 1
    if start == stop:
        return (), (), 0, queue
    left = SayQueue(queue.ids, queue.slots, queue.due, stop) if stop < len(queue.ids) else NOTHING_TO_SAY
    return queue.ids[start:stop], queue.slots[start:stop], tick - queue.due[start], left


def control_pair(kind: Literal["delegate", "cancel"], slot: int, layout: LayoutSpec) -> tuple[int, int]:
    """The two ids of a control: `<delegate>` or `<cancel>`, and its `<slot i>`. Raises ValueError for another kind or slot."""
    if kind not in ("delegate", "cancel"):
        raise ValueError(f"control is delegate or cancel, got {kind!r}")
    return (layout.ids.delegate if kind == "delegate" else layout.ids.cancel), _slot_id(slot, layout)


def typed_add(queue: IdQueue, messages: Iterable[str], tokenizer: Tokenizer) -> IdQueue:
    """The queue with the messages typed in a tick; each ends with a newline."""
    for message in messages:
        queue = _joined(queue, tokenizer.encode(message + "\n"))
    return queue


def typed_step(queue: IdQueue, layout: LayoutSpec) -> tuple[list[int], IdQueue]:
    """(ids, the queue that is left) of a tick: `<typed>` and at most `typed_quota` ids, or nothing."""
    if queue.done == len(queue.ids):
        return [], queue
    stop = queue.done + layout.typed_quota
    return [layout.ids.typed, *queue.ids[queue.done : stop]], _moved(queue, stop)


def background_add(
    queues: BackgroundQueues, results: Iterable[tuple[int, str, bool]], layout: LayoutSpec, tokenizer: Tokenizer
) -> BackgroundQueues:
    """The queues with what was returned in a tick: (slot, text, complete) in order. Raises ValueError for a slot that is none."""
    queues_by_slot = list(queues)
    for slot, text, complete in results:
        _slot_id(slot, layout)
        queues_by_slot[slot] = _joined(queues_by_slot[slot], tokenizer.encode(text) + [layout.ids.end] * bool(complete))
    return tuple(queues_by_slot)


def background_step(queues: BackgroundQueues, layout: LayoutSpec) -> tuple[list[int], BackgroundQueues]:
    """(ids, the queues that are left) of a tick: for each slot `<background>` `<slot i>`, ids up to the quota, `<end>` when complete.

    `<end>` needs no quota; what arrived after it belongs to the next result and to a later tick.
    """
    end, quota = layout.ids.end, layout.background_quota
    out: list[int] = []
    left = list(queues)
    for slot, queue in enumerate(queues):
        if queue.done == len(queue.ids):
            continue
        chunk = queue.ids[queue.done : queue.done + quota + 1]  # one more: an `<end>` right behind the quota goes out with it
        chunk = chunk[: chunk.index(end) + 1] if end in chunk else chunk[:quota]
        out += [layout.ids.background, _slot_id(slot, layout), *chunk]
        left[slot] = _moved(queue, queue.done + len(chunk))
    return out, tuple(left)


def _slot_id(slot: int, layout: LayoutSpec) -> int:
    if not 0 <= slot < NUM_SLOTS:
        raise ValueError(f"a background slot is 0 … {NUM_SLOTS - 1}, got {slot}")
    return layout.ids.slots[slot]


def _joined(queue: IdQueue, ids: list[int]) -> IdQueue:
    return IdQueue(queue.ids[queue.done :] + tuple(ids)) if ids else queue


def _moved(queue: IdQueue, done: int) -> IdQueue:
    return IdQueue(queue.ids, done) if done < len(queue.ids) else NOTHING_TYPED
