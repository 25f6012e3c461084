"""A purge leaves nothing of a session and everything of the others, wherever it is killed; the search for what is left can find it."""

import contextlib
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from corpora import Raw, build, copied, faults, ledger, tree
from microturn.pipelines.corpus import Corpus
from microturn.pipelines.corpus.absent import payloads_of, search
from microturn.pipelines.corpus.withdrawn import are_withdrawn, look_up, mark, read_list, refuse_unknown
from microturn.pipelines.reshard import run as reshard_run
from microturn.pipelines.reshard.purge import session_of_part
from microturn.pipelines.storage.folders import Folder
from microturn.pipelines.storage.lease import LEASE, Busy, Lease
from microturn.pipelines.storage.tar import TarWriter
from microturn.schemas.errors import CorpusError, InputError
from microturn.schemas.keys import session_key

GONE = "a withdrawn call / Ümit"
KEY = session_key(GONE)


@pytest.fixture(scope="module")
def held(raw, tmp_path_factory) -> Path:
    """A corpus of many small shards with its parts and receipts; one session with a difficult id, one that was dropped whole, a report."""
    made = Raw(raw.folder, rows=list(raw.rows))
    made.dyad(GONE, seconds=5, seed=21)
    made.rows.append({"id": "lost call", "streams": [{"id": "a", "path": "nothing.wav", "kind": "audio", "participant": "p"}]})
    out = tmp_path_factory.mktemp("held") / "out"
    build(made.rows, made.folder, out, shard_bytes=120_000, keep_parts=True)
    (out / "report.html").write_text(f"<p>{KEY}</p>")
    return out


@pytest.fixture
def out(held, tmp_path) -> Path:
    return copied(held, tmp_path / "out")


def dataset(out: Path) -> dict:
    return json.loads((out / "dataset.json").read_bytes())


def left(out: Path, names: list[str], old: Path | None = None) -> list[str]:
    """Where something of these sessions is found."""
    corpora = [Corpus.open(str(out)), *([Corpus.open(str(old))] if old else [])]
    listed = look_up(names, corpora)
    return search([Folder(str(out))], listed, payloads_of(corpora[-1], listed)[0] if old else frozenset()).places


@pytest.mark.parametrize("name", [GONE, KEY], ids=["by id", "by key"])
def test_a_purged_corpus_is_that_of_the_others_and_nothing_is_left(raw, held, out, purged, tmp_path, name):
    before = left(out, [name])
    kinds = ("shards/", "index/", "ledger/", ".staging/parts/", ".staging/receipts/", "report.html")
    assert {kind for kind in kinds if any(place.startswith(kind) for place in before)} == set(kinds)
    purged(out, [name])
    assert faults(out) == [] and left(out, [GONE], held) == []
    build([*raw.rows, {"id": "lost call"} | _lost()], raw.folder, tmp_path / "others")
    digests = (dataset(out)["digests"]["content"], dataset(tmp_path / "others")["digests"]["content"])
    assert digests[0] == digests[1] and dataset(out)["withdrawn"] == [mark(KEY)]
    assert (dataset(out)["totals"] | {"size_bytes": 0}) == (dataset(tmp_path / "others")["totals"] | {"size_bytes": 0})


def _lost() -> dict:
    return {"streams": [{"id": "a", "path": "nothing.wav", "kind": "audio", "participant": "p"}]}


