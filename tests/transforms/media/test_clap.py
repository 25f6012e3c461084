"""The clap test: a chirp and a light at one known moment, through real muxers and encoders, must meet on the session's clock.

A chirp is found by correlation with itself, a light by looking at pictures, neither by anything that the code under test believes. The
negative control reads the same files as tutorials do, by counting: sample index / rate and picture index / fps.
"""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from media_makers import VIDEO_TICKS, clap_film, clap_sound, edit_list, film_file, onset, sound_file, steady_times, unsteady_times
from microturn.schemas.spec import FeatureSpec, PictureSpec
from microturn.transforms.media.decode import PictureFrame, audio_blocks, pictures, probe
from microturn.transforms.media.pictures import PictureTrack
from microturn.transforms.media.place import AudioTrack

SPEC = FeatureSpec(pictures=PictureSpec(every_ticks=1))
TOLERANCE = 16  # 1 ms: Matroska and edit lists count in milliseconds
NTSC = Fraction(30_000, 1_001)

SOUND_FILES = [  # container, codec, rate
    ("wav", "pcm_s16le", 48_000), ("wav", "pcm_f32le", 16_000), ("w64", "pcm_s24le", 48_000), ("aiff", "pcm_s16be", 44_100),
    ("caf", "pcm_s24le", 44_100), ("au", "pcm_mulaw", 8_000), ("flac", "flac", 44_100), ("wv", "wavpack", 44_100), ("tta", "tta", 48_000),
    ("mp3", "libmp3lame", 48_000), ("mp3", "libmp3lame", 44_100), ("mp3", "libmp3lame", 16_000), ("ogg", "libopus", 48_000),
    ("ipod", "aac", 48_000), ("ipod", "aac", 44_100), ("ipod", "aac", 16_000), ("ipod", "alac", 44_100), ("mp4", "libopus", 48_000),
    ("mp4", "libmp3lame", 48_000), ("matroska", "aac", 48_000), ("matroska", "libopus", 48_000), ("webm", "libopus", 48_000),
    ("matroska", "libmp3lame", 48_000), ("matroska", "flac", 48_000),
]  # fmt: skip
FILMS = [  # container, video codec, audio codec, muxer's options
    ("mp4", "libx264", "aac", {}),
    ("mov", "libx264", "aac", {}),
    ("mov", "libx264", "pcm_s16le", {}),
    ("mp4", "libx264", "libopus", {}),
    ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+delay_moov"}),
    ("mp4", "libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),  # its first AAC packet claims to last until the second
    ("matroska", "libx264", "libopus", {}),
    ("matroska", "libx264", "flac", {}),
    ("webm", "libvpx", "libopus", {}),
    ("webm", "libvpx-vp9", "libopus", {}),
    ("mpegts", "libx264", "aac", {}),
    ("flv", "libx264", "aac", {}),
]
STARTS = {  # video start, audio start, frames per second or None for variable
    "together": (0, 0, 25),
    "audio_late": (0, Fraction(1, 3), NTSC),
    "video_late": (Fraction(1, 2), 0, 30),
    "video_very_late": (5, Fraction(1, 8), 60),
    "both_late": (Fraction(1, 3), Fraction(2, 3), 25),
    "audio_very_late": (0, 5, 10),
    "variable_rate": (2, 0, None),
}
QUICK_STARTS = ("audio_late", "video_late", "variable_rate")
CASES = [
    pytest.param(
        kind,
        start,
        id="-".join([*kind[:3], *kind[3].values(), start]),
        marks=() if start in QUICK_STARTS or kind in (FILMS[0], FILMS[6]) else pytest.mark.nightly,
    )
    for kind in FILMS
    for start in STARTS
]


def film(kind, start):
    """A clap film; its picture times; the number of the first lit picture."""
    container, video, audio, options = kind
    video_start, audio_start, fps = map(lambda x: None if x is None else Fraction(x), STARTS[start])
    times = unsteady_times(60, 1, video_start) if fps is None else steady_times(fps, 60, video_start)
    light = 55 if audio_start >= 5 else 40
    data = clap_film(container, video, audio, times=times, light=light, audio_start=audio_start, options=options)
    return data, times, light


def heard(data, index=0):
    """The samples, which of them are real, and the track after its last."""
    track = AudioTrack.open(BytesIO(data), probe(BytesIO(data), SPEC.limits), index, file_start=Fraction(0), spec=SPEC)
    parts = []
    while not track.exhausted_by(3200 * len(parts)):
        parts.append(track.read(3200))
    samples, valid = (np.concatenate(column) for column in zip(*parts, strict=True))
    return samples, valid, track


def seen(data):
    """(session sample, brightness) of every picture."""
    zero = probe(BytesIO(data), SPEC.limits).zero
    shots = [shot for shot in pictures(BytesIO(data), 0, SPEC.limits) if isinstance(shot, PictureFrame)]
    return [(round((s.pts * s.time_base - zero) * 16_000), float(s.frame.to_ndarray(format="gray").mean())) for s in shots]


def light_on(shown):
    return min(sample for sample, brightness in shown if brightness > 125)


def naive(data):
    """(onset, light) in samples, as counted from the first decoded sample and picture."""
    with av.open(BytesIO(data)) as file:
        rate_hz, fps = file.streams.audio[0].rate, file.streams.video[0].average_rate
        sound = np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], axis=1)[0].astype(np.float32)
    with av.open(BytesIO(data)) as file:
        lit = [frame.to_ndarray(format="gray").mean() > 125 for frame in file.decode(video=0)]
    return onset(sound, rate_hz) * 16_000 / rate_hz, lit.index(True) / float(fps) * 16_000


