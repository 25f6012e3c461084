"""Transcripts as they come: the shapes of the field, times kept exact, bad entries as rows, and no error but MediaError."""

import contextlib
import itertools
import json
import re
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.schemas.clock import to_samples
from microturn.schemas.errors import MediaError
from microturn.schemas.spec import LimitSpec
from microturn.transforms.text.timed_words import MAX_ROWS_PER_REASON, seconds
from microturn.transforms.text.transcripts import Rejected, TimedWord, parse

MEDIA = Path(__file__).parents[3] / ".." / "shared" / "media"
LIMITS = LimitSpec()
FORMATS = ["auto", "moshi", "words", "srt", "vtt", "stm", "ctm"]


def read(data, format="auto", where="talk", limits=LIMITS) -> tuple[list[TimedWord], list[Rejected]]:
    return parse(data if isinstance(data, bytes) else data.encode(), format=format, where=where, limits=limits)


def table(words):
    return [(w.text, str(w.start), str(w.stop), w.speaker, w.timing) for w in words]


# ---- every format, as the field writes it: (name, text, words)

MOSHI = '{"alignments": [[" hello", [0.1, 0.35], "SPEAKER_MAIN"], ["you", [0.350, 1e0], "B"], ["no", [2, null]]]}'
KAME = '[{"speaker": 1, "word": "you", "start": "0.5", "end": 0.75}, {"speaker": "A", "word": "oh", "start": 0.25, "stop": 0.5}]'
WHISPERX = """{"language": "en", "segments": [
  {"start": 1, "end": 5, "text": " in 2014 6 we do", "speaker": "A", "words": [
    {"word": "in", "start": 1, "end": 2}, {"word": "2014"}, {"word": 6}, {"word": "we", "start": 3.5, "end": 4}, {"word": "do"}]},
  {"start": 5, "end": 6, "text": "so then"}]}"""
CHUNKS = '{"text": " a b", "chunks": [{"text": " a", "timestamp": [0.5, 0.7]}, {"text": " b", "timestamp": [0.8, null]}]}'
SEGLST = """{"session_id": "s", "start_time": "1.5", "end_time": "2.5", "speaker": "A", "words": "well yes"}
{"session_id": "s", "start_time": 0, "end_time": 1, "speaker": "B", "words": "x"}
"""
SRT = (
    "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>Hi</i> {\\an8}there\r\n\r\n"
    "2\r\n01:00:00.5 --> 01:00:01,5  X1:40 X2:600\r\n42\r\n\r\nstill here\r\n"
)
VTT = """\ufeffWEBVTT - of a talk
Kind: captions

NOTE nobody
says this

STYLE
::cue { color: red }

first
00:01.000 --> 00:03.000 align:start
<v.loud Ann Lee><b>He</b>llo &amp;</v>
<v Bob>hey</v> <i>you</i>

NOTE nor
this

00:00:04.000 --> 00:00:05.000
one<00:00:04.500><c> two</c><00:00:04.750> three four
"""
STM = ";; a comment\nrec A ann 1.0 2.0 <o,f0,female> so <laugh> yes\nrec A bob 0.50 0.75 hm\n"
CTM = ";; a comment\nrec 1 0.5 0.25 hello 0.99\nrec 2 0.25 0.5 oh\nrec A 3 .5 yes 1 lex ann\n"

