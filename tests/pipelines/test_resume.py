"""Kill a build with -9 anywhere, run it again: the corpus is the one of an undisturbed build, and what had a receipt is not done again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import Raw, build, plan_of, tree
from microturn.pipelines.sessions import featurise
from microturn.pipelines.sessions import receipts as receipt_room
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.parts import PartWriter
from microturn.schemas.errors import MicroturnError

DRIVER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpora import build
build(json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3]), Path(sys.argv[4]), shard_bytes=200_000, on_beam=True)
"""


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    """Ten calls of some seconds."""
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(10):
        made.dyad(f"call-{number}", seconds=5 + number % 3, seed=number % 3, file=f"call-{number % 3}", rate_hz=8_000)
    return made


@pytest.fixture(scope="module")
def undisturbed(calls, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(calls.rows, calls.folder, out, shard_bytes=200_000)
    return out


def receipts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / ".staging/receipts").glob("*.json")}


def killed_build(calls: Raw, out: Path, reached) -> None:
    """A build in another process, killed with -9 as soon as `reached(out)`."""
    rows = calls.folder / "rows.json"
    rows.write_text(json.dumps(calls.rows))
    tests = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", DRIVER, tests, str(rows), str(calls.folder), str(out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as driver:
        until = time.monotonic() + 60
        while not reached(out) and driver.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert driver.returncode == -signal.SIGKILL, "it was done before it could be killed"
    assert not (out / "dataset.json").exists()


POINTS = {
    "after 2 receipts": lambda out: len(receipts(out)) >= 2,
    "after 7 receipts": lambda out: len(receipts(out)) >= 7,
    "in the middle of a part": lambda out: len(receipts(out)) >= 4 and any((out / ".staging").glob(".*.tmp")),
    "after a shard": lambda out: (out / "shards/train-000000.tar").exists(),
    "before the commit": lambda out: len(list(out.glob("ledger/*.parquet"))) >= 6,
}

QUICK = ("after 2 receipts", "after a shard")


@pytest.mark.parametrize("point", [p if p in QUICK else pytest.param(p, marks=pytest.mark.nightly) for p in POINTS])
def test_a_killed_build_goes_on_to_the_same_bytes(calls, undisturbed, tmp_path, featurised, point):
    out = tmp_path / "out"
    killed_build(calls, out, POINTS[point])
    done = receipts(out)
    featurised.clear()
    build(calls.rows, calls.folder, out, shard_bytes=200_000)
    assert len(done) >= 2 and len(featurised) == 10 - len(done)
    assert done.items() <= receipts(out).items()
    assert tree(out) == tree(undisturbed)
    assert not list(out.rglob("*.tmp"))


def test_a_build_killed_again_and_again_gets_there(calls, undisturbed, tmp_path, monkeypatch, featurised):
    """Dies, in this process, wherever it has just begun to write something; each life gets one further."""

    class Killed(BaseException):
        pass

    lives, writes = 0, [0]
    adopt = Folder.adopt

    def dying(self, path, name):
        writes[0] += 1
        if writes[0] == lives + 1:
            raise Killed
        adopt(self, path, name)

    monkeypatch.setattr(Folder, "adopt", dying)
    while lives < 100:
        writes[0] = 0
        try:
            build(calls.rows[:3], calls.folder, tmp_path / "out", shard_bytes=100_000)
            break
        except Killed:
            lives += 7
    monkeypatch.undo()
    build(calls.rows[:3], calls.folder, tmp_path / "straight", shard_bytes=100_000)
    assert lives > 7
    assert tree(tmp_path / "out") == tree(tmp_path / "straight")


@pytest.mark.parametrize("damage", ["a part is gone", "a part is half", "a receipt is half", "a receipt is of another time"])
def test_what_is_missing_from_the_staging_folder_is_made_again(calls, undisturbed, tmp_path, monkeypatch, featurised, damage):
    """The parts are there, the shards are not: as if the build had been killed between them."""
    out = tmp_path / "out"
    build(calls.rows, calls.folder, out, shard_bytes=200_000, keep_parts=True)
    (out / "dataset.json").unlink()
    if damage == "a part is gone":
        next((out / ".staging/parts").iterdir()).unlink()
    elif damage == "a part is half":
        path = max((out / ".staging/parts").iterdir(), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "a receipt is half":
        path = sorted((out / ".staging/receipts").iterdir())[0]
        path.write_bytes(path.read_bytes()[:100])
    else:
        path = sorted((out / ".staging/receipts").iterdir())[0]
        path.write_text(path.read_text().replace('"version":1', '"version":99'))
    featurised.clear()
    build(calls.rows, calls.folder, out, shard_bytes=200_000)
    assert 1 <= len(set(featurised)) <= 4  # calls of one file share their parts
    assert tree(out) == tree(undisturbed)


@pytest.mark.parametrize("which", ["heavy", "light"])
def test_a_part_whose_bytes_have_changed_is_never_copied_and_is_made_again(calls, undisturbed, tmp_path, featurised, which):
    """Its length says nothing; every member is compared with its receipt when it is read."""
    out = tmp_path / "out"
    build(calls.rows, calls.folder, out, shard_bytes=200_000, keep_parts=True)
    (out / "dataset.json").unlink()
    path = (max if which == "heavy" else min)((out / ".staging/parts").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[512] ^= 1  # the first byte of the first member
    path.write_bytes(data)
    with pytest.raises(MicroturnError, match="has changed since it was written"):
        build(calls.rows, calls.folder, out, shard_bytes=200_000)
    assert not (out / "dataset.json").exists()
    featurised.clear()
    build(calls.rows, calls.folder, out, shard_bytes=200_000)
    assert 1 <= len(featurised) <= 4 and tree(out) == tree(undisturbed)


def test_a_receipt_comes_after_all_that_it_proves(calls, tmp_path, monkeypatch):
    """Whoever dies before has done nothing."""
    order: list[str] = []
    adopt = Folder.adopt
    monkeypatch.setattr(Folder, "adopt", lambda self, path, name: (order.append(name.split("/")[0]), adopt(self, path, name)))
    item = plan_of(calls.rows[:1], calls.folder).items[0]
    receipt = featurise.make(item, Folder(str(tmp_path)))
    assert order == ["parts"] * (len(order) - 1) + [receipt_room.RECEIPTS] and len(order) > 2
    assert receipt_room.parts_stand(receipt, Folder(str(tmp_path)))


def test_a_session_that_fails_leaves_no_part_open(calls, tmp_path, monkeypatch):
    item = plan_of(calls.rows[:1], calls.folder).items[0]
    monkeypatch.setattr(PartWriter, "close", lambda self: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        featurise.make(item, Folder(str(tmp_path)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
