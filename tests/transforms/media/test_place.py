"""Placement on the session's clock: blocks of any make become samples that lie where their times say, and a report that closes.

At 16 kHz the resampler passes samples untouched, so a signal that counts (each sample has a value of its own) shows where every single
source sample went. Letters as in place.py.
"""

from decimal import Decimal
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
from bits import same_bits
from hypothesis import event, given, settings
from hypothesis import strategies as st
from media_makers import riff_wav, sound_file, with_garbage
from microturn.schemas.errors import MediaError
from microturn.schemas.spec import FeatureSpec, LimitSpec
from microturn.transforms.media.decode import AudioBlock, Fault, StreamProbe, probe
from microturn.transforms.media.place import PIECE_SAMPLES, RESAMPLED_PIECES, AudioTrack
from microturn.transforms.media.spans import samples_before
from microturn.transforms.resample import resample
from signals import noise

SPEC = FeatureSpec()
BREAK = SPEC.span_break_samples


def counting(first, num_samples):
    """Samples that say which they are: 2⁻²² apart, exact in float32, never 0."""
    return ((1 + first + np.arange(num_samples)) / 2**22).astype(np.float32)


def block(first, num_samples, pts, rate_hz=16_000, channels=1, time_base=None, padding=0):
    samples_CS = np.repeat(counting(first, num_samples)[None], channels, axis=0)
    return AudioBlock(pts, time_base or Fraction(1, rate_hz), rate_hz, samples_CS, padding)


def track_of(blocks, *, file_start=Fraction(0), zero=Fraction(0), spec=SPEC, declared=-1, **how):
    sizes = [b for b in blocks if isinstance(b, AudioBlock)]
    rate_hz, channels = (sizes[0].rate_hz, len(sizes[0].samples_CS)) if sizes else (16_000, 1)
    stream = StreamProbe(kind="audio", index=0, codec="pcm_f32le", rate_hz=rate_hz, channels=channels, declared=declared)
    return AudioTrack(blocks, stream, zero=zero, file_start=file_start, spec=spec, **how)


def read_all(track, sizes=(4_000,)):
    """Everything, read in pieces of the sizes given, over and over."""
    samples, valid, at = [], [], 0
    while not track.exhausted_by(at):
        size = sizes[len(samples) % len(sizes)]
        for column, part in zip((samples, valid), track.read(size), strict=True):
            column.append(part)
        at += size
    nothing = np.zeros(0, np.float32)
    samples, valid = np.concatenate([nothing, *samples]), np.concatenate([nothing.astype(bool), *valid])
    return samples[: track.end], valid[: track.end]


@st.composite
def streams(draw, rates=(16_000, 8_000, 44_100, 48_000)):
    """Blocks whose timestamps jitter, jump ahead and fall back; some have none; some are faults."""
    rate_hz = draw(st.sampled_from(rates))
    limit = BREAK * rate_hz // 16_000
    blocks, expected, first = [], draw(st.integers(0, 3 * limit)), 0
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["straight", "straight", "jitter", "gap", "overlap", "untimed", "fault"]))
        event(kind)
        if kind == "fault":
            blocks.append(Fault("corrupt_packet", "drawn"))
            continue
        num_samples = draw(st.integers(1, 4 * limit))
        away = {"jitter": (-limit, limit), "gap": (limit + 1, 5 * limit), "overlap": (-5 * limit, -limit - 1)}.get(kind, (0, 0))
        pts = expected + draw(st.integers(*away))
        blocks.append(block(first, num_samples, None if kind == "untimed" else pts, rate_hz))
        first += num_samples
        if kind in ("gap", "overlap"):
            expected = pts
        expected += num_samples
    return blocks


