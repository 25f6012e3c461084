"""Inside the room: which folder may import which. The steps of a build stand on each other; what runs them lies beside the folders."""

import ast
from pathlib import Path

import pytest
from microturn import pipelines

ROOM = Path(pipelines.__file__).parent
MAY_IMPORT = {
    "wording": set(),
    "storage": set(),
    "sessions": {"storage"},
    "input": {"wording", "storage", "sessions"},
    "shards": {"storage", "sessions"},
    "estimate": {"wording", "storage", "sessions", "input", "shards"},
    "corpus": {"wording", "storage", "sessions", "shards"},
    "reshard": {"wording", "storage", "sessions", "shards", "corpus"},
    "synth": {"wording"},
    "bench": {"storage", "sessions", "input", "shards", "corpus", "synth", "build"},
    "build": {
        "wording",
        "storage",
        "sessions",
        "input",
        "shards",
        "estimate",
        "corpus",
        "reshard",
    },  # modules in no folder: graph, run, commands, …
}


def folders_named(folder: str, source: str) -> set[str]:
    """The other folders of the room that a module of `folder` imports from, inside functions too; its own modules are not named."""
    dots, found = (1 if folder == "build" else 2), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == dots:
            tops = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found |= {top if top in MAY_IMPORT else "build" for top in tops}
    return found - {folder}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_data_flows_one_way_between_the_folders(folder):
    files = [file for file in (ROOM if folder == "build" else ROOM / folder).glob("*.py") if file.name != "__init__.py"]
    assert len(files) >= 3
    assert {file.name: named for file in files if (named := folders_named(folder, file.read_text("utf-8")) - MAY_IMPORT[folder])} == {}


def test_the_folders_stand_on_each_other_without_a_circle():
    standing: set[str] = set()
    while floor := {folder for folder, below in MAY_IMPORT.items() if folder not in standing and below <= standing}:
        standing |= floor
    assert standing == set(MAY_IMPORT)


def test_a_planted_import_against_the_flow_is_found():
    assert folders_named("storage", "from ..sessions.receipts import read") == {"sessions"}
    assert folders_named("sessions", "def f():\n    from .. import graph") == {"build"}
    assert folders_named("shards", "from ..corpus import Corpus") == {"corpus"}
    assert folders_named("corpus", "from ..run import run") == {"build"}
    assert folders_named("build", "from .synth.write import make") == {"synth"}
    assert folders_named("input", "from ...schemas.spec import FeatureSpec\nfrom .plan import Plan") == set()


def test_every_folder_of_the_room_has_its_floor():
    assert {file.parent.name for file in ROOM.glob("*/*.py")} == set(MAY_IMPORT) - {"build"}
