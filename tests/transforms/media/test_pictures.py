"""The pictures of a tick: which two, how old, how large, which way up and in which colours; every other one is accounted for."""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from bits import same_bits
from hypothesis import event, given, settings
from hypothesis import strategies as st
from media_makers import film_file, sound_file, steady_times, with_garbage
from microturn.schemas.errors import MediaError
from microturn.schemas.spec import FeatureSpec, LimitSpec, PictureSpec
from microturn.transforms.media import rgb
from microturn.transforms.media.decode import Fault, PictureFrame, StreamProbe, probe
from microturn.transforms.media.pictures import PictureTrack
from microturn.transforms.media.rgb import fit
from signals import noise

MS = Fraction(1, 1_000)
CORNERS = np.zeros((48, 64, 3), np.uint8)  # red, green; blue, white
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32], CORNERS[24:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def spec_of(every_ticks=1, limits=None, **how):
    return FeatureSpec(pictures=PictureSpec(every_ticks=every_ticks, **how), limits=limits or LimitSpec())


def shot(ms, level=0, size=(24, 32), aspect=Fraction(1)):
    """A grey picture at a time in milliseconds; None for one without a time."""
    frame = av.VideoFrame.from_ndarray(np.full((*size, 3), level, np.uint8), format="rgb24")
    return PictureFrame(ms, MS, frame, aspect)


def track_of(shots, *, spec=None, file_start=Fraction(0), zero=Fraction(0), **said):
    stream = StreamProbe(kind="video", index=0, codec="x", width_px=32, height_px=24, **said)
    return PictureTrack(shots, stream, zero=zero, file_start=file_start, spec=spec or spec_of())


def pairs_of(track, every_ticks=1):
    """tick → pair, to the end."""
    pairs, tick = {}, 0
    while not track.exhausted_by(tick * 3_200):
        pairs[tick] = track.pair(tick)
        tick += every_ticks
    return pairs


def opened(data, spec=None):
    spec = spec or spec_of()
    return PictureTrack.open(BytesIO(data), probe(BytesIO(data), spec.limits), 0, file_start=Fraction(0), spec=spec)


def corners(picture):
    """The colours in the middle of the four quarters, row by row: 1 where a channel is bright."""
    height, width, _ = picture.shape
    points = [(height // 4, width // 4), (height // 4, -width // 4), (-height // 4, width // 4), (-height // 4, -width // 4)]
    return [tuple((picture[y, x] > 128).astype(int).tolist()) for y, x in points]


@st.composite
def timelines(draw):
    """Milliseconds of pictures: steady, with holes, equal times, falls back and missing times."""
    times, now = [], draw(st.integers(0, 700))
    for _ in range(draw(st.integers(1, 30))):
        kind = draw(st.sampled_from(["steady", "steady", "steady", "same", "hole", "back", "untimed"]))
        event(kind)
        now += {"steady": draw(st.integers(1, 120)), "hole": draw(st.integers(300, 3_500))}.get(kind, 0)
        times.append({"back": max(now - draw(st.integers(1, 500)), 0), "untimed": None}.get(kind, now))
    return times


@given(times=timelines(), every=st.sampled_from([1, 2, 5]), start=st.integers(0, 20_000))
@settings(deadline=None, max_examples=80)
def test_a_pair_is_what_its_deadlines_choose(times, every, start):
    """Oracle: a search through all pictures that can be shown, for each deadline. The level of a picture is its number."""
    file_start = Fraction(start, 16_000)
    track = track_of([shot(ms, level=k) for k, ms in enumerate(times)], file_start=file_start, spec=spec_of(every))
    shown, latest = [], None
    for k, ms in enumerate(times):
        if ms is not None and (latest is None or ms >= latest):
            latest = ms
            shown.append((round(file_start * 16_000 + Fraction(ms) * 16), k))
    used = set()
    for tick, pair in pairs_of(track, every).items():
        wanted = [
            max((s for s in shown if s[0] <= at and at - s[0] <= 32_000), default=None)
            for at in (tick * 3_200 + 1_599, tick * 3_200 + 3_199)
        ]
        if None in wanted:
            assert pair is None
            continue
        used |= {k for _, k in wanted}
        assert pair.pts_samples == tuple(sample for sample, _ in wanted)
        assert [int(picture[0, 0, 0]) for picture in pair.pictures] == [k for _, k in wanted]
    report = track.report()
    assert (report.used, report.decoded, report.between) == (len(used), len(times), len(shown) - len(used))
    assert report.decoded == report.used + report.between + sum(drop.units for drop in report.dropped)
    assert track.end == (shown[-1][0] + 1 if shown else 0)


def test_a_picture_too_old_for_its_own_deadline_is_not_shown():
    assert track_of([shot(0), shot(100_000)]).pair(10) is None  # 33599 and 35199 samples old
    just = track_of([shot(0), shot(100_000)], spec=spec_of(max_age_samples=3_199))
    assert just.pair(0).pts_samples == (0, 0)
    assert track_of([shot(0), shot(100_000)], spec=spec_of(max_age_samples=3_198)).pair(0) is None


def test_a_pair_is_not_made_up_from_one_picture():
    """The first picture comes between the deadlines of tick 0: it is not also the one that was seen before it."""
    track = track_of([shot(150), shot(180), shot(390)])
    assert track.pair(0) is None and track.pair(1).pts_samples == (2_880, 6_240)
    assert (track.report().used, track.report().between) == (2, 1)


def test_the_last_picture_ends_the_stream():
    track = track_of([shot(0), shot(1_000)])
    assert not track.exhausted_by(16_000) and track.exhausted_by(16_001) and track.end == 16_001
    later = track_of([shot(0), shot(1_000)])
    assert later.end is None and later.size_px == (24, 32) and later.end is None


def test_only_chosen_pictures_are_converted(monkeypatch):
    converted = []
    original = rgb.RgbScaler.convert
    monkeypatch.setattr(rgb.RgbScaler, "convert", lambda self, *args: converted.append(args) or original(self, *args))
    track = track_of([shot(40 * k) for k in range(100)], spec=spec_of(5))
    pairs = pairs_of(track, 5)
    assert len(converted) == track.report().used == 2 * len(pairs) == 8
    still = track_of([shot(0), shot(3_000)], spec=spec_of(1))
    converted.clear()
    assert sum(pair is not None for pair in pairs_of(still).values()) == 11
    assert len(converted) == 2  # a picture that stays is converted once


def test_a_track_decodes_one_picture_ahead():
    pulled = []
    shots = (pulled.append(k) or shot(40 * k) for k in range(1_000))
    track = track_of(shots)
    track.pair(0)
    assert len(pulled) == 6  # 0 to 160 ms, and the one beyond 199


@pytest.mark.parametrize(
    ("shots", "reason", "start"),
    [
        ([shot(0), shot(None), shot(40)], "no_timestamp", 1),
        ([shot(0), shot(80), shot(40)], "timestamp_backwards", 2),
        ([shot(0), shot(1_001)], "limit_gap", 1),
        ([shot(501)], "limit_start", 0),
    ],
)
def test_what_cannot_be_placed_has_a_row(shots, reason, start):
    limits = LimitSpec(max_gap_samples=16_000, max_start_samples=8_000)
    report = track_of(shots, spec=spec_of(limits=limits)).report()
    assert [(d.reason, d.start, d.stop, d.units) for d in report.dropped] == [(reason, start, start + 1, 1)]
    assert report.decoded == len(shots) == report.used + report.between + 1


def test_faults_are_counted_where_they_happened():
    report = track_of([shot(0), Fault("corrupt_packet", "a"), Fault("corrupt_packet", "b"), shot(40)], declared=4).report()
    assert (report.corrupt, report.missing, report.decoded) == (2, 2, 2)
    assert [(d.reason, d.start, d.stop, d.events) for d in report.dropped] == [("corrupt_packet", 1, 1, 2)]


def test_a_stream_without_pictures_has_no_size():
    track = track_of([])
    assert track.size_px is None and track.pair(0) is None and track.exhausted_by(0) and track.end == 0


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_pictures_stand_upright(turns, is_mirrored):
    """Oracle: numpy turns the picture; PyAV writes the matrix, to be applied before the flip, as its documentation says."""
    data = film_file(
        "mp4", "libx264", [CORNERS] * 8, steady_times(Fraction(25), 8), rotation=(90 * turns + 180) % 360 - 180, is_mirrored=is_mirrored
    )
    wanted = np.rot90(CORNERS, turns)
    wanted = wanted[:, ::-1] if is_mirrored else wanted
    picture = opened(data).pair(0).pictures[0]
    assert picture.shape == wanted.shape and corners(picture) == corners(wanted)


@given(
    height=st.integers(1, 4_000), width=st.integers(1, 4_000), box=st.tuples(st.integers(40, 1_000), st.integers(40, 1_000)),
    aspect=st.fractions(Fraction(1, 20), 20, max_denominator=100), is_turned=st.booleans(),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_a_picture_is_fitted_and_never_enlarged(height, width, box, aspect, is_turned):
    frame = av.VideoFrame(width, height, "gray")
    turn = rgb.Turn(is_transposed=is_turned)
    rows, cols = fit(rgb.shown_size(frame, aspect, turn), box)
    coded = (width, height) if is_turned else (height, width)
    assert 1 <= rows <= min(coded[0], box[0]) and 1 <= cols <= min(coded[1], box[1])
    shape = Fraction(height, 1) / (width * aspect) if not is_turned else width * aspect / height
    assert abs(rows - cols * shape) <= 1 + shape or 1 in (rows, cols)  # the aspect is kept, to rounding
    if aspect == 1 and height <= min(box) and width <= min(box):
        assert (rows, cols) == coded


@pytest.mark.parametrize(
    ("size", "aspect", "wanted"),
    [
        ((576, 720), Fraction(64, 45), (180, 320)), ((480, 720), Fraction(8, 9), (240, 320)), ((720, 1280), Fraction(1), (180, 320)),
        ((240, 320), Fraction(4, 3), (180, 320)), ((1920, 1080), Fraction(1), (240, 135)), ((10, 10_000), Fraction(1), (1, 320)),
    ],
)  # fmt: skip
def test_sizes_of_common_pictures(size, aspect, wanted):
    assert track_of([shot(0, size=size, aspect=aspect)]).size_px == wanted


def test_pixel_aspect_comes_from_the_file():
    data = film_file("mp4", "libx264", [CORNERS] * 3, steady_times(Fraction(25), 3), pixel_aspect=Fraction(4, 3))
    assert opened(data).size_px == (36, 64)


@pytest.mark.parametrize("tags", [(1, 1), (1, 2), (5, 1), (5, 2), (6, 1), (9, 1)])
def test_colours_are_what_was_filmed_whatever_the_matrix_and_range(tags):
    """BT.709, BT.601 (two names), BT.2020; limited and full range. The colours went through H.264 at 4:2:0."""
    data = film_file("matroska", "libx264", [CORNERS] * 8, steady_times(Fraction(25), 8), tags=tags)
    picture = opened(data).pair(0).pictures[0].astype(int)
    for y, x in ((12, 16), (12, 48), (36, 16), (36, 48)):
        assert np.abs(picture[y, x] - CORNERS[y, x]).max() <= 4


@pytest.mark.parametrize(("height", "matrix"), [(704, Colorspace.ITU601), (736, Colorspace.ITU709)])
def test_pictures_that_do_not_say_are_601_below_720_lines_and_709_above(height, matrix):
    colour = np.full((height, 64, 3), (180, 40, 90), np.uint8)

    def error(encoded_as):
        frame = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(format="yuv420p", dst_colorspace=encoded_as, dst_color_range=1)
        frame.colorspace, frame.color_range = 2, 0  # nothing is said
        picture = track_of([PictureFrame(0, MS, frame, Fraction(1)), shot(500)]).pair(0).pictures[0].astype(int)
        return np.abs(picture - colour[0, 0]).max()

    assert error(matrix) <= 3 < 8 < error({Colorspace.ITU601: Colorspace.ITU709, Colorspace.ITU709: Colorspace.ITU601}[matrix])


def test_scaling_averages_and_keeps_white_white():
    """libswscale without full chroma makes white 253 and everything 1.8 darker."""
    level = np.repeat(np.repeat(np.arange(16, 256, 8, dtype=np.uint8)[None], 8, 0), 8, 1)
    picture = np.stack([level] * 3, axis=2)
    data = np.concatenate([level, np.full((4, 240), 128, np.uint8)])
    frame = av.VideoFrame.from_ndarray(data, format="yuv420p")
    frame.color_range = 1
    scaled = rgb.RgbScaler(frame, Fraction(1), PictureSpec(max_width_px=120, max_height_px=40)).convert(frame, Fraction(1))
    wanted = np.clip((picture[::2, ::2].astype(float) - 16) * 255 / 219, 0, 255)
    assert scaled.shape == (4, 120, 3) and np.abs(scaled - wanted)[:, 4:-4].mean() < 0.6
    white = av.VideoFrame.from_ndarray(np.concatenate([np.full((8, 8), 235, np.uint8), np.full((4, 8), 128, np.uint8)]), format="yuv420p")
    assert (rgb.RgbScaler(white, Fraction(1), PictureSpec()).convert(white, Fraction(1)) == 255).all()


def test_a_picture_of_another_size_is_fitted_into_the_first_ones_box():
    shots = [shot(0, 200, size=(60, 80)), shot(200, 200, size=(30, 80)), shot(400, 200, size=(15, 20)), shot(600, 200, size=(300, 80))]
    track = track_of([*shots, shot(800, size=(60, 80))], spec=spec_of(max_width_px=40, max_height_px=40))
    pictures = [track.pair(tick).pictures[1][..., 0] for tick in range(4)]
    assert track.size_px == (30, 40) and all(picture.shape == (30, 40) for picture in pictures)
    filled = [(np.flatnonzero(p.any(axis=1)), np.flatnonzero(p.any(axis=0))) for p in pictures]
    assert [(len(rows), len(cols)) for rows, cols in filled] == [(30, 40), (15, 40), (30, 40), (30, 8)]
    assert (filled[1][0][0], filled[3][1][0]) == (7, 16)  # centred


def test_the_same_file_gives_the_same_bytes():
    frames = [np.random.default_rng(k).integers(0, 256, (96, 128, 3), dtype=np.uint8) for k in range(30)]
    data = film_file("mp4", "libx264", frames, steady_times(Fraction(25), 30))
    one, two = pairs_of(opened(data)), pairs_of(opened(data))
    assert all(same_bits(one[tick].pictures, two[tick].pictures) for tick in one)


FILM_KINDS = [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("webm", "libvpx-vp9")]


@pytest.mark.parametrize(("container", "codec"), FILM_KINDS)
def test_damage_in_a_film_is_accounted_for(container, codec):
    """Garbage inside a picture may go unnoticed by the decoder; what is cut off may not."""
    frames = [np.random.default_rng(k).integers(0, 256, (48, 64, 3), dtype=np.uint8) for k in range(75)]
    data = film_file(
        container, codec, frames, steady_times(Fraction(25), 75), options={"movflags": "faststart"} if container == "mp4" else {}
    )
    whole, garbled, half = (opened(part).report() for part in (data, with_garbage(data, 0.4, 4_000), data[: len(data) // 2]))
    assert (whole.decoded, whole.missing, whole.dropped) == (75, 0, ())
    for report in (garbled, half):
        assert report.decoded == report.used + report.between + sum(drop.units for drop in report.dropped)
    assert half.decoded < 60 and (half.missing > 15 or "truncated" in [drop.reason for drop in half.dropped])


def test_limits_and_strangers_are_refused():
    stream = StreamProbe(kind="video", index=0, codec="x", width_px=4_000, height_px=4_000)
    with pytest.raises(MediaError) as caught:
        PictureTrack([], stream, zero=Fraction(0), file_start=Fraction(0), spec=spec_of(limits=LimitSpec(max_pixels=1_000)))
    assert caught.value.reason == "limit_pixels"
    sound = sound_file("wav", "pcm_s16le", noise(100, 1), 16_000)
    with pytest.raises(MediaError) as caught:
        opened(sound)
    assert caught.value.reason == "no_such_stream"


def tagged(ms, matrix, level=0):
    """A grey picture that says it has this colour matrix."""
    frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), level, np.uint8), format="rgb24").reformat(format="yuv420p")
    frame.colorspace = matrix
    return PictureFrame(ms, MS, frame, Fraction(1))


@pytest.mark.parametrize("matrix", [3, 8, 10, 11, 14, 77], ids=["reserved", "YCgCo", "BT.2020-CL", "SMPTE 2085", "ICtCp", "none"])
def test_colours_that_cannot_be_converted_are_dropped_and_the_rest_is_seen(matrix):
    track = track_of([tagged(0, matrix), tagged(40, Colorspace.ITU709, 50), tagged(300, matrix), tagged(340, matrix)])
    assert [pair.pts_samples if pair else None for pair in pairs_of(track).values()] == [(640, 640)]
    report = track.report()
    assert (report.decoded, report.used) == (4, 1)
    assert [(d.reason, d.start, d.stop, d.units, d.events) for d in report.dropped] == [
        ("no_conversion", 0, 1, 1, 1),
        ("no_conversion", 2, 4, 2, 2),
    ]


@pytest.mark.parametrize("matrix", [0, 1, 2, 4, 5, 6, 7, 9])
def test_the_common_colour_matrices_are_converted(matrix):
    assert rgb.can_convert("yuv420p", matrix) and track_of([tagged(0, matrix)]).pair(0) is not None


def test_a_film_in_ycgco_has_no_pictures_and_no_failure():
    out = BytesIO()
    with av.open(out, "w", format="mp4") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt, video.codec_context.colorspace = 64, 48, "yuv420p", 8
        for number in range(5):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts, frame.colorspace = number, 8
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    track = opened(out.getvalue())
    assert track.size_px is None and pairs_of(track) == {}
    assert [(drop.reason, drop.units) for drop in track.report().dropped] == [("no_conversion", 5)]


def test_a_picture_that_only_fails_when_it_is_converted_is_a_fault_of_the_content(monkeypatch):
    track = track_of([shot(0)])
    monkeypatch.setattr(rgb, "_scaled", lambda *_: (_ for _ in ()).throw(av.error.OSError(95, "Operation not supported")))
    with pytest.raises(MediaError, match="32×24 in rgb24 cannot become RGB") as refused:
        track.pair(0)
    assert refused.value.reason == "no_conversion"
