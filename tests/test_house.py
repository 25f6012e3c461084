"""The floors of the house: who may import whom, what stays unimported until it is needed, and what every file owes its readers.

The order of rooms, from the ground up, is FLOORS; a room sees only what its row names. Imports are read from the syntax tree, so that one
inside a function counts too.
"""

import ast
import hashlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import microturn
import pytest

HOUSE = Path(__file__).resolve().parent.parent
FLOORS = {
    "schemas": set(),
    "kernels": set(),
    "transforms": {"schemas"},
    "pipelines": {"schemas", "transforms"},
    "trainer": {"schemas", "transforms", "kernels"},
    "notebooks": {"schemas", "transforms", "kernels", "pipelines", "trainer"},
    "cli": {"schemas"},  # the rooms' commands are imported by name, when one is called
    "__init__": set(),
    "__main__": {"cli"},
}
ONLY_IN = {  # a heavy or foreign package → the rooms that may know of it
    "apache_beam": {"pipelines"},
    "torch": {"kernels", "trainer", "notebooks"},
    "triton": {"kernels"},
    "webdataset": {"trainer", "pipelines"},
    "lhotse": {"trainer", "pipelines"},
    "transformers": set(),
    "matplotlib": {"notebooks"},
    "IPython": {"notebooks"},
    "librosa": {"transforms", "pipelines", "trainer"},
    "soxr": {"transforms"},
    "av": {"transforms", "pipelines"},
    "click": {"cli", "pipelines", "trainer", "notebooks"},
}
IMPORTED_AS = {  # distribution → what it is imported as, and what it brings, where that is not its own name
    "apache-beam": {"apache_beam", "google", "distributed"},  # its extra `dask` brings the last
    "hibari-tts": {"hibari", "onnxruntime"},
    "ipykernel": {"IPython"},
    "pillow": {"PIL"},
    "pyyaml": {"yaml"},
}
MAX_LINES = 400


class Import(NamedTuple):
    """One import: where it stands, whether at the top of its module, what it names in full."""

    at: str
    at_top: bool
    name: str


@cache
def imports(file: Path, house: Path = HOUSE) -> list[Import]:
    """Every import of a module, relative ones resolved; `from . import x` names x."""
    package = ("microturn", *file.relative_to(house).parent.parts)
    tree, found = ast.parse(file.read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, [base, node.module]))
            names = [f"{stem}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module", "import_module"):
            names = [f"microturn.{ast.unparse(node.args[0])}"]  # dynamic: of the house until shown otherwise
        else:
            continue
        found += [Import(f"{file.relative_to(house)}:{node.lineno}", node in tree.body, name) for name in names]
    return found


def modules(house: Path = HOUSE) -> list[Path]:
    """Every module of the package: the root's, and those of the rooms."""
    return sorted([*house.glob("*.py"), *(file for room in FLOORS for file in (house / room).rglob("*.py"))])


def room_of(file: Path, house: Path = HOUSE) -> str:
    return file.relative_to(house).parts[0].removesuffix(".py")


def upward(files: list[Path], house: Path = HOUSE) -> list[str]:
    """A line for each import that looks where its room may not, or at a package that is another room's."""
    faults = []
    for file in files:
        room = room_of(file, house)
        for at, _, name in imports(file, house):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == "microturn" and (target in FLOORS or not target.isidentifier()) and target not in FLOORS[room] | {room}:
                faults.append(f"{at}: {room} imports {name}")
            elif room not in ONLY_IN.get(top, {room}):
                faults.append(f"{at}: {room} imports {name}; only {', '.join(sorted(ONLY_IN[top])) or 'tests'} may")
    return faults


def test_nothing_imports_upward():
    faults = upward(modules())
    assert len(modules()) > 50 and [fault for fault in faults if not fault.startswith("cli.py:")] == []
    assert len(faults) == 1  # the dispatcher imports what COMMANDS names, in one place