KNOWN = {
    "moshi": (
        MOSHI,
        [("hello", "1/10", "7/20", "SPEAKER_MAIN", "word"), ("you", "7/20", "1", "B", "word"), ("no", "2", "2", "", "word")],
    ),
    "words": (KAME, [("oh", "1/4", "1/2", "A", "word"), ("you", "1/2", "3/4", "1", "word")]),
    "words: segments": (
        WHISPERX,
        [
            ("in", "1", "2", "A", "word"),
            ("2014", "2", "11/4", "A", "segment"),
            ("6", "11/4", "7/2", "A", "segment"),
            ("we", "7/2", "4", "A", "word"),
            ("do", "4", "5", "A", "segment"),
            ("so", "5", "11/2", "", "segment"),
            ("then", "11/2", "6", "", "segment"),
        ],
    ),
    "words: chunks": (CHUNKS, [("a", "1/2", "7/10", "", "word"), ("b", "4/5", "4/5", "", "word")]),
    "words: lines": (SEGLST, [("x", "0", "1", "B", "word"), ("well", "3/2", "2", "A", "segment"), ("yes", "2", "5/2", "A", "segment")]),
    "srt": (
        SRT,
        [
            ("Hi", "1", "3/2", "", "segment"),
            ("there", "3/2", "2", "", "segment"),
            ("42", "7201/2", "21605/6", "", "segment"),
            ("still", "21605/6", "21607/6", "", "segment"),
            ("here", "21607/6", "7203/2", "", "segment"),
        ],
    ),
    "vtt": (
        VTT,
        [
            ("Hello", "1", "3/2", "Ann Lee", "segment"),
            ("&", "3/2", "2", "Ann Lee", "segment"),
            ("hey", "2", "5/2", "Bob", "segment"),
            ("you", "5/2", "3", "", "segment"),
            ("one", "4", "9/2", "", "word"),
            ("two", "9/2", "19/4", "", "word"),
            ("three", "19/4", "39/8", "", "segment"),
            ("four", "39/8", "5", "", "segment"),
        ],
    ),
    "stm": (
        STM,
        [
            ("hm", "1/2", "3/4", "bob", "segment"),
            ("so", "1", "4/3", "ann", "segment"),
            ("<laugh>", "4/3", "5/3", "ann", "segment"),
            ("yes", "5/3", "2", "ann", "segment"),
        ],
    ),
    "ctm": (CTM, [("oh", "1/4", "3/4", "2", "word"), ("hello", "1/2", "3/4", "1", "word"), ("yes", "3", "7/2", "ann", "word")]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_shapes_of_the_field_are_read_and_told_apart(name):
    text, wanted = KNOWN[name]
    words, rejected = read(text)
    assert table(words) == wanted and rejected == []
    assert read(text, name.split(":")[0]) == (words, [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", KNOWN)
def test_an_encoding_changes_no_word(name, encoding):
    text, wanted = KNOWN[name]
    assert table(read(text.removeprefix("\ufeff").encode(encoding))[0]) == wanted


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_line_ends_change_no_word(newline):
    for text in (SRT, VTT, STM, CTM):
        assert read(re.sub(r"\r\n|\n", newline, text)) == read(re.sub(r"\r\n", "\n", text))


@pytest.mark.skipif(not MEDIA.exists(), reason="the shared recordings are not beside the checkout")
def test_a_real_stm_keeps_every_word():
    data = (MEDIA / "two_speakers.stm").read_bytes()
    words, rejected = read(data)
    assert rejected == [] and {w.speaker for w in words} == {"Diane", "Sheila"}
    by_line = [line.split()[5:] for line in data.decode().splitlines()]
    assert sorted(w.text for w in words) == sorted(text for line in by_line for text in line)


# ---- times


@given(milliseconds=st.integers(0, 10**9), digits=st.integers(0, 6))
def test_a_time_is_what_is_written_and_never_a_float(milliseconds, digits):
    written = f"{milliseconds // 1000}.{milliseconds % 1000:03d}{'0' * digits}"
    (word,), _ = read(f'{{"alignments": [["x", [{written}, {written}], ""]]}}')
    assert word.start == word.stop == Fraction(milliseconds, 1000)
    assert to_samples(word.start) == milliseconds * 16


def test_a_time_that_no_float_holds_is_rounded_once():
    ties = ["0.00003125", "0.00009375", "0.00015625", "1000000.00003125"]  # exactly half a sample: half to even
    words, _ = read(json.dumps([{"word": "x", "start": tie, "end": tie} for tie in ties]))
    assert [to_samples(w.start) for w in words] == [0, 2, 2, 16_000_000_000]
    words, _ = read('[{"word": "x", "start": 0.000031250000000000001}, {"word": "x", "start": 0.000031249999999999999}]')
    assert [to_samples(w.start) for w in words] == [0, 1]


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999999999", "1e-999999999", "1" * 5000, "0." + "1" * 5000, "true", '"soon"', "[1]"]
)
def test_a_number_that_is_no_time_costs_its_entry_only(text):
    words, rejected = read(f'[{{"word": "lost", "start": {text}, "end": 1}}, {{"word": "kept", "start": 1, "end": 2}}]')
    assert [w.text for w in words] == ["kept"]
    assert [(r.reason, r.number, r.count) for r in rejected] == [("bad_time", 1, 1)]


@pytest.mark.parametrize(
    ("text", "exact"), [("1:02:03,5", "7447/2"), ("00:59.25", "237/4"), ("-0.0", "0"), (".5", "1/2"), ("1:60", None), ("61:1", None)]
)
def test_clocks_and_decimals_are_both_seconds(text, exact):
    assert seconds(text) == (None if exact is None else Fraction(exact))


@given(num_words=st.integers(1, 40), start=st.integers(0, 10**6), length=st.integers(0, 10**6))
def test_the_words_of_a_segment_fill_it_evenly_without_a_gap(num_words, start, length):
    words, _ = read(f"rec A ann {start}e-3 {start + length}e-3 {'w ' * num_words}", "stm")
    edges = [w.start for w in words] + [words[-1].stop]
    assert [w.stop for w in words] == edges[1:] and len(words) == num_words
    assert edges[0] == Fraction(start, 1000) and edges[-1] == Fraction(start + length, 1000)
    assert len({b - a for a, b in itertools.pairwise(edges)}) == 1
    assert {w.timing for w in words} == {"segment"}


@given(starts=st.lists(st.integers(0, 20), max_size=30))
def test_words_are_sorted_by_start_and_equal_starts_keep_their_order(starts):
    words, _ = read(json.dumps({"alignments": [[str(n), [start, start + 1], ""] for n, start in enumerate(starts)]}))
    assert [(int(w.start), int(w.text)) for w in words] == sorted((start, n) for n, start in enumerate(starts))


# ---- entries that give no word

hostile = st.lists(st.characters() | st.sampled_from(["\ud83d", "\ude00", "\0", "\u202e", "\n", " "]), max_size=8).map("".join)


BAD = [  # (entry, its reason)
    ('{"word": "x", "start": -0.5, "end": 1}', "negative_time"),
    ('{"word": "x", "start": 2, "end": 1}', "inverted_time"),
    ('{"word": "x"}', "no_times"),
    ('{"word": "  ", "start": 1, "end": 2}', "empty"),
    ('{"text": "\\u2003", "start": 1, "end": 2}', "empty"),
    ('{"word": NaN, "start": 1, "end": 2}', "bad_text"),
    ('{"word": null, "start": 1, "end": 2}', "bad_text"),
    ('{"word": ["x"], "start": 1, "end": 2}', "bad_entry"),
    ('{"start": 1, "end": 2}', "bad_entry"),
    ('{"word": "x", "start": 1, "start": 2}', "bad_entry"),
    ("[1, 2]", "bad_entry"),
    ("null", "bad_entry"),
    ('{"words": [{"words": [{"words": [{"word": "x", "start": 1}]}]}]}', "bad_entry"),
]


@pytest.mark.parametrize(("entry", "reason"), BAD)
def test_a_bad_entry_is_a_row_and_its_neighbours_are_words(entry, reason):
    words, rejected = read(f'[{entry}, {{"word": "kept", "start": 1, "end": 2}}]')
    if reason == "no_times":  # would share the time before its neighbour, if there were any
        assert rejected == [Rejected(reason="no_times", message="no start of 'x'", number=1)]
    assert [w.text for w in words] == ["kept"] and [(r.reason, r.number) for r in rejected] == [(reason, 1)]


def test_a_moshi_entry_of_another_shape_is_a_row():
    entries = [["kept", [0, 1], "A"], ["x", 0, 1], ["x"], ["x", [0], "A"], "abc", {}, ["x", [0, 1], "A", 7]]
    words, rejected = read(json.dumps({"alignments": entries}))
    assert [w.text for w in words] == ["kept"] and [(r.reason, r.number) for r in rejected] == [("bad_entry", n) for n in range(2, 8)]


def test_lines_that_give_no_word_are_rows_with_their_numbers():
    stm = (
        "rec A ann 0 1 yes\nrec A ann x 1 lost words\nrec A ann 2 1 two words\nrec A ann 3 4\nrec A x 4 5 IGNORE_TIME_SEGMENT_IN_SCORING\n"
    )
    assert [(r.reason, r.number, r.count) for r in read(stm, "stm")[1]] == [
        ("bad_entry", 2, 1),
        ("inverted_time", 3, 2),
        ("empty", 4, 1),
        ("ignored", 5, 1),
    ]
    ctm = "r 1 0 1 a\nr 1 * * <ALT_BEGIN>\nr 1 1 1 b\nr 1 * * <ALT>\nr 1 1 1 c\nr 1 * * <ALT_END>\nr 1 5 -1 d\nr 1 7 1 e\n"
    words, rejected = read(ctm, "ctm")
    assert [w.text for w in words] == ["a", "b", "e"]
    assert [(r.reason, r.number) for r in rejected] == [("alternative", 5), ("inverted_time", 7)]


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_text_that_no_line_of_times_claims_is_a_row(format):
    text = (
        "1\n00:01.000 --> 00:02.000\nkept\n\n2\n00:03.000 -> 00:04.000\nlost words\n\n"
        "3\n00:05.000 --> 00:06.000\nkept\n\n4\n00:09.0 --> 00:08.0\na b\n"
    )
    words, rejected = read(text, format)
    assert [w.text for w in words] == ["kept", "kept"]
    assert [(r.reason, r.number) for r in rejected] == [("bad_entry", 6), ("inverted_time", 14)]
    assert "lost words" in rejected[0].message and rejected[1].count == 2


def test_limits_are_rows_that_count_what_they_cost():
    limits = LimitSpec(max_words=300, max_word_chars=5)
    entries = [["x" * 5, [0, 1], ""]] * 700 + [["x" * 6, [0, 1], ""]]
    words, rejected = read(json.dumps({"alignments": entries}), limits=limits)
    assert len(words) == 300
    by_reason = {reason: sum(r.count for r in rejected if r.reason == reason) for reason in ("too_many_words", "word_too_long")}
    assert by_reason == {"too_many_words": 400, "word_too_long": 1}
    assert len(rejected) == MAX_ROWS_PER_REASON + 1  # a hostile file cannot fill the ledger


@settings(deadline=None)
@given(texts=st.lists(hostile, max_size=8))
def test_every_word_is_kept_or_counted_and_fits_into_utf8(texts):
    words, rejected = read(json.dumps({"alignments": [[text, [0, 1], text] for text in texts]}))
    assert len(words) + sum(r.count for r in rejected) == len(texts)
    for word in words:
        assert word.text == word.text.strip() != ""
        assert word.text.encode() and word.speaker.encode() is not None


def test_nul_and_marks_of_direction_stay_in_the_word_and_out_of_messages():
    words, rejected = read(json.dumps([{"word": "a\0b\u202e", "start": 0}, {"word": "\u202e\x1b[2J\ud800", "start": "\u202e\x1b[2J"}]))
    assert [w.text for w in words] == ["a\0b\u202e"]
    assert rejected[0].message.isprintable()
    assert read('[{"word": "raw\0tab\tline\n", "start": 0}]')[0][0].text == "raw\0tab\tline"  # not JSON by the book, and harmless


# ---- files that are not what they are said to be


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"", "auto"),
        (b"Dear all,\nplease find enclosed the minutes of our meeting in May.\n", "auto"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "auto"),
        (b'{"alignments": [', "auto"),
        (b'{"words": [{"word": "x", "start": 0}]', "words"),
        (b"[" * 100_000, "words"),
        (b'{"words":' * 100_000, "words"),
        (b'{"words": [], "words": []}', "words"),
        (b"[1, 2, 3]", "words"),
        (b'"words"', "words"),
        (b"[]", "moshi"),
        (b'{"alignments": 5}', "moshi"),
        (b"no times in here", "srt"),
        (b"no times in here, none", "vtt"),
        (b"no times in here at all, none", "stm"),
        (b"no times in here at all, none", "ctm"),
        ("naïve".encode("latin-1"), "srt"),
        (b"\xff\xfe\x00\xd8", "words"),
        (b"sw1 A ann 0 1 yes\nsw2 A bob 0 1 no\n", "stm"),
        (b"rec 1 2 3 4 5\n", "auto"),
    ],
)
def test_a_file_that_is_not_of_its_format_is_refused_in_words(data, format):
    with pytest.raises(MediaError) as error:
        read(data, format, where="talks/one.txt")
    assert error.value.reason == "bad_transcript" and str(error.value).startswith("talks/one.txt: ") and len(str(error.value)) < 300


