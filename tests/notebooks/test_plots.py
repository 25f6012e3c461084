"""The plots show what the arrays hold: joined patches, codes, tokens; the player plays both parties, each on its side."""

import io
import wave

import matplotlib
import numpy as np
import pytest
from bits import same_bits
from corpora import SMALL
from microturn.schemas.layout import LayoutSpec
from microturn.transforms import own, patches
from microturn.transforms.tokens.tokenizer import BytesTokenizer

matplotlib.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")
plots = pytest.importorskip("microturn.notebooks.plots")


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_the_picture_is_the_one_that_was_cut(little, picture):
    figure, axes = plt.subplots(1, 2)
    drawn = plots.picture_pair(axes, little.patches[1], little.picture_pts[1], little.meta["pictures"])
    assert same_bits(np.asarray(drawn[0].images[0].get_array()), picture)
    assert same_bits(np.asarray(drawn[1].images[0].get_array()), np.ascontiguousarray(picture[::-1]))
    assert [axes.get_title() for axes in drawn] == ["shown since 0:00:01.080", "shown since 0:00:01.160"]
    edges = sorted(line.get_xdata()[0] for line in drawn[0].lines if line.get_xdata()[0] == line.get_xdata()[1])
    assert edges == [39.5, 79.5] and patches.grid(60, 90, SMALL.pictures) == (2, 3)
    plt.close(figure)


def test_codes_stand_where_they_were_heard(little, ax):
    image = plots.heard_codes(ax, little.heard_dmel[0, 2:6], start_tick=2).images[0]
    assert same_bits(np.asarray(image.get_array()), np.ascontiguousarray(little.heard_dmel[0, 2:6].reshape(16, 80).T))
    assert image.get_extent()[:2] == [pytest.approx(0.4), pytest.approx(1.2)] and image.get_clim() == (0, 15)


def test_a_tone_lies_in_its_band(little, ax):
    plots.heard_codes(ax, little.heard_dmel[0, 1:3], start_tick=1)
    labels = dict(zip([label.get_text() for label in ax.get_yticklabels()], ax.get_yticks(), strict=True))
    loudest = little.heard_dmel[0, 1:3].reshape(-1, 80).astype(int).sum(axis=0).argmax()
    assert labels["500"] < loudest < labels["1k"]  # the guest's tone is of 600 Hz


def test_own_mel_has_four_columns_a_frame(little, ax):
    mel = own.encode_mel(little.own_pcm[13:15].ravel())
    image = plots.own_mel(ax, mel, start_tick=13).images[0]
    assert image.get_array().shape == (80, 2 * 4 * 4) and image.get_extent()[1] == pytest.approx(15 * 0.2)


def test_every_tick_has_its_line_and_every_word_its_place(little, ax):
    names = {"view": "host", "words": little.words, "events": little.events}
    drawn = plots.voices(
        ax, little.heard_pcm[0, 10:20].ravel(), little.own_pcm[10:20].ravel(), start=32_000, **names, active_2T=little.activity[:, 10:20]
    )
    lines = [line.get_xdata()[0] for line in drawn.lines if line.get_xdata()[0] == line.get_xdata()[1]]
    assert lines == pytest.approx([tick / 5 for tick in range(10, 21)])
    places = {text.get_text(): text.get_position() for text in drawn.texts}
    assert set(places) == {"er", "Extraordinary", r"\x1b[31mred", "overlap"}
    assert places["er"][0] == 2.5 and places["er"][1] > 0 > places["Extraordinary"][1]
    assert drawn.get_xlim() == (2.0, 4.0) and "seconds" in drawn.get_xlabel()


def test_the_strip_reads_as_the_sequence(little, ax):
    plots.token_strip(ax, little, LayoutSpec(), BytesTokenizer(), start_tick=12, stop_tick=16)
    boxes = sorted((text.get_position()[0], -text.get_position()[1], text.get_text()) for text in ax.texts)
    columns = {}
    for x, _, label in boxes:
        columns.setdefault(int(x / 0.2), []).append(label)
    assert columns[13] == ["heard ×4", "<perform>", '"dinary"', "<speak>", "own ×4"]
    assert columns[15] == ["<picture>", "patch ×6", "heard ×4", "<perform>", '"d"', "<delegate>", "<slot 1>", "<speak>", "own ×4"]
    above = [text.get_text() for text in ax.texts if text.get_position()[1] > 0]
    assert set(above) == {"heard ×4", "<picture>", "patch ×6"}


def test_the_first_column_leaves_out_what_precedes_the_session(little, ax):
    plots.token_strip(ax, little, LayoutSpec(), None, start_tick=0, stop_tick=1)
    assert [text.get_text() for text in ax.texts].count("<silent>") == 1


def test_heard_is_left_and_own_is_right():
    left, right = np.arange(-800, 800, dtype=np.int16) * 20, np.full(400, 1234, np.int16)
    with wave.open(io.BytesIO(plots.player(left, right).data)) as played:
        assert (played.getnchannels(), played.getframerate(), played.getnframes()) == (2, 16_000, 1600)
        stereo = np.frombuffer(played.readframes(1600), "<i2").reshape(-1, 2)
    assert np.abs(stereo[:, 0].astype(int) - left).max() <= 1
    assert np.abs(stereo[:400, 1].astype(int) - right).max() <= 1 and not stereo[400:, 1].any()