@pytest.mark.parametrize(
    "room, line",
    [
        ("schemas", "from ..transforms import dmel"),
        ("schemas", "from .. import transforms"),
        ("schemas", "import microturn.kernels.rows"),
        ("schemas", "from microturn.pipelines.input.plan import Plan"),
        ("kernels", "from ..schemas.clock import TICK_SAMPLES"),
        ("transforms", "from ..pipelines.storage.folders import Folder"),
        ("transforms", "def f():\n    import torch.nn"),
        ("transforms", "import apache_beam as beam"),
        ("transforms", "from webdataset import WebDataset"),
        ("pipelines", "from ..notebooks import plots"),
        ("pipelines", "from ..trainer.model import Model"),
        ("pipelines", "import importlib\nimportlib.import_module('.notebooks', 'microturn')"),
        ("trainer", "from ..pipelines.corpus import Corpus"),
        ("trainer", "if True:\n    from apache_beam import Map"),
        ("notebooks", "from ..cli import main"),
        ("pipelines/synth", "from ...notebooks import plots"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path, room, line):
    """Negative control: the checker can fail, and says where."""
    folder = tmp_path / room
    folder.mkdir(parents=True)
    (folder / "planted.py").write_text(f'"""Planted."""\n\n{line}\n')
    found = upward([folder / "planted.py"], tmp_path)
    assert len(found) == 1 and found[0].startswith(f"{room}/planted.py:{2 + len(line.splitlines())}: ")


def test_the_checker_lets_pass_what_is_allowed(tmp_path):
    (tmp_path / "pipelines").mkdir()
    allowed = [
        "import apache_beam",
        "from . import tar",
        "from .. import __version__",
        "from ..schemas import keys",
        "from ..transforms.dmel import step",
    ]
    (tmp_path / "pipelines" / "fine.py").write_text("\n".join(allowed))
    assert upward([tmp_path / "pipelines" / "fine.py"], tmp_path) == [] and len(imports(tmp_path / "pipelines" / "fine.py", tmp_path)) == 5


def test_only_the_dispatcher_imports_the_notebooks():
    for file in modules():
        if room_of(file) not in ("notebooks", "cli"):
            assert not [found for found in imports(file) if found.name.startswith("microturn.notebooks")]


def fresh(program: str) -> str:
    """What this program prints in a new interpreter, away from the checkout."""
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=HOUSE.parent, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    "room, never",
    [
        ("schemas", "torch triton webdataset apache_beam av scipy soxr librosa PIL click rich"),
        ("transforms", "torch triton webdataset apache_beam librosa soxr PIL tokenizers tml_renderers click rich pyarrow.parquet"),
        ("pipelines", "torch triton webdataset librosa soxr PIL tokenizers tml_renderers matplotlib hibari onnx"),
    ],
    ids=["schemas", "transforms", "pipelines"],
)
def test_importing_a_whole_room_leaves_the_heavy_packages_alone(room, never):
    program = (
        "import importlib, pkgutil, sys\n"
        f"room = importlib.import_module('microturn.{room}')\n"
        "names = [m.name for m in pkgutil.walk_packages(room.__path__, room.__name__ + '.')]\n"
        "for name in names: importlib.import_module(name)\n"
        f"print(len(names), [name for name in {never.split()} if name in sys.modules])"
    )
    num_modules, _, loaded = fresh(program).strip().partition(" ")
    assert int(num_modules) >= 9 and loaded == "[]"


def test_the_command_line_starts_without_any_of_them():
    never = ["numpy", "apache_beam", "av", "pydantic", "pyarrow", "rich", "scipy", "yaml"]
    assert fresh(f"import sys, microturn.cli; print([name for name in {never} if name in sys.modules])") == "[]\n"


# ---- pyproject


PYPROJECT = (HOUSE / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]


def names_of(requirements: list[str]) -> set[str]:
    """What may be imported of these requirements."""
    names = {re.split(r"[\[<>=;! ]", requirement)[0] for requirement in requirements} - {"microturn"}
    return set().union(*(IMPORTED_AS.get(name, {name.replace("-", "_")}) for name in names))


def foreign(file: Path) -> list[Import]:
    """Imports of what is neither Python's nor ours."""
    return [found for found in imports(file) if (top := found.name.partition(".")[0]) != "microturn" and top not in sys.stdlib_module_names]


def test_every_import_is_a_declared_dependency():
    declared = names_of([*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)])
    assert [found for file in modules() for found in foreign(file) if found.name.partition(".")[0] not in declared] == []


