"""What a ledger row may show of a path. Its sums are tested where sessions are whole: test_recording.py and the builds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microturn.transforms.sessions.ledger import shown_path


@pytest.mark.parametrize("path", ["a.wav", "calls/day 1/a.wav", "12:30/a.wav", "what?#1.wav", "a..b/c.wav", "day\\a.wav"])
def test_a_relative_path_is_shown_as_the_manifest_has_it(path):
    assert shown_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "/srv/ann/a.wav",
        "~ann/a.wav",
        "../ann/a.wav",
        "..\\ann\\a.wav",
        "C:\\People\\ann\\a.wav",
        "c:/People/ann/a.wav",
        "C:a.wav",
        "\\\\nas\\ann\\a.wav",
        "\\\\?\\C:\\ann\\a.wav",
        "file:/srv/ann/a.wav",
        "FILE:///srv/ann/a.wav",
        "file://nas/ann/a.wav",
        "s3://ann/a.wav",
        "https://ann:secret@host/x/a.wav?signature=secret/y#t=secret",
        "https://host/a.wav?next=https://ann:secret@host/b.wav",
        "simplecache::https://ann@host/a.wav#secret",
        "zip://b.wav::/srv/ann/a.wav",
    ],
)
def test_of_any_other_path_only_the_last_name_is_shown(path):
    assert shown_path(path) == "a.wav"


@pytest.mark.parametrize(
    "path", ["https://ann:secret@host", "https://host/?key=secret", "https://ann:se?cret@host/a.wav", "/srv/ann/", "file:a"]
)
def test_a_place_without_a_name_shows_nothing(path):
    assert shown_path(path) == "…"


NAMES = st.text("abz.:@ \u00e9-", min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")


@given(
    st.sampled_from(["/", "C:\\", "\\\\nas\\", "https://u:p@host/", "file:///", "../"]), st.lists(NAMES, max_size=4), st.sampled_from("/\\")
)
@settings(deadline=None, max_examples=200)
def test_no_folder_of_a_path_that_is_not_relative_is_ever_shown(start, folders, slash):
    shown = shown_path(start + slash.join([*(f"secret{folder}" for folder in folders), "last.wav"]))
    assert "secret" not in shown and "host" not in shown and "nas" not in shown.replace("last", "") and not set(shown) & set("/\\")