@pytest.mark.parametrize(("container", "codec", "rate_hz"), SOUND_FILES)
def test_a_sound_lies_where_it_was_recorded(container, codec, rate_hz):
    samples = clap_sound(rate_hz, Fraction(3), Fraction(3, 2))
    placed, valid, track = heard(sound_file(container, codec, samples, rate_hz))
    report = track.report()
    assert abs(onset(placed) - 24_000) <= 1  # encoder delay is no offset
    assert abs(track.end - 48_000) <= 384 * 16_000 // rate_hz  # Matroska does not say where AAC's padding starts
    assert valid[: track.end].all() and not valid[track.end :].any()
    assert report.decoded == report.kept + sum(drop.units for drop in report.dropped)
    assert (report.offset_samples, report.num_spans, report.missing) == (0, 1, 0)


@pytest.mark.parametrize("codec", ["aac", "libopus", "libmp3lame"])
@pytest.mark.parametrize("extra", [0, 1, 137, 1023])
def test_an_mp4_ends_where_its_recording_ends(codec, extra):
    samples = clap_sound(48_000, Fraction(48_000 + extra, 48_000), Fraction(1, 2))
    _, _, track = heard(sound_file("mp4", codec, samples, 48_000))
    report = track.report()
    assert abs(report.kept - len(samples)) <= (48 if codec == "libmp3lame" else 0)  # MP3's end stands in the edit list only: milliseconds
    assert [drop.reason for drop in report.dropped] in ([], ["codec_padding"])
    assert report.decoded == report.kept + sum(drop.units for drop in report.dropped)


@pytest.mark.parametrize(("kind", "start"), CASES)
def test_the_clap_meets_the_light(kind, start):
    data, times, light = film(kind, start)
    samples, _, track = heard(data)
    shown = seen(data)
    assert abs(onset(samples) - light_on(shown)) <= TOLERANCE
    truth = [round((time - times[light]) * 16_000) for time in times]
    apart = [sample - light_on(shown) - true for (sample, _), true in zip(shown, truth, strict=True)]
    if "empty_moov" in kind[3].get("movflags", ""):
        apart = apart[1:]  # that muxer writes a late stream's first picture at 0
    assert max(map(abs, apart)) <= (1 if kind[0] in ("mp4", "mov", "mpegts") else TOLERANCE)  # 1: two roundings against one
    report = track.report()
    assert report.missing == 0 and report.decoded == report.kept + sum(drop.units for drop in report.dropped)


@pytest.mark.parametrize("start", STARTS)
def test_the_measured_offset_is_in_the_report(start):
    data, _, _ = film(FILMS[6], start)  # Matroska with Opus: no priming is presented, whatever the start
    video_start, audio_start = (Fraction(STARTS[start][k]) for k in (0, 1))
    zero, media = min(video_start, audio_start), probe(BytesIO(data), SPEC.limits)
    sound = AudioTrack.open(BytesIO(data), media, 0, file_start=Fraction(0), spec=SPEC).report()
    sight = PictureTrack.open(BytesIO(data), media, 0, file_start=Fraction(0), spec=SPEC).report()
    assert abs(sound.offset_samples - (audio_start - zero) * 16_000) <= TOLERANCE
    assert abs(sight.offset_samples - (video_start - zero) * 16_000) <= TOLERANCE


@pytest.mark.parametrize("start", STARTS)
def test_a_reader_that_counts_fails_the_clap(start):
    """The negative control: right on files whose streams start together, wrong on all others."""
    data, _, _ = film(FILMS[0], start)
    sound, light = naive(data)
    assert (abs(sound - light) <= TOLERANCE) == (start == "together")