def laid_by_hand(blocks, file_start):
    """Spans [(start, source samples)] and the numbers of kept and dropped samples: FORMAT.md section 2, one block at a time."""
    spans, kept, dropped = [], 0, 0
    frontier, next_at = 0, None
    for b in (b for b in blocks if isinstance(b, AudioBlock)):
        x, at = b.samples_CS[0], next_at or Fraction(0)
        if b.pts is not None:
            at = b.pts * b.time_base
        if spans and abs(at - next_at) * 16_000 <= BREAK:
            spans[-1][1].append(x)
        else:
            cut = 0
            while cut < len(x) and round((file_start + at + Fraction(cut, b.rate_hz)) * 16_000) < frontier:
                cut += 1
            dropped += cut
            if cut == len(x):
                continue
            at += Fraction(cut, b.rate_hz)
            spans.append((round((file_start + at) * 16_000), [x[cut:]]))
            next_at, x = at, x[cut:]
        kept += len(x)
        next_at += Fraction(len(x), b.rate_hz)
        length = sum(map(len, spans[-1][1]))
        frontier = spans[-1][0] - (-length * 16_000 // b.rate_hz)
    return [(start, np.concatenate(parts)) for start, parts in spans], kept, dropped


@given(blocks=streams(), starts=st.integers(0, 50_000), data=st.data())
@settings(deadline=None, max_examples=150)
def test_blocks_lie_where_the_rules_put_them(blocks, starts, data):
    file_start = Fraction(starts, 44_100)
    track = track_of(blocks, file_start=file_start)
    samples, valid = read_all(track, data.draw(st.lists(st.integers(1, 9_000), min_size=1, max_size=4)))
    spans, kept, dropped = laid_by_hand(blocks, file_start)
    rate_hz = next((b.rate_hz for b in blocks if isinstance(b, AudioBlock)), 16_000)
    wanted, real = np.zeros(track.end, np.float32), np.zeros(track.end, bool)
    for start, source in spans:
        sound = resample(source, rate_hz)
        wanted[start : start + len(sound)], real[start : start + len(sound)] = sound, True
    assert same_bits(samples, wanted) and same_bits(valid, real)
    report = track.report()
    assert (report.kept, report.decoded, report.num_spans) == (kept, kept + dropped, len(spans))
    assert sum(drop.units for drop in report.dropped) == dropped
    event(f"{min(len(spans), 4)} spans")


@given(blocks=streams(), one=st.lists(st.integers(1, 9_000), min_size=1, max_size=5), other=st.integers(1, 70_000))
@settings(deadline=None, max_examples=60)
def test_the_sizes_of_reads_change_no_byte(blocks, one, other):
    first, second = read_all(track_of(blocks), one), read_all(track_of(blocks), [other])
    assert all(same_bits(a, b) for a, b in zip(first, second, strict=True))


@given(blocks=streams(rates=(16_000,)))
@settings(deadline=None, max_examples=100)
def test_every_source_sample_is_heard_once_or_has_a_row(blocks):
    track = track_of(blocks)
    samples, valid = read_all(track)
    report = track.report()
    heard = np.rint(samples[valid].astype(np.float64) * 2**22).astype(int) - 1
    rows = [np.arange(drop.start, drop.stop) for drop in report.dropped]
    assert sorted([*heard.tolist(), *np.concatenate([np.zeros(0, int), *rows]).tolist()]) == list(range(report.decoded))
    assert not samples[~valid].any()


@given(blocks=streams(), reads=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_a_report_does_not_depend_on_what_was_read(blocks, reads):
    partly, wholly = track_of(blocks), track_of(blocks)
    for _ in range(reads):
        partly.read(1_000)
    read_all(wholly)
    assert partly.report() == wholly.report()


@pytest.mark.parametrize("away", [0, 1, BREAK - 1, BREAK, -BREAK])
def test_up_to_40_ms_is_jitter(away):
    report = track_of([block(0, 4_000, 0), block(4_000, 4_000, 4_000 + away), block(8_000, 100, 8_000)]).report()
    assert (report.num_spans, report.jitter_samples, report.drift_samples, report.inserted) == (1, abs(away), 0, 0)


def test_more_than_40_ms_is_a_gap_or_an_overlap():
    gap = track_of([block(0, 4_000, 0), block(4_000, 4_000, 4_001 + BREAK)])
    samples, valid = read_all(gap)
    assert not valid[4_000 : 4_001 + BREAK].any() and valid.sum() == 8_000 and samples[4_001 + BREAK] == counting(4_000, 1)
    assert (gap.report().num_spans, gap.report().inserted) == (2, BREAK + 1)
    overlap = track_of([block(0, 4_000, 0), block(4_000, 4_000, 3_999 - BREAK)])
    assert read_all(overlap)[1].sum() == 7_999 - BREAK
    (row,) = overlap.report().dropped
    assert (row.reason, row.stage, row.start, row.stop, row.units) == ("overlap", "place", 4_000, 4_001 + BREAK, BREAK + 1)


def test_a_block_that_comes_twice_is_heard_once():
    """And the span goes on as if nothing had happened: no new resampler, no seam."""
    blocks = [block(1_000 * k, 1_000, 1_000 * k, 48_000) for k in range(9)]
    twice = [*blocks[:5], blocks[2], *blocks[5:]]
    assert same_bits(read_all(track_of(twice))[0], read_all(track_of(blocks))[0])
    report = track_of(twice).report()
    assert (report.num_spans, [(d.reason, d.units) for d in report.dropped]) == (1, [("overlap", 1_000)])


@given(num=st.integers(1, 10**6), den=st.sampled_from([1, 3, 1_000, 44_100, 90_000, 10**6]))
@settings(deadline=None, max_examples=100)
def test_a_start_is_rounded_once_half_to_even(num, den):
    file_start, zero = Fraction(num, den), Fraction(7, 3)
    track = track_of([block(0, 10, 7, time_base=Fraction(1, 3))], file_start=file_start, zero=zero)
    assert track.exhausted_by(10**12) and track.end == round(file_start * 16_000) + 10
    halves = [Fraction(2 * k + 1, 32_000) for k in (4, 5)]
    assert [track_of([block(0, 1, 0)], file_start=half).report().offset_samples for half in halves] == [0, 0]


def test_the_offset_is_against_the_files_zero():
    track = track_of([block(0, 160, 8_000)], file_start=Fraction(5), zero=Fraction(1, 10))
    assert track.exhausted_by(10**6) and track.end == 80_000 + 8_000 - 1_600 + 160
    assert track.report().offset_samples == 6_400


def test_what_lies_before_the_sessions_zero_is_cut_with_a_row():
    track = track_of([block(0, 1_000, 0), block(1_000, 1_000, 1_000)], file_start=Fraction(-100, 16_000))
    samples, valid = read_all(track)
    (row,) = track.report().dropped
    assert valid.all() and samples[0] == counting(100, 1) and (row.reason, row.start, row.stop) == ("before_zero", 0, 100)


def test_channels_are_averaged_or_one_is_taken_and_gain_multiplies():
    left, right = noise(5_000, 1), noise(5_000, 2)
    both = AudioBlock(0, Fraction(1, 16_000), 16_000, np.stack([left, right]))
    assert same_bits(read_all(track_of([both]))[0], ((left + right) / np.float32(2)).astype(np.float32))
    assert same_bits(read_all(track_of([both], channel=1))[0], right)
    half = track_of([both], channel=0, gain=Decimal("0.5"))
    assert same_bits(read_all(half)[0], left * np.float32(0.5))
    assert half.report().peak == float(np.abs(left).max() / 2)
    with pytest.raises(MediaError, match="no channel 2, it has 2") as caught:
        track_of([both], channel=2)
    assert caught.value.reason == "no_such_channel"


@given(frontier=st.integers(0, 10**6), away=st.integers(-(10**6), 10**6), rate_hz=st.sampled_from([8_000, 32_000, 44_100, 48_000, 96_000]))
@settings(deadline=None, max_examples=200)
def test_an_overlap_is_cut_by_no_sample_more_than_needed(frontier, away, rate_hz):
    """At 32 and 96 kHz a source sample can start on a half, which is rounded to even."""
    at = Fraction(frontier, 16_000) + Fraction(away, 96_000)
    cut = samples_before(frontier, at, rate_hz)
    starts = [round((at + Fraction(num, rate_hz)) * 16_000) for num in (cut - 1, cut)]
    assert cut == 0 <= starts[1] - frontier or starts[0] < frontier <= starts[1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_number_is_silence_that_is_not_real(bad):
    broken = block(0, 3_000, 0, 8_000)
    broken.samples_CS[0, [10, 11, 12, 2_000]] = bad
    track = track_of([broken, block(3_000, 20_000, 3_000, 8_000)])
    samples, valid = read_all(track, [23])  # the first hole lies across the end of a read
    report = track.report()
    assert np.isfinite(samples).all() and np.flatnonzero(~valid).tolist() == [20, 21, 22, 23, 24, 25, 4_000, 4_001]
    assert [(d.reason, d.start, d.stop) for d in report.dropped] == [("non_finite", 10, 13), ("non_finite", 2_000, 2_001)]
    assert (report.decoded, report.kept, report.inserted) == (23_000, 22_996, 4)


def test_a_rate_that_changes_in_mid_stream_goes_on_without_a_seam():
    blocks = [block(0, 4_001, 0, 48_000, time_base=Fraction(1, 48_000)), block(0, 800, 4_001, 8_000, time_base=Fraction(1, 48_000))]
    track = track_of(blocks)
    samples, valid = read_all(track)
    report = track.report()
    assert valid.all() and len(samples) == 1_334 + 1_600
    assert (report.num_spans, report.inserted, report.decoded, report.kept, report.dropped) == (2, 0, 4_801, 4_801, ())
    for jitter in (-600, 600):  # less than 40 ms is no reason for a gap or a cut here either
        moved = track_of([blocks[0], blocks[1]._replace(pts=4_001 + jitter)])
        assert same_bits(read_all(moved)[0], samples)


def test_a_number_of_channels_that_changes_in_mid_stream_changes_nothing_else():
    blocks = [block(0, 1_000, 0, channels=2), block(1_000, 1_000, 1_000, channels=1), block(2_000, 1_000, 2_000, channels=6)]
    assert same_bits(read_all(track_of(blocks))[0], counting(0, 3_000))
    lost = track_of(blocks, channel=1)
    _, valid = read_all(lost)
    assert not valid[1_000:2_000].any() and [(d.reason, d.units) for d in lost.report().dropped] == [("no_such_channel", 1_000)]


def test_padding_is_dropped_with_its_own_reason():
    track = track_of([block(0, 1_000, 0), block(1_000, 1_000, 1_000, padding=300), block(2_000, 1_000, 2_000, padding=1_000)])
    assert len(read_all(track)[0]) == 1_700
    (row,) = track.report().dropped
    assert (row.reason, row.start, row.stop, row.units) == ("codec_padding", 1_700, 3_000, 1_300)


def test_a_jump_beyond_the_limit_ends_the_stream():
    spec = FeatureSpec(limits=LimitSpec(max_gap_samples=16_000, max_start_samples=8_000))
    track = track_of([block(0, 100, 0), block(100, 100, 16_101), block(200, 100, 16_201)], spec=spec, declared=300)
    report = track.report()
    assert [(d.reason, d.start, d.stop) for d in report.dropped] == [("limit_gap", 100, 200)]
    assert (track.end, report.decoded, report.kept, report.missing) == (100, 200, 100, 100)
    late = track_of([block(0, 100, 8_001), block(100, 100, 8_101)], spec=spec)
    assert [d.reason for d in late.report().dropped] == ["limit_start"] and late.end == 0


def test_a_stream_without_samples_has_no_end_but_zero():
    track = track_of([Fault("corrupt_packet", "nothing came out")])
    samples, valid = track.read(3_200)
    report = track.report()
    assert track.end == 0 and not samples.any() and not valid.any()
    assert (report.decoded, report.num_spans) == (0, 0)
    assert [(d.reason, d.start, d.stop, d.units, d.events) for d in report.dropped] == [("corrupt_packet", 0, 0, 0, 1)]


def test_rows_of_a_hopeless_stream_are_summed():
    """A row for each of a million overlaps would fill the memory; the sums stay exact."""
    report = track_of([block(k, 2_000, 1_300 * k) for k in range(1_500)]).report()
    assert (len(report.dropped), report.decoded) == (1_000, 3_000_000)
    assert report.decoded == report.kept + sum(d.units for d in report.dropped) and sum(d.events for d in report.dropped) == 1_499
    assert all(d.units == d.stop - d.start for d in report.dropped[:-1]) and report.dropped[-1].stop <= 3_000_000


def test_a_read_decodes_no_further_than_it_must():
    pulled = []
    blocks = (pulled.append(k) or block(0, 1_600, 1_600 * k) for k in range(600))
    track = AudioTrack(
        blocks,
        StreamProbe(kind="audio", index=0, codec="x", rate_hz=16_000, channels=1),
        zero=Fraction(0), file_start=Fraction(3_000), spec=SPEC,
    )  # fmt: skip
    track.read(16_000 * 2_999)  # 50 minutes before the file starts
    assert len(pulled) == 1
    track.read(16_000 * 2)
    assert len(pulled) <= 10 + (RESAMPLED_PIECES + 1) * PIECE_SAMPLES // 1_600


@pytest.mark.parametrize("name", ["mp3", "flac", "mkv"])
def test_loss_without_an_error_leaves_a_trace(name):
    """libav says nothing about some of it."""
    codec = {"mp3": "libmp3lame", "flac": "flac", "mkv": "libopus"}[name]
    data = sound_file({"mkv": "matroska"}.get(name, name), codec, noise(96_000, 5), 48_000)
    for damaged in (with_garbage(data, 0.5, 600), data[: len(data) // 2]):
        media = probe(BytesIO(damaged), SPEC.limits)
        report = AudioTrack.open(BytesIO(damaged), media, 0, file_start=Fraction(0), spec=SPEC).report()
        assert report.missing + report.inserted > 1_000
        assert report.decoded == report.kept + sum(d.units for d in report.dropped)
    media = probe(BytesIO(data), SPEC.limits)
    report = AudioTrack.open(BytesIO(data), media, 0, file_start=Fraction(0), spec=SPEC).report()
    assert (report.missing, report.inserted, report.dropped) == (0, 0, ())


def test_garbage_in_a_float_wav_does_not_ring_on():
    sound = noise(48_000, 7)
    data = with_garbage(riff_wav(sound.astype("<f4").tobytes(), bits=32, tag=3), 0.5, 3_000)
    track = AudioTrack.open(BytesIO(data), probe(BytesIO(data), SPEC.limits), 0, file_start=Fraction(0), spec=SPEC)
    samples, valid = read_all(track)
    report = track.report()
    assert np.isfinite(samples).all() and report.peak <= 65_536
    assert 0 < sum(d.units for d in report.dropped) <= 751 and report.kept == int(valid.sum())
    assert same_bits(samples[:23_000], sound[:23_000]) and same_bits(samples[25_000:], sound[25_000:])
