"""`microturn bench scale`: what the steps that see a whole corpus at once take, as it grows tenfold.

Only they could stop a build from growing: the driver plans all sessions, one worker assigns all windows to shards, one worker digests all
windows. All else is done a session or a shard at a time. The corpora are simulated, names and digests without media; each step runs in a
process of its own, which tells by how much its memory grew at its peak.
"""

import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ...schemas import keys
from ...schemas.receipts import Outcome
from ...schemas.spec import FeatureSpec
from ...schemas.strict import sha256_hex
from ..corpus.commit import content_digest
from ..input.options import DEFAULT_SPLITS, SHARD_BYTES, splits_of
from ..input.plan import make_plan, read_manifest
from ..input.worklist import MAX_SLICES, WorkList
from ..settle import settle
from ..shards.gather import assign
from ..storage.folders import Folder
from .clock import peak_bytes

WINDOW_BYTES = 2_080_256  # of sound
SHARD_WINDOWS = SHARD_BYTES // WINDOW_BYTES
SESSION_WINDOWS = 10  # two views of five minutes


@dataclass(frozen=True, slots=True)
class Step:
    """What a step took for so many sessions or windows: processor seconds, and bytes by which its process grew at its peak."""

    what: str
    where: str
    unit: str
    num: int
    cpu_s: float
    peak_bytes: int


def plan_sessions(num: int, folder: str) -> None:
    """The driver's part: a manifest of so many sessions, planned, as a work list. Their files are not there, which costs a look each."""
    settled = {"participants": [{"id": "ann", "role": "assistant"}, {"id": "bo"}], "language": "en", "license": "CC-BY-4.0"}
    rows = []
    for number in range(num):
        path = f"calls/{number:08d}.wav"
        streams = [{"id": f"{p}-audio", "path": path, "kind": "audio", "channel": c, "participant": p} for c, p in enumerate(("ann", "bo"))]
        rows.append(json.dumps({"id": f"call-{number:08d}", "streams": streams} | settled))
    sessions = read_manifest("\n".join(rows).encode(), "manifest.jsonl")
    del rows
    plan = make_plan(sessions, root=folder, spec=FeatureSpec(), toolchain=sha256_hex(""), splits=splits_of(DEFAULT_SPLITS))
    del sessions
    assert len(WorkList(FeatureSpec()).write(plan, {}, {}, Folder(folder))) <= MAX_SLICES


def assign_windows(num: int, folder: str) -> None:
    """One worker's part: the outcomes of all sessions, settled, and their windows assigned to shards."""
    outcomes = []
    for number in range(num // SESSION_WINDOWS):
        name = f"call-{number:08d}"
        order = keys.session_order(name)
        split = "val" if number % 50 == 0 else "train"
        sizes = tuple(WINDOW_BYTES + number % 1000 + k for k in range(SESSION_WINDOWS))
        made = Outcome(status="done", session=name, split=split, order=order, receipt=f"{name}-{order[:16]}.json", window_bytes=sizes)
        outcomes.append(made)
    _, fresh = settle(outcomes, 0)
    tasks = assign(fresh, SHARD_BYTES, {})
    assert sum(segment.stop - segment.start for task in tasks for segment in task.segments) == len(outcomes) * SESSION_WINDOWS


def digest_windows(num: int, folder: str) -> None:
    """One worker's part at the commit: the content digest of all windows, from the index of their shards, which `write_index` wrote."""
    content_digest(Folder(folder), [path.stem for path in sorted(Path(folder, "index").iterdir())])


def write_index(num: int, folder: str) -> None:
    """Index files of so many windows, with the columns that the content digest reads."""
    Path(folder, "index").mkdir()
    for number, start in enumerate(range(0, num, SHARD_WINDOWS)):
        names = [f"call-{k:08d}-ann-{k % 300 * 300:07d}" for k in range(start, min(start + SHARD_WINDOWS, num))]
        pq.write_table(pa.table({"key": names, "digest": list(map(sha256_hex, names))}), f"{folder}/index/train-{number:06d}.parquet")


STEPS: dict[str, tuple[str, str, Callable[[int, str], None]]] = {
    "plan": ("driver", "sessions", plan_sessions),
    "assign": ("one worker", "windows", assign_windows),
    "digest": ("one worker", "windows", digest_windows),
}


@click.command("scale", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--sizes", default="10000,100000,1000000", show_default=True, metavar="N,N,…", help="Numbers of windows; a tenth as many sessions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def scale_bench(sizes: str, as_json: bool) -> None:
    """Time and memory of the steps that see a whole corpus, on simulated corpora: linear, or they would end a large build.

    \b
    Examples:
      microturn bench scale
      microturn bench scale --sizes 1000,10000 --json
    """
    try:
        numbers = sorted({int(size) for size in sizes.split(",")})
    except ValueError:
        raise click.BadParameter(f"{sizes!r}: numbers of windows, separated by commas", param_hint="--sizes") from None
    if numbers[0] < SESSION_WINDOWS:
        raise click.BadParameter(f"at least {SESSION_WINDOWS} windows, a session's", param_hint="--sizes")
    found = measured(numbers)
    if as_json:
        machine = f"{platform.machine()}, Python {platform.python_version()}"
        click.echo(json.dumps({"machine": machine, "steps": [asdict(step) for step in found]}, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("step", "where", "of", "CPU s", "MB", "KB each"):
        table.add_column(title, justify="left" if title in ("step", "where") else "right")
    for step in found:
        each = step.peak_bytes / step.num / 1e3
        of = f"{step.num:,} {step.unit}"
        table.add_row(step.what, step.where, of, f"{step.cpu_s:.2f}", f"{step.peak_bytes / 1e6:,.0f}", f"{each:.2f}")
    Console().print(table)


def measured(sizes: Sequence[int]) -> list[Step]:
    """Each step at each size, in that order, every one in a new process."""
    found = []
    todo = [(what, size) for what in STEPS for size in sizes]
    for what, size in track(todo, "simulating", console=Console(stderr=True), transient=True):
        where, unit, run = STEPS[what]
        num = size // SESSION_WINDOWS if unit == "sessions" else size
        with tempfile.TemporaryDirectory(prefix="microturn-bench-") as folder:
            if run is digest_windows:
                write_index(num, folder)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                cpu_s, peak_bytes = pool.submit(_taken, what, num, folder).result()
        found.append(Step(what, where, unit, num, cpu_s, peak_bytes))
    return found


def _taken(what: str, num: int, folder: str) -> tuple[float, int]:
    """(processor seconds, growth of the peak in bytes) of a step in this process."""
    before, began = peak_bytes(), time.process_time()
    STEPS[what][2](num, folder)
    return time.process_time() - began, peak_bytes() - before
