"""Nothing in a corpus tells where it was made, from which folder, on which machine or by whom."""

import getpass
import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import Raw, build, ledger, mono_stream, tree
from microturn.pipelines import graph
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.input import inputs
from microturn.pipelines.sessions import child, featurise
from microturn.pipelines.storage import folders
from signals import speech

SECRET = "QwertySecretFolder"
HOST = [name for name in {socket.gethostname(), socket.getfqdn()} if len(name) > 5]  # a shorter one stands in any compressed file


@pytest.fixture(scope="module")
def leaky(tmp_path_factory) -> Raw:
    """Sessions, good and bad, whose manifest names every file by its absolute path, or by a path that goes up."""
    made = Raw(tmp_path_factory.mktemp("base") / SECRET / "in")
    here = str(made.folder)
    made.sound("good.wav", speech(16_000, 1))
    made.bytes("bad.wav", b"not media, surely" * 9)
    made.bytes("empty.wav", b"")
    made.bytes("bad.json", b"\xff{")
    made.words("strange.json", [("hi", 50, 51)])
    for name in ("good", "bad", "empty", "gone", "good.wav/below", "x" * 300):
        made.add(id=f"of-{name[:20]}", streams=[mono_stream("p", f"{here}/{name}.wav")])
    for number, words in enumerate(("bad", "strange", "gone")):
        transcripts = [{"path": f"{here}/{words}.json", "participant": "p"}]
        made.add(id=f"words-{number}", streams=[mono_stream("p", f"../in/../../{SECRET}/in/good.wav")], transcripts=transcripts)
    made.add(id="wrong", streams=[mono_stream("p", f"{here}/good.wav", channel=7)])
    made.add(id="one-in-another", streams=[mono_stream("p", f"{here}/gone/{SECRET}/x.wav"), mono_stream("q", f"{here}/gone")])
    for _ in range(2):
        made.add(id="twice", streams=[mono_stream("p", f"{here}/good.wav")])
    return made


def bytes_of(out: Path) -> dict[str, bytes]:
    """Every file as it lies there, and what Parquet compresses also as text."""
    files = tree(out, staging=True)
    tables = {name: str(pq.read_table(io.BytesIO(data)).to_pylist()).encode() for name, data in files.items() if name.endswith(".parquet")}
    return files | {f"{name} (read)": data for name, data in tables.items()}


def leaks(out: Path, *secrets: str) -> list[str]:
    """Files, and their names, in which one of these is found."""
    found = bytes_of(out)
    return [f"{s} in {name}" for name, data in found.items() for s in secrets if s.encode() in data or s in name]


def test_no_path_host_or_user_is_in_any_byte(leaky, tmp_path):
    build(leaky.rows, leaky.folder, tmp_path / "out", keep_parts=True)
    assert len(ledger(tmp_path / "out")) > 12  # there is something to look through
    secrets = [SECRET, str(tmp_path), str(Path.home()) + "/", *HOST, "/tmp/", f"/{getpass.getuser()}/"]
    assert leaks(tmp_path / "out", *secrets) == []
    assert leaks(tmp_path / "out", "good.wav")  # the bare name may be told


def test_the_command_line_leaks_as_little(leaky, tmp_path):
    manifest = leaky.manifest()
    command = [sys.executable, "-c", "from microturn.cli import main; main()", "build", str(manifest), str(tmp_path / "out")]
    me = {name: "QwertySecretName" for name in ("USER", "LOGNAME", "HOSTNAME", "HOME")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | me)
    assert done.returncode == 3, done.stderr[-2000:]
    assert leaks(tmp_path / "out", SECRET, str(tmp_path), *HOST, *me.values()) == []


def test_what_is_kept_for_a_rerun_names_no_path_either(leaky, tmp_path, featurised):
    """Receipts know files by a hash of their path: the second build still knows them again."""
    build(leaky.rows, leaky.folder, tmp_path / "out")
    featurised.clear()
    verdict = build(leaky.rows, leaky.folder, tmp_path / "out")
    assert verdict.fresh == 0 and featurised == []


@pytest.mark.parametrize("moment", ["_assign", "_commit"])
def test_a_build_under_way_leaks_as_little_as_a_finished_one(leaky, tmp_path, monkeypatch, moment):
    """Whoever dies at that moment leaves what lies there then: receipts, parts, lease, notes, shards."""
    step, found = getattr(graph, moment), []

    def and_look(*given):
        found.append((len(bytes_of(tmp_path / "out")), leaks(tmp_path / "out", SECRET, str(tmp_path), *HOST)))
        return step(*given)

    monkeypatch.setattr(graph, moment, and_look)
    build(leaky.rows, leaky.folder, tmp_path / "out")
    ((num_files, leaked),) = found
    assert num_files > 10 and leaked == []


def test_a_build_that_is_not_committed_leaks_nothing(leaky, tmp_path, monkeypatch):
    """A failing disk names files by their whole paths; what is told of it does not."""

    def broken(root, path):
        raise OSError(5, "Input/output error", folders.locate(root, path))

    monkeypatch.setattr(folders, "open_source", broken)
    monkeypatch.setattr(graph, "MediaProcess", lambda silence_s: InThisProcess())
    verdict = build(leaky.rows, leaky.folder, tmp_path / "out")
    assert verdict.blocks and "good.wav" in " ".join(verdict.unsettled)
    assert SECRET not in " ".join(verdict.unsettled) and str(tmp_path) not in " ".join(verdict.unsettled)
    assert leaks(tmp_path / "out", SECRET, str(tmp_path), *HOST) == [] and bytes_of(tmp_path / "out")


class InThisProcess:
    """Stands for MediaProcess."""

    def call(self, verb, request, on_progress=lambda _: None):
        return featurise.featurise_request(request, on_progress)

    def close(self) -> None:
        """Nothing."""


def test_people_known_by_the_names_of_files_are_nowhere_in_a_pseudonymised_corpus(tmp_path, monkeypatch, lent):
    made = Raw(tmp_path / "raw")
    for seed, who in enumerate(("zebedee", "hortensia")):
        made.sound(f"call_{who}.wav", speech(32_000, seed))
        made.words(f"call_{who}.json", [("hello", 0.1, 0.5), ("late", 50, 51)])
    monkeypatch.setattr(child, "MediaProcess", lambda: lent)
    for salt in ("", "pepper"):
        given = inputs.read_sessions(str(made.folder), False, lambda _: None, numbered=bool(salt))
        build([s.model_dump(mode="json") for s in given.sessions], made.folder, tmp_path / f"out{salt}", salt=salt, keep_parts=True)
    assert leaks(tmp_path / "out", "zebedee", "hortensia")  # the negative control
    assert leaks(tmp_path / "outpepper", "zebedee", "hortensia") == []


def test_pseudonyms_stand_for_speakers_and_depend_on_the_salt(raw, tmp_path):
    meeting = [row for row in raw.rows if row["id"] == "meeting"]
    speakers = {}
    for salt in ("", "pepper", "pepper again", "pepper"):
        build(meeting, raw.folder, tmp_path / (salt or "none"), salt=salt)
        speakers[salt] = {row["view"]: row["speaker"] for row in Corpus.open(str(tmp_path / (salt or "none"))).rows()}
    assert speakers[""] == {"a": "Ann", "b": "Bob"}
    assert all(re.fullmatch("[0-9a-f]{12}", speaker) for salt in ("pepper", "pepper again") for speaker in speakers[salt].values())
    assert len({speaker for found in speakers.values() for speaker in found.values()}) == 6
    assert leaks(tmp_path / "none", "Ann") and not leaks(tmp_path / "pepper", "Ann", "Bob", "pepper")
