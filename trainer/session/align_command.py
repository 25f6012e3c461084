"""`microturn align`: law 3 on this machine, with this run and this corpus."""

import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ... import kernels
from ...kernels.selfcheck import as_integers
from ...schemas.clock import TICK_FRAMES
from ...schemas.errors import InputError, MicroturnError
from ..data import Loader, Mixture
from ..model import Inputs, InteractionModel
from ..train.trained import Trained, trained
from .align import Alignment, Check, Given
from .engine import Engine
from .pools import Limits
from .sampler import Sampling

APPEND_ROWS = 20
PRICE_REPEATS = 3


@click.command("align", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--data", metavar="CORPUS", help="The corpus that documents come from.  [default: the run's]")
@click.option("--split", default="train", show_default=True, help="Its split.")
@click.option("--documents", default=3, show_default=True, type=click.IntRange(1), help="How many documents.")
@click.option("--ticks", default=60, show_default=True, type=click.IntRange(2), help="Ticks of 200 ms in each, at most.")
@click.option("--pairs", default=6, show_default=True, type=click.IntRange(1), help="Random (partition, company) pairs per check.")
@click.option("--checkpoint", type=click.Choice(["last", "best"]), default="last", show_default=True, help="Which weights.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Of the rows.  [default: as trained]")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of cuts, companies and sampling.")
@click.option("--tokenizer", metavar="FILE", default="", help="tokenizer.json of a corpus that was built with one.  [default: the run's]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table.")
def align_command(
    run: str, data: str | None, split: str, documents: int, ticks: int, pairs: int, checkpoint: str, dtype: str | None, seed: int,
    tokenizer: str, as_json: bool,
) -> None:  # fmt: skip
    """Compare the sampler with the trainer, bit for bit, on this machine with RUN's weights.

    Whole documents of the corpus go through the trainer's forward; then the same rows through sessions: packed, cut at random, alone and
    in company, with one thread and two, after aborts, after snapshot and restore, in a fresh process; and sessions that speak for
    themselves go back through the trainer's forward. Every row is compared.

    \b
    Examples:
      microturn align run
      microturn align run --dtype bfloat16 --documents 8 --ticks 300 --pairs 100

    Exit code: 0 no row differs, 1 rows differ.
    """
    asked = {"run": run, "data": data, "split": split, "documents": documents, "ticks": ticks, "checkpoint": checkpoint, "dtype": dtype}
    asked["tokenizer"] = tokenizer
    opened, alignment = _opened(asked, seed)
    console = Console(stderr=True)
    checks = _checks(console, alignment, opened, pairs, seed)
    checks.append(_fresh_process(alignment, asked))
    price = _price(opened.model, alignment.documents)
    fingerprint = kernels.fingerprint()
    found = {
        "run": run,
        "step": opened.step,
        "identity": opened.identity,
        "dtype": str(opened.model.dtype).removeprefix("torch."),
        "fingerprint": fingerprint["digest"],
        "run_fingerprint": opened.numerics,
        "rows": sum(check.rows for check in checks),
        "differing": sum(check.differing for check in checks),
        "checks": [{"name": check.name, "rows": check.rows, "differing": check.differing} for check in checks],
        "price": price,
    }
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found, checks)
    if found["differing"]:
        sys.exit(1)


def print_digest(asked: str) -> None:
    """Prints a digest of the hidden rows that this process computes for what is asked, a JSON object: what a fresh process is for."""
    print(_digest(_opened(json.loads(asked), 0)[1]))


def _opened(asked: dict[str, Any], seed: int) -> tuple[Trained, Alignment]:
    opened = trained(asked["run"], "best" if asked["checkpoint"] == "best" else "last")
    opened.model.dtype = getattr(torch, asked["dtype"]) if asked["dtype"] else opened.model.dtype
    if asked["tokenizer"]:
        pace = opened.spec.pace.model_copy(update={"tokenizer": asked["tokenizer"]})
        opened = replace(opened, spec=opened.spec.model_copy(update={"pace": pace}))
    mixture = opened.documents(asked["data"], asked["split"], document_ticks=asked["ticks"])
    given = _documents(mixture, asked["documents"], asked["ticks"])
    return opened, Alignment(opened.model, given, seed=seed, prologue_ids=mixture.prologue_ids)


def _documents(mixture: Mixture, documents: int, ticks: int) -> list[Given]:
    """Documents of the corpus, as the loader makes them: cut at windows' edges, here cut again at `ticks`."""
    found: list[Given] = []
    for batch in Loader(mixture, step_sequences=1, epochs=1):
        inputs, offsets = Inputs.of(batch), batch.offsets.tolist()
        for number, segment in enumerate(batch.segments):
            last = int(torch.searchsorted(batch.ticks[offsets[number] : offsets[number + 1]].contiguous(), segment.first_tick + ticks))
            empty = [0] * len(batch.segments)
            stops = [last if n == number else 0 for n in range(len(batch.segments))]
            if segment.num_ticks:
                found.append(Given(segment.key, inputs.piece(empty, stops)))
        if len(found) >= documents:
            break
    if not found:
        raise InputError(f"{mixture.corpora[0].name}: no document in the split {mixture.spec.split!r}")
    return found[:documents]


def _checks(console: Console, alignment: Alignment, opened: Trained, pairs: int, seed: int) -> list[Check]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    talks = min(3, len(alignment.documents))
    ticks = min(30, *(len(document.inputs.heard_codes) // TICK_FRAMES for document in alignment.documents[:talks]))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("aligning", total=5 * pairs + ticks + 1)

        def told() -> None:
            progress.advance(task)

        def done(*found: Check) -> None:
            for check in found:
                progress.console.print(f"{check.name}: {check.differing} of {check.rows:,} rows differ", highlight=False)
            checks.extend(found)

        rows = sum(document.inputs.rows.num_rows for document in alignment.documents)
        progress.console.print(f"{len(alignment.documents)} documents, {rows:,} rows; the first use of each shape is slow", highlight=False)
        checks: list[Check] = []
        done(alignment.packed())
        done(alignment.appended("cut at random, alone", pairs, told))
        done(alignment.appended("cut at random, in company", pairs, told, company=min(3, len(alignment.documents) + 1)))
        other = 1 if torch.get_num_threads() > 1 else 2
        done(alignment.appended(f"cut at random, {other} thread{'s' * (other > 1)}", pairs, told, threads=other))
        done(alignment.undone(pairs, told))
        done(alignment.moved(pairs, told))
        done(*alignment.sampled(opened.layout, Sampling(seed=seed), ticks, talks, told, tokenizer_json=opened.spec.pace.tokenizer))
    return checks


def _digest(alignment: Alignment) -> str:
    digest = hashlib.sha256()
    for hidden in alignment.hidden:
        digest.update(as_integers(hidden).numpy().tobytes())
    return digest.hexdigest()


def _fresh_process(alignment: Alignment, asked: dict[str, Any]) -> Check:
    """The same documents in a process that has computed nothing before."""
    program = "import sys; from microturn.trainer.session.align_command import print_digest; print_digest(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", program, json.dumps(asked)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise MicroturnError("the fresh process failed; what it said stands above", hint="run the command again")
    rows = sum(len(hidden) for hidden in alignment.hidden)
    return Check("in a fresh process", rows, 0 if done.stdout.strip() == _digest(alignment) else rows)


def _price(model: InteractionModel, documents: Sequence[Given]) -> dict[str, float]:
    """CPU seconds per thousand rows of a whole document, and of the same rows in appends of 20; each also ÷ plain torch's."""
    from ..bench.plain import Cached, plain

    inputs = max((document.inputs for document in documents), key=lambda found: found.rows.num_rows)
    rows = inputs.rows.num_rows
    pieces = [inputs.piece([start], [min(start + APPEND_ROWS, rows)]) for start in range(0, rows, APPEND_ROWS)]
    engine = Engine(model, Limits(sessions=1, rows=rows))

    def whole() -> None:
        with torch.no_grad():
            model(inputs)

    def appends() -> None:
        session = engine.open("price", rows=rows)
        for piece in pieces:
            engine.append([(session, piece)])
            engine.commit(session)
        engine.close(session)

    def plain_appends() -> None:
        cached = Cached(engine.model, rows)
        for piece in pieces:
            cached.append(piece)

    priced = {}
    for name, law, in_plain in (("whole", whole, whole), ("appends", appends, plain_appends)):
        times = []
        for _ in range(1 + PRICE_REPEATS):  # the first one touches pages
            law_s = _cpu_s(law)
            with plain():
                times.append((law_s, _cpu_s(in_plain)))
        priced[f"{name}_s_per_krow"] = statistics.median(law_s for law_s, _ in times[1:]) / rows * 1000
        priced[f"{name}_ratio"] = statistics.median(law_s / plain_s for law_s, plain_s in times[1:])
    return priced


def _cpu_s(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _show(found: dict, checks: Sequence[Check]) -> None:
    table = Table(title=f"{found['run']}, step {found['step']}, {found['dtype']}", title_justify="left")
    table.add_column("the sampler's rows …")
    table.add_column("compared", justify="right")
    table.add_column("differing", justify="right")
    for check in checks:
        found_here = f"[red]{check.differing:,}[/]" if check.differing else "0"
        table.add_row(check.name, f"{check.rows:,}", found_here if check.rows else "nothing to compare")
    table.add_row("[b]all[/]", f"[b]{found['rows']:,}[/]", f"[b]{found['differing']:,}[/]", end_section=True)
    console = Console()
    console.print(table)
    price = found["price"]
    console.print(
        f"price: {price['whole_s_per_krow']:.2f} CPU s per 1,000 rows in whole documents, {price['whole_ratio']:.2f}× plain torch; "
        f"{price['appends_s_per_krow']:.2f} in appends of {APPEND_ROWS}, {price['appends_ratio']:.2f}×"
    )
    same = found["fingerprint"] == found["run_fingerprint"]
    console.print(f"fingerprint {found['fingerprint']}" + ("" if same else f", the run was trained under {found['run_fingerprint']}"))
    console.print(f"identity    {found['identity'][:16]}")
