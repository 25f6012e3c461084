"""Files become blocks: every sample as somebody else reads it, every fault in its place, nothing opened that was not handed in."""

import io
import struct
import zlib
from fractions import Fraction
from io import BytesIO
from types import SimpleNamespace

import av
import numpy as np
import pytest
import soundfile
from bits import same_bits
from media_makers import clap_film, clap_sound, film_file, riff_wav, sound_file, steady_times, with_garbage
from microturn.schemas.errors import MediaError
from microturn.schemas.spec import FeatureSpec, LimitSpec
from microturn.transforms.media.containers import decoded
from microturn.transforms.media.decode import AudioBlock, Fault, PictureFrame, audio_blocks, open_media, pictures, probe, subtitles
from microturn.transforms.media.pictures import PictureTrack
from microturn.transforms.media.place import AudioTrack
from signals import noise

LIMITS = LimitSpec()


def samples_of(source, index=0, limits=LIMITS):
    """All samples [C, S] and all faults."""
    items = list(audio_blocks(source, index, limits))
    blocks = [item for item in items if isinstance(item, AudioBlock)]
    joined = np.concatenate([block.samples_CS for block in blocks], axis=1) if blocks else np.zeros((0, 0), np.float32)
    return joined, [item for item in items if isinstance(item, Fault)]


def written(samples_SC, rate_hz, **form):
    out = BytesIO()
    soundfile.write(out, samples_SC, rate_hz, **form)
    return out.getvalue()


@pytest.mark.parametrize(
    ("container", "coding"),
    [
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"),
        ("WAVEX", "PCM_24"), ("W64", "PCM_24"), ("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AU", "PCM_16"), ("AU", "ALAW"), ("CAF", "PCM_24"),
        ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("NIST", "PCM_16"), ("NIST", "ULAW"),
    ],
)  # fmt: skip
def test_pcm_is_what_libsndfile_reads(container, coding):
    """Oracle: libsndfile, which writes the file and reads it again."""
    data = written(np.stack([noise(9_000, 1), noise(9_000, 2)], axis=1), 22_050, format=container, subtype=coding)
    wanted, rate_hz = soundfile.read(BytesIO(data), dtype="float32", always_2d=True)
    samples, faults = samples_of(BytesIO(data))
    stream = probe(BytesIO(data), LIMITS).stream("audio", 0)
    assert same_bits(np.ascontiguousarray(samples.T), wanted) and not faults
    assert (stream.rate_hz, stream.channels, stream.first, stream.declared) == (rate_hz, 2, 0, 9_000)


def test_a_sphere_file_is_read_to_the_sample(media):
    samples, _ = samples_of(media / "stereo.sph")
    wanted = np.arange(8_000) + np.array([[8_000], [16_000]])  # what that fixture holds: two ramps
    assert same_bits(samples, (wanted / 32_768).astype(np.float32))


@pytest.mark.parametrize("channels", [1, 2, 7, 8, 9, 16])
def test_channels_stay_apart(channels):
    """Planar formats of more than 7 channels take another way through PyAV."""
    signal = np.stack([noise(3_000, seed) for seed in range(channels)])
    samples, _ = samples_of(BytesIO(sound_file("wv", "wavpack", signal, 16_000)))
    assert samples.shape == signal.shape
    assert np.abs(samples - signal).max() < 2e-4


def test_a_64_bit_format_is_read():
    signal = (noise(2_000, 4) * 2.0**62).astype(np.int64)
    data = sound_file("nut", "pcm_s64le", (signal / 2.0**63).astype(np.float32), 16_000)
    samples, _ = samples_of(BytesIO(data))
    assert np.abs(samples[0] - (signal / 2.0**63).astype(np.float32)).max() < 1e-6


def test_an_empty_file_is_called_empty():
    with pytest.raises(MediaError, match="empty") as caught:
        probe(BytesIO(b""), LIMITS)
    assert caught.value.reason == "empty_file" and caught.value.hint


LEADING_ELSEWHERE = {
    "text": b"this is a text file that somebody called .wav\n" * 40,
    "noise": np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes(),
    "zeros": bytes(50_000),
    "concat": b"ffconcat version 1.0\nfile 'a.wav'\n",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.wav\n#EXT-X-ENDLIST\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>a.wav</BaseURL></Period></MPD>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "half_mp4": sound_file("mp4", "aac", clap_sound(16_000, Fraction(1), Fraction(1, 2)), 16_000)[:2_000],
}


