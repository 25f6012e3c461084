"""A corpus in an object store, plan to verify over `s3://`: the server is moto's, in this process; client and protocol are the real ones.

moto stands for the store's meaning (one PUT at a name, conditional puts, no rename), not for its speed or its failures.
"""

import uuid

import fsspec
import pytest
from corpora import build, ledger, tree
from microturn.pipelines import graph
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.sessions.child import MediaProcess
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.lease import LEASE, Busy, Lease
from microturn.schemas.errors import InputError

pytest.importorskip("s3fs", reason="the extra `dev` is not installed")
server = pytest.importorskip("moto.server", reason="the extra `dev` is not installed")


@pytest.fixture(scope="module")
def s3():
    """The address of a store of our own, in the environment of this process and of those it starts."""
    lent = server.ThreadedMotoServer(port=0)
    lent.start()
    host, port = lent.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = fsspec.get_filesystem_class("s3")
        store.clear_instance_cache()  # those of another module's server
        bucket = f"bucket-{uuid.uuid4().hex}"  # all of moto's servers in a process have one memory
        fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
        yield f"s3://{bucket}"
    store.clear_instance_cache()
    lent.stop()


@pytest.fixture
def place(s3, monkeypatch) -> str:
    """An empty folder of the store; decoder processes of this test can reach it."""
    media = MediaProcess()
    monkeypatch.setattr(graph, "MediaProcess", lambda silence_s: media)
    yield f"{s3}/{uuid.uuid4().hex}"
    media.close()


def files(place: str) -> dict[str, bytes]:
    folder = Folder(place)
    return {name: folder.read(name) for name in folder.names() if not name.startswith(".staging/")}


def test_a_corpus_in_a_store_has_the_bytes_of_one_on_a_disk(raw, corpus, place):
    """Parts and receipts lie in the store too; it grows there, is read by byte ranges, and its first build does not miss its own files."""
    out = f"{place}/out"
    assert build(raw.rows[:2], raw.folder, out, shard_bytes=300_000).fresh == 2
    again = build(raw.rows, raw.folder, out, shard_bytes=300_000, keep_parts=True)
    assert (again.fresh, again.known) == (3, 2)
    found = Corpus.open(out)
    assert verify(found).faults == [] and found.dataset["digests"]["content"] == Corpus.open(str(corpus)).dataset["digests"]["content"]
    row = next(found.rows())
    assert found.read(row).meta["session"] == row["session"]
    assert LEASE not in files(out) and len(ledger(out)) == len(ledger(corpus))
    whole = f"{place}/whole"
    build(raw.rows, raw.folder, whole, shard_bytes=300_000)
    assert files(whole) == tree(corpus)


def test_recordings_in_a_store_give_the_bytes_of_those_on_a_disk(raw, corpus, place, tmp_path):
    for name, data in tree(raw.folder).items():
        Folder(f"{place}/raw").write(name, data)
    build(raw.rows, f"{place}/raw", tmp_path / "out", shard_bytes=300_000)
    assert tree(tmp_path / "out") == tree(corpus)


def test_one_build_at_a_time_has_a_folder_of_a_store(raw, place):
    with Lease(Folder(place), renew_s=0.2), pytest.raises(Busy, match="another build is at work"):
        build(raw.rows[:1], raw.folder, place)
    assert files(place) == {}
    with pytest.raises(InputError, match=r"no dataset\.json"):
        Corpus.open(place)
    assert build(raw.rows[:1], raw.folder, place).fresh == 1


def test_a_conditional_put_lets_one_of_two_through(place):
    fs, path = fsspec.core.url_to_fs(f"{place}/once", use_listings_cache=False)
    fs.pipe_file(path, b"first", mode="create")
    with pytest.raises(OSError):
        fs.pipe_file(path, b"second", mode="create")
    assert not Folder(place).write_new("once", b"third") and Folder(place).read("once") == b"first"


def test_what_another_process_has_written_is_seen_at_once(place):
    """s3fs keeps listings: one of before would hide the receipts of the workers."""
    folder = Folder(place)
    folder.write("a/mine", b"x")
    assert folder.names("a") == ["a/mine"] and not folder.exists("a/theirs")
    fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(f"{place}/a/theirs", b"x")
    assert folder.names("a") == ["a/mine", "a/theirs"] and folder.exists("a/theirs") and folder.size("a/theirs") == 1