def test_shards_without_such_a_session_are_not_touched(held, out, purged):
    before, stamps = dataset(out), {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    purged(out, [GONE])
    mine = {row["shard"] for row in Corpus.open(str(held)).rows() if row["session"] == KEY}
    others = [shard["name"] for shard in before["shards"] if shard["name"] not in mine]
    assert len(mine) >= 2 and len(others) >= 2
    for name in others:
        path = out / f"shards/{name}.tar"
        assert path.stat().st_mtime_ns == stamps[path]
    now = [shard["name"] for shard in dataset(out)["shards"]]
    assert set(others) <= set(now) and not mine & set(now)


def test_what_was_dropped_whole_leaves_the_ledger_too(out, purged):
    assert any(row["session_id"] == "lost call" for row in ledger(out))
    purged(out, ["lost call"])
    assert faults(out) == [] and left(out, ["lost call"]) == []
    assert dataset(out)["totals"]["rejected_sessions"] == 0


def test_all_can_go(raw, out, purged, held):
    names = [*(row["id"] for row in raw.rows), GONE, "lost call"]
    purged(out, names)
    assert faults(out) == [] and dataset(out)["shards"] == [] and left(out, names, held) == []


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def changes(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> Iterator[int]:
    """Counts what changes a folder; change number `stop_at` does not happen, and nothing after it."""
    number = count()

    def counted(real):
        def change(self, *args):
            if args[:1] != (LEASE,) and next(number) >= stop_at:  # a lock of the system ends with its process
                raise Killed
            return real(self, *args)

        return change

    for name in ("adopt", "delete", "delete_unfinished"):
        monkeypatch.setattr(Folder, name, counted(getattr(Folder, name)))
    return number


@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_killed_purge_leaves_the_old_corpus_or_the_new_one_and_is_finished_by_the_next(held, purged, tmp_path, every):
    """At every change of the disk, one after the other. What is beside the two corpora may be there, what is of them may not be missing."""
    whole = copied(held, tmp_path / "whole")
    purged(whole, [GONE])
    digests = {name: dataset(place)["digests"] for name, place in (("old", held), ("new", whole))}
    seen = []
    for stop_at in count(step=every):
        broken = copied(held, tmp_path / f"broken-{stop_at}")
        with pytest.MonkeyPatch.context() as patch:
            number = changes(patch, stop_at)
            with contextlib.suppress(Killed):
                purged(broken, [GONE])
        is_over = next(number) <= stop_at
        seen.append("new" if dataset(broken)["digests"] == digests["new"] else "old")
        assert dataset(broken)["digests"] == digests[seen[-1]]
        beside = ("not in dataset.json", "croissant.json", ".nv-meta")  # leavings, and cards that are written just before the commit
        assert [fault for fault in faults(broken) if not any(text in fault for text in beside)] == [], stop_at
        (broken / ".dead.tmp").write_text(KEY)  # what a killed writer had begun
        purged(broken, [GONE])
        assert tree(broken) == tree(whole) and left(broken, [GONE], held) == [], stop_at
        if is_over:
            break
    assert seen == sorted(seen, reverse=True) and seen.count("old") >= 2 and seen.count("new") >= 2


def test_the_second_purge_finds_the_first_ones_work_by_its_mark(out, purged):
    purged(out, [GONE])
    before = tree(out)
    for name in (GONE, KEY):
        listed = look_up([name], [Corpus.open(str(out))])
        assert listed.gone == (name,) and not listed.unknown and not listed.held
        purged(out, [name])
    assert tree(out) == before
    assert are_withdrawn(["film", KEY], dataset(out)) == [KEY] and are_withdrawn([KEY], None) == []


def test_a_name_that_nobody_has_is_a_mistake_that_is_named(out, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(f"\ufefffilm\r\n\r\nflim\n{GONE}\n".encode())
    assert read_list(str(path)) == ["film", "flim", GONE]
    listed = look_up(read_list(str(path)), [Corpus.open(str(out))])
    assert listed.held == {"film", KEY}
    with pytest.raises(InputError, match="no session 'flim' in the corpus"):
        refuse_unknown(listed, str(path))
    path.write_text(" \n")
    with pytest.raises(InputError, match="names no session"):
        read_list(str(path))


def test_a_damaged_shard_stops_a_purge_before_anything_is_lost(out, purged):
    rows = list(Corpus.open(str(out)).rows())
    shared = {row["shard"] for row in rows if row["session"] == KEY}
    row = next(row for row in rows if row["shard"] in shared and row["session"] != KEY)
    with open(out / f"shards/{row['shard']}.tar", "r+b") as file:
        file.seek(row["members"][0]["offset"] + 128)
        file.write(b"\xff")
    before = tree(out, staging=True)
    with pytest.raises(CorpusError, match=f"window {row['key']}: {row['members'][0]['name']}"):
        purged(out, [GONE])
    after = tree(out, staging=True)
    assert all(after[name] == data for name, data in before.items()) and (out / "report.html").exists()


def test_a_purge_and_a_build_have_the_corpus_one_at_a_time(out, purged):
    with Lease(Folder(str(out))), pytest.raises(Busy):
        purged(out, [GONE])


def test_verify_sees_one_who_came_back(held, tmp_path):
    out = copied(held, tmp_path / "out")
    (out / "dataset.json").write_text(json.dumps(dataset(out) | {"withdrawn": [mark("film")]}))
    shards = sorted({row["shard"] for row in Corpus.open(str(out)).rows() if row["session"] == "film"})
    assert shards and faults(out) == [f"shard {name}: session film was withdrawn" for name in shards]


def plant_receipt(out: Path) -> str:
    (out / ".staging/receipts/other.json").write_text(json.dumps({"id": GONE}))
    return ".staging/receipts/other.json: byte 8"


def plant_name(out: Path) -> str:
    (out / f".staging/receipts/{KEY}-0123456789abcdef.json").write_text("{}")
    return f".staging/receipts/{KEY}-0123456789abcdef.json: the file's name"


def plant_card(out: Path) -> str:
    with open(out / "README.md", "a") as file:
        file.write(f"\nA nice one: {GONE}.\n")
    return "README.md: byte"


def plant_unfinished(out: Path) -> str:
    (out / ".0123.tmp").write_bytes(bytes(1000) + KEY.encode() + bytes(9))
    return ".0123.tmp: byte 1000"


def plant_far_away(out: Path) -> str:
    (out / "blob").write_bytes(bytes((16 << 20) - 5) + KEY.encode())
    return f"blob: byte {(16 << 20) - 5}"


def plant_part(out: Path) -> str:
    with open(out / ".staging/parts/x.tar", "wb") as file:
        tar = TarWriter(file)
        tar.add(f"{KEY}-left-0000000.own_pcm.npy", [b"x"])
        tar.close()
    assert session_of_part(Folder(f"{out}/.staging"), "parts/x.tar") == KEY
    return f".staging/parts/x.tar: member {KEY}-left-0000000.own_pcm.npy"


def plant_table(out: Path) -> str:
    from microturn.pipelines.storage.tables import write_table
    from microturn.schemas.tables import LEDGER_SCHEMA, LedgerRow

    row = LedgerRow(session="x", session_id=GONE, entry="session")
    write_table(Folder(str(out)), "ledger/rejected-000009.parquet", [row.model_dump()], LEDGER_SCHEMA)
    return "ledger/rejected-000009.parquet: row 0: column session_id"


def plant_unreadable(out: Path) -> str:
    (out / "shards/zzz.tar").write_bytes(b"x" * 3000)
    return "shards/zzz.tar: cannot be searched"


PLANTS = (plant_receipt, plant_name, plant_card, plant_unfinished, plant_far_away, plant_part, plant_table, plant_unreadable)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_trace_is_found_where_it_is(plant, out, purged):
    purged(out, [GONE])
    assert left(out, [GONE, KEY]) == []
    expected = plant(out)
    found = left(out, [GONE, KEY])
    assert any(place.startswith(expected) for place in found), found


def test_the_bytes_of_a_session_are_found_under_another_name(held, out, purged):
    """Negative control of --of: a renamed copy, which no search for names finds."""
    purged(out, [GONE])
    corpus = Corpus.open(str(held))
    row = next(row for row in corpus.rows() if row["session"] == KEY)
    data = corpus.folder.read_range(f"shards/{row['shard']}.tar", row["offset"], row["size"])
    at = next(at for at in row["members"] if at["name"] == "own_pcm.npy")
    with open(out / ".staging/parts/x.tar", "wb") as file:
        tar = TarWriter(file)
        tar.add("somebody-left-0000000.own_pcm.npy", [data[at["offset"] - row["offset"] :][: at["size"]]])
        tar.close()
    assert left(out, [GONE]) == []
    assert left(out, [GONE], held) == [
        ".staging/parts/x.tar: member somebody-left-0000000.own_pcm.npy: its bytes are those of a member that is to be gone"
    ]


@pytest.fixture(scope="module")
def cast(tmp_path_factory) -> Path:
    """Ann acts in one call, is only heard in another and takes no part in a third, where a namesake of two does."""
    made = Raw(tmp_path_factory.mktemp("cast"))
    for number, (left, right, role) in enumerate((("Ann", "Bo Ek", "user"), ("Bo Ek", "Ann", "other"), ("Anna", "Bob", "user"))):
        people = [{"id": "left", "role": "assistant", "speaker": left}, {"id": "right", "role": role, "speaker": right}]
        made.dyad(f"call-{number}", seconds=2, seed=number, participants=people)
    out = tmp_path_factory.mktemp("cast-out") / "out"
    build(made.rows, made.folder, out, shard_bytes=60_000, keep_parts=True)
    return out


def speakers(out: Path) -> set[str]:
    corpus = Corpus.open(str(out))
    return {person["speaker"] for row in corpus.rows() for person in corpus.read(row).meta["participants"]}


def test_who_withdraws_takes_every_session_of_theirs_along(cast, purged, tmp_path):
    out = copied(cast, tmp_path / "out")
    before = left(out, ["speaker:Ann"])
    assert any("a speaker" in place for place in before) and any("column speaker" in place for place in before)
    purged(out, ["speaker:Ann"])
    assert faults(out) == [] and speakers(out) == {"Anna", "Bob"} and left(out, ["speaker:Ann"], cast) == []
    assert set(dataset(out)["withdrawn"]) == {mark("call-0"), mark("call-1"), mark("speaker:Ann")}
    named = copied(cast, tmp_path / "named")
    purged(named, ["call-0", "call-1"])
    assert dataset(named)["digests"] == dataset(out)["digests"]


def test_a_speaker_who_is_nowhere_is_refused_with_a_near_one(cast, purged, tmp_path):
    out = copied(cast, tmp_path / "out")
    listed = look_up(["speaker:Bo  Ek", "speaker:Zoe", "call-00"], [Corpus.open(str(out))])
    with pytest.raises(InputError, match="no session 'speaker:Bo  Ek', 'speaker:Zoe', 'call-00' in the corpus") as refusal:
        refuse_unknown(listed, "list")
    assert "did you mean 'speaker:Bo Ek', 'call-0'?" in refusal.value.hint and not listed.held
    purged(out, ["speaker:Bo Ek"])
    assert look_up(["speaker:Bo Ek"], [Corpus.open(str(out))]).gone == ("speaker:Bo Ek",)
    (tmp_path / "list").write_text("speaker:\n")
    with pytest.raises(InputError, match="names nobody"):
        read_list(str(tmp_path / "list"))


def test_a_purge_of_a_speaker_that_was_killed_is_finished_by_the_same_list(cast, purged, tmp_path, monkeypatch):
    """Behind its commit nothing but the marks says whose the parts in the staging folder are."""
    whole, broken = copied(cast, tmp_path / "whole"), copied(cast, tmp_path / "broken")
    purged(whole, ["speaker:Ann"])
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(reshard_run, "clean", lambda *_: (_ for _ in ()).throw(Killed))
        purged(broken, ["speaker:Ann"])
    assert left(broken, ["call-0"]) != []
    purged(broken, ["speaker:Ann"])
    assert tree(broken, staging=True) == tree(whole, staging=True) and left(broken, ["call-0", "call-1", "speaker:Ann"], cast) == []


def test_a_plan_that_a_dead_build_left_is_searched_for_the_speaker(cast, purged, tmp_path):
    out = copied(cast, tmp_path / "out")
    purged(out, ["speaker:Ann"])
    for name in ("work", "other"):
        (out / name).write_text(json.dumps({"participants": [{"id": "x", "speaker": "Ann" if name == "work" else "Anna"}]}))
    assert left(out, ["speaker:Ann"]) == ["work: byte 30"]
