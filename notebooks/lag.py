"""By how many ticks the text of own words came after its word: the queue of FORMAT.md section 4, read from the tokens it left behind.

Ids are said in the order in which they are due, and none is lost, so the i-th id of own text in a window is the i-th that was due. Needs
the tokenizer, for how many ids a word has, and light members only. Costs milliseconds a window.

Letters: N tokens.
"""

import numpy as np
from numpy.typing import NDArray

from ..schemas.layout import LayoutSpec, Slot
from ..transforms.tokens.interleave import Carry, ViewWindow
from ..transforms.tokens.tokenizer import Tokenizer

SAID = (Slot.SAY, Slot.CONTROL)  # own text and control share one queue


def rows_of(token_slot: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The row int64 [N] of each position: a row ends with its VOICE and the OWN behind it. `token_tick` cannot tell G(-1) from G(0)."""
    is_voice = token_slot == Slot.VOICE
    return np.cumsum(is_voice) - is_voice - (token_slot == Slot.OWN)


def said_due(window: ViewWindow, carry: Carry, layout: LayoutSpec, tokenizer: Tokenizer) -> list[int]:
    """For each id of own text or control, in the order of the sequence, the tick of the session in whose G it should have stood."""
    lead = layout.text_lead_ticks
    due = list(carry.say_due)
    for k in range(-int(window.starts_session), len(window.typed)):
        texts = window.say[k + 1 + lead] if k >= 0 else [text for tick in window.say[: lead + 1] for text in tick]
        count = sum(len(tokenizer.encode(layout.word_prefix + text)) for text in texts) + 2 * len(window.control[k + 1])
        due += [window.first_tick + k] * count
    return due


def said_lags(
    token_slot: NDArray[np.uint8], window: ViewWindow, carry: Carry, layout: LayoutSpec, tokenizer: Tokenizer
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, lag in ticks) of each position of own text or control, int64 [positions]."""
    row = rows_of(token_slot)[np.isin(token_slot, SAID)]
    due = said_due(window, carry, layout, tokenizer)[: len(row)]
    return row, row - int(window.starts_session) + window.first_tick - np.array(due, np.int64)
