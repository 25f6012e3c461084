"""What a model sees and learns in a document: FORMAT.md section 4 row by row, wherever windows and documents are cut."""

from pathlib import Path

import numpy as np
import pytest
from bits import same_bits
from corpora import Raw, records
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.layout import Slot
from microturn.schemas.record import Record
from microturn.trainer.data import DataSpec, Document, Dropped
from microturn.trainer.data.document import Making, Window, make, played
from microturn.trainer.data.own_speech import OwnSpeech
from microturn.transforms import own
from talks import LAYOUT, SPEC, build_talks, slow_rows

Views = dict[tuple[str, str], list[Record]]
ARRAYS = [name for name in Document.__slots__ if name not in ("key", "epoch", "first_tick", "num_ticks")]
DROPS = {Dropped.PICTURES: (Slot.PICTURE, Slot.PATCH), Dropped.TYPED: (Slot.TYPED,), Dropped.BACKGROUND: (Slot.BACKGROUND,)}


def kept(windows: list[Record], start: int, stop: int) -> list[Window]:
    """The windows that ticks [start, stop) touch."""
    return [Window.of(w, LAYOUT) for w in windows if w.meta["first_tick"] < stop and w.meta["first_tick"] + w.num_ticks > start]


def document(windows: list[Record], start: int, stop: int, spec: DataSpec | None = None, **more) -> Document:
    """The document of these ticks of a view."""
    return make(kept(windows, start, stop), start, stop, Making(layout=LAYOUT, spec=spec or DataSpec(cut_played=0)), **more)


def num_ticks(windows: list[Record]) -> int:
    """Ticks of a view."""
    return windows[-1].meta["first_tick"] + windows[-1].num_ticks


def cuts_of(windows: list[Record], spec: DataSpec, epoch: int) -> dict[int, int]:
    """Speaking tick → frames played, of a view, where it is fewer than four."""
    meta = windows[0].meta
    speaking, control = {}, set()
    for w in windows:
        before = w.meta["first_tick"] == 0
        for id_, tick, slot in zip(w.tokens, w.token_tick, w.token_slot, strict=True):
            before &= slot not in (Slot.HEARD, Slot.PICTURE)
            k = -1 if before else w.meta["first_tick"] + int(tick)
            if slot == Slot.VOICE and id_ == LAYOUT.ids.speak:
                speaking[k] = 4
            if slot == Slot.CONTROL:
                control.add(k)
    ticks = np.array(sorted(speaking))
    frames = played(meta["session"], meta["view"], ticks, np.isin(ticks, sorted(control)), spec, epoch)
    return {int(k): int(n) for k, n in zip(ticks, frames, strict=True) if n < 4}


