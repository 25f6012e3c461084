"""The decoder process: whatever it dies of costs one recording at most; what it says is an answer or it is nothing.

The children here are the real one with a fault put in before it starts serving: `evil` names the session, or the file, that sets it off.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import Raw, build, ledger
from microturn.pipelines import graph
from microturn.pipelines.sessions import child
from microturn.pipelines.sessions.child import ChildCrashed, ChildFault, ChildLost, MediaProcess
from microturn.schemas.errors import MediaError

nightly = pytest.mark.nightly
FAULTY = """
import os, signal, sys, time
from microturn.pipelines.sessions import child, featurise

kind, log = sys.argv[1:]
real = featurise.featurise_request

def evil(request, progress):
    name = request["item"]["session"]["id"]
    with open(log, "a") as file:
        file.write(name + "\\n")
    if name == "evil":
        match kind:
            case "hang": time.sleep(60)
            case "io": raise OSError("the disk is on fire")
            case "memory": raise MemoryError
            case "fault": raise ZeroDivisionError("ours")
            case "noise": print("{}"); os.write(1, b"garbage\\n")
            case "exit": os._exit(3)
            case "fault, late" if open(log).read().count("evil") > 1: raise ZeroDivisionError("ours")
            case "crash, late" if open(log).read().count("evil") > 1: os.kill(os.getpid(), signal.SIGSEGV)
            case "fault, late" | "crash, late": raise OSError("the disk is on fire")
            case "once" if open(log).read().count("evil") > 1: pass
            case "once": os.kill(os.getpid(), signal.SIGSEGV)
            case _: os.kill(os.getpid(), signal.Signals[kind])
    return real(request, progress)

