"""The lent decoder process, and one good corpus that many laws look at."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from corpora import Raw, build, copied, mono_stream, spoken
from media_makers import clap_film, steady_times
from microturn.pipelines import graph
from microturn.pipelines.corpus import against
from microturn.pipelines.sessions.child import MediaProcess
from signals import speech

RIGHTS = {"language": "en", "source": "laws", "license": "CC-BY-4.0", "consent": "written"}


class LentProcess:
    """Stands for MediaProcess in a build: the real one, which outlives the build. It notes which sessions were featurised."""

    def __init__(self) -> None:
        self._media = MediaProcess()
        self.featurised: list[str] = []

    def call(self, verb: str, request: dict[str, Any], on_progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
        if verb == "featurise":
            self.featurised.append(request["item"]["session"]["id"])
        return self._media.call(verb, request, on_progress)

    def close(self) -> None:
        """Nothing: others will want it."""

    def __enter__(self) -> "LentProcess":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def end(self) -> None:
        self._media.close()


@pytest.fixture(scope="session", autouse=True)
def lent() -> Iterator[LentProcess]:
    """Builds of this process share one decoder process."""
    process = LentProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "MediaProcess", lambda silence_s: process)
        patch.setattr(against, "MediaProcess", lambda: process)
        yield process
    process.end()


@pytest.fixture
def featurised(lent: LentProcess) -> list[str]:
    """Ids of the sessions that the decoder process has been asked for in this test."""
    lent.featurised.clear()
    return lent.featurised


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Raw:
    """Five good sessions: two calls, a meeting of three, a film that an assistant watches, and text that outlasts its speech."""
    made = Raw(tmp_path_factory.mktemp("raw"))
    made.dyad("call-wav", seconds=3.3, seed=1, group="ann", **RIGHTS)
    made.dyad("call-flac", seconds=4.05, seed=2, rate_hz=44_100, ending="flac", group="bob", **RIGHTS)
    for seed, who in enumerate("abc"):
        made.sound(f"meeting/{who}.wav", speech(48_000, 10 + seed))
    made.add(
        id="meeting",
        streams=[mono_stream(who, f"meeting/{who}.wav", start=start) for who, start in (("a", 0), ("b", 0.5), ("c", 1))],
        participants=[{"id": "a", "role": "assistant", "speaker": "Ann"}, {"id": "b", "speaker": "Bob"}, {"id": "c", "role": "other"}],
        transcripts=[{"path": made.words("meeting/a.json", spoken(3)), "participant": "a"}],
        events=[
            {"kind": "typed", "at": 1.5, "participant": "b", "text": "a note"},
            {"kind": "delegate", "at": 1.6, "participant": "a"},
            {"kind": "background", "at": 2.2, "participant": "a", "text": "an answer", "complete": True},
        ],
        **RIGHTS,
    )
    times = steady_times(Fraction(25), 75)
    made.bytes("film.mp4", clap_film("mp4", "libx264", "aac", times=times, light=40))
    scene = {"path": "film.mp4", "participant": "scene"}
    made.add(
        id="film",
        streams=[{"id": "sound", "kind": "audio", **scene}, {"id": "sight", "kind": "video", **scene}],
        participants=[{"id": "assistant", "role": "assistant"}, {"id": "scene", "role": "other"}],
        events=[{"kind": "typed", "at": 0.7, "text": "what do you see?"}],
        custom={"weather": "rain"},
        **RIGHTS,
    )
    words = [
        ("antidisestablishmentarianism", 2.0, 2.5),
        ("floccinaucinihilipilification", 2.5, 3.0),
        ("hippopotomonstrosesquippedaliophobia", 3.0, 3.1),
    ]
    made.dyad("talkative", seconds=3.2, seed=3, transcripts=[{"path": made.words("long.json", words), "participant": "left"}], **RIGHTS)
    made.manifest()
    return made


@pytest.fixture(scope="session")
def corpus(raw: Raw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `raw`, in shards of 300 kB, receipts beside it. Do not change it: `corpora.copied` gives one to tamper with."""
    out = tmp_path_factory.mktemp("corpus") / "out"
    verdict = build(raw.rows, raw.folder, out, shard_bytes=300_000)
    assert not verdict.blocks and not verdict.rejected
    return out


@pytest.fixture(scope="session")
def vault(raw, tmp_path_factory) -> Path:
    """A small corpus of two splits, several shards, a film and a session that was dropped whole."""
    rows = [
        row | {"split": "val" if row["id"] == "film" else "train"} for row in raw.rows if row["id"] in ("call-wav", "film", "talkative")
    ]
    rows.append({"id": "gone", "streams": [{"id": "a", "path": "gone.wav", "kind": "audio", "participant": "p"}]})
    out = tmp_path_factory.mktemp("vault") / "out"
    build(rows, raw.folder, out, shard_bytes=200_000)
    return out


@pytest.fixture
def out(vault, tmp_path) -> Path:
    """A copy to tamper with."""
    return copied(vault, tmp_path / "out")