@pytest.mark.parametrize("start", STARTS)
def test_pairs_are_what_the_deadlines_choose(start):
    """Against a search through all pictures; in a pair, what is shown is what was shown then."""
    data, _, _ = film(FILMS[0], start)
    track = PictureTrack.open(BytesIO(data), probe(BytesIO(data), SPEC.limits), 0, file_start=Fraction(0), spec=SPEC)
    shown = seen(data)
    tick = pairs = 0
    while not track.exhausted_by(tick * 3200):
        pair = track.pair(tick)
        deadlines = (tick * 3200 + 1599, tick * 3200 + 3199)
        wanted = [max((s for s, _ in shown if deadline - 32_000 <= s <= deadline), default=None) for deadline in deadlines]
        assert (pair.pts_samples if pair else None) == (None if None in wanted else tuple(wanted))
        if pair:
            assert [picture.mean() > 125 for picture in pair.pictures] == [sample >= light_on(shown) for sample in wanted]
            pairs += 1
        tick += 1
    assert pairs >= 4 and tick == -(-(shown[-1][0] + 1) // 3200)


def test_an_edit_list_that_starts_late_in_the_media_is_followed():
    times = steady_times(Fraction(25), 75)
    data = clap_film("mp4", "libx264", "aac", times=times, light=40)
    samples, _, _ = heard(data)
    before = onset(samples), light_on(seen(data))
    video_first, audio_first = 2 * VIDEO_TICKS // 25, 1024  # where the untouched lists start: B-frames, priming
    cut = edit_list(data, 1, media_time=audio_first + 4_800, duration_ms=2_500)
    samples, _, track = heard(cut)
    assert (onset(samples), light_on(seen(cut))) == (before[0] - 1_600, before[1])
    assert track.end == 40_000 and track.report().dropped[-1].reason == "codec_padding"
    cut = edit_list(data, 0, media_time=video_first + 10 * VIDEO_TICKS // 25, duration_ms=2_000)
    assert (onset(heard(cut)[0]), light_on(seen(cut))) == (before[0], before[1] - 6_400)
    report = PictureTrack.open(BytesIO(cut), probe(BytesIO(cut), SPEC.limits), 0, file_start=Fraction(0), spec=SPEC).report()
    assert (report.declared, report.missing) == (report.decoded, 0) and report.decoded < 75  # what the list leaves out is not missing


def test_drift_is_measured_and_not_corrected():
    """A clock 200 ppm fast for 20 s: timestamps move away by 64 samples, the sound stays as it was counted."""
    rate_hz, wrong = 48_000, Fraction(48_000 * 5_000, 4_999)
    sound = clap_sound(rate_hz, Fraction(20), Fraction(10))
    picture = [np.zeros((48, 64, 3), np.uint8)] * 2
    data = film_file("nut", "libx264", picture, [Fraction(0), Fraction(1)], sound=("pcm_s16le", sound, rate_hz, Fraction(0)))
    media = probe(BytesIO(data), SPEC.limits)
    frames = (frame for block in audio_blocks(BytesIO(data), 0, SPEC.limits) for frame in block.apart() or [block])
    track = AudioTrack(
        (frame._replace(time_base=frame.time_base * rate_hz / wrong) for frame in frames),
        media.stream("audio", 0), zero=media.zero, file_start=Fraction(0), spec=SPEC,
    )  # fmt: skip
    samples, _ = track.read(330_000)
    report = track.report()
    assert abs(onset(samples) - 160_000) <= 1 and report.num_spans == 1
    assert -64 <= report.drift_samples <= -62 and report.jitter_samples == -report.drift_samples


def test_the_two_films_of_one_file_keep_their_own_rates(media):
    path = media / "nasa_13013.mp4"
    found = probe(path, SPEC.limits)
    assert [(s.kind, s.rate_hz, s.width_px, s.declared) for s in found.streams] == [
        ("audio", 8_000, 0, 104_448), ("audio", 16_000, 0, 208_896),
        ("video", 0, 320, 325), ("video", 0, 480, 390),
        ("text", 0, 0, -1), ("text", 0, 0, -1),
    ]  # fmt: skip
    tracks = [AudioTrack.open(path, found, index, file_start=Fraction(0), spec=SPEC) for index in (0, 1)]
    low, high = (track.read(208_896)[0].astype(np.float64) for track in tracks)
    lags = np.correlate(high[50_000:150_000], low[50_200:149_800], "valid")
    assert abs(int(np.argmax(lags)) - 200) <= 1  # the same words at the same time, through two encoders at two rates
