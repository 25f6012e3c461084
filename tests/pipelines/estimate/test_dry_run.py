"""`microturn build --dry-run` and `--estimate` as people meet them: nothing is left behind, data on stdout, and the account."""

import json
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from corpora import Raw, tree
from microturn import cli
from microturn.pipelines.estimate import account, look
from microturn.pipelines.estimate.figures import Estimate
from microturn.pipelines.sessions import child
from microturn.pipelines.storage.folders import Folder
from microturn.schemas.errors import CorpusError, InputError


@pytest.fixture(autouse=True)
def lent_to_commands(lent, monkeypatch):
    """Folders without a manifest are looked at by the process that builds ask."""
    monkeypatch.setattr(child, "MediaProcess", lambda: lent)


@pytest.fixture
def calls(tmp_path) -> Raw:
    made = Raw(tmp_path / "raw")
    for number in range(3):
        made.dyad(f"call-{number}", seconds=2.0 + number, seed=number)
    made.bytes("broken.wav", b"not a recording" * 50)
    made.add(id="broken", streams=[{"id": "a", "path": "broken.wav", "kind": "audio", "participant": "p0"}])
    made.manifest()
    return made


def microturn(*arguments: object) -> Result:
    done = CliRunner().invoke(cli.microturn, list(map(str, arguments)))
    if isinstance(done.exception, InputError):
        raise done.exception
    return done


