"""From a recording to a session: what a sampler hears live, 200 ms at a time, gives the bits that a trainer computes from the corpus."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from corpora import Raw
from microturn.schemas.layout import Slot
from microturn.trainer.data import OPENING, DataSpec, Loader, Mixture, OpenCorpus
from microturn.trainer.model import Inputs, InteractionModel, ModelSpec, initialise
from microturn.trainer.session import Engine, Limits, Perceived
from microturn.trainer.session.rows import of_frame, of_ids, of_tick
from microturn.transforms import dmel
from runs import SIZES
from talks import build_talks
from tensors import rows_that_differ

TICK_S = 0.2
EVENTS = [
    {"kind": "typed", "at": 1.1, "participant": "right", "text": "a note of more than eight bytes"},
    {"kind": "delegate", "at": 1.5, "participant": "left"},
    {"kind": "background", "at": 2.9, "participant": "left", "text": "an answer that takes more than one tick to arrive", "complete": True},
]


@pytest.fixture(scope="module", params=[16_000, 24_000, 44_100], ids=lambda rate_hz: f"{rate_hz} Hz")
def recorded(request, tmp_path_factory):
    """(wav, corpus) of a dyad in windows of 10 ticks."""
    folder = tmp_path_factory.mktemp("live")
    raw = Raw(folder / "raw")
    raw.dyad("call", seconds=4.13, seed=3, rate_hz=request.param, file="call", events=EVENTS)
    return folder / "raw/call.wav", OpenCorpus.open(str(build_talks(raw.rows, raw.folder, folder / "corpus")))


@pytest.fixture(scope="module")
def model(recorded):
    """In half precision for one of the recordings."""
    dtype = torch.bfloat16 if soundfile.info(recorded[0]).samplerate == 24_000 else torch.float32
    return initialise(InteractionModel(ModelSpec.parse(SIZES, where="tiny"), dtype=dtype), seed=2)


def trained_on(corpus):
    """(batch, its place, layout) of the document of view `left`: the whole session, several windows, packed beside the other view."""
    spec = DataSpec(document_ticks=600, sequence_tokens=4096, cut_played=0)
    (batch,) = Loader(Mixture.of([corpus], spec), step_sequences=1, epochs=1)
    (number,) = [n for n, segment in enumerate(batch.segments) if "-left-" in segment.key]
    return batch, number, corpus.layout


def live_ticks(wav):
    """What a microphone on channel `right` would give: float32 [3200] every 200 ms, resampled as it comes; its delay is waited for."""
    samples_S, rate_hz = soundfile.read(wav, dtype="float32", always_2d=True)
    resampler = soxr.ResampleStream(rate_hz, 16_000, 1, dtype="float32", quality="HQ")
    heard, step = np.zeros(0, np.float32), int(rate_hz * TICK_S)
    for start in range(0, len(samples_S), step):
        piece, last = samples_S[start : start + step, 1], start + step >= len(samples_S)
        heard = np.append(heard, piece if rate_hz == 16_000 else resampler.resample_chunk(piece, last=last))
        while len(heard) >= 3200:
            yield heard[:3200]
            heard = heard[3200:]
    yield np.pad(heard, (0, 3200 - len(heard)))
    while True:  # after the recording's end, while text is still to be said
        yield np.zeros(3200, np.float32)


def lines_of(rows, layout):
    """(typed ids, background) of a tick's P from its (slot, id) rows."""
    typed = [id_ for slot, id_ in rows if slot == Slot.TYPED][1:]
    background, ids = [], layout.ids
    for id_ in (id_ for slot, id_ in rows if slot == Slot.BACKGROUND):
        match id_:
            case ids.background:
                background.append([None, [], False])
            case ids.end:
                background[-1][2] = True
            case _ if id_ in ids.slots:
                background[-1][0] = ids.slots.index(id_)
            case _:
                background[-1][1].append(id_)
    return typed, [tuple(found) for found in background]


def performed_of(rows, frames, layout):
    """Rows of a tick's G, as a session takes them."""
    for slot, id_ in rows:
        yield of_frame(next(frames)[None], layout) if slot == Slot.OWN else of_ids([id_])


def test_what_is_heard_live_has_the_bits_of_what_was_trained(recorded, model):
    """Perceived live, performed as recorded: every code heard and every hidden row, of P as one append, of G row by row."""
    wav, corpus = recorded
    batch, number, layout = trained_on(corpus)
    with torch.no_grad():
        whole = model(Inputs.of(batch)).hidden_TD
    here = slice(*batch.offsets[number : number + 2].tolist())
    ids, slots, ticks = (x[here].tolist() for x in (batch.ids, batch.slots, batch.ticks))
    frames = iter(batch.own_codes[(batch.own_rows >= here.start) & (batch.own_rows < here.stop)].numpy())
    codes = batch.heard_codes[(batch.heard_rows >= here.start) & (batch.heard_rows < here.stop)].numpy().reshape(-1, 4, 80)
    engine = Engine(model, Limits(sessions=1, rows=4096))
    session, state, live, hidden = engine.open("left", rows=len(ids)), dmel.start(), live_ticks(wav), []

    def append(piece):
        hidden.extend(engine.append([(session, piece)])[0])

    rows = list(zip(slots, ids, ticks, strict=True))
    append(of_ids([id_ for slot, id_, _ in rows if slot == OPENING]))
    for tick in range(-1, batch.segments[number].num_ticks):
        now = [(slot, id_) for slot, id_, k in rows if k == tick and slot != OPENING]
        if tick >= 0:
            heard, state = dmel.step(next(live), state)
            assert heard.tobytes() == codes[tick].tobytes(), f"tick {tick}"
            typed, background = lines_of(now, layout)
            append(of_tick(Perceived(heard=heard, typed=typed, background=background), layout))
        for piece in performed_of([row for row in now if row[0] >= Slot.PERFORM], frames, layout):
            append(piece)
        engine.commit(session)
    assert len(hidden) == here.stop - here.start > 200 and {*slots} >= {Slot.TYPED, Slot.BACKGROUND, Slot.CONTROL, Slot.OWN}
    assert rows_that_differ(torch.stack(hidden), whole[here]) == 0


def test_five_milliseconds_late_shows(recorded, model):
    """The negative control: heard a little late, codes differ, and so do rows."""
    wav, corpus = recorded
    batch, number, _ = trained_on(corpus)
    first = int(batch.offsets[number])
    codes = batch.heard_codes[batch.heard_rows >= first].numpy().reshape(-1, 4, 80)
    ticks = live_ticks(wav)
    late = np.concatenate([np.zeros(80, np.float32), *(next(ticks) for _ in range(10))])
    heard, _ = dmel.step(late[: 10 * 3200], dmel.start())
    differing = np.flatnonzero((heard.reshape(-1, 4, 80) != codes[:10]).any((1, 2)))
    assert len(differing) > 5
    inputs = Inputs.of(batch).piece([0] * len(batch.segments), [(n == number) * 100 for n in range(len(batch.segments))])
    with torch.no_grad():
        other = replace(inputs, heard_codes=torch.from_numpy(heard)[: len(inputs.heard_codes)])
        inputs = replace(inputs, heard_codes=inputs.heard_codes[: len(other.heard_codes)])
        assert len(inputs.heard_codes) == len(inputs.heard_rows)
        assert rows_that_differ(model(inputs).hidden_TD, model(other).hidden_TD) > 10
