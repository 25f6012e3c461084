"""Dask on separate hosts: scheduler, two workers and the driver, each in a network of its own with a cable to one switch, sharing the disk.

A host is a network and a host name of its own (Linux namespaces), held by a process that waits; nothing of it outlives the test, and
nothing outside it is changed. What crosses between hosts crosses TCP; no loopback is shared.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora import Raw, build, faults, tree
from microturn.pipelines.input.options import DEFAULT_SPLITS, splits_of
from microturn.schemas.spec import FeatureSpec

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytestmark = pytest.mark.nightly

BUILD = "import sys; from microturn.cli import main; sys.argv[0] = 'microturn'; main()"
ASK = """
import sys, socket
from distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers(2, timeout=120)
    print(sorted(set(client.run(socket.gethostname).values())))
"""
SCHEDULER = "tcp://10.77.0.1:8786"


class Host:
    """A network and a host name of its own; its cable is plugged into a switch."""

    def __init__(self, name: str) -> None:
        self.name = name
        told = f"echo {name} > /proc/sys/kernel/hostname; echo ready; read end"
        self.keeper = subprocess.Popen(["unshare", "-n", "-u", "sh", "-c", told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.keeper.stdout is not None and self.keeper.stdout.readline() == "ready\n"
        self.inside = ["nsenter", "-n", "-u", "-t", str(self.keeper.pid)]
        self.running: list[subprocess.Popen[bytes]] = []
        self.do("ip", "link", "set", "lo", "up")

    def do(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command there, to its end."""
        return subprocess.run([*self.inside, *command], capture_output=True, text=True, check=True, timeout=300)

    def start(self, folder: Path, *command: str) -> None:
        """A command there that goes on."""
        folder.mkdir(exist_ok=True)
        with (folder / f"{self.name}.log").open("wb") as log:
            self.running.append(subprocess.Popen([*self.inside, *command], cwd=folder, stdout=log, stderr=log))

    def plug(self, switch: "Host", number: int) -> None:
        """A cable from the switch; the host's address on it ends in this number."""
        switch.do("ip", "link", "add", f"port{number}", "type", "veth", "peer", "name", "cable", "netns", str(self.keeper.pid))
        switch.do("ip", "link", "set", f"port{number}", "master", "switch", "up")
        self.do("ip", "address", "add", f"10.77.0.{number}/24", "dev", "cable")
        self.do("ip", "link", "set", "cable", "up")

    def end(self) -> None:
        for process in [*self.running, self.keeper]:
            process.kill()
            process.wait()


def _why_not() -> str:
    """Why no hosts can be made here, "" if they can."""
    missing = [name for name in ("ip", "unshare", "nsenter") if not shutil.which(name)]
    if missing:
        return f"no {', '.join(missing)} (Debian: apt-get install iproute2 util-linux)"
    tried = subprocess.run(["unshare", "-n", "-u", "ip", "link", "add", "switch", "type", "bridge"], capture_output=True, text=True)
    return f"no network can be made here, root may ({tried.stderr.strip()})" if tried.returncode else ""


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    """Scheduler, workers and driver, in one network that nobody else sees."""
    if reason := _why_not():
        pytest.skip(reason)
    made: dict[str, Host] = {}
    try:
        switch = made["switch"] = Host("switch")
        switch.do("ip", "link", "add", "switch", "type", "bridge")
        switch.do("ip", "link", "set", "switch", "up")
        for number, name in enumerate(("scheduler", "worker-1", "worker-2", "driver"), 1):
            made[name] = Host(name)
            made[name].plug(switch, number)
        yield made
    finally:
        for host in made.values():
            host.end()


def test_scheduler_workers_and_driver_on_hosts_of_their_own_give_the_bytes_of_one_process(hosts, tmp_path):
    calls = Raw(tmp_path / "calls")
    for number in range(6):
        calls.dyad(f"call-{number}", seconds=3 + number, seed=number, rate_hz=8_000)
    python, quiet = [sys.executable, "-m"], "--no-dashboard"
    logs = tmp_path / "logs"
    hosts["scheduler"].start(logs, *python, "distributed.cli.dask_scheduler", "--host=10.77.0.1", "--port=8786", quiet)
    for number, name in ((2, "worker-1"), (3, "worker-2")):
        options = [SCHEDULER, f"--host=10.77.0.{number}", "--nthreads=1", "--no-nanny", quiet]
        hosts[name].start(logs, *python, "distributed.cli.dask_worker", *options)
    asked = hosts["driver"].do(sys.executable, "-c", ASK, SCHEDULER).stdout
    assert asked in ("['worker-1', 'worker-2']\n", f"{[os.uname().nodename]}\n")  # the second where host names cannot be set
    out = tmp_path / "out"
    where = [str(calls.manifest()), str(out), "--shard-bytes=200000"]
    hosts["driver"].do(sys.executable, "-c", BUILD, "build", *where, "--runner=DaskRunner", f"--dask_client_address={SCHEDULER}")
    here = tmp_path / "here"
    build(calls.rows, calls.folder, here, spec=FeatureSpec(), splits=splits_of(DEFAULT_SPLITS), shard_bytes=200_000)
    assert tree(out) == tree(here) and len(list(out.glob("shards/*.tar"))) > 2 and faults(out) == []


SERVER = "import socket, time; door = socket.create_server(('10.77.0.1', 8786)); time.sleep(600)"
KNOCK = """
import socket, time
for attempt in range(100):
    try:
        socket.create_connection(("10.77.0.1", 8786), timeout=2)
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
"""


def test_a_host_without_a_cable_sees_no_other(hosts, tmp_path):
    """The negative control: it is the cable that the cluster above speaks through."""
    hosts["scheduler"].start(tmp_path / "logs", sys.executable, "-c", SERVER)
    hosts["worker-1"].do(sys.executable, "-c", KNOCK)
    lonely = Host("lonely")
    try:
        with pytest.raises(subprocess.CalledProcessError) as error:
            lonely.do(sys.executable, "-c", KNOCK)
        assert "Network is unreachable" in error.value.stderr
    finally:
        lonely.end()
