"""The plan of one build as a file in the staging folder, and its lines: what crosses the graph in place of the sessions are places in it.

A runner keeps what it is given in memory, and some send it to a service that takes ten megabytes. A million sessions are 65,536 slices.
"""

import json
import uuid
from collections.abc import Iterator, Mapping

from ...schemas.receipts import WorkLine, WorkSlice
from ...schemas.spec import FeatureSpec
from ..sessions import receipts
from ..storage.folders import Folder
from .plan import Plan

WORK = "work"
MAX_SLICES = 1 << 16


def write(plan: Plan, committed: Mapping[str, str], refused: Mapping[str, tuple[str, ...]], staging: Folder) -> list[WorkSlice]:
    """Slices of the work list, which is written anew. Sessions that the plan has settled get their receipts here.

    `committed`: session key → source digest of the windows that the corpus holds; `refused`: session key → why its ledger drops it whole.
    """
    staging.delete(WORK)  # of a build that died
    name = f"{WORK}/{uuid.uuid4().hex}.jsonl"  # a name of its own: that build's workers may live on
    per_slice = -(-(len(plan.items) + len(plan.rejected)) // MAX_SLICES)
    slices: list[WorkSlice] = []
    with staging.create(name) as file:
        start = position = 0
        for number, (key, line) in enumerate(_lines(plan, staging), 1):
            known = WorkLine(**line, committed=committed.get(key, ""), refused=refused.get(key, ()))
            position += file.write(known.model_dump_json(exclude={"item": {"spec"}}, exclude_defaults=True).encode() + b"\n")
            if number % per_slice == 0:
                slices.append(WorkSlice(name, start, position - start))
                start = position
        if position > start:
            slices.append(WorkSlice(name, start, position - start))
    return slices


def read(staging: Folder, part: WorkSlice, spec: FeatureSpec) -> Iterator[WorkLine]:
    """The lines of a slice."""
    for text in staging.read_range(part.name, part.offset, part.size).splitlines():
        row = json.loads(text)
        if "item" in row:
            row["item"]["spec"] = spec
        yield WorkLine.model_validate(row)


def _lines(plan: Plan, staging: Folder) -> Iterator[tuple[str, dict[str, object]]]:
    for item in plan.items:
        yield item.key, {"item": item}
    for receipt in plan.rejected:
        name = f"{receipt.session}-{receipt.source_digest[:16]}.json"
        receipts.write(staging, name, receipt)
        yield receipt.session, {"settled": receipts.outcome_of(receipt, name)}