@pytest.mark.parametrize("content", LEADING_ELSEWHERE.values(), ids=LEADING_ELSEWHERE.keys())
def test_what_is_no_recording_is_refused_and_opens_nothing_else(content, tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(riff_wav(bytes(32_000)))
    disguised = tmp_path / "%03d.wav"
    disguised.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError) as caught:
        probe(disguised, LIMITS)
    assert caught.value.reason == "not_media" and "%03d.wav" in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_the_name_of_a_file_decides_nothing(tmp_path):
    path = tmp_path / "holiday.mp3"
    path.write_bytes(riff_wav(np.arange(100, dtype="<i2").tobytes()))
    assert probe(path, LIMITS) == probe(BytesIO(path.read_bytes()), LIMITS)


def test_the_machines_faults_are_not_the_files(tmp_path):
    class Failing(BytesIO):
        def read(self, size=-1):
            if self.tell() > 20_000:
                raise TimeoutError("the store does not answer")
            return super().read(min(size, 20_000) if size > 0 else size)

    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "absent.wav", LIMITS)
    with pytest.raises(TimeoutError, match="does not answer"):
        samples_of(Failing(riff_wav(bytes(320_000))))


def test_one_file_object_serves_several_readers():
    left, right = (clap_sound(16_000, Fraction(20), Fraction(at, 4)) for at in (2, 5))
    data = sound_file("matroska", "flac", np.stack([left, right]), 16_000)
    shared = BytesIO(data)
    one, two = audio_blocks(shared, 0, LIMITS), audio_blocks(shared, 0, LIMITS)
    blocks = [(a, b) for a, b in zip(one, two, strict=True)]
    assert len(blocks) > 2 and all(same_bits(a.samples_CS, b.samples_CS) for a, b in blocks)
    assert not shared.closed


def test_closing_an_iterator_closes_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(riff_wav(bytes(320_000)))
    opened = []
    original = io.open
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: opened.append(original(*args, **kwargs)) or opened[-1])
    blocks = audio_blocks(path, 0, LIMITS)
    next(blocks)
    assert [file.closed for file in opened] == [False]
    blocks.close()
    assert [file.closed for file in opened] == [True]


def test_streams_are_counted_within_their_kind():
    data = clap_film("matroska", "libx264", "flac", times=steady_times(Fraction(25), 20), light=10)
    found = probe(BytesIO(data), LIMITS)
    assert sorted((s.kind, s.index) for s in found.streams) == [("audio", 0), ("video", 0)]
    for kind, read in (("audio", audio_blocks), ("video", pictures)):
        with pytest.raises(MediaError, match=f"no {kind} stream 1") as caught:
            list(read(BytesIO(data), 1, LIMITS))
        assert caught.value.reason == "no_such_stream"


