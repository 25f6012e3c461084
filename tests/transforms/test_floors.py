"""Inside the room: which folder may import which. Features stand on the ground, a session sees everything."""

import re
from pathlib import Path

import pytest
from microturn import transforms

ROOM = Path(transforms.__file__).parent
MAY_IMPORT = {
    "features": set(),
    "text": set(),
    "media": {"features"},
    "tokens": {"text"},
    "sessions": {"features", "media", "text", "tokens"},
}
RELATIVE = re.compile(r"^\s*from (\.+)([\w.]*) import (.+)$", re.MULTILINE)


def folders_named(folder: str, line_or_file: str) -> set[str]:
    """The other folders of the room that a module of `folder` imports from; its own modules are not named."""
    found = set()
    for dots, module, names in RELATIVE.findall(line_or_file):
        if len(dots) == (1 if folder == "features" else 2):
            tops = [module.split(".")[0]] if module else re.findall(r"\w+", names)
            found |= {top if top in MAY_IMPORT else "features" for top in tops}
    return found - {folder}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_data_flows_one_way_between_the_folders(folder):
    files = [file for file in (ROOM if folder == "features" else ROOM / folder).glob("*.py") if file.name != "__init__.py"]
    assert len(files) >= 5
    assert {file.name: named for file in files if (named := folders_named(folder, file.read_text("utf-8")) - MAY_IMPORT[folder])} == {}


def test_a_planted_import_against_the_flow_is_found():
    assert folders_named("media", "from ..sessions.roles import View") == {"sessions"}
    assert folders_named("features", "    from .media import rgb") == {"media"}
    assert folders_named("text", "from .. import dmel") == {"features"}
    assert folders_named("media", "from ...schemas.spec import LimitSpec\nfrom .rgb import fit") == set()


def test_every_folder_of_the_room_has_its_floor():
    assert {file.parent.name for file in ROOM.glob("*/*.py")} == set(MAY_IMPORT) - {"features"}
