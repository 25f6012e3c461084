"""Checkpoints: weights, moments and the place in the data, whole or not there; read back onto any number of ranks.

    checkpoints/step-00000020/shard-00001-model-00001-of-00001.safetensors    weights, routers' biases, moments: of each rank its part
                              checkpoint.json                                 step, place, best evaluation, sha256 of every file
    checkpoints/last, best    links

PyTorch's distributed checkpoints in their safetensors form: nothing is pickled, each tensor says in the file's header which part of the
whole it is, and any tool reads the files. A checkpoint is written beside its name and renamed when everything is on the disk. One that is
damaged is passed over by name. Costs a copy of a rank's part in memory while it is written. Equal tensors need not give equal files (a
header's order is the writer's): a sha256 says that a file is as it was written; compare tensors to know whether two checkpoints are one.
"""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor, distributed
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.optim import AdamW

from ...schemas.errors import MicroturnError
from ...schemas.strict import Strict
from ..data import Place
from ..model import InteractionModel
from . import files, ranks
from .optimizer import moments, set_steps

NAME = "checkpoint.json"


class Best(Strict):
    """The lowest held-out loss so far, and the step of it."""

    step: int
    loss: float


class Saved(Strict):
    """What checkpoint.json says.

    Attributes:
        step: steps that are done.
        place: where the data goes on.
        best: None while nothing was evaluated.
        sha256: of each file, by name.
    """

    step: int
    place: Place
    best: Best | None
    sha256: dict[str, str]


def state_of(model: InteractionModel, optimizer: AdamW | None = None) -> dict[str, Tensor]:
    """Every tensor of a checkpoint by name, as it is, not copied: loading fills it in place. Without optimizer: the model alone."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    return state | (moments(model, optimizer) if optimizer is not None else {})


def write(folder: Path, model: InteractionModel, optimizer: AdamW, *, step: int, place: Place, best: Best | None) -> Path:
    """The checkpoint's folder, written by all ranks together."""
    final = folder / name_of(step)
    beside = folder / f".{final.name}.part"
    if ranks.rank() == 0:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    _barrier()
    alone = ranks.world() == 1
    with _unwarned():
        dcp.save(state_of(model, optimizer), storage_writer=HuggingFaceStorageWriter(str(beside), save_distributed=True), no_dist=alone)
    mine = {path.name: sha256_of(path) for path in beside.glob(f"shard-{ranks.rank() + 1:05d}-*.safetensors")}
    everyones = [mine]
    if not alone:
        everyones = [{} for _ in range(ranks.world())]
        distributed.all_gather_object(everyones, mine)
    if ranks.rank() == 0:
        digests = {name: digest for found in everyones for name, digest in sorted(found.items())}
        files.write_json(beside / NAME, Saved(step=step, place=place, best=best, sha256=digests).model_dump(mode="json"))
        if final.exists():  # a damaged one, or one of a run that was set back
            shutil.rmtree(final)
        os.replace(beside, final)
        files.settle(folder)
        link(folder, step, best)
    _barrier()
    return final


def load(checkpoint: Path, model: InteractionModel, optimizer: AdamW | None = None) -> Saved:
    """What checkpoint.json says; model and optimizer are filled. All ranks together. Raises MicroturnError where tensors do not fit."""
    saved = read(checkpoint)
    reader = HuggingFaceStorageReader(str(checkpoint))
    state = state_of(model, optimizer)
    held = {name: tuple(getattr(found, "size", ())) for name, found in reader.read_metadata().state_dict_metadata.items()}
    for name, tensor in state.items():
        if held.get(name) != tuple(tensor.size()):
            raise MicroturnError(f"{checkpoint}: {name} is {tuple(tensor.size())} in the model, {held.get(name, 'not')} in the checkpoint")
    with _unwarned():
        dcp.load(state, storage_reader=reader, no_dist=ranks.world() == 1)
    if optimizer is not None:
        set_steps(optimizer, saved.step)
    return saved


def newest(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is whole; None where there is none. Each damaged one is told by name. The same on every rank."""
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        fault = fault_of(checkpoint) if ranks.rank() == 0 else ""
        if ranks.anywhere(bool(fault)):
            tell(f"{checkpoint}: {fault or 'damaged'}; the checkpoint before it is used")
            continue
        return checkpoint
    return None


def fault_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint; "" if every file is as it was written. Reads all of it."""
    try:
        saved = read(checkpoint)
    except (OSError, MicroturnError) as error:
        return f"no readable {NAME} ({error})"
    if name_of(saved.step) != checkpoint.name:
        return f"{NAME} is of step {saved.step}"
    if not saved.sha256:
        return f"{NAME} names no files"
    for name, digest in saved.sha256.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} is damaged"
    return ""


def best_in(folder: Path) -> Path | None:
    """The best checkpoint, by the newest checkpoint.json that names one; None where there is none. Whether it is whole, `fault_of` says."""
    for checkpoint in sorted(folder.glob("step-*"), reverse=True):
        try:
            best = read(checkpoint).best
        except (OSError, MicroturnError):
            continue
        if best is not None and (folder / name_of(best.step)).is_dir():
            return folder / name_of(best.step)
    return None


def drop_old(folder: Path, keep: int, *, step: int, best: Best | None) -> None:
    """Nothing; of the checkpoints up to `step`, which was just written, the `keep` newest stay, and the best.

    What has a later name was passed over as damaged when the run went on from before it, and is dropped; so is what was never finished.
    """
    if ranks.rank() == 0:
        names = sorted(path.name for path in folder.glob("step-*"))
        kept = {*[name for name in names if name <= name_of(step)][-keep:], name_of(best.step) if best is not None else ""}
        for name in [name for name in names if name not in kept] + [path.name for path in folder.glob(".step-*.part")]:
            shutil.rmtree(folder / name)


def link(folder: Path, step: int, best: Best | None) -> None:
    """Nothing; `last` leads to the checkpoint of `step`, `best` to that of the best evaluation, or is gone with it."""
    for name, to in (("last", step), ("best", None if best is None else best.step)):
        if to is None or not (folder / name_of(to)).is_dir():
            (folder / name).unlink(missing_ok=True)
        elif not (folder / name).is_symlink() or os.readlink(folder / name) != name_of(to):
            _link(folder / name, name_of(to))


def read(checkpoint: Path) -> Saved:
    """checkpoint.json. Raises MicroturnError where it is none."""
    return Saved.parse(files.read_json(checkpoint / NAME), where=str(checkpoint / NAME))


def name_of(step: int) -> str:
    """`step-00000020`."""
    return f"step-{step:08d}"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(link: Path, name: str) -> None:
    """Nothing; `link` points to the folder beside it."""
    beside = link.with_name(f".{link.name}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(name)
    os.replace(beside, link)
    files.settle(link.parent)


def _barrier() -> None:
    if ranks.world() > 1:
        distributed.barrier()


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without torch's guess that one process is meant: it is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield
