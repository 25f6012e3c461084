"""`microturn build --dry-run`: the plan, looked at and told; nothing is written into OUT. And what it understood, as a manifest to edit."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from ..schemas.errors import InputError
from ..schemas.manifest import Session
from .corpus.commit import read_dataset
from .estimate.figures import Estimate
from .estimate.foretell import foretell
from .estimate.look import look
from .estimate.told import lines
from .input.plan import Plan
from .run import Settings, committed_in, refuse_other, without_withdrawn
from .sessions.toolchain import toolchain_digest
from .storage import folders
from .storage.folders import Folder


def estimate(
    plan: Plan, settings: Settings, *, sample: int, cores: int, tell: Callable[[int, int], None] = lambda done, total: None
) -> Estimate:
    """What a build of this plan into `settings.out` is expected to give. `sample`: sessions to look at, 0 for all; `cores`: 0 for none.

    Raises CorpusError, as the build would, where a corpus of another spec, layout, toolchain or splits lies there.
    """
    if not plan.items and not plan.rejected:
        raise InputError("no session to build")
    out = Folder(settings.out)
    before = read_dataset(out)
    refuse_other(before, settings, toolchain_digest())
    known = set(committed_in(out, before))
    plan = without_withdrawn(plan, out, lambda _: None)
    seen = look(plan, staging=folders.absolute(settings.staging_folder.uri), known=known, sample=sample, tell=tell)
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = sorted({1, here, cores or here})
    return foretell(seen, spec=settings.spec, layout=settings.layout, shard_bytes=settings.shard_bytes, cores=workers)


def show(estimated: Estimate, as_json: bool) -> None:
    """Prints it."""
    if as_json:
        click.echo(estimated.model_dump_json(indent=1))
        return
    for name, value in lines(estimated):
        click.echo(f"{name:<16}{value}")


def read_estimate(path: str) -> Estimate:
    """The estimate of `--estimate`. Raises InputError for a file that is none."""
    hint = "microturn build INPUT OUT --dry-run --json > FILE"
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: not JSON", hint=hint) from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: found {type(data).__name__}, expected an object", hint=hint)
    return Estimate.parse(data, where=path)


def write_manifest(path: str, sessions: Sequence[Session], root: str) -> None:
    """The sessions as JSON lines in a new file; paths as they are if it lies in `root`, else from the top.

    Raises InputError where there is a file already.
    """
    beside = os.path.realpath(os.path.dirname(os.path.abspath(path))) == os.path.realpath(folders.absolute(root))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.writelines(
                json.dumps(_row(session, "" if beside else folders.absolute(root)), ensure_ascii=False) + "\n" for session in sessions
            )
    except FileExistsError:
        raise InputError(f"--write-manifest {path}: there is one already", hint="name another file") from None


def _row(session: Session, root: str) -> dict[str, Any]:
    """The row as a person writes it: without what is at its default."""
    row = session.model_dump(mode="json", exclude_defaults=True)
    entries: Iterable[dict[str, Any]] = [*row["streams"], *row.get("transcripts", [])] if root else []
    for entry in entries:
        entry["path"] = folders.locate(root, entry["path"])
    return row
