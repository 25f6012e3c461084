"""`microturn inspect`: keys by their beginning, ranges, raw tokens, the overview. Through the command line, in this process."""

import re
import subprocess
import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from microturn import cli
from microturn.notebooks import find, survey, ticks
from microturn.notebooks.inspect_command import parse_time
from microturn.schemas.errors import InputError
from rich.cells import cell_len


def inspect(corpus, *arguments, **environment):
    """What the command prints on stdout."""
    done = CliRunner().invoke(cli.microturn, ["inspect", corpus.folder.uri, *arguments], env={"COLUMNS": "120"} | environment)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def key(hostile):
    """The first window of the call whose id wants to be markup."""
    return next(
        row["key"] for row in hostile.rows() if "<script>" in row["session_id"] and row["view"] == "left" and row["first_tick"] == 0
    )


def test_the_overview_says_what_there_is(hostile):
    text = inspect(hostile)
    held = survey.survey(hostile)
    for line in (
        f"{held.num_windows} in {len(hostile.shards)} shards",
        f"turn {held.events['turn']}",
        "not_media",
        "1 more dropped whole",
    ):
        assert line in text
    assert hostile.dataset["digests"]["content"][:12] in text
    assert len(re.findall(r"-\d{7} ", text)) == min(10, held.num_windows)
    assert len(re.findall(r"-\d{7} ", inspect(hostile, "--all"))) == held.num_windows


def test_a_unique_beginning_is_a_key(hostile, key):
    assert inspect(hostile, key[:-1], "--ticks", "0:3") == inspect(hostile, key, "--ticks", "0:3")
    with pytest.raises(InputError, match="windows begin with") as refusal:
        inspect(hostile, "plain-l")
    assert "plain-left-0000000" in refusal.value.hint
    with pytest.raises(InputError, match="no window begins with") as refusal:
        inspect(hostile, "plian-left-0000000")
    assert "plain-left-0000000" in refusal.value.hint


def test_a_key_that_begins_another_is_itself():
    assert find.full_key("a-b-0000001", ["a-b-0000001", "a-b-00000010"]) == "a-b-0000001"


def test_times_and_ticks_choose_the_same(hostile, key):
    by_time = inspect(hostile, key, "--from", "0:00:00.6", "--to", "1.01")
    assert by_time == inspect(hostile, key, "--ticks", "3:6")
    assert "0:00:00.6 " in by_time and "0:00:01.0 " in by_time and "0:00:00.4 " not in by_time and "0:00:01.2 " not in by_time


@pytest.mark.parametrize(
    "text, samples", [("65.2", 1043200), ("1:05.2", 1043200), ("0:01:05.2", 1043200), ("0", 0), ("2:00:00", 115200000)]
)
def test_a_time_is_read_in_samples(text, samples):
    assert parse_time(text, "--from") == samples


@pytest.mark.parametrize("text", ["", "1:2:3:4", "-1", "1e3", "a", "1:", "5:-2"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match="not a time"):
        parse_time(text, "--to")


def test_a_range_outside_names_the_window_that_has_it(hostile, key):
    with pytest.raises(InputError, match=r"has ticks 0–9") as refusal:
        inspect(hostile, key, "--from", "2.1", "--to", "2.5")
    assert refusal.value.hint == f"look at {key[:-7]}0000010"


def test_raw_tokens_are_the_stored_ones(hostile, key):
    text = inspect(hostile, key, "--all", "--tokens")
    record = hostile.read(hostile.find(key))
    ids = []
    for line in text.splitlines():
        assert int(re.match(r" *-?\d+ @(\d+)", line)[1]) == len(ids)
        for part in line.split(maxsplit=2)[2].split(" · "):
            for id_, count in re.findall(r"(\d+)(?:<[^>]*>)?(?:×(\d+))?", part.split(" ", 1)[1]):
                ids += [int(id_)] * int(count or 1)
    assert ids == record.tokens.tolist()


def test_no_colour_means_none(hostile, key):
    colourful = inspect(hostile, key, FORCE_COLOR="1", TERM="xterm")
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", colourful)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", inspect(hostile, key, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm"))


def test_hostile_names_reach_no_terminal(hostile, key):
    text = inspect(hostile) + inspect(hostile, key, "--all")
    assert "<script>alert('id')</script>" in text  # a terminal does not mind markup
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]
    assert ticks.printable("a\x1b[2J\u202eb\ud800\u00a0é") == r"a\x1b[2J\u202eb\ud800" + "\u00a0é"


def test_options_that_exclude_each_other_are_refused(hostile, key):
    for arguments in ([key, "--all", "--ticks", "1:2"], [key, "--from", "1", "--ticks", "1:2"], ["--tokens"]):
        done = CliRunner().invoke(cli.microturn, ["inspect", hostile.folder.uri, *arguments])
        assert done.exit_code == 2 and "Usage" in done.stderr


def test_members_by_ranges_are_those_of_the_record(hostile, key):
    row = hostile.find(key)
    record = hostile.read(row)
    some = find.members(hostile, row, ("words", "activity", "tokens", "meta", "picture_tick"))
    assert set(some) == {"words", "activity", "tokens", "meta", "picture_tick"}
    for name, value in some.items():
        assert np.array_equal(value, getattr(record, name)) if isinstance(value, np.ndarray) else value == getattr(record, name)


def test_events_before_are_those_of_the_window_before(hostile, key):
    known = find.shard_of_keys(hostile)
    later = hostile.find(f"{key[:-7]}0000010")
    assert find.events_before(hostile, later, known) == hostile.read(hostile.find(key)).events
    assert find.events_before(hostile, hostile.find(key), known) == []


def test_terminal_and_page_need_no_matplotlib():
    modules = "inspect_command, overview, raw_tokens, report, report_command, timeline"
    program = f"import sys; sys.modules['matplotlib'] = sys.modules['IPython'] = None; from microturn.notebooks import {modules}"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("columns", [40, 60, 79])
def test_a_narrow_terminal_loses_no_mark_of_a_window(hostile, key, columns):
    """All that stands side by side in a wide one, but for the lines between columns, stands there one below the other."""
    wide, narrow = (inspect(hostile, key, "--all", COLUMNS=str(width)) for width in (200, columns))
    assert max(map(cell_len, narrow.splitlines())) <= columns
    shown = [Counter(text.partition("clock")[2].partition("Left of a name")[0]) for text in (wide, narrow)]
    for mark in '▁▂▃▄▅▆▇█•▣┃┊<>()"+…0123456789':
        assert shown[0][mark] == shown[1][mark], mark
    assert shown[0]["<"] and shown[0]["▣"] + shown[0]["•"]


@pytest.mark.parametrize("columns", [40, 60, 79])
def test_a_narrow_overview_has_whole_keys_and_says_what_it_has_no_room_for(hostile, columns):
    text = inspect(hostile, COLUMNS=str(columns))
    assert max(map(cell_len, text.splitlines())) <= columns and "…" not in text and "not_media" in text
    for row in survey.read_index(hostile, ("key",)).slice(0, 10).to_pylist():
        assert row["key"] in re.sub(r"\s", "", text)
    assert "(no room for " in text and "(no room for " not in inspect(hostile, COLUMNS="160")
