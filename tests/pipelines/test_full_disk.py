"""A disk that is full, at OUT or at the staging folder, with room for more or less: nothing is half committed, and the rerun goes on.

A disk is a tmpfs of so many bytes in a mount namespace of its own, where the system lets us have one; `microturn build` runs there, as a
person would run it. Room is made by remounting it larger, so that everything a failed build left stays where it is.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora import Raw, build, faults, tree
from microturn.pipelines.build_command import EXIT_FAILED, EXIT_UNSETTLED
from microturn.pipelines.input.options import DEFAULT_SPLITS, splits_of
from microturn.schemas.spec import FeatureSpec

BUILD = "import sys; from microturn.cli import main; sys.argv[0] = 'microturn'; main()"
MORE = 64 << 20
SHARDS = "--shard-bytes=1000000"


def _may_mount() -> str:
    """Why no disk can be made here, "" if one can."""
    if not shutil.which("unshare") or not shutil.which("mount"):
        return "no unshare or mount (Debian: apt-get install util-linux)"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"], capture_output=True, text=True)
    return f"no disk can be mounted here, root may ({tried.stderr.strip()})" if tried.returncode else ""


pytestmark = pytest.mark.skipif(bool(_may_mount()), reason=_may_mount() or "a disk can be mounted")


class Disk:
    """A disk of `size_bytes` at a folder, in a mount namespace kept by a process."""

    def __init__(self, at: Path, size_bytes: int) -> None:
        at.mkdir()
        self.at = at
        told = f"mount -t tmpfs -o size={size_bytes} tmpfs '{at}' && echo ready && read end"
        self._keeper = subprocess.Popen(["unshare", "-m", "sh", "-c", told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._keeper.stdout is not None and self._keeper.stdout.readline() == "ready\n"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command that sees the disk."""
        inside = ["nsenter", "-m", "-t", str(self._keeper.pid), "--wd=/", *command]
        return subprocess.run(inside, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1", "COLUMNS": "400"}, timeout=300)

    def grow(self, size_bytes: int) -> None:
        assert not self.run("mount", "-o", f"remount,size={size_bytes}", str(self.at)).returncode

    def copy(self, name: str, to: Path) -> Path:
        """What lies on the disk, where everybody sees it."""
        assert not self.run("cp", "-a", f"{self.at}/{name}", str(to)).returncode
        return to

    def files(self) -> dict[str, str]:
        """Name → time of every file."""
        lines = self.run("find", str(self.at), "-type", "f", "-printf", r"%P\t%T@\n").stdout.splitlines()
        return dict(line.split("\t") for line in lines)

    def end(self) -> None:
        self._keeper.kill()
        self._keeper.wait()


@pytest.fixture
def disk(tmp_path) -> Iterator[list[Disk]]:
    """Put disks in; they are taken away."""
    made: list[Disk] = []
    yield made
    for one in made:
        one.end()


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(4):
        made.dyad(f"call-{number}", seconds=20, seed=number, rate_hz=8_000)
    made.manifest()
    return made


@pytest.fixture(scope="module")
def undisturbed(calls, tmp_path_factory) -> Path:
    """Shards of 5.4 MB, and nearly as much in parts."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(calls.rows, calls.folder, out, spec=FeatureSpec(), splits=splits_of(DEFAULT_SPLITS), shard_bytes=1_000_000)
    return out


def receipts(disk: Disk) -> dict[str, str]:
    return {name: at for name, at in disk.files().items() if "/receipts/" in name}


SIZES = (8, 64, 300, 1_000, 2_500, 5_000, 6_000, 7_500, 9_000)  # KiB; the last ones hold all parts, and shards or not


@pytest.mark.parametrize("size_kib", [pytest.param(size, marks=pytest.mark.nightly if size != 2_500 else ()) for size in SIZES])
def test_a_full_disk_commits_nothing_and_the_rerun_goes_on(calls, undisturbed, disk, tmp_path, size_kib):
    """Parts, receipts and shards on one disk."""
    one = Disk(tmp_path / "disk", size_kib * 1024)
    disk.append(one)
    command = [sys.executable, "-c", BUILD, "build", str(calls.folder / "manifest.jsonl"), f"{one.at}/out", SHARDS]
    ran = one.run(*command)
    assert ran.returncode in (EXIT_FAILED, EXIT_UNSETTLED), ran.stderr
    assert f"{one.at}/out" in ran.stderr and "No space left on device; make room there" in ran.stderr
    left, done = one.files(), receipts(one)
    assert "out/dataset.json" not in left and not [name for name in left if name.endswith(".tmp") or "verdict" in name]
    one.grow(MORE)
    ran = one.run(*command, "--keep-parts")
    assert ran.returncode == 0 and "(4 new, 0 known, 0 dropped whole)" in ran.stderr, ran.stderr
    assert done.items() <= receipts(one).items() and len(receipts(one)) == 4
    assert tree(one.copy("out", tmp_path / "out")) == tree(undisturbed) and faults(tmp_path / "out") == []


@pytest.mark.nightly
@pytest.mark.parametrize("size_kib", [8, 40, 400, 1_500, 3_000, 4_500])
def test_with_room_for_parts_but_none_for_shards_only_shards_are_written_again(calls, undisturbed, disk, tmp_path, size_kib):
    out, staging = Disk(tmp_path / "out-disk", size_kib * 1024), tmp_path / "staging"
    disk.append(out)
    where = [str(calls.folder / "manifest.jsonl"), f"{out.at}/out", f"--staging={staging}"]
    command = [sys.executable, "-c", BUILD, "build", *where, SHARDS]
    ran = out.run(*command)
    assert ran.returncode == EXIT_FAILED and f"{out.at}/out" in ran.stderr and "No space left on device; make room there" in ran.stderr, ran
    done = {path.name: path.stat().st_mtime_ns for path in staging.glob("receipts/*")}
    assert len(done) == 4 and "out/dataset.json" not in out.files() and not [name for name in out.files() if name.endswith(".tmp")]
    out.grow(MORE)
    assert out.run(*command).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in staging.glob("receipts/*")} == done
    assert tree(out.copy("out", tmp_path / "out")) == tree(undisturbed)
