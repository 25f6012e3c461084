"""Files that are whole or not there: written beside their name, flushed to the disk, renamed."""

import json
import os
from pathlib import Path
from typing import Any

from ...schemas.errors import MicroturnError


def write(path: Path, data: bytes) -> None:
    """Nothing; the file has these bytes, or what it had before."""
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    settle(path.parent)


def write_json(path: Path, value: Any) -> None:
    """`write` of a value, readable by people."""
    write(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of ours. Raises MicroturnError naming it when there is none in it."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MicroturnError(
            f"{path}: not the JSON object that a run keeps there", hint="bring the file back, or start a new run in another folder"
        )
    return value


def settle(folder: Path) -> None:
    """Nothing; renames in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
