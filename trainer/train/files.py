"""Files that are whole or not there: written beside their name, flushed to the disk, renamed."""

import json
import os
from collections.abc import Iterable, Mapping
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
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MicroturnError(
            f"{path}: not the JSON object that a run keeps there", hint="bring the file back, or start a new run in another folder"
        )
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl that were written to their end: the last may be torn by a kill. None of them where there is no file.

    Raises MicroturnError naming the line that is no row.
    """
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise MicroturnError(f"{path}, line {number}: no JSON object", hint="mend the line or take it out; the run goes on without it")
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`write` of rows, one a line."""
    write(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode())


def settle(folder: Path) -> None:
    """Nothing; renames in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
