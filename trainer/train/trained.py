"""A run, opened to be used: its newest or best weights, the layout its corpora had, and who it is.

`identity` is a digest of weights, sizes, dtype and layout. Two models of one identity give equal bits on machines of one numerics
fingerprint; a session's snapshot names it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from ...kernels.selfcheck import as_integers
from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ...schemas.strict import canonical_json
from ..data import Mixture, OpenCorpus
from ..model import InteractionModel
from . import checkpoint
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
        numerics: the fingerprint of the newest start of the run; "" where none is kept.
    """

    model: InteractionModel
    spec: TrainSpec
    layout: LayoutSpec
    step: int
    numerics: str

    @property
    def identity(self) -> str:
        """sha256 over sizes, dtype, layout and every weight."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        digest = hashlib.sha256(canonical_json([self.spec.model.digest(), dtype, self.layout.digest()]).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(as_integers(tensor).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def documents(self, path: str | None, split: str, **changes: object) -> Mixture:
        """The run's corpus, or that in `path`, as the run makes documents of it; `changes` are fields of DataSpec.

        Raises InputError for a corpus of another layout.
        """
        corpus = OpenCorpus.open(path or self.spec.corpora[0].path, split=split)
        if corpus.layout != self.layout:
            raise InputError(f"{corpus.name}: another layout than the run's corpora", hint="build it with the same tokenizer and layout")
        spec = self.spec.data.model_copy(update={"split": split, "sides": "all", **changes})
        return Mixture.of([corpus], spec, tokenizer_path=self.spec.pace.tokenizer)


def trained(run: str | Path, which: Which = "last") -> Trained:
    """The run's model. Raises InputError where no run is, none of its checkpoints is whole, or the best is not."""
    folder = RunFolder(run)
    started = folder.started_with() if folder.path.is_dir() else None
    if started is None:
        raise InputError(f"{run}: no run of `microturn train`")
    spec = TrainSpec.parse(started, where=str(folder.config))
    faults: list[str] = []
    found = checkpoint.newest(folder.checkpoints, faults.append) if which == "last" else checkpoint.best_in(folder.checkpoints)
    if found is None:
        raise InputError(
            f"{run}: no {'whole checkpoint' if which == 'last' else 'best checkpoint: nothing was evaluated'}",
            hint="; ".join(faults) or "train at least one step",
        )
    if which == "best" and (fault := checkpoint.fault_of(found)):
        raise InputError(f"{found}: {fault}", hint="the newest checkpoint may be whole: take the last instead of the best")
    known = folder.known()
    if known is None:
        raise InputError(f"{folder.corpus}: not there", hint="bring the file back: it says in which layout the run hears and speaks")
    model = InteractionModel(spec.model, dtype=getattr(torch, spec.dtype))
    saved = checkpoint.load(found, model)
    return Trained(model.eval(), spec, known.layout, saved.step, folder.numerics())
