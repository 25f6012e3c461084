"""Small corpora to train on, and their documents spelled out slowly: `from talks import build_talks, slow_rows`."""

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from corpora import Raw, build, mono_stream, spoken, stereo_stream
from media_makers import clap_film, steady_times
from microturn.schemas.layout import LayoutSpec, Slot
from microturn.schemas.record import Record
from microturn.schemas.spec import FeatureSpec, PictureSpec
from microturn.trainer.data import OPENING, Batch
from microturn.transforms import own
from signals import speech

SPEC = FeatureSpec(window_ticks=10, pictures=PictureSpec(max_width_px=80, max_height_px=80))
LAYOUT = LayoutSpec()


def raw_talks(folder: Path) -> Raw:
    """A long talk with everything that can be typed, asked and returned; a short one; a meeting that an assistant without voice follows;
    a film that somebody talks about; a long pause in which something is typed; text that outlasts its speech."""
    raw = Raw(folder)
    events = [
        {"kind": "typed", "at": 2.5, "participant": "right", "text": "a note of more than eight bytes"},
        {"kind": "delegate", "at": 6.1, "participant": "left"},
        {"kind": "background", "at": 9.9, "participant": "left", "text": "an answer that takes more than one tick to arrive"},
        {"kind": "background", "at": 10.5, "participant": "left", "text": "and its end", "complete": True},
        {"kind": "cancel", "at": 17.3, "participant": "left"},
    ]
    raw.dyad("long", seconds=26.3, seed=1, events=events)
    raw.dyad("short", seconds=5.1, seed=2)
    for seed, who in enumerate("ab"):
        raw.sound(f"meeting/{who}.wav", speech(64_000, 10 + seed))
    raw.add(
        id="meeting",
        streams=[mono_stream("a", "meeting/a.wav"), mono_stream("b", "meeting/b.wav", start=1.5)],
        participants=[{"id": "a"}, {"id": "b"}, {"id": "silent", "role": "assistant"}],
    )
    raw.bytes("film.mp4", clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(25), 150), light=40))
    raw.sound("teller.wav", speech(96_000, 20))
    raw.add(
        id="film",
        streams=[
            {"id": "sight", "kind": "video", "path": "film.mp4", "participant": "scene"},
            {"id": "sound", "kind": "audio", "path": "film.mp4", "participant": "scene"},
            mono_stream("teller", "teller.wav"),
        ],
        participants=[{"id": "teller", "role": "assistant"}, {"id": "scene", "role": "other"}],
        transcripts=[{"path": raw.words("teller.json", spoken(6.0)), "participant": "teller"}],
    )
    quiet = np.stack([speech(40_000, 31), speech(40_000, 32)])
    pause = np.zeros((2, 90_000), np.float32)
    raw.sound("pause.wav", np.concatenate([quiet, pause, quiet], axis=1))
    raw.add(
        id="pause",
        streams=[stereo_stream("left", "pause.wav", 0), stereo_stream("right", "pause.wav", 1)],
        participants=[{"id": "left", "role": "assistant"}, {"id": "right"}],
        events=[
            {"kind": "typed", "at": 5.1, "participant": "right", "text": "hush"},
            {"kind": "background", "at": 5.1, "participant": "right", "text": "done", "complete": True},
        ],
    )
    long_words = [("antidisestablishmentarianism", 2.0, 2.5), ("floccinaucinihilipilification", 2.5, 3.0)]
    raw.dyad("talkative", seconds=3.2, seed=3, transcripts=[{"path": raw.words("long.json", long_words), "participant": "left"}])
    return raw


def build_talks(rows: Sequence[Mapping[str, Any]], root: Path, out: Path, *, spec: FeatureSpec = SPEC, shard_bytes: int = 400_000) -> Path:
    """A corpus of these manifest rows."""
    verdict = build(rows, root, out, spec=spec, shard_bytes=shard_bytes)
    assert not verdict.blocks and not verdict.rejected
    return out


def fingerprint(batch: Batch) -> str:
    """A digest of all that a model would get."""
    running = hashlib.sha256()
    for name in sorted(tensor_names()):
        array = getattr(batch, name).numpy()
        running.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    running.update(repr(batch.segments).encode())
    return running.hexdigest()[:16]


