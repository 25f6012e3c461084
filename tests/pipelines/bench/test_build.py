"""`microturn bench build`: everybody reads the same conversation, and every part of it runs at its smallest. No timing is asserted."""

import hashlib
import json
import tarfile
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from microturn.pipelines.bench import alignment, figures, floor, material, ours, peers
from microturn.pipelines.bench.build import ALONE, BUILD, FLOOR, PEERS, build_bench
from microturn.pipelines.corpus import Corpus
from microturn.schemas.errors import InputError
from microturn.schemas.spec import FeatureSpec
from microturn.transforms.media.decode import probe

SPEC = FeatureSpec()
SECONDS = 18  # what 0.005 hours are


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return material.recordings("", tmp_path_factory.mktemp("made") / "raw", 0.005, lambda _: None)


def in_codec(made, out: Path, codec: str, **how) -> material.Material:
    sessions, root = made
    return material.encode(sessions, root, out / codec, codec, **how)


@pytest.mark.parametrize("codec", material.SOUND)
def test_every_contestant_reads_the_same_seconds(made, tmp_path, codec):
    held = in_codec(made, tmp_path, codec)
    read = {FLOOR: floor.sound(held.root, held.paths), ALONE: ours.featurise_alone(held, SPEC, tmp_path / "staging")}
    for who, needs, run in (("lhotse", "lhotse", peers.lhotse_to_shar), ("librosa", "webdataset", peers.librosa_to_tar)):
        pytest.importorskip(needs)
        read[who] = run(held.root, held.paths, tmp_path / who, peers.OUR_HOP, not peers.can_open(who, held.root / held.paths[0]))
    assert held.seconds == pytest.approx(SECONDS, abs=0.1)
    assert all(seconds == pytest.approx(SECONDS, abs=0.2) for seconds in read.values()), read


def test_the_floor_scales_the_pictures_that_a_corpus_keeps(made, tmp_path, monkeypatch):
    held = in_codec(made, tmp_path, material.VIDEO, size_px=(480, 360))
    scaled = []
    monkeypatch.setattr(floor, "scaled", lambda scaler, frame, spec: scaled.append((frame.width, frame.height)))
    assert floor.pictures(held.root, held.paths, SPEC.pictures) == pytest.approx(SECONDS, abs=0.2)
    ours.build(held, SPEC, tmp_path / "corpus")
    rows = list(Corpus.open(str(tmp_path / "corpus")).rows())
    assert set(scaled) == {(480, 360)} and abs(len(scaled) - 2 * sum(row["num_pairs"] for row in rows)) <= 2
    assert ours.bytes_of(tmp_path / "corpus").picture_bytes > 10**6


def test_a_peer_hears_the_same_when_it_is_decoded_for_it(made, tmp_path):
    pytest.importorskip("webdataset")
    pytest.importorskip("librosa")
    held, heard = in_codec(made, tmp_path, "flac"), []
    for by_pyav in (False, True):
        out = tmp_path / f"out-{by_pyav}"
        peers.librosa_to_tar(held.root, held.paths, out, peers.OUR_HOP, by_pyav)
        with tarfile.open(out / "shard-000000.tar") as tar:
            heard.append(np.load(BytesIO(tar.extractfile("00000-0-00000.pcm.npy").read())))
    assert heard[0].shape == heard[1].shape and np.abs(heard[0]).max() > 1000
    assert np.abs(heard[0].astype(int) - heard[1]).max() <= 1


@pytest.mark.parametrize("codec", material.CODECS)
def test_more_hours_are_other_recordings_of_the_same_length(made, tmp_path, codec):
    held = in_codec(made, tmp_path, codec, hours=0.0101)
    files = [held.root / path for path in held.paths]
    assert len(files) == 3 == len({session.id for session in held.sessions})
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 3
    declared = [probe(file, SPEC.limits).stream("audio", 0) for file in files]
    assert len({(stream.rate_hz, stream.channels, stream.declared) for stream in declared}) == 1


def test_a_film_keeps_its_sound_and_its_times_at_another_size(made, tmp_path):
    sessions, root = made
    held = in_codec(made, tmp_path, material.VIDEO, size_px=(640, 480))
    before, after = (probe(file, SPEC.limits) for file in (root / sessions[0].streams[0].path, held.root / held.paths[0]))
    assert (after.stream("video", 0).width_px, after.stream("video", 0).height_px) == (640, 480)
    for kind in ("audio", "video"):
        assert after.stream(kind, 0).first - after.zero == before.stream(kind, 0).first - before.zero
    with av.open(str(held.root / held.paths[0])) as film:
        pictures = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    assert len(pictures) == before.stream("video", 0).declared and np.any(pictures[0] != pictures[1])  # grain


