"""The command line: help is a promise kept as golden files, mistakes get a near miss, errors a sentence, a hint and an exit code.

MICROTURN_GOLDEN=rewrite writes the help pages anew (`make golden`); look at the difference before you commit it.
"""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from microturn import __version__, cli
from microturn.schemas.errors import CorpusError, InputError, MediaError, MicroturnError

HELP = Path(__file__).parent / "goldens" / "help"
COLUMNS = 100
BENCHES = [f"bench {name}" for name in cli.BENCHES]
NAMES = [*cli.COMMANDS, *BENCHES]
FLOAT = click.types.FloatParamType
UNITS = re.compile(r"seconds|samples|ticks|hours|bytes|share", re.IGNORECASE)


def run(*args: str):
    return CliRunner().invoke(cli.microturn, args, prog_name="microturn", terminal_width=COLUMNS)


def command(name: str) -> click.Command:
    found: click.Command | None = cli.microturn
    for word in name.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None
    return found


def options() -> list:
    """(command, option) of every command, but --help."""
    return [pytest.param(name, p, id=f"{name} {p.opts[0]}") for name in NAMES for p in command(name).params if isinstance(p, click.Option)]


@pytest.mark.parametrize("name", ["microturn", *NAMES])
def test_help_is_its_golden(name):
    page = HELP / f"{name.replace(' ', '-')}.txt"
    result = run("--help") if name == "microturn" else run(*name.split(), "--help")
    if os.environ.get("MICROTURN_GOLDEN") == "rewrite":
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(result.output, encoding="utf-8")
    assert result.exit_code == 0 and result.output == page.read_text(encoding="utf-8")


def test_no_golden_outlives_its_command():
    assert {page.stem for page in HELP.glob("*.txt")} == {"microturn", *(name.replace(" ", "-") for name in NAMES)}


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"], ["biuld"]], ids=" ".join)
def test_the_list_of_commands_imports_no_room(args):
    program = (
        "import sys\nfrom microturn import cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "rooms = {f'microturn.{room}' for room in ('transforms', 'pipelines', 'kernels', 'trainer', 'notebooks')}\n"
        "print('imported:', sorted(rooms & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", program, *args], capture_output=True, text=True, timeout=60)
    assert ran.stdout.endswith("imported: []\n"), ran


@pytest.mark.parametrize("group, table", [((), cli.COMMANDS), (("bench",), cli.BENCHES)], ids=["microturn", "bench"])
def test_the_list_says_of_each_command_what_it_does(group, table):
    listed = dict(line.split(None, 1) for line in run(*group, "--help").output.split("Commands:\n")[1].splitlines())
    assert listed == {name: line for name, (_, _, line) in table.items()}
    for name in table:
        found = command(" ".join([*group, name]))
        assert found.name == name and (found.help or "").partition("\n")[0].endswith(".")


def test_version():
    assert run("--version").output == f"microturn {__version__}\n"


@pytest.mark.parametrize(
    "typed, meant", [("biuld", "build"), ("Verify", "verify"), ("inspct", "inspect"), ("synht", "synth"), ("reports", "report")]
)
def test_a_mistyped_command_gets_its_near_miss(typed, meant):
    result = run(typed, "OUT")
    assert result.exit_code == 2 and f"No such command {typed!r}. Did you mean {meant!r}?" in result.stderr


def test_a_mistyped_bench_gets_its_near_miss():
    result = run("bench", "laoder")
    assert result.exit_code == 2 and "No such command 'laoder'. Did you mean 'loader'?" in result.stderr


@pytest.mark.parametrize("typed", ["zzz", "repair", "speech", "clean"])
def test_a_command_near_to_none_is_refused_without_a_guess(typed):
    result = run(typed)
    assert result.exit_code == 2 and f"No such command {typed!r}." in result.stderr and "Did you mean" not in result.stderr


def test_a_mistyped_option_gets_its_near_miss():
    result = run("verify", "corpus", "--agianst", "raw")
    assert result.exit_code == 2 and "Did you mean" in result.stderr and "'--against'" in result.stderr


