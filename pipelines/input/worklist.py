"""The plan of one build as a file in the staging folder, and its lines: what crosses the graph in place of the sessions are places in it.

A runner keeps what it is given in memory, and some send it to a service that takes ten megabytes. A million sessions are 65,536 slices. The
file is sealed: a manifest may name its files by absolute paths, and whoever kills a build leaves the file behind. The key is in the graph.
"""

import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import shake_256
from itertools import islice

import numpy as np

from ...schemas.receipts import WorkLine, WorkSlice
from ...schemas.spec import FeatureSpec
from ..sessions import receipts
from ..storage.folders import Folder
from .plan import Plan

WORK = "work"
MAX_SLICES = 1 << 16


@dataclass(frozen=True, slots=True)
class WorkList:
    """The work list of one build: its file in the staging folder, and what reads it.

    Attributes:
        name: one of its own, for workers of a build that died may live on.
        spec: that of every item.
    """

    spec: FeatureSpec
    name: str = field(default_factory=lambda: f"{WORK}/{uuid.uuid4().hex}")
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def write(self, plan: Plan, committed: Mapping[str, str], refused: Mapping[str, tuple[str, ...]], staging: Folder) -> list[WorkSlice]:
        """The slices of the file, which is written. Sessions that the plan has settled get their receipts here.

        `committed`: session key → source digest of the windows that the corpus holds; `refused`: session key → why its ledger drops it.
        """
        staging.delete(WORK)  # of a build that died
        per_slice = -(-(len(plan.items) + len(plan.rejected)) // MAX_SLICES)
        rest = _lines(plan, committed, refused, staging)
        slices: list[WorkSlice] = []
        offset = 0
        with staging.create(self.name) as file:
            while lines := list(islice(rest, per_slice)):
                text = "\n".join(line.model_dump_json(exclude={"item": {"spec"}}, exclude_defaults=True) for line in lines)
                slices.append(WorkSlice(offset, file.write(self._sealed(text.encode(), offset))))
                offset += slices[-1].size
        return slices

    def read(self, staging: Folder, part: WorkSlice) -> Iterator[WorkLine]:
        """The lines of a slice."""
        for text in self._sealed(staging.read_range(self.name, part.offset, part.size), part.offset).split(b"\n"):
            row = json.loads(text)
            if "item" in row:
                row["item"]["spec"] = self.spec
            yield WorkLine.model_validate(row)

    def _sealed(self, data: bytes, offset: int) -> bytes:
        """The slice that begins there, sealed, or opened again: SHAKE-256 as a stream cipher, each key and offset used once."""
        stream = shake_256(self.key + offset.to_bytes(8)).digest(len(data))
        return (np.frombuffer(data, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()


def _lines(plan: Plan, committed: Mapping[str, str], refused: Mapping[str, tuple[str, ...]], staging: Folder) -> Iterator[WorkLine]:
    for item in plan.items:
        yield WorkLine(item=item, committed=committed.get(item.key, ""), refused=refused.get(item.key, ()))
    for receipt in plan.rejected:
        name, key = f"{receipt.session}-{receipt.source_digest[:16]}.json", receipt.session
        receipts.write(staging, name, receipt)
        outcome = receipts.outcome_of(receipt, name)
        yield WorkLine(settled=outcome, committed=committed.get(key, ""), refused=refused.get(key, ()))
