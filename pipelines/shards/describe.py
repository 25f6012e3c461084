"""What the index says of a window besides where it lies: counts and rights, from its light members alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DESCRIBED = ("activity", "heard_valid", "own_valid", "picture_tick", "words", "events", "meta")


def describe(
    *,
    activity: np.ndarray,
    heard_valid: np.ndarray,
    own_valid: np.ndarray,
    picture_tick: np.ndarray,
    words: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    meta: Mapping[str, Any],
    num_tokens: int,
) -> dict[str, Any]:
    """Columns of the index (schemas/tables.py INDEX_SCHEMA), from the members of the same names."""
    own_active = activity[-1].astype(bool)
    heard_active = activity[:-1].any(axis=0)
    return {
        "session": meta["session"],
        "session_id": meta["session_id"],
        "view": meta["view"],
        "source_digest": meta["digests"]["source"],
        "first_tick": meta["first_tick"],
        "num_ticks": meta["num_ticks"],
        "session_ticks": meta["session_ticks"],
        "num_tokens": num_tokens,
        "num_pairs": len(picture_tick),
        "num_patches": len(picture_tick) * meta["pictures"]["rows"] * meta["pictures"]["cols"],
        "heard_valid_samples": int(heard_valid.sum(dtype=np.int64)),
        "own_valid_samples": int(own_valid[:-1].sum(dtype=np.int64)),
        "own_active_ticks": int(own_active.sum()),
        "heard_active_ticks": int(heard_active.sum()),
        "overlap_ticks": int((heard_active & own_active).sum()),
        "num_words": len(words),
        "num_own_words": sum(word["participant"] == meta["view"] for word in words),
        "max_lag_ticks": meta["max_lag_ticks"],
        "events": sorted(Counter(event["kind"] for event in events).items()),
        "language": meta["language"],
        "source": meta["source"],
        "license": meta["license"],
        "consent": meta["consent"],
        "speaker": meta["speaker"],
    }