def test_what_an_extra_brings_is_imported_where_it_is_used():
    """A plain install imports every module of schemas, transforms, pipelines and the command line, and builds a corpus."""
    core = names_of(PROJECT["dependencies"])
    for file in modules():
        if room_of(file) in ("schemas", "transforms", "pipelines", "cli", "__init__"):
            assert [found for found in foreign(file) if found.at_top and found.name.partition(".")[0] not in core] == []


def test_every_dependency_is_imported_somewhere():
    used = {found.name.partition(".")[0] for file in modules() for found in foreign(file)}
    assert sorted(r for r in PROJECT["dependencies"] if not names_of([r]) & used) == []


def test_every_dependency_has_its_reason():
    listed = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    lines = re.findall(r'^    "([^"]+)",(.*)$', PYPROJECT.partition("[tool.")[0], re.MULTILINE)
    assert [requirement for requirement, _ in lines] == listed and len(listed) > 20
    bare = [
        requirement for requirement, rest in lines if not re.fullmatch(r" +# \S.{3,}", rest) and not requirement.startswith("microturn[")
    ]
    assert bare == []


def test_every_folder_of_modules_is_a_room():
    """Nothing stands beside the rooms that no floor is known of."""
    found = {file.name.removesuffix(".py") for file in HOUSE.glob("*.py")} | {file.parent.name for file in HOUSE.glob("*/*.py")}
    assert found - {"tests"} == set(FLOORS)


def test_the_packages_are_the_folders_on_disk():
    listed = tomllib.loads(PYPROJECT)["tool"]["setuptools"]
    folders = {".".join(("microturn", *file.relative_to(HOUSE).parent.parts)): file.parent for file in modules()}
    assert sorted(listed["packages"]) == sorted(folders)
    for name, folder in folders.items():
        assert (folder / "__init__.py").is_file(), folder
        data = {file.name for file in folder.iterdir() if file.is_file() and file.suffix not in (".py", ".ipynb")}
        assert folder == HOUSE or data == set(listed["package-data"].get(name, [])), folder


def test_the_licence_is_apache_2():
    """Word for word: the sha256 of apache.org's LICENSE-2.0.txt."""
    digest = hashlib.sha256((HOUSE / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert PROJECT["license"] == "Apache-2.0" and PROJECT["license-files"] == ["LICENSE"]


def test_the_changelogs_newest_version_is_the_packages():
    newest = re.search(r"^## (\S+)", (HOUSE / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest[1] == microturn.__version__


# ---- what every file owes


def ours() -> list[Path]:
    """The files that git knows or would take; a checkout without git is not looked at."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, cwd=HOUSE)
    if listed.returncode:
        pytest.skip("no git checkout to list files from")
    return [file for name in listed.stdout.splitlines() if (file := HOUSE / name).is_file()]


def lines_with(pattern: str, files: list[Path]) -> list[str]:
    """`file:line: text` of every line in which the pattern is found; files that are no text are passed over."""
    found = []
    for file in files:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{file.name}:{n}: {line.strip()}" for n, line in enumerate(lines, 1) if re.search(pattern, line)]
    return found


MACHINE_PATH = r"(?<![\w.])/(?:work|home|tmp|root|Users)/\w"
LEFT_OVER = r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b"


def test_no_file_names_a_machine_or_leaves_work_over():
    assert len(ours()) > 80
    assert lines_with(MACHINE_PATH, ours()) == []
    assert lines_with(LEFT_OVER, ours()) == []


def test_what_a_file_may_not_say_is_found(tmp_path):
    (tmp_path / "a.py").write_text("x = '/" + "home/anna/raw'\n# TO" + "DO: later\ny = 'shared/work/x', 's3://b/tmp/x'\n")
    assert len(lines_with(MACHINE_PATH, [tmp_path / "a.py"])) == 1 and lines_with(LEFT_OVER, [tmp_path / "a.py"])[0].startswith("a.py:2: ")


def test_every_module_says_what_it_is():
    files = [*modules(), *(HOUSE / "tests").rglob("*.py")]
    assert [str(file.relative_to(HOUSE)) for file in files if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))] == []


def test_no_file_is_long():
    files = [*modules(), *(HOUSE / "tests").rglob("*.py")]
    lengths = {str(file.relative_to(HOUSE)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