def test_a_dry_run_leaves_nothing_behind(calls, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    used: list[Path] = []
    made = tempfile.TemporaryDirectory.__enter__
    monkeypatch.setattr(tempfile.TemporaryDirectory, "__enter__", lambda self: (used.append(Path(self.name)), made(self))[1])
    before = tree(calls.folder)
    done = microturn("build", calls.folder, tmp_path / "out", "--dry-run")
    assert done.exit_code == 0 and {path.parent for path in used} == {tmp_path / "t"} and not list((tmp_path / "t").iterdir())
    assert not (tmp_path / "out").exists() and tree(calls.folder) == before
    microturn("build", calls.folder, tmp_path / "out", "--split", "train=1")
    held = tree(tmp_path / "out", staging=True)
    again = microturn("build", calls.folder, tmp_path / "out", "--dry-run", "--rehash")
    assert again.exit_code == 0 and "3 in the corpus already" in again.stdout
    assert tree(tmp_path / "out", staging=True) == held


def test_a_dry_run_refuses_what_the_build_would(calls, tmp_path):
    microturn("build", calls.folder, tmp_path / "out", "--split", "train=1")
    for dry in ([], ["--dry-run"]):
        refused = microturn("build", calls.folder, tmp_path / "out", "--split", "train=0.5,val=0.5", *dry).exception
        assert isinstance(refused, CorpusError) and "was split otherwise" in str(refused)


def test_who_was_withdrawn_is_told_of_and_neither_expected_nor_awaited(calls, tmp_path):
    out, gone, expected = tmp_path / "out", tmp_path / "gone.txt", tmp_path / "expected.json"
    gone.write_text("call-0\n")
    assert microturn("build", calls.folder, out, "--split", "train=1", "--max-drop-ratio", 1).exit_code == 0
    assert microturn("reshard", out, "--drop", gone).exit_code == 0
    calls.dyad("call-9", seconds=2.0, seed=9)
    calls.manifest()
    dry = microturn("build", calls.folder, out, "--dry-run", "--json")
    assert "withdrawn from" in dry.stderr and str(out) in dry.stderr and json.loads(dry.stdout)["sessions_planned"] == 4
    expected.write_text(dry.stdout)
    built = microturn("build", calls.folder, out, "--estimate", expected, "--max-drop-ratio", 1)
    assert built.exit_code == 0 and built.stderr.count("withdrawn from") == 1
    kept = account.read(Folder(str(out)), json.loads((out / "dataset.json").read_bytes())["digests"]["content"])
    assert kept is not None and kept.same_plan and kept.actual.sessions == 1


def test_what_is_expected_stands_on_stdout(calls, tmp_path):
    done = microturn("build", calls.folder, tmp_path / "out", "--dry-run", "--cores", 64)
    assert "3 to keep of 4 planned" in done.stdout and "1 not_media" in done.stdout and "on 64 workers" in done.stdout
    assert "broken: not_media" in done.stdout  # by name: now is the moment to mend it
    assert "core-hours" in done.stdout and "own speech, as PCM" in done.stdout
    assert "manifest: " in done.stderr and "manifest: " not in done.stdout
    told = Estimate.model_validate_json(microturn("build", calls.folder, tmp_path / "out", "--dry-run", "--json", "--cores", 7).stdout)
    assert 7 in told.wall_s and told.figures.sessions == 3


def test_a_folder_that_was_understood_is_written_as_a_manifest(calls, tmp_path):
    path = tmp_path / "understood.jsonl"
    (calls.folder / "manifest.jsonl").unlink()
    assert microturn("build", calls.folder, tmp_path / "out", "--dry-run", "--write-manifest", path).exit_code == 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 4 and all(Path(stream["path"]).is_file() for row in rows for stream in row["streams"])
    folder, written = (json.loads(microturn("build", at, tmp_path / "out", "--dry-run", "--json").stdout) for at in (calls.folder, path))
    assert folder["figures"]["bytes"] == written["figures"]["bytes"]
    with pytest.raises(InputError, match="there is one already"):
        microturn("build", calls.folder, tmp_path / "out", "--dry-run", "--write-manifest", path)


@pytest.mark.parametrize("option", [("--json",), ("--sample", "3"), ("--cores", "3"), ("--write-manifest", "x")], ids=" ".join)
def test_an_option_of_a_dry_run_needs_one(option, calls, tmp_path):
    done = microturn("build", calls.folder, tmp_path / "out", *option)
    assert done.exit_code == 2 and f"{option[0]} needs --dry-run" in done.stderr and not (tmp_path / "out").exists()


def test_a_build_is_kept_beside_its_estimate(calls, tmp_path):
    out, path = tmp_path / "out", tmp_path / "estimate.json"
    path.write_text(microturn("build", calls.folder, out, "--split", "train=1", "--dry-run", "--json").stdout)
    microturn("build", calls.folder, out, "--split", "train=1", "--estimate", path)
    digest = json.loads((out / "dataset.json").read_text())["digests"]["content"]
    kept = account.read(Folder(str(out)), digest)
    assert kept is not None and kept.same_plan and kept.estimate == Estimate.model_validate_json(path.read_text())
    assert (kept.actual.sessions, kept.actual.rejected) == (3, {"not_media": 1}) == (kept.estimate.figures.sessions, {"not_media": 1})
    assert kept.actual.windows == kept.estimate.figures.windows and kept.spent.featurised == 3
    assert kept.actual.cpu_s == kept.spent.cpu_s > 0
    assert account.read(Folder(str(out)), "other") is None
    microturn("build", calls.folder, out, "--split", "train=1")
    assert account.read(Folder(str(out)), digest) == kept  # nothing was added, so nothing is told anew
    calls.dyad("more", seconds=3.0, seed=9)
    calls.manifest()
    microturn("build", calls.folder, out, "--split", "train=1", "--estimate", path)
    grown = account.read(Folder(str(out)), json.loads((out / "dataset.json").read_text())["digests"]["content"])
    assert grown is not None and grown.actual.sessions == 1 and not grown.same_plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}'])
def test_an_estimate_that_is_none_is_refused_before_anything_is_built(text, calls, tmp_path):
    (tmp_path / "e.json").write_text(text)
    with pytest.raises(InputError, match=r"e\.json"):
        microturn("build", calls.folder, tmp_path / "out", "--estimate", tmp_path / "e.json")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_nothing_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio or video file"):
        microturn("build", tmp_path / "empty", tmp_path / "out", "--dry-run")


def test_the_sample_of_the_command_is_that_of_the_looks():
    from microturn.pipelines import build_command

    assert build_command.SAMPLE == look.SAMPLE