def test_cover_art_is_not_video():
    """An ID3 tag with a picture, written by hand, before an MP3."""
    rows = b"".join(b"\0" + bytes([200, 10, 10] * 8) for _ in range(8))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    body = b"\0image/png\0\x03\0" + png
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    data = b"ID3\x03\0\0" + size + frame + sound_file("mp3", "libmp3lame", clap_sound(48_000, Fraction(1), Fraction(1, 2)), 48_000)
    with open_media(BytesIO(data)) as container:
        assert len(container.streams.video) == 1  # libav counts it
    found = probe(BytesIO(data), LIMITS)
    assert [(s.kind, s.declared) for s in found.streams] == [("audio", 48_000)]


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFF000, 100, 10_000_000])
def test_a_wav_header_that_lies_is_caught_or_known_to_be_unknown(claimed):
    data = riff_wav(noise(16_000, 3).astype("<f4").tobytes(), bits=32, tag=3, claimed_bytes=claimed)
    samples, _ = samples_of(BytesIO(data))
    assert samples.shape[1] == (25 if claimed == 100 else 16_000)
    unknown = claimed in (0, 0xFFFFFFFF, 0x7FFFF000)
    assert probe(BytesIO(data), LIMITS).stream("audio", 0).declared == (-1 if unknown else claimed // 4)


HALVES = {
    "wav": sound_file("wav", "pcm_s16le", noise(96_000, 5), 48_000),
    "flac": sound_file("flac", "flac", noise(96_000, 5), 48_000),
    "mp3": sound_file("mp3", "libmp3lame", noise(96_000, 5), 48_000),
    "opus": sound_file("ogg", "libopus", noise(192_000, 5), 48_000),
    "mkv": sound_file("matroska", "libopus", noise(96_000, 5), 48_000),
    "webm": sound_file("webm", "libopus", noise(96_000, 5), 48_000),
    "m4a": sound_file("ipod", "aac", noise(96_000, 5), 48_000, options={"movflags": "faststart"}),
    "wv": sound_file("wv", "wavpack", noise(192_000, 5), 48_000),
    "aiff": sound_file("aiff", "pcm_s16be", noise(96_000, 5), 48_000),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_file_is_known_to_be_half(name):
    """libav decodes most of them without a word."""
    whole, half = HALVES[name], HALVES[name][: len(HALVES[name]) // 2]
    complete, cut = (probe(BytesIO(data), LIMITS).stream("audio", 0) for data in (whole, half))
    num_whole, num_half = (samples_of(BytesIO(data))[0].shape[1] for data in (whole, half))
    assert not complete.truncated and abs(complete.declared - num_whole) <= 1_024
    assert num_half < 0.8 * num_whole
    assert cut.truncated if name == "opus" else abs(cut.declared - num_whole) <= 1_024


def test_an_ogg_cut_between_two_pages_is_known_to_be_cut():
    data = HALVES["opus"]
    assert probe(BytesIO(data[: data.rindex(b"OggS")]), LIMITS).stream("audio", 0).truncated


@pytest.mark.parametrize("name", ["flac", "mp3", "opus", "mkv", "m4a"])
def test_garbage_in_the_middle_costs_the_middle(name):
    data = with_garbage(HALVES[name], 0.5, 600)
    whole, _ = samples_of(BytesIO(HALVES[name]))
    samples, faults = samples_of(BytesIO(data))
    assert 0.4 * whole.shape[1] < samples.shape[1] < whole.shape[1]
    assert all(fault.reason == "corrupt_packet" and fault.message for fault in faults)
    assert same_bits(samples[:, :20_000], whole[:, :20_000])


def test_a_stream_of_faults_is_ended_by_the_limit():
    sound = sound_file("ipod", "aac", noise(96_000, 6), 48_000, options={"movflags": "faststart"})
    start = sound.index(b"mdat") + 4
    broken = with_garbage(sound, start / len(sound), len(sound) - start)
    _, faults = samples_of(BytesIO(broken), limits=LimitSpec(max_corrupt_packets=5))
    assert [fault.reason for fault in faults] == ["corrupt_packet"] * 5 + ["limit_corrupt_packets"]


def test_a_fault_stands_where_it_happened():
    """Between the blocks around the hole, although the last blocks of an mp4 are held back for their padding."""
    items = list(audio_blocks(BytesIO(with_garbage(HALVES["m4a"], 0.5, 600)), 0, LIMITS))
    first = next(at for at, item in enumerate(items) if isinstance(item, Fault))
    after = next(item for item in items[first:] if isinstance(item, AudioBlock))
    assert items[first - 1].pts + items[first - 1].samples_CS.shape[1] < after.pts


class Stumbling:
    """A container whose demuxer fails before some of its packets; a packet is a number and decodes to itself."""

    def __init__(self, packets):
        self.streams = [SimpleNamespace(codec_context=SimpleNamespace())]
        self._packets = iter(packets)

    def demux(self, *streams):
        for packet in self._packets:
            if packet is None:
                raise av.error.InvalidDataError(1, "lost")
            if packet == "stranger":
                raise IndexError("list index out of range")
            yield SimpleNamespace(decode=lambda packet=packet: [packet])


def test_a_demuxer_that_stumbles_goes_on_behind_the_spot():
    container = Stumbling([0, 1, None, 2, None, None, 3])
    items = list(decoded(container, container.streams, LIMITS))
    assert [item.reason if isinstance(item, Fault) else item[1][0] for item in items] == [
        0, 1, "corrupt_packet", 2, "corrupt_packet", "corrupt_packet", 3,
    ]  # fmt: skip


def test_a_stream_that_appears_in_mid_file_is_no_concern_of_ours():
    """PyAV stumbles over it when it flushes, after our streams."""
    container = Stumbling([0, 1, "stranger"])
    assert [frames for _, frames in decoded(container, container.streams, LIMITS)] == [[0], [1]]


def test_a_demuxer_that_does_not_get_past_a_spot_is_given_up():
    stuck = bytearray(HALVES["wv"])
    stuck[stuck.index(b"wvpk", len(stuck) // 2)] ^= 255
    samples, faults = samples_of(BytesIO(bytes(stuck)))
    assert 0 < samples.shape[1] < 192_000 and len(faults) < 30 and faults[-1].reason == "limit_corrupt_packets"


def test_raw_video_is_refused_because_it_has_no_times():
    film = film_file("h264", "libx264", [np.zeros((48, 64, 3), np.uint8)] * 9, steady_times(Fraction(25), 9))
    with pytest.raises(MediaError) as caught:
        probe(BytesIO(film), LIMITS)
    assert caught.value.reason == "not_media"


WHOLE = [
    *HALVES.values(),
    *(clap_film(c, v, a, times=steady_times(Fraction(25), 20), light=9) for c, v, a in [
        ("mp4", "libx264", "aac"), ("webm", "libvpx", "libopus"), ("mpegts", "libx264", "aac"), ("flv", "libx264", "aac"),
    ]),
]  # fmt: skip


def damaged(seed):
    """One of the files, with bits flipped, a part overwritten, cut off, moved or repeated, or its header scribbled on."""
    rng = np.random.default_rng(seed)
    data = bytearray(WHOLE[rng.integers(len(WHOLE))])
    start, stop = sorted(rng.integers(0, len(data), 2).tolist())
    match rng.integers(6):
        case 0:
            for at in rng.integers(0, len(data), 30):
                data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[start : start + 3_000] = rng.bytes(len(data[start : start + 3_000]))
        case 2:
            del data[start:]
        case 3:
            data = data[:start] + data[stop:] + data[start:stop]
        case 4:
            data[stop:stop] = data[start:stop]
        case 5:
            for at in rng.integers(0, min(len(data), 600), 10):
                data[at] = int(rng.integers(256))
    return bytes(data)


@pytest.mark.parametrize("seeds", [range(80), pytest.param(range(80, 6_000), marks=pytest.mark.nightly)], ids=["few", "many"])
def test_damage_is_a_refusal_or_a_report_that_closes_never_anything_else(seeds):
    outcomes = set()
    for seed in seeds:
        data = BytesIO(damaged(seed))
        try:
            media = probe(data, LIMITS)
            for stream in media.streams:
                open_track = AudioTrack.open if stream.kind == "audio" else PictureTrack.open
                report = open_track(data, media, stream.index, file_start=Fraction(0), spec=FeatureSpec()).report()
                kept = report.kept if stream.kind == "audio" else report.used + report.between
                assert report.decoded == kept + sum(drop.units for drop in report.dropped), seed
                outcomes.add("report")
        except MediaError as error:
            outcomes.add(error.reason)
    assert {"report", "not_media"} <= outcomes


def test_limits_are_stated_before_anything_large_is_decoded():
    film = film_file("mp4", "libx264", [np.zeros((48, 64, 3), np.uint8)] * 3, steady_times(Fraction(25), 3))
    small = LimitSpec(max_pixels=64 * 47)
    assert probe(BytesIO(film), small).stream("video", 0).first is None  # not even looked at
    assert not [item for item in pictures(BytesIO(film), 0, small) if isinstance(item, PictureFrame)]
    both = clap_film("mp4", "libx264", "aac", times=steady_times(Fraction(25), 9), light=5)
    with pytest.raises(MediaError) as caught:
        probe(BytesIO(both), LimitSpec(max_streams=1))
    assert caught.value.reason == "limit_streams"


def test_a_stream_that_starts_too_late_is_not_searched_for():
    data = clap_film("matroska", "libx264", "flac", times=steady_times(Fraction(10), 60), light=50, audio_start=Fraction(4))
    assert probe(BytesIO(data), LIMITS).stream("audio", 0).first == 4
    assert probe(BytesIO(data), LimitSpec(max_start_samples=16_000)).stream("audio", 0).first is None


SUBTITLES = {
    "srt": "1\n00:00:01,500 --> 00:00:02,250\nHello <i>there</i>,\nyou\n\n2\n00:00:03,000 --> 00:00:03,001\n{\\an8}Bye\n\n",
    "vtt": "WEBVTT\n\n00:01.500 --> 00:02.250\nHello <i>there</i>,\nyou\n\n00:03.000 --> 00:03.001\nBye\n\n",
    "ass": "[Script Info]\nScriptType: v4.00+\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    "Dialogue: 0,0:00:01.50,0:00:02.25,Default,,0,0,0,,Hello {\\i1}there{\\i0},\\Nyou\n"
    "Dialogue: 0,0:00:03.00,0:00:03.00,Default,,0,0,0,,Bye\n",
}


@pytest.mark.parametrize("name", SUBTITLES)
def test_subtitles_are_plain_text_with_exact_times(name):
    cues, faults = subtitles(BytesIO(SUBTITLES[name].encode()), 0, LIMITS)
    assert not faults
    assert [(cue.start, cue.text) for cue in cues] == [(Fraction(3, 2), "Hello there,\nyou"), (Fraction(3), "Bye")]
    assert cues[0].stop == Fraction(9, 4)


def test_subtitles_of_a_film_are_on_its_clock(media):
    cues, faults = subtitles(media / "nasa_13013.mp4", 1, LIMITS)
    assert not faults and (cues[0].start, cues[0].stop) == (Fraction(21, 100), Fraction(426, 100))
    assert cues[2].text == "at NASA’s Goddard Space Flight Center in Greenbelt, Maryland."


def test_too_many_cues_are_refused():
    with pytest.raises(MediaError) as caught:
        subtitles(BytesIO(SUBTITLES["srt"].encode()), 0, LimitSpec(max_words=1))
    assert caught.value.reason == "limit_words"
