"""`microturn reshard` and `verify --absent` as a person runs them, on Beam; what is left unsaid is refused in words."""

import json
import uuid
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from corpora import copied, faults, tree
from microturn import cli
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.verify import verify
from microturn.pipelines.wording.size import Size


def run(*args: object):
    return CliRunner().invoke(cli.microturn, [str(arg) for arg in args], prog_name="microturn")


@pytest.fixture
def names(tmp_path) -> Path:
    path = tmp_path / "withdrawn.txt"
    path.write_text("call-wav\nfilm\n")
    return path


def test_the_graph_on_a_runner_gives_the_bytes_of_its_steps(corpus, reshard, tmp_path):
    reshard([corpus], tmp_path / "steps", shard_bytes=100 << 10)
    ran = run("reshard", corpus, tmp_path / "out", "--shard-bytes", "100KiB")
    assert ran.exit_code == 0 and tree(tmp_path / "out") == tree(tmp_path / "steps")
    assert json.loads(ran.stdout)["digests"] == json.loads((tmp_path / "out/dataset.json").read_bytes())["digests"]
    assert not list(tmp_path.glob("out/.staging/reshard*/*")) and not (tmp_path / "out/.building").exists()


@pytest.mark.nightly
def test_workers_in_processes_of_their_own_give_the_same_bytes(corpus, reshard, tmp_path):
    reshard([corpus], tmp_path / "steps", shard_bytes=100 << 10)
    ran = run("reshard", corpus, tmp_path / "out", "--shard-bytes", "100KiB", "--workers", 2)
    assert ran.exit_code == 0 and tree(tmp_path / "out") == tree(tmp_path / "steps")


def test_what_was_dropped_is_proved_absent_and_before_that_found(corpus, names, tmp_path):
    out = copied(corpus, tmp_path / "out")
    ran = run("verify", out, "--absent", names)
    assert ran.exit_code == 1 and "--absent: shards/train-" in ran.stdout and "searched for 2 names in" in ran.stderr
    ran = run("reshard", out, "--drop", names)
    assert ran.exit_code == 0 and "2 dropped now, 0 before" in ran.stderr
    typo = tmp_path / "typo.txt"
    typo.write_text("call-wave\n")
    assert "no session 'call-wave' in the corpus, nor withdrawn from it" in str(run("verify", out, "--absent", typo).exception)
    assert run("verify", out, "--absent", typo, "--missing-ok").exit_code == 0
    ran = run("verify", out, "--absent", names, "--of", corpus)
    assert ran.exit_code == 0 and ran.stdout == "" and "that only they have" in ran.stderr
    assert run("reshard", out, "--drop", names).exit_code == 0
    names.write_text("meeting\nneeting\n")
    ran = run("reshard", out, "--drop", names)
    assert ran.exit_code != 0 and "no session 'neeting' in the corpus" in str(ran.exception)
    assert run("reshard", out, "--drop", names, "--missing-ok").exit_code == 0
    assert {row["session"] for row in Corpus.open(str(out)).rows()} == {"call-flac", "talkative"} and faults(out) == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["reshard", "corpus"], "a CORPUS and OUT are needed, or a CORPUS and --drop LIST"),
        (["reshard", "corpus", "--drop", "list", "--split", "a=1"], "--split needs OUT"),
        (["reshard", "corpus", "--drop", "list", "--shard-bytes", "1"], "--shard-bytes needs OUT"),
        (["reshard", "a", "b", "--missing-ok"], "--missing-ok goes with --drop"),
        (["reshard", "a", "b", "--move-given"], "--move-given goes with --split"),
        (["reshard", "a", "b", "--shard-bytes", "5 parsecs"], "is no number of bytes; for example 512MiB"),
        (["reshard", "a", "b", "--shard-byts=3"], "did you mean --shard-bytes?"),
        (["verify", "a", "--of", "b"], "--of, --staging and --missing-ok go with --absent"),
    ],
)
def test_what_is_left_unsaid_is_refused_in_words(args, said):
    ran = run(*args)
    found = ran.stderr + str(ran.exception) + getattr(ran.exception, "hint", "")
    assert ran.exit_code != 0 and said in found


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("512MiB", 512 << 20), ("2 gb", 2 * 10**9), ("64KiB", 64 << 10)])
def test_sizes_are_read_as_people_write_them(text, size):
    assert Size().convert(text, None, None) == size


def test_a_store_is_read_written_and_purged_as_a_disk(corpus, reshard, purged, tmp_path, monkeypatch):
    pytest.importorskip("s3fs", reason="the extra `dev` is not installed")
    server = pytest.importorskip("moto.server", reason="the extra `dev` is not installed").ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (("ENDPOINT_URL", f"http://{host}:{port}"), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fs = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        place = f"s3://{uuid.uuid4().hex}"
        fs.mkdir(place)
        reshard([corpus], f"{place}/out", shard_bytes=100_000)
        reshard([f"{place}/out"], tmp_path / "back", shard_bytes=300_000)
        assert tree(tmp_path / "back") == tree(corpus)
        purged(f"{place}/out", ["film"])
        found = Corpus.open(f"{place}/out")
        assert verify(found).faults == [] and "film" not in {row["session"] for row in found.rows()}
        assert not [name for name in found.folder.names() if "film" in name]
    finally:
        server.stop()
