"""`microturn speak`: whose speech it retells, and that what comes out is as long as what was asked for."""

from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner
from microturn.schemas.errors import InputError
from microturn.trainer.speech.command import speak_command
from runs import config, go
from tensors import threads


@pytest.fixture(scope="module")
def run(held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step of a tiny model on a corpus of two people, left and right."""
    at = tmp_path_factory.mktemp("runs") / "run"
    with threads(1):
        go(at, config(held_out, 1))
    return at


def test_one_hears_who_was_asked_for_beside_the_recording(run, tmp_path):
    for view in ("left", "right"):
        result = CliRunner().invoke(speak_command, [str(run), str(tmp_path / f"{view}.wav"), "--view", view, "--ticks", "10"])
        assert result.exit_code == 0 and f"-{view}-" in result.stdout, result.output
        for name in (f"{view}.wav", f"{view}-true.wav"):
            sound = soundfile.info(str(tmp_path / name))
            assert (sound.samplerate, sound.channels) == (16_000, 1) and 0 < sound.duration <= 2.0


@pytest.mark.parametrize(
    "asked, words, hint",
    [(["--view", "nobody"], "no view 'nobody'", "left, right"), (["--session", "none"], "session 'none' does not speak in", "inspect")],
)
def test_who_is_not_there_is_said(run, tmp_path, asked, words, hint):
    error = CliRunner().invoke(speak_command, [str(run), str(tmp_path / "said.wav"), *asked]).exception
    assert isinstance(error, InputError) and words in str(error) and hint in error.hint
    assert list(tmp_path.iterdir()) == []