@pytest.mark.parametrize(("data", "format"), [("", "srt"), ("WEBVTT\n", "vtt"), (";; nothing\n", "stm"), ("", "ctm"), ("[]", "words")])
def test_a_recording_in_which_nobody_spoke_has_no_words(data, format):
    assert read(data, format) == ([], [])


def test_the_name_decides_where_content_cannot():
    line = "rec 1 2 3 4 5\n"
    assert table(read(line, where="a.ctm")[0]) == [("4", "2", "5", "1", "word")]
    assert table(read(line, where="a.STM")[0]) == [("5", "3", "4", "2", "segment")]


@pytest.mark.parametrize(
    "piece", ["<", ",", "<b ", "<v ", "{\\", "1", "1:", "00:01.0 -->", " ", "\n", "[", '{"words":[', "&", "\\u", "w ", "rec A x 0 1 w\n"]
)
@pytest.mark.parametrize("format", FORMATS)
def test_a_hostile_line_takes_no_longer_than_it_is(piece, format):
    head = {"srt": "00:01.0 --> 00:02.0\n", "vtt": "00:01.0 --> 00:02.0\n", "stm": "rec A x 0 1 <", "moshi": '{"alignments":'}.get(
        format, ""
    )
    started = time.process_time()
    with contextlib.suppress(MediaError):
        read(head + piece * (200_000 // len(piece)), format)
    assert time.process_time() - started < 60  # quadratic work here takes minutes


PIECES = """
{"words": | "word": | "start": | "alignments": | "timestamp": | "speaker": | [ | ] | { | } | , | "x" | "\\ud800" | 1 | -1.5 | 1e99 | NaN
| null | WEBVTT | 00:01.000 | --> | 00:00:02,5 | <v Ann> | <00:00:01.5> | < | > | </v> | <v.x> | &#xD800; | hello | 7 | rec A ann 1 2
| rec A 1 1 | <ALT> | <ALT_BEGIN>"""
pieces = st.sampled_from([*(piece.strip("\n") for piece in PIECES.split("| ")), "\n", "\n\n", " ", "\ufeff", "\0", "\u202e", "9" * 400])


@settings(max_examples=400, deadline=None)
@given(
    data=st.binary(max_size=40) | st.lists(pieces, max_size=25).map(lambda parts: "".join(parts).encode()), format=st.sampled_from(FORMATS)
)
def test_no_file_raises_anything_but_media_error(data, format):
    try:
        words, rejected = read(data, format)
    except MediaError as error:
        assert error.reason == "bad_transcript"
        return
    assert all(0 <= w.start <= w.stop and w.text.strip() for w in words)
    assert all(r.count >= 1 and r.number >= 1 and len(r.message) < 300 for r in rejected)
