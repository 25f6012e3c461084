"""What a container says of its length: believed where it says it itself, and where a recording can be so long."""

import re
from fractions import Fraction
from io import BytesIO

import pytest
from media_makers import clap_sound, sound_file
from microturn.schemas.spec import FeatureSpec, LimitSpec
from microturn.transforms.media.decode import probe
from microturn.transforms.media.place import AudioTrack
from signals import noise

LIMITS = LimitSpec()


def test_a_length_is_claimed_only_where_the_container_says_it():
    sound = clap_sound(48_000, Fraction(2), Fraction(1))

    def said(container, codec, **how):
        return probe(BytesIO(sound_file(container, codec, sound, 48_000, **how)), LIMITS).stream("audio", 0).declared

    assert said("mp3", "libmp3lame") == said("flac", "flac") == said("ipod", "aac") == 96_000
    assert said("mp3", "libmp3lame", options={"write_xing": "0"}) == -1  # libav guesses from the bit rate
    assert said("adts", "aac") == said("mpegts", "aac") == -1
    assert said("ipod", "aac", options={"movflags": "frag_keyframe+delay_moov"}) == -1


def test_what_libav_skips_at_the_start_is_not_claimed():
    sound = noise(96_000, 5)
    for codec in ("aac", "libopus"):
        said = probe(BytesIO(sound_file("matroska", codec, sound, 48_000)), LIMITS).stream("audio", 0).declared
        assert abs(said - 96_000) <= 96  # Matroska counts milliseconds


def matroska_that_lasts(clock: str) -> bytes:
    """Two seconds whose tag says another length; the text is 18 characters long."""
    data = sound_file("matroska", "flac", noise(96_000, 5), 48_000)
    written = re.findall(rb"DURATION.{1,9}(00:00:02\.\d{9})", data, re.DOTALL)
    assert len(written) == 1 and len(clock) == len(written[0])
    return data.replace(written[0], clock.encode())


@pytest.mark.parametrize("clock", ["999999999999:59:59", "99999999:00:00.000", "00000000008785:0:0"])
def test_a_length_that_no_recording_has_is_not_believed(clock):
    """The first would not fit into 64 bits; the last is an hour more than a year."""
    said = probe(BytesIO(matroska_that_lasts(clock)), LIMITS).stream("audio", 0)
    assert (said.declared, said.stop, said.absurd) == (-1, None, True)
    track = AudioTrack([], said, zero=Fraction(0), file_start=Fraction(0), spec=FeatureSpec())
    assert [(drop.reason, drop.units) for drop in track.report().dropped] == [("absurd_length", 0)]


@pytest.mark.parametrize("clock", ["00:00:02.000000000", "00000000008784:0:0", "1e999999999:00:000", "00:00:0-2.00000000"])
def test_a_length_that_may_be_or_is_none_is_not_absurd(clock):
    said = probe(BytesIO(matroska_that_lasts(clock)), LIMITS).stream("audio", 0)
    assert said.declared == (8784 * 3600 if "8784" in clock else 2) * 48_000 and not said.absurd