def assert_is(made: Document, rows: list[dict]) -> None:
    """Fails unless every row of the document is as the slow walk says."""
    assert made.ids.tolist() == [row["id"] for row in rows]
    assert made.slots.tolist() == [row["slot"] for row in rows]
    assert made.ticks.tolist() == [row["tick"] for row in rows]
    assert made.loud.tolist() == [row["loud"] for row in rows]
    for slot, found in ((Slot.HEARD, made.heard_codes), (Slot.PATCH, made.patches), (Slot.OWN, made.own_codes)):
        wanted = [row["embedded"] for row in rows if row["slot"] == slot]
        assert len(found) == len(wanted) and all(same_bits(a, b) for a, b in zip(found, wanted, strict=True))
    text = {at: row["text"] for at, row in enumerate(rows) if "text" in row}
    assert made.text_rows.tolist() == list(text)
    assert made.text_targets.tolist() == [target for target, _ in text.values()]
    assert made.text_weights.tolist() == pytest.approx([weight for _, weight in text.values()])
    flow = {at: row["flow"] for at, row in enumerate(rows) if "flow" in row}
    assert made.flow_rows.tolist() == list(flow)
    assert made.flow_weights.tolist() == [weight for _, weight in flow.values()]
    for found, (wanted, _) in zip(made.flow_targets, flow.values(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_row_is_what_the_table_says(views: Views, data: st.DataObject) -> None:
    windows = views[data.draw(st.sampled_from(sorted(views)), label="view")]
    end = num_ticks(windows)
    start = data.draw(st.integers(0, end - 1), label="start")
    stop = data.draw(st.integers(start + 1, end), label="stop")
    spec = DataSpec(cut_played=data.draw(st.sampled_from([0, 0.5]), label="cut"), seed=data.draw(st.integers(0, 9), label="seed"))
    dropped = Dropped(data.draw(st.integers(0, 7), label="dropped"))
    gone = [slot for bit, slots in DROPS.items() if dropped & bit for slot in slots]
    made = document(windows, start, stop, spec, epoch=3, dropped=dropped)
    assert_is(made, slow_rows(windows, start, stop, cuts_of(windows, spec, 3), dropped=gone))


def test_every_row_of_every_view_is_what_the_table_says(views: Views) -> None:
    spec = DataSpec(cut_played=0.3)
    for windows in views.values():
        assert_is(document(windows, 0, num_ticks(windows), spec), slow_rows(windows, 0, num_ticks(windows), cuts_of(windows, spec, 0)))


def test_the_corpus_has_all_that_a_table_row_is_about(views: Views) -> None:
    """What the law above looks at is there to be seen: every kind of row, own speech that is absent, a quiet weight, a cut of each size."""
    whole = [document(windows, 0, num_ticks(windows)) for windows in views.values()]
    assert {int(slot) for made in whole for slot in made.slots} == {*map(int, Slot), 10}
    weights = {round(float(w), 3) for made in whole for w in made.text_weights}
    assert weights == {0.0, 0.2, 1.0}
    silent = document(views["meeting", "silent"], 0, num_ticks(views["meeting", "silent"]))
    assert not silent.text_weights.any() and len(silent.text_weights)
    sizes = {n for windows in views.values() for n in cuts_of(windows, DataSpec(cut_played=0.5), 0).values()}
    assert sizes == {0, 1, 2, 3}


def test_where_windows_end_changes_no_row(raw: Raw, views: Views, tmp_path: Path) -> None:
    for window_ticks in (300, 33):
        folder = build_talks(
            raw.rows, raw.folder, tmp_path / str(window_ticks), spec=SPEC.model_copy(update={"window_ticks": window_ticks})
        )
        longer: Views = {}
        for window in records(folder):
            longer.setdefault((window.meta["session"], window.meta["view"]), []).append(window)
        assert len(longer["long", "left"]) < len(views["long", "left"])
        for view, windows in views.items():
            end = num_ticks(windows)
            assert num_ticks(longer[view]) == end
            for start, stop in ((0, end), (end // 3, end - 1), (9, 11)):
                a, b = (document(each, start, stop, DataSpec(cut_played=0.3)) for each in (windows, longer[view]))
                assert a.key == b.key and all(same_bits(getattr(a, name), getattr(b, name)) for name in ARRAYS)


def test_own_kept_speechis_of_the_tick_behind_the_one_that_performs_it(views: Views) -> None:
    """o_j of G(k) is frame j of own tick k + 1: of all shifts, that one fits the loudness of the sound, sub-frame by sub-frame."""
    windows = views["long", "left"]
    made = document(windows, 0, num_ticks(windows))
    performed_in = made.ticks[made.slots == Slot.OWN][::4]
    pcm = np.concatenate([w.own_pcm[:-1] for w in windows])
    loud = np.log(np.abs(pcm.reshape(len(pcm), 16, 200).astype(float)).mean(axis=2) + 1)
    inside = (performed_in >= 1) & (performed_in < len(loud) - 3)
    codes = made.own_codes.reshape(-1, 16, 80).mean(axis=2)[inside]
    fit = {shift: np.corrcoef(codes.ravel(), loud[performed_in[inside] + shift].ravel())[0, 1] for shift in range(-1, 4)}
    assert max(fit, key=fit.get) == 1 and fit[1] > 0.6


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_own_mel_does_not_depend_on_what_was_asked_before(views: Views, data: st.DataObject) -> None:
    pcm = views["long", "left"][3].own_pcm
    whole = OwnSpeech(pcm, LAYOUT.own_mel).mel16(np.arange(11))
    asked = OwnSpeech(pcm, LAYOUT.own_mel)
    for ticks in data.draw(st.lists(st.lists(st.integers(0, 10), unique=True), max_size=4), label="asked"):
        ticks = np.array(sorted(ticks), int)
        assert same_bits(asked.mel16(ticks), whole[ticks])


def test_own_mel_of_a_tick_is_computed_once(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_speech = OwnSpeech(views["long", "left"][3].own_pcm, LAYOUT.own_mel)
    before = kept_speech.mel16(np.arange(2, 8))
    monkeypatch.setattr(own, "step", None)  # computing more than is asked for would fail
    assert same_bits(kept_speech.mel16(np.array([3, 5])), before[[1, 3]])
    with pytest.raises(TypeError):
        kept_speech.mel16(np.array([8]))


def test_a_weight_never_depends_on_what_is_said(views: Views) -> None:
    """Rows of one G learn with one weight, whatever their targets are."""
    for windows in views.values():
        made = document(windows, 0, num_ticks(windows))
        for tick in np.unique(made.ticks[made.text_rows]):
            assert len(set(made.text_weights[made.ticks[made.text_rows] == tick].tolist())) == 1


def test_loud_is_the_context_alone(views: Views) -> None:
    """An assistant without a voice learns nothing and still hears loud ticks; a pause is quiet for P and G alike."""
    silent = document(views["meeting", "silent"], 0, num_ticks(views["meeting", "silent"]))
    assert not silent.text_weights.any() and silent.loud.mean() > 0.5 and not silent.loud[0]
    pause = document(views["pause", "left"], 0, num_ticks(views["pause", "left"]))
    by_tick = {k: set(pause.loud[1:][pause.ticks[1:] == k].tolist()) for k in np.unique(pause.ticks)}
    assert all(len(values) == 1 for values in by_tick.values()) and {True} in by_tick.values() and {False} in by_tick.values()
    learns = pause.text_weights > 0
    assert (pause.loud[pause.text_rows[learns]] == (pause.text_weights[learns] == 1)).all()


def test_two_in_a_hundred_speaking_ticks_are_cut() -> None:
    ticks = np.arange(100_000)
    frames = played("s", "v", ticks, np.zeros(len(ticks), bool), DataSpec(), 0)
    assert abs((frames < 4).mean() - 0.02) < 0.002
    assert np.abs(np.bincount(frames[frames < 4]) / (frames < 4).sum() - 0.25).max() < 0.05
    assert not (played("s", "v", ticks, np.ones(len(ticks), bool), DataSpec(cut_played=1), 0) == 0).any()


def test_where_a_document_begins_does_not_change_which_ticks_are_cut(views: Views) -> None:
    windows, spec = views["long", "left"], DataSpec(cut_played=0.5)
    whole, part = document(windows, 0, num_ticks(windows), spec), document(windows, 37, 90, spec)
    inside = (whole.ticks >= 37) & (whole.ticks < 90)
    inside[0] = False
    assert same_bits(whole.ids[inside], part.ids[1:])


def test_the_prologue_opens_every_document(views: Views) -> None:
    windows = views["short", "left"]
    plain = document(windows, 5, 20)
    opened = make(kept(windows, 5, 20), 5, 20, Making(layout=LAYOUT, spec=DataSpec(cut_played=0), prologue_ids=(104, 105)))
    assert opened.ids[:3].tolist() == [LAYOUT.ids.bos, 104, 105] and opened.slots[:3].tolist() == [10, 10, 10]
    assert same_bits(opened.ids[3:], plain.ids[1:])
    assert same_bits(opened.text_rows, plain.text_rows + 2) and same_bits(opened.flow_rows, plain.flow_rows + 2)


def test_padding_is_known_by_its_place(views: Views) -> None:
    """The film is 64×48: two by two patches, of which the last column has 24 columns and the last row 8 rows of picture."""
    windows = views["film", "teller"]
    made = document(windows, 0, num_ticks(windows))
    assert len(made.patches) == len(made.patch_px) > 4
    assert made.patch_px[:4].tolist() == [[40, 40], [40, 24], [8, 40], [8, 24]]
    for patch, (height, width) in zip(made.patches, made.patch_px, strict=True):
        assert not patch[:, height:].any() and not patch[:, :, width:].any()