featurise.featurise_request = evil
child.serve()
"""


@pytest.fixture
def calls(raw, tmp_path) -> Raw:
    """Three calls of one file; the second is `evil`."""
    made = Raw(tmp_path / "raw")
    for name in ("good", "evil", "fine"):
        made.dyad(name, seconds=1.0, file="call")
    return made


class Impatient(MediaProcess):
    """Waits for `evil` as long as a test can wait, for the others as long as a loaded machine needs to start a process."""

    def call(self, verb, request, on_progress=lambda _: None):
        self._silence_s = 3.0 if request["item"]["session"]["id"] == "evil" else 60.0
        return super().call(verb, request, on_progress)


@pytest.fixture
def make_faulty(tmp_path, monkeypatch):
    """Puts a fault into every decoder process that is started; gives the list of sessions that were tried."""

    def make(kind: str):
        script, log = tmp_path / "faulty.py", tmp_path / "asked"
        script.write_text(FAULTY)
        log.write_text("")
        monkeypatch.setattr(child, "COMMAND", (sys.executable, "-P", str(script), kind, str(log)))
        monkeypatch.setattr(graph, "MediaProcess", lambda _: Impatient() if kind == "hang" else MediaProcess(60.0))
        return lambda: log.read_text().split()

    return make


def test_a_fault_of_ours_drops_the_recording_that_brings_it_out_and_blocks_no_other(calls, tmp_path, make_faulty):
    asked = make_faulty("fault")
    verdict = build(calls.rows, calls.folder, tmp_path / "out")
    assert (verdict.fresh, len(verdict.rejected), verdict.blocks) == (2, 1, False) and asked().count("evil") == 2
    (row,) = [row for row in ledger(tmp_path / "out") if row["entry"] == "session"]
    assert row["reason"] == "fault" and "ZeroDivisionError: ours" in row["message"] and "report" in row["message"]


@pytest.mark.parametrize("kind", ["SIGSEGV", pytest.param("SIGABRT", marks=nightly)])
def test_a_crash_drops_the_recording_that_caused_it(calls, tmp_path, make_faulty, kind):
    asked = make_faulty(kind)
    verdict = build(calls.rows, calls.folder, tmp_path / "out")
    assert (verdict.fresh, len(verdict.rejected), verdict.blocks) == (2, 1, False)
    rows = {row["session"]: row for row in ledger(tmp_path / "out") if row["entry"] == "session"}
    assert rows["evil"]["reason"] == "decoder_crash" and kind in rows["evil"]["message"]
    assert sorted(asked()) == ["evil", "evil", "fine", "good"]  # tried twice, the others once
    build(calls.rows, calls.folder, tmp_path / "out")
    assert len(asked()) == 4  # a crash is a function of content: it has a receipt


@pytest.mark.parametrize("kind", ["hang", "SIGKILL", "io", *(pytest.param(kind, marks=nightly) for kind in ("memory", "exit"))])
def test_the_machines_fault_is_retried_and_then_unsettled_and_nothing_is_committed(
    calls, tmp_path, make_faulty, monkeypatch, featurised, kind
):
    asked = make_faulty(kind)
    out = tmp_path / "out"
    verdict = build(calls.rows, calls.folder, out)
    assert verdict.blocks and len(verdict.unsettled) == 1 and "evil" in verdict.unsettled[0]
    assert not (out / "dataset.json").exists() and not (out / "shards").exists()
    if kind != "hang":  # whose second process may take too long to start
        assert asked().count("evil") == 2
    assert len(list((out / ".staging/receipts").iterdir())) == 2  # the others are done
    monkeypatch.undo()
    featurised.clear()
    again = build(calls.rows, calls.folder, out)
    assert (again.fresh, again.blocks) == (3, False)
    assert featurised == ["evil"]  # only what had no receipt is done again


def test_one_crash_is_forgiven(calls, tmp_path, make_faulty):
    asked = make_faulty("once")
    assert build(calls.rows, calls.folder, tmp_path / "out").fresh == 3
    assert asked().count("evil") == 2


@pytest.mark.parametrize("kind", ["fault, late", "crash, late"])
def test_two_tries_that_fail_in_different_ways_show_nothing_of_the_content(calls, tmp_path, make_faulty, kind):
    asked = make_faulty(kind)
    verdict = build(calls.rows, calls.folder, tmp_path / "out")
    assert asked().count("evil") == 2 and verdict.blocks and "in different ways" in verdict.unsettled[0]


def test_what_a_library_prints_is_no_answer(calls, tmp_path, make_faulty):
    make_faulty("noise")
    assert build(calls.rows, calls.folder, tmp_path / "out").fresh == 3


def test_a_crash_on_a_file_that_is_gone_too_does_not_stop_the_build(calls, tmp_path, make_faulty, monkeypatch):
    """Writing down the crash reads the file once more, and it can fail then."""
    make_faulty("SIGSEGV")
    crash = MediaProcess.call

    def crash_and_vanish(self, verb, request, on_progress=lambda _: None):
        try:
            return crash(self, verb, request, on_progress)
        except ChildCrashed:
            (calls.folder / "call.wav").unlink()
            raise

    monkeypatch.setattr(MediaProcess, "call", crash_and_vanish)
    verdict = build(calls.rows, calls.folder, tmp_path / "out")
    assert verdict.blocks and "evil" in verdict.unsettled[0]


def test_errors_cross_as_they_were_raised(tmp_path):
    with MediaProcess() as media:
        (tmp_path / "no.wav").write_text("not media")
        with pytest.raises(MediaError) as error:
            media.call("look", {"root": str(tmp_path), "path": "no.wav"})
        assert error.value.reason == "not_media" and error.value.hint
        with pytest.raises(OSError, match="gone"):
            media.call("look", {"root": str(tmp_path), "path": "gone.wav"})
        with pytest.raises(ChildFault, match="KeyError") as fault:
            media.call("look", {})
        assert "raised in pipelines/sessions/featurise.py:" in str(fault.value)


def test_a_child_is_reused_until_it_dies_and_replaced_then(raw):
    with MediaProcess() as media:
        request = {"root": str(raw.folder), "path": "dyad-1.wav"}
        first = media.call("look", request)
        process = media._child
        assert first == {"channels": 2, "seconds": 3.3, "pictures": False}
        assert media.call("look", request) == first and media._child is process
        process.kill()
        process.wait()
        assert media.call("look", request) == first and media._child is not process
    assert media._child is None


def test_a_hang_is_noticed_by_silence_and_not_by_length(tmp_path):
    """A child that says how far it has got may take as long as it wants."""
    script = tmp_path / "slow.py"
    slow = "import json, sys, time\nsys.stdin.readline()\n"
    slow += "for k in range(4):\n    time.sleep(0.4)\n    print(json.dumps({'id': 1, 'progress': k}), flush=True)\n"
    script.write_text(slow + "print(json.dumps({'id': 1, 'result': {}}), flush=True)\ntime.sleep(60)\n")
    with pytest.MonkeyPatch.context() as patch, MediaProcess(silence_s=1.0) as media:
        patch.setattr(child, "COMMAND", (sys.executable, "-S", str(script)))
        seen: list[int] = []
        assert media.call("any", {}, seen.append) == {} and seen == [0, 1, 2, 3]
        script.write_text("import time\ntime.sleep(60)\n")
        media.close()
        with pytest.raises(ChildLost, match="1 s"):
            media.call("any", {})


ECHO = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    for answer in ({"progress": 1}, {"result": asked["request"]}):
        print(json.dumps({"id": asked["id"]} | answer), flush=True)
"""