def test_what_is_resumed_without_a_commit_is_the_same_corpus(made, tmp_path):
    held, out = in_codec(made, tmp_path, "wav"), tmp_path / "corpus"
    ours.build(held, SPEC, out, keep_parts=True)
    before = Corpus.open(str(out)).dataset["digests"]
    ours.uncommit(out)
    with pytest.raises(InputError):
        Corpus.open(str(out))
    ours.build(held, SPEC, out, keep_parts=True)
    assert Corpus.open(str(out)).dataset["digests"] == before


def test_the_clap_of_the_film_is_heard_when_it_is_seen():
    errors = alignment.clap_errors()
    assert errors and max(map(abs, errors)) <= 16


def test_a_beep_that_comes_late_is_found_late(monkeypatch):
    """Negative control: sound moved by 25 ms is 25 ms off."""
    heard = alignment.AudioTrack.read
    monkeypatch.setattr(alignment.AudioTrack, "read", lambda track, n: (np.roll(heard(track, n)[0], 400), None))
    assert alignment.clap_errors() == [400]


def smallest(*more: str) -> list[str]:
    return ["--hours", "0.005", "--repeats", "1", "--resume-sessions", "2", "--picture", "320x240", *more]


def test_the_command_at_its_smallest():
    ran = CliRunner().invoke(build_bench, smallest("--codecs", "aac,video", "--json"), catch_exceptions=False)
    found = json.loads(ran.stdout)
    costs = {(cost["codec"], cost["who"]): cost for cost in found["costs"]}
    assert {(codec, who) for codec in ("aac", "video") for who in (FLOOR, ALONE, BUILD)} <= set(costs)
    assert all(cost["hours"] == pytest.approx(0.005, abs=0.0002) for cost in costs.values())
    assert all(cost["cpu_s"] > 0 and cost["wall_s"] > 0 and cost["ratio"] > 0 for cost in costs.values()) and found["start_up_cpu_s"] > 0
    assert costs["aac", BUILD]["ratio"] == 1
    assert found["sizes"]["aac"]["audio_bytes_per_hour"] > 10**8 and found["sizes"]["aac"]["pictures_bytes_per_hour"] < 10**6
    assert found["sizes"]["video"]["pictures_bytes_per_hour"] > 10**9
    assert found["resume"]["finished_cpu_s"] > 0 and found["resume"]["receipted_cpu_s"] > 0 and found["clap_errors"]


def test_the_command_shows_all_of_it_and_can_leave_the_peers_out():
    ran = CliRunner().invoke(
        build_bench, smallest("--codecs", "wav", "--no-peers", "--hours", "0.005,0.006"), env={"COLUMNS": "100"}, catch_exceptions=False
    )
    rows = ("floor", "featurise", "build", "hours per core-hour", "the same, 0.01", "an hour of wav", "resumed", "sound from its picture")
    for word in rows:
        assert word in ran.stdout, word
    assert not any(name in ran.stdout for rows in PEERS.values() for name in rows) and "…" not in ran.stdout


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch):
    from microturn.pipelines.bench import build

    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None if name == "lhotse" else object())
    told: list[str] = []
    assert build._installed(told.append) == ["librosa"]
    assert len(told) == 1 and told[0].startswith("lhotse is left out: it needs lhotse")


@pytest.mark.nightly
def test_every_codec_and_two_workers():
    ran = CliRunner().invoke(build_bench, smallest("--workers", "--json"), catch_exceptions=False)
    found = json.loads(ran.stdout)
    assert {cost["codec"] for cost in found["costs"]} == set(material.CODECS)
    assert found["sizes"]["workers"]["speed_up"] > 0 and found["sizes"]["workers"]["ceiling"] > 0


@pytest.mark.parametrize(
    "option, said",
    [("--hours=soon", "not a list of hours"), ("--hours=0", "at least"), ("--codecs=aac,vorbis", "'vorbis'"), ("--picture=big", "width")],
)
def test_what_cannot_be_meant_is_refused(option, said):
    ran = CliRunner().invoke(build_bench, [option])
    assert isinstance(ran.exception, InputError) and said in str(ran.exception)


def test_resume_is_timed_on_sessions_that_differ(tmp_path):
    held = figures._many(3, tmp_path / "raw")
    assert len({(tmp_path / "raw" / f"{n:06d}.wav").read_bytes() for n in range(3)}) == 3 == len(held.sessions)
