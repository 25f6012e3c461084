"""Two builds, one OUT: one of them wins, or both do one after the other, and never is there a mixture."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from corpora import Raw, build, tree
from microturn.pipelines import graph
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.lease import LEASE, Busy, Lease, refuse_lost
from microturn.schemas.errors import CorpusError

BUILD = "from microturn.cli import main; main()"


@pytest.fixture(params=["disk", "store"])
def folder(request, tmp_path) -> Folder:
    return Folder(str(tmp_path / "out") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/out")


def sessions(out: Path) -> set[str]:
    return {row["session"] for row in Corpus.open(str(out)).rows()}


def test_a_folder_is_held_by_one(folder):
    with Lease(folder, renew_s=0.05) as held:
        refuse_lost(folder, held.token)
        with pytest.raises(Busy, match=f"process {os.getpid()} of this machine"), Lease(folder):
            pass
        refuse_lost(folder, held.token)
    assert folder.names() == []
    with Lease(folder):
        assert folder.names() == [LEASE]


def test_a_dead_builds_store_is_taken_over_and_its_workers_are_stopped(tmp_path):
    folder, told = Folder(f"memory://{uuid.uuid4().hex}/out"), []
    dead = Lease(folder, renew_s=1000)
    dead.__enter__()
    with Lease(folder, told.append, renew_s=0.1, dead_s=0.5) as mine:
        assert "looking for" in told[0] and "takes over" in told[1]
        refuse_lost(folder, mine.token)
        with pytest.raises(Busy, match="lost the folder"):
            refuse_lost(folder, dead.token)
        dead._over.set()
        dead.__exit__()  # it wakes up, and does not take away what is another's
        refuse_lost(folder, mine.token)


def test_a_killed_builds_disk_is_free_at_once(tmp_path):
    hold = "import sys, time\nfrom microturn.pipelines.storage.folders import Folder\nfrom microturn.pipelines.storage.lease import Lease\n"
    hold += "lease = Lease(Folder(sys.argv[1]))\nlease.__enter__()\nprint('held', flush=True)\ntime.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), Lease(Folder(str(tmp_path))):
            pass
        holder.send_signal(signal.SIGSTOP)  # one that sleeps still has it
        with pytest.raises(Busy), Lease(Folder(str(tmp_path))):
            pass
        holder.kill()
        holder.wait()
        told: list[str] = []
        with Lease(Folder(str(tmp_path)), told.append):
            assert len(told) == 1 and "takes over" in told[0] and "process" in told[0]


@pytest.mark.parametrize("staging", ["its own", "shared"])
def test_a_build_does_not_touch_what_another_one_holds(raw, tmp_path, staging):
    out, parts = tmp_path / "out", tmp_path / "staging"
    build(raw.rows[:1], raw.folder, out, keep_parts=True, **({"staging": str(parts)} if staging == "shared" else {}))
    before = tree(tmp_path, staging=True)
    held = Folder(str(parts if staging == "shared" else out))
    other = tmp_path / "other" if staging == "shared" else out
    with Lease(held), pytest.raises(Busy):
        build(raw.rows, raw.folder, other, **({"staging": str(parts)} if staging == "shared" else {}))
    assert tree(tmp_path, staging=True) == before


def test_a_worker_that_outlived_its_driver_names_nothing(raw, tmp_path, monkeypatch):
    """The lease changes hands while the shard is written: the shard never has its name, and nothing is committed."""
    shard = graph.write_shard

    def and_lose(task, out, *rest):
        out.write(LEASE, json.dumps({"token": "another"}).encode())
        return shard(task, out, *rest)

    monkeypatch.setattr(graph, "write_shard", and_lose)
    with pytest.raises(Busy, match="lost the folder"):
        build(raw.rows[:1], raw.folder, tmp_path / "out")
    assert not [name for name in tree(tmp_path / "out") if name.endswith((".tar", ".parquet", "dataset.json"))]


def test_a_corpus_that_changed_meanwhile_is_not_written_over(raw, tmp_path, monkeypatch):
    """As if there were no lease: the commit compares the dataset.json that it started from."""
    out, commit = tmp_path / "out", graph._commit
    build(raw.rows[:1], raw.folder, out)
    changed = json.dumps(json.loads((out / "dataset.json").read_bytes()) | {"shard_bytes": 1})

    def and_change(keyed, build):
        (out / "dataset.json").write_text(changed)
        return commit(keyed, build)

    monkeypatch.setattr(graph, "_commit", and_change)
    with pytest.raises(CorpusError, match="has changed while"):
        build(raw.rows[:2], raw.folder, out)
    assert (out / "dataset.json").read_text() == changed


def test_two_builds_at_once_never_mix(tmp_path):
    """Two commands, one OUT: whoever is refused runs again when the other is done, and then everything is there."""
    made = Raw(tmp_path / "raw")
    for number in range(6):
        made.dyad(f"call-{number}", seconds=1.0, seed=number)
    manifests = [made.manifest(f"{half}.jsonl", made.rows[half::2]) for half in (0, 1)]
    out = tmp_path / "out"
    commands = [
        [sys.executable, "-c", BUILD, "build", str(m), str(out), "--staging", f"{tmp_path}/staging-{m.stem}", "--split", "train=1"]
        for m in manifests
    ]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate()[1] for process in running]
    done = [process.returncode for process in running]
    assert 0 in done and set(done) <= {0, 1}
    assert all(code == 0 or ("another build is at work" in text and "hint: " in text) for code, text in zip(done, said, strict=True))
    halves = [{row["id"] for row in made.rows[half::2]} for half in (0, 1)]
    assert sessions(out) == set().union(*(half for half, code in zip(halves, done, strict=True) if code == 0))
    for command, code in zip(commands, done, strict=True):
        if code:
            assert subprocess.run(command, capture_output=True).returncode == 0
    assert sessions(out) == halves[0] | halves[1] and verify(Corpus.open(str(out))).faults == []
    assert not (out / LEASE).exists()


def test_a_lease_names_no_host(tmp_path):
    import socket

    with Lease(Folder(str(tmp_path))):
        assert socket.gethostname() not in (tmp_path / LEASE).read_text()