def test_no_answer_is_taken_for_that_of_another_request(tmp_path, monkeypatch):
    """A callback that fails is not the child's answer; whoever asks next gets its own."""
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-S", "-c", ECHO))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with MediaProcess(20) as media:
        assert media.call("any", {"session": "a"}) == {"session": "a"}
        with pytest.raises(OSError, match="No space"):
            media.call("any", {"session": "b"}, full)
        assert [media.call("any", {"session": name}) for name in "cde"] == [{"session": name} for name in "cde"]


def test_an_answer_to_another_request_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "COMMAND", (sys.executable, "-S", "-c", ECHO.replace('asked["id"]', "7")))
    with MediaProcess(20) as media, pytest.raises(ChildLost, match="answers request 7"):
        media.call("any", {})


def test_the_child_may_open_as_many_files_as_the_machine_lets_it():
    """A session of many files is no reason to be unsettled for ever."""
    program = "import resource\nfrom microturn.pipelines.sessions import child\n_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
    program += "hard = min(hard, 4096) if hard > 0 else 4096\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
    program += "child._raise_open_files()\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_the_folder_one_stands_in_is_not_imported_from(raw, tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    with MediaProcess() as media:
        assert media.call("look", {"root": str(raw.folder), "path": "dyad-1.wav"})["channels"] == 2


def test_a_child_ends_with_its_parent(raw):
    """Killed with -9, the parent cannot end it: its input ends."""
    program = "from microturn.pipelines.sessions.child import MediaProcess\nimport os, signal, sys\nm = MediaProcess()\n"
    program += f"m.call('look', {{'root': {str(raw.folder)!r}, 'path': 'dyad-1.wav'}})\nprint(m._child.pid, flush=True)\n"
    done = subprocess.run([sys.executable, "-c", program + "os.kill(os.getpid(), signal.SIGKILL)"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert _ends(int(done.stdout))


def _ends(pid: int, seconds: float = 10.0) -> bool:
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.parametrize("ended_by", ["Ctrl-C", "the parent's death"])
def test_a_decoder_that_nobody_waits_for_ends_without_a_word(raw, tmp_path, ended_by):
    """At a terminal Ctrl-C reaches it too: what is to be said about that its parents say."""
    with subprocess.Popen(child.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as decoder:
        decoder.stdin.write(json.dumps({"id": 1, "verb": "look", "request": {"root": str(raw.folder), "path": "film.mp4"}}) + "\n")
        decoder.stdin.flush()
        assert json.loads(decoder.stdout.readline())["id"] == 1  # it serves
        if ended_by == "Ctrl-C":
            decoder.send_signal(signal.SIGINT)
        else:
            decoder.stdout.close()
            decoder.stdin.write(json.dumps({"id": 2, "verb": "look", "request": {}}) + "\n")
            decoder.stdin.close()
        assert decoder.stderr.read() == "" and decoder.wait() == (-signal.SIGINT if ended_by == "Ctrl-C" else 0)
