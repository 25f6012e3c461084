"""A store that fails one request in ten, whichever way stores fail: the build gets there, with the bytes of one that nobody disturbed.

The store is moto's, in this process; between it and the client stands a `Storm` that fails requests. Which ones follows from the seed, the
request and how often it was made, so that a seed fails alike on every machine. The decoder process talks to the same store. A *patient*
client tries again by itself, as the real one does by default; an *impatient* one does not, so that what it gives up comes out of the build.
"""

import contextlib
import hashlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from corpora import Raw, build, ledger, tree
from microturn.pipelines import graph, run
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.sessions.child import MediaProcess
from microturn.pipelines.storage import folders
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.lease import LEASE, Lease
from microturn.schemas.errors import MicroturnError

s3fs = pytest.importorskip("s3fs", reason="the extra `dev` is not installed")
retryhandler = pytest.importorskip("botocore.retryhandler", reason="the extra `dev` is not installed")
moto_server = pytest.importorskip("moto.server", reason="the extra `dev` is not installed")
serving = pytest.importorskip("werkzeug.serving", reason="the extra `dev` is not installed")

SHARD_BYTES = 100_000
KINDS = ("slow down", "fault", "reply lost", "cut", "cut after", "half")
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
FAULT = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


@dataclass
class Storm:
    """WSGI in front of a store.

    Attributes:
        share: of requests to fail; seed: which ones; kinds: how; only: which may be failed at all; most: how many at most.
        failed: how often each kind of failure came.
    """

    store: Any
    share: float = 0.0
    seed: int = 0
    kinds: tuple[str, ...] = KINDS
    only: Callable[[dict], bool] = lambda environ: True
    most: int = 1 << 30
    failed: Counter = field(default_factory=Counter)
    _times: Counter = field(default_factory=Counter)
    _lock: Any = field(default_factory=threading.Lock)

    def begin(self, share: float, **weather: Any) -> None:
        """A storm of this kind; 0 ends it."""
        with self._lock:
            fresh = {"seed": 0, "kinds": KINDS, "only": lambda environ: True, "most": 1 << 30} | weather
            for name, value in ({"share": share} | fresh).items():
                setattr(self, name, value)
            self.failed.clear()
            self._times.clear()

    def __call__(self, environ: dict, start_response: Any) -> Iterable[bytes]:
        kind = self._kind(environ)
        if not kind:
            return self.store(environ, start_response)
        answer: list[Any] = []
        if kind in ("slow down", "fault", "cut"):  # nothing is done
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            body = b"".join(self.store(environ, lambda status, headers, *_: answer.extend([status, headers])))
        if kind.startswith("cut"):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError  # the server takes it for a client that has gone
        if kind == "half":
            start_response(*answer)
            return self._half(body, environ["werkzeug.socket"])
        status, data = ("503 Slow Down", SLOW_DOWN) if kind == "slow down" else ("500 Internal Server Error", FAULT)
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))])
        return [data]

    def _half(self, body: bytes, wire: socket.socket) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        wire.shutdown(socket.SHUT_RDWR)

    def _kind(self, environ: dict) -> str:
        """How this request fails, "" if it does not."""
        asked = " ".join(str(environ.get(name)) for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_RANGE"))
        with self._lock:
            if not self.only(environ) or self.failed.total() >= self.most:
                return ""
            self._times[asked] += 1
            chance = random.Random(hashlib.sha256(f"{self.seed} {asked} {self._times[asked]}".encode()).digest())
            if chance.random() >= self.share:
                return ""
            kind = chance.choice([kind for kind in self.kinds if kind != "half" or environ["REQUEST_METHOD"] == "GET"])
            self.failed[kind] += 1
            return kind


class Quiet(serving.WSGIRequestHandler):
    """Writes no line for each request."""

    def log(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def served() -> Iterator[Storm]:
    """A store at s3://bucket, and the weather before it."""
    made = Storm(moto_server.DomainDispatcherApplication(moto_server.create_backend_app))
    server = serving.make_server("127.0.0.1", 0, made, True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ENDPOINT_URL", f"http://127.0.0.1:{server.port}"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr(retryhandler, "delay_exponential", lambda **_: 0.01)  # the client's pauses, in this process
        patch.setattr(run, "Lease", partial(Lease, renew_s=0.5, dead_s=1.5))  # a build that could not give it back is looked at for so long
        s3fs.S3FileSystem.clear_instance_cache()
        with contextlib.suppress(FileExistsError):  # all of moto's servers in a process have one memory
            fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
        yield made
    server.shutdown()
    thread.join()
    s3fs.S3FileSystem.clear_instance_cache()


class Lent(MediaProcess):
    """A decoder process that a build does not end."""

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def patient(served) -> Iterator[MediaProcess]:
    media = Lent()
    yield media
    MediaProcess.close(media)


@pytest.fixture(scope="module")
def impatient(served) -> Iterator[MediaProcess]:
    media = Lent()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        media._started()  # its environment is the one of now
    yield media
    MediaProcess.close(media)


@pytest.fixture
def storm(served, patient, monkeypatch) -> Iterator[Storm]:
    """The weather; clients try again by themselves."""
    monkeypatch.setattr(graph, "MediaProcess", lambda silence_s: patient)
    yield served
    served.begin(0)


@pytest.fixture
def hard_storm(served, impatient, monkeypatch) -> Iterator[Storm]:
    """The weather; clients give up what fails once, the decoder process what is cut off five times."""
    monkeypatch.setattr(graph, "MediaProcess", lambda silence_s: impatient)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    yield served
    served.begin(0)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def calls(tmp_path_factory) -> Raw:
    made = Raw(tmp_path_factory.mktemp("calls"))
    for number in range(2):
        made.dyad(f"call-{number}", seconds=2.5, seed=number, rate_hz=8_000)
    return made


@pytest.fixture(scope="module")
def undisturbed(calls, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    build(calls.rows, calls.folder, out, shard_bytes=SHARD_BYTES)
    return out


def files(place: str) -> dict[str, bytes]:
    folder = Folder(place)
    return {name: folder.read(name) for name in folder.names() if not name.startswith(".staging/")}


def got_there(calls: Raw, out: str, tries: int, root: str = "") -> list[str]:
    """Builds until it is done; gives what came of the tries before: what was said, or `unsettled`."""
    said: list[str] = []
    while len(said) < tries:
        try:
            verdict = build(calls.rows, root or calls.folder, out, shard_bytes=SHARD_BYTES)
        except (MicroturnError, OSError) as error:  # whatever else came out would be a traceback on the screen
            said.append(str(error))
            continue
        assert not verdict.rejected and not verdict.conflicts
        if not verdict.blocks:
            return said
        said.append("unsettled")
    pytest.fail(f"not there after {tries} tries: {said}")


def batches(uri: str) -> list[str]:
    """What a loader makes of a corpus, each batch as a digest."""
    import torch
    from microturn.trainer.data import DataSpec, Loader, Mixture, OpenCorpus

    mixture = Mixture.of([OpenCorpus.open(uri)], DataSpec(sequence_tokens=700, document_ticks=20))
    loaded = list(Loader(mixture, step_sequences=1, epochs=1))
    found = [[t.numpy().tobytes() for name in batch.__slots__ if isinstance(t := getattr(batch, name), torch.Tensor)] for batch in loaded]
    assert all(len(tensors) > 5 for tensors in found)
    return [hashlib.sha256(b"".join(tensors)).hexdigest() for tensors in found]


def more(quick: int, nightly: int) -> list[Any]:
    """Seeds; those beyond the quick ones by night."""
    return [*range(quick), *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(quick, quick + nightly))]


@pytest.mark.parametrize("seed", more(4, 40))
def test_one_request_in_ten_may_fail(storm, calls, undisturbed, seed):
    """Build, verify and load; whoever tries again in the client's stead finds nothing half done either."""
    out = f"s3://bucket/tenth-{seed}"
    storm.begin(0.1, seed=seed)
    got_there(calls, out, 10)
    assert verify(Corpus.open(out)).faults == [] and len(ledger(out)) == len(ledger(undisturbed))
    assert storm.failed.total() > 15 and len(storm.failed) >= 5, storm.failed
    storm.begin(0)
    assert files(out) == tree(undisturbed)


@pytest.mark.parametrize("seed", more(2, 40))
def test_what_a_client_gives_up_ends_the_build_and_the_rerun_gets_there(hard_storm, calls, undisturbed, seed):
    out = f"s3://bucket/hard-{seed}"
    hard_storm.begin(0.03, seed=seed)
    said = got_there(calls, out, 40)
    assert len(said) <= hard_storm.failed.total()
    hard_storm.begin(0)
    assert files(out) == tree(undisturbed) and verify(Corpus.open(out)).faults == []


def test_what_is_read_through_the_storm_is_what_was_written(storm, calls, undisturbed):
    """Recordings in the store too; and a loader's batches are those of the corpus on the disk."""
    for name, data in tree(calls.folder).items():
        Folder("s3://bucket/raw").write(name, data)
    storm.begin(0.1, seed=3)
    got_there(calls, "s3://bucket/read", 10, root="s3://bucket/raw")
    assert batches("s3://bucket/read") == batches(str(undisturbed)) != []
    assert storm.failed.total() > 15


GONE = {
    "parts cannot be written": lambda environ: environ["REQUEST_METHOD"] == "PUT" and "/parts/" in environ["PATH_INFO"],
    "receipts cannot be written": lambda environ: environ["REQUEST_METHOD"] == "PUT" and "/receipts/" in environ["PATH_INFO"],
    "recordings cannot be read": lambda environ: environ["REQUEST_METHOD"] == "GET" and environ["PATH_INFO"].endswith(".wav"),
}


CASES = [(gone, kind) for gone in GONE for kind in ("fault", "cut")]  # what is cut off the client tries long


@pytest.mark.parametrize(
    ("gone", "kind"), [case if not n else pytest.param(*case, marks=pytest.mark.nightly) for n, case in enumerate(CASES)]
)
def test_what_a_store_cannot_do_is_unsettled_and_never_the_contents_fault(hard_storm, calls, undisturbed, gone, kind):
    """A client's own errors are no OSErrors; taken for a fault that this content brings out, they would drop the session for good."""
    out, root = f"s3://bucket/{gone}-{kind}", f"s3://bucket/{gone}-{kind}-raw"
    for name, data in tree(calls.folder).items():
        Folder(root).write(name, data)
    hard_storm.begin(1, only=GONE[gone], kinds=(kind,))
    verdict = build(calls.rows, root, out, shard_bytes=SHARD_BYTES)
    assert len(verdict.unsettled) == 2 and not verdict.rejected and hard_storm.failed.total() >= 4
    assert not Folder(out).exists("dataset.json")
    hard_storm.begin(0)
    assert build(calls.rows, root, out, shard_bytes=SHARD_BYTES).fresh == 2
    assert files(out) == tree(undisturbed)


@pytest.mark.parametrize("kind", ["cut", "slow down", "fault"])
def test_a_store_that_does_not_answer_is_no_empty_folder(hard_storm, kind):
    """Or a corpus would be built over, for its dataset.json seems not to be there."""
    folder = Folder(f"s3://bucket/{kind}")
    folder.write("there", b"x")
    hard_storm.begin(1, kinds=(kind,))
    looks = (lambda: folder.exists("there"), lambda: folder.names(), lambda: folder.read("there"), lambda: folder.size("there"))
    for look in (*looks, lambda: folder.delete("there"), lambda: folder.write_new("there", b"y"), lambda: folders.is_folder(folder.uri)):
        with pytest.raises(OSError):
            look()
    hard_storm.begin(0)
    assert folder.exists("there") and not folder.exists("absent")


def test_a_lease_whose_receipt_was_lost_is_ones_own(storm):
    """The store has taken it, its answer is lost, the client tries again and is refused: the one who refuses is oneself."""
    folder, told = Folder("s3://bucket/lease"), []
    storm.begin(1, only=lambda e: e["REQUEST_METHOD"] == "PUT" and e["PATH_INFO"].endswith(LEASE), kinds=("reply lost",), most=1)
    with Lease(folder, told.append):
        assert storm.failed.total() == 1 and told == []
    assert not folder.exists(LEASE)


def test_a_lease_is_kept_through_a_storm(hard_storm):
    """The thread that renews it lives on, whatever the client raises."""
    folder = Folder("s3://bucket/kept")
    with Lease(folder, renew_s=0.05):
        hard_storm.begin(1, kinds=("cut", "fault"))
        soon(lambda: hard_storm.failed.total() > 2)
        hard_storm.begin(0)
        before = folder.read(LEASE)
        soon(lambda: folder.read(LEASE) != before)


def soon(came: Callable[[], bool]) -> None:
    """Waits for it; on a busy machine that takes a while."""
    until = time.monotonic() + 30
    while not came():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_file_put_anew_while_it_is_read_is_the_one_or_the_other(storm):
    """A look at its size and a read of that version are two requests; between them the lease is renewed every so often."""
    folder, over = Folder("s3://bucket/anew"), threading.Event()
    folder.write("lease", b"0")

    def renew() -> None:
        while not over.is_set():
            folder.write("lease", str(time.monotonic()).encode())

    renewer = threading.Thread(target=renew)
    renewer.start()
    try:
        assert len({folder.read("lease") for _ in range(40)}) > 5
    finally:
        over.set()
        renewer.join()
