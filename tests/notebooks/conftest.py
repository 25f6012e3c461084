"""A little record whose every tick a person can check, and a little corpus with hostile names."""

from typing import Any

import numpy as np
import pytest
from corpora import SMALL, Raw, build
from microturn.pipelines.corpus import Corpus
from microturn.schemas.clock import TICK_SAMPLES
from microturn.schemas.layout import LayoutSpec
from microturn.schemas.record import Record
from microturn.transforms import dmel, patches
from microturn.transforms.tokens.interleave import Carry, interleave
from microturn.transforms.tokens.tokenizer import BytesTokenizer
from microturn.transforms.tokens.view_window import view_window
from signals import tone

HOSTILE_ID = "<script>alert('id')</script>"
HOSTILE_LICENSE = '"><img src=x onerror=alert(1)>\u202e\x1b[31m'
NUM_TICKS = 24


def event(kind: str, participant: str, start: float, stop: float, **more: Any) -> dict[str, Any]:
    """A row of events.json; times in ticks."""
    place = {"start": round(start * TICK_SAMPLES), "stop": round(stop * TICK_SAMPLES)}
    return {"kind": kind, "participant": participant, "other": "", "slot": 0, "text": "", "complete": False} | place | more


def word(participant: str, text: str, start: float, stop: float) -> dict[str, Any]:
    """A row of words.json; times in ticks."""
    place = {"start": round(start * TICK_SAMPLES), "stop": round(stop * TICK_SAMPLES)}
    return {"participant": participant, "text": text, "timing": "word"} | place


def sound(levels: dict[int, float], num_ticks: int, hz: float) -> np.ndarray:
    """int16 [T, 3200]: a tone in these ticks, with this peak; zeros elsewhere."""
    pcm = np.zeros((num_ticks, TICK_SAMPLES), np.int16)
    for tick, peak in levels.items():
        pcm[tick] = tone(TICK_SAMPLES, hz, peak) * 32_767
    return pcm


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """uint8 [60, 90, 3], no two pixels of a row alike: it fills neither its last row nor its last column of patches."""
    y, x = np.mgrid[:60, :90]
    return np.stack([x * 2, y * 4, (x + y) % 256], axis=2).astype(np.uint8)


@pytest.fixture(scope="session")
def little(picture: np.ndarray) -> Record:
    """24 ticks: a question, a long silence, an answer that begins while the guest still speaks, a typed word, a request and its result."""
    guest = {tick: 0.5 for tick in (1, 2, 3, 12, 13)}
    host = {tick: 0.1 for tick in (13, 14, 15, 16)}
    words = [word("guest", "What", 1.1, 2), word("guest", "now?", 2.2, 4), word("guest", "er", 12.5, 13.9)]
    words += [word("host", "Extraordinary", 13.2, 15), word("host", "\x1b[31mred", 15.1, 17)]
    events = [
        event("turn", "guest", 1, 4),
        event("gap", "guest", 4, 12, other="guest"),
        event("turn", "guest", 12, 14),
        event("turn", "host", 13, 17),
        event("overlap", "host", 13, 14, other="guest"),
        event("typed", "guest", 6.5, 6.5, text="hi"),
        event("delegate", "host", 15.5, 15.5, slot=1),
        event("background", "host", 19, 19, slot=1, text="ok", complete=True),
    ]
    pair = np.stack([patches.cut(picture, SMALL.pictures), patches.cut(picture[::-1].copy(), SMALL.pictures)], axis=2)
    meta = {
        "session": "little", "session_id": "little", "session_ticks": NUM_TICKS, "view": "host", "role": "assistant", "speaker": "",
        "first_tick": 0, "num_ticks": NUM_TICKS, "heard": [["guest"]], "carry_in": Carry.empty().to_json(), "before": {"own_active": 0},
        "after": {"own_active": 0, "say": [[]], "control": []},
        "pictures": {"stream": "eye", "participant": "guest", "rows": 2, "cols": 3, "height_px": 60, "width_px": 90, "codec": "npy"},
    }  # fmt: skip
    activity = np.zeros((2, NUM_TICKS), np.uint8)
    activity[0, list(guest)], activity[1, list(host)] = 1, 1
    picture_tick = np.array([0, 5, 10, 15, 20], np.uint16)
    layout = LayoutSpec()
    laid = interleave(view_window(activity, picture_tick, words, events, meta, layout), layout, BytesTokenizer(), Carry.empty())
    heard = sound(guest, NUM_TICKS, 600)
    valid = np.full(NUM_TICKS, TICK_SAMPLES, np.uint16)
    valid[21:] = 0  # the recording ends, the session does not
    return Record(
        activity=activity,
        heard_dmel=dmel.encode(heard.ravel()).reshape(1, NUM_TICKS, 4, 80),
        heard_pcm=heard[None],
        heard_valid=valid[None],
        own_pcm=sound(host, NUM_TICKS + 1, 300),
        own_valid=np.append(valid, 0).astype(np.uint16),
        patches=np.stack([pair] * len(picture_tick)),
        picture_pts=picture_tick[:, None].astype(np.int64) * TICK_SAMPLES + [1280, 2560],
        picture_tick=picture_tick,
        token_slot=laid.token_slot,
        token_tick=laid.token_tick,
        tokens=laid.tokens,
        words=words,
        events=events,
        meta=meta | {"max_lag_ticks": laid.max_lag_ticks, "carry_out": laid.carry.to_json()},
    )


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two calls in windows of ten ticks, one of them with names that want to be markup; a file that is no recording."""
    raw = Raw(tmp_path_factory.mktemp("raw"))
    raw.dyad(HOSTILE_ID, seconds=5.1, seed=1, license=HOSTILE_LICENSE, language="en")
    raw.dyad("plain", seconds=2.3, seed=2, license="CC0-1.0", language="<b>de</b>")
    raw.bytes("<i>broken.wav", b"not a recording" * 50)
    raw.add(id="<svg onload=alert(2)>", streams=[{"id": "a", "path": "<i>broken.wav", "kind": "audio", "participant": "p0"}])
    out = tmp_path_factory.mktemp("corpus") / "out"
    build(raw.rows, raw.folder, out, shard_bytes=600_000)
    return Corpus.open(str(out))
