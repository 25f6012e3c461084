"""A run, opened to be used: its newest or best weights, the layout its corpora had, and who it is.

`identity` is a digest of weights, sizes, dtype and layout. Two models of one identity give equal bits on machines of one numerics
fingerprint; a session's snapshot names it.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ...kernels.selfcheck import as_integers
from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.strict import canonical_json
from ..model import InteractionModel
from . import checkpoint, files
from .run_folder import RunFolder
from .spec import TrainSpec

Which = Literal["last", "best"]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model from a run.

    Attributes:
        model: in eval mode, in the dtype it was trained in.
        spec: the run's.
        layout: of its corpora.
        step: after which these are the weights.
        numerics: the fingerprint of the newest start of the run.
    """

    model: InteractionModel
    spec: TrainSpec
    layout: LayoutSpec
    step: int
    numerics: str

    @property
    def identity(self) -> str:
        """sha256 over sizes, dtype, layout and every weight."""
        digest = hashlib.sha256(canonical_json([self.spec.model.digest(), self.spec.dtype, self.layout.digest()]).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(as_integers(tensor).contiguous().numpy().tobytes())
        return digest.hexdigest()


def trained(run: str | Path, which: Which = "last") -> Trained:
    """The run's model. Raises InputError where no run is, or none of its checkpoints is whole."""
    folder = RunFolder(run)
    started = folder.started_with() if folder.path.is_dir() else None
    if started is None:
        raise InputError(f"{run}: no run of `microturn train`")
    spec = TrainSpec.parse(started, where=str(folder.config))
    faults: list[str] = []
    found = checkpoint.newest(folder.checkpoints, faults.append) if which == "last" else (folder.checkpoints / "best").resolve()
    if found is None or not found.is_dir():
        raise InputError(
            f"{run}: no {'whole checkpoint' if which == 'last' else 'best checkpoint: nothing was evaluated'}",
            hint="; ".join(faults) or "train at least one step",
        )
    model = InteractionModel(spec.model, dtype=getattr(torch, spec.dtype))
    saved = checkpoint.load(found, model)
    layout = LayoutSpec.parse(files.read_json(folder.corpus)["layout"], where=str(folder.corpus))
    starts = [json.loads(line) for line in folder.environment.read_text(encoding="utf-8").splitlines()]
    return Trained(model.eval(), spec, layout, saved.step, starts[-1]["numerics"]["digest"] if starts else "")
