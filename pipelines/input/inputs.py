"""INPUT, whatever it is, as sessions: a manifest, a folder, or one recording; and what INPUT may not be to OUT."""

from collections.abc import Callable
from dataclasses import dataclass

from ...schemas.errors import InputError, MicroturnError
from ...schemas.manifest import Session
from ..sessions import child
from ..storage import folders
from ..storage.folders import Folder
from ..wording.counted import counted
from .discover import Look, discover, find_manifest, is_media
from .plan import read_manifest

MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """Sessions, the root of their relative paths, and the files (escaped) whose names are no text."""

    sessions: tuple[Session, ...]
    root: str
    unnamed: tuple[str, ...] = ()


def read_sessions(input_: str, infer: bool, say: Callable[[str], None], *, numbered: bool = False) -> Input:
    """What is in INPUT. `infer` reads a folder by its layout although it has a manifest; `say` is told what was understood; `numbered`
    gives people who are known by the names of files only numbers for names.

    Raises InputError for a manifest with bad rows, and where nothing is found.
    """
    one = ""
    if not folders.is_folder(input_):
        if not is_media(input_):
            return Input(sessions=tuple(read_manifest(folders.read_input(input_), input_)), root=folders.parent(input_))
        input_, one = folders.parent(input_), input_.rpartition("/")[2]
    folder = Folder(input_)
    manifest = "" if infer or one else find_manifest(folder)
    if manifest:
        say(f"manifest: {input_.rstrip('/')}/{manifest}")
        return Input(sessions=tuple(read_manifest(folder.read(manifest), manifest)), root=input_)
    with child.MediaProcess() as media:

        def look(path: str) -> Look | None:
            try:
                return Look(**media.call("look", {"root": input_, "path": path}))
            except (MicroturnError, OSError):
                return None  # the build will say in the ledger what is wrong with it

        found = discover(folder, look, one=one, numbered=numbered)
    kinds = ", ".join(f"{count} {layout}" for layout, count in found.layouts.items() if count)
    say(f"understood {'the recording' if one else 'the folder'} as {counted(len(found.sessions), 'session')}: {kinds}")
    if found.left_alone:
        names = ", ".join(found.left_alone[:MAX_NAMED]) + " …" * (len(found.left_alone) > MAX_NAMED)
        say(f"left alone {counted(len(found.left_alone), 'file')}, neither media nor their words: {names}")
    return Input(sessions=found.sessions, root=input_, unnamed=found.unnamed)


def refuse_entangled(input_: str, out: str) -> None:
    """Nothing where the folder INPUT and OUT are apart. Raises InputError: what a build writes would be input of the next, and what it
    sweeps from its own folders could be a recording."""
    if not folders.is_folder(input_):
        return
    hint = "give OUT a folder of its own, beside INPUT"
    if folders.within(out, input_):
        raise InputError(f"OUT {out} lies in INPUT {input_}", hint=hint)
    if folders.within(input_, out):
        raise InputError(f"INPUT {input_} lies in OUT {out}", hint=hint)