@pytest.mark.parametrize("name, option", options())
def test_every_option_says_what_it_does_in_which_unit_and_its_default(name, option):
    ctx = click.Context(command(name))
    shown = option.get_help_record(ctx)
    assert shown is not None and shown[1].partition("  [")[0].rstrip().endswith("."), shown
    if isinstance(option.type, FLOAT):
        assert UNITS.search(" ".join(shown)), shown
    default = option.get_default(ctx)
    if isinstance(default, (str, int, float)) and default != "" and not option.is_flag:
        assert "default: " in shown[1], shown


@pytest.mark.parametrize("name, option", [o for o in options() if isinstance(o.values[1].type, click.types.IntParamType | FLOAT)])
def test_every_number_has_a_range(name, option):
    """A number that makes no sense is refused where it was typed, not an hour later."""
    assert isinstance(option.type, click.IntRange | click.FloatRange) and option.type.min is not None


@pytest.mark.parametrize("option", ["--hang-after=-1", "--hang-after=0", "--hang-after=nan", "--hang-after=inf", "--max-drop-ratio=nan"])
def test_a_build_refuses_numbers_that_make_no_sense(option):
    result = run("build", "raw", "corpus", option)
    assert result.exit_code == 2 and f"Invalid value for '{option.partition('=')[0]}'" in result.stderr


@pytest.mark.parametrize("hours", ["-1", "0", "nan", "inf"])
def test_no_recordings_are_made_of_hours_that_are_none(hours, tmp_path):
    result = run("synth", str(tmp_path / "raw"), "--hours", hours)
    assert result.exit_code == 2 and "Invalid value for '--hours'" in result.stderr and not (tmp_path / "raw").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bench"])
def test_help_ends_with_two_examples_that_parse(name):
    text = "\n".join(filter(None, [command(name).help, command(name).epilog])).split("Examples:")[1]
    examples = re.findall(rf"^ *microturn {name}(?: (.+))?$", text, re.MULTILINE)
    assert len(examples) >= 2 and len(examples) == len(re.findall(r"^ *microturn ", text, re.MULTILINE))
    for args in examples:
        assert command(name).make_context(name, shlex.split(args)).params


def test_the_examples_of_bench_name_benches():
    examples = re.findall(r"^ *microturn (bench \w+)", command("bench").help.split("Examples:")[1], re.MULTILINE)
    assert len(examples) >= 2 and set(examples) <= set(BENCHES)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def fail(monkeypatch):
    """Runs `microturn verify` with a command that raises this error; gives (exit code, what it says on a terminal)."""

    def run_main(error: BaseException) -> tuple[int, str]:
        def raise_it() -> None:
            raise error

        said = Terminal()
        monkeypatch.setattr(cli.Rooms, "get_command", lambda self, ctx, name: click.Command(name, callback=raise_it))
        monkeypatch.setattr(sys, "argv", ["microturn", "verify"])
        monkeypatch.setattr(sys, "stderr", said)
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, "" if said.closed else said.getvalue()

    return run_main


@pytest.mark.parametrize(
    "error, code, sentence",
    [
        (InputError("m.jsonl:3: not JSON", hint="mend it"), 2, "error: m.jsonl:3: not JSON\nhint: mend it\n"),
        (MediaError("a.mp4: no audio", reason="no_audio"), 2, "error: a.mp4: no audio\n"),
        (CorpusError("train-000000.tar: ends early"), 1, "error: train-000000.tar: ends early\n"),
        (MicroturnError("nothing was committed", hint="build elsewhere"), 1, "error: nothing was committed\nhint: build elsewhere\n"),
        (FileNotFoundError(2, "No such file or directory", "raw/m.jsonl"), 1, "error: raw/m.jsonl: No such file or directory\n"),
        (PermissionError("corpus: read-only bucket"), 1, "error: corpus: read-only bucket\n"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_an_error_is_a_sentence_a_hint_and_an_exit_code(fail, monkeypatch, error, code, sentence):
    monkeypatch.setenv("NO_COLOR", "1")
    assert fail(error) == (code, sentence)


def test_a_fault_of_ours_keeps_its_traceback(fail):
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())


def test_no_color_is_respected(fail, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m" in fail(CorpusError("x"))[1]  # a terminal, and nobody minds
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in fail(CorpusError("x"))[1]