def tensor_names() -> list[str]:
    """The tensors of a batch."""
    return [name for name, kind in Batch.__annotations__.items() if getattr(kind, "__name__", kind) == "Tensor"]


def slow_rows(
    records: Sequence[Record], start: int, stop: int, played: Mapping[int, int], layout: LayoutSpec = LAYOUT, dropped: Sequence[Slot] = ()
) -> list[dict[str, Any]]:
    """The rows of the document of ticks [start, stop) of a view whose windows are all of `records`, by walking the table of FORMAT.md
    section 4 position by position. Own speech is the mel of the whole session, cut into frames. `played` says which speaking ticks are cut.

    A row is a dict: id, slot, tick, loud, embedded (what it is made from, if not from its id), text and flow (target, weight), where it has
    them.
    """
    session = {
        "valid": np.concatenate([r.own_valid[:-1] for r in records] + [records[-1].own_valid[-1:]]),
        "active": np.concatenate([r.activity.any(axis=0) for r in records]),
        "heard": np.concatenate([r.heard_dmel[0] for r in records]),
    }
    whole_pcm = np.concatenate([r.own_pcm[:-1].reshape(-1) for r in records] + [records[-1].own_pcm[-1]])
    mel16 = own.encode_mel(whole_pcm).reshape(-1, 4, 4, 80)  # tick, frame, sub-frame, band
    pictures = {r.meta["first_tick"] + int(t): r.patches[n] for r in records for n, t in enumerate(r.picture_tick)}

    ticks: dict[int, list[tuple[int, int]]] = {}  # tick → (id, slot) of P and G
    for r in records:
        seen_perceived = r.meta["first_tick"] > 0
        for id_, tick, slot in zip(r.tokens.tolist(), r.token_tick.tolist(), r.token_slot.tolist(), strict=True):
            seen_perceived |= slot in (Slot.HEARD, Slot.PICTURE)
            ticks.setdefault(r.meta["first_tick"] + tick if seen_perceived else -1, []).append((id_, slot))

    rows: list[dict[str, Any]] = [{"id": layout.ids.bos, "slot": OPENING, "tick": start, "loud": False}]
    said_to: set[int] = set()  # ticks of this document in which something was typed or returned
    for k in range(-1 if start == 0 else start, stop):
        here = [(id_, slot) for id_, slot in ticks[k] if slot not in dropped]
        if any(slot in (Slot.TYPED, Slot.BACKGROUND) for _, slot in here):
            said_to.add(k)
        context = range(max(start, k - layout.quiet_ticks + 1), k + 1)
        loud = any(t in said_to or session["active"][t] for t in context)
        w = 1.0 if loud else layout.quiet_weight
        learns = start <= k + 1 < stop and session["valid"][k + 1] > 0
        n = played.get(k, 4)
        heard = patch = frame = 0
        for place, (id_, slot) in enumerate(here):
            row: dict[str, Any] = {"id": id_, "slot": slot, "tick": k, "loud": loud}
            if slot == Slot.HEARD:
                row["embedded"] = session["heard"][k, heard]
                heard += 1
            if slot == Slot.PATCH:
                row["embedded"] = pictures[k].reshape(-1, 2, 40, 40, 3)[patch]
                patch += 1
            if slot in (Slot.PERFORM, Slot.SAY, Slot.CONTROL):
                row["text"] = (here[place + 1][0], w if learns else 0.0)
            if slot == Slot.OWN:
                row["embedded"] = own.codes(mel16[k + 1, frame]) * (frame < n)
                frame += 1
            if (slot == Slot.OWN and frame < 4) or (id_ == layout.ids.speak and slot == Slot.VOICE):
                row["flow"] = (0.8 * (mel16[k + 1, frame].astype(np.float64) + 3), float(learns and frame < n))
            if n == 0 and slot in (Slot.SAY, Slot.CONTROL, Slot.OWN):
                continue
            if n == 0 and slot == Slot.VOICE:
                row = {"id": layout.ids.silent, "slot": slot, "tick": k, "loud": loud}
            rows.append(row)
    return rows
