"""The open Inkling checkpoint format, out and in: config.json and safetensors under the published names, ours beside them.

    config.json, model.safetensors (or shards), model.safetensors.index.json     the open model: transformers, SGLang, vLLM read these
    microturn.safetensors, microturn.json                                        own bag and flow head in fp32; model, layout, digests
    README.md                                                                    what the open format cannot hold

The numbers of a tensor are moved, never changed, unless another dtype is asked for. Tensors are made or read one at a time; memory holds
a shard. Prediction layers (`model.mtp.…`), which we do not build, are carried from `load` to `export` file to file, bit by bit.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ..model import ModelSpec
from .config import carried_of, config_of, spec_of
from .names import STAYS_FP32, Part, is_ours_only, parts, shapes_of
from .passport import Passport
from .shards import SHARD_BYTES, Files, Planned, Stored, dtype_of, new_folder, read_json, refuse_other_names, write

PREDICTION = "model.mtp."
OURS = "microturn"
UNEMBEDDING = "model.llm.unembed.weight"
NOTE = (
    "The open format has no place for own speech: a history in which the model has spoken (OWN positions) cannot be represented there, and"
    " an engine that serves this folder gives text only. microturn.safetensors holds the own bag and the flow head."
)


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What goes through a conversion untouched.

    Attributes:
        fields: of config.json, by dotted name.
        tensors: the prediction layers', by published name.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A folder of weights.

    Attributes:
        layout: None in a folder that is not ours.
        weights: by our names, in the dtypes of the files, each read when asked for; without own bag and flow head in a folder that is not
            ours.
    """

    spec: ModelSpec
    layout: LayoutSpec | None
    weights: Mapping[str, Tensor]
    carried: Carried


def export(
    weights: Mapping[str, Tensor],
    spec: ModelSpec,
    layout: LayoutSpec | None,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    carried: Carried = Carried(),
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Nothing; writes a model's `state_dict()` into a new folder. config.json comes last: without it the folder is not finished.

    Args:
        weights: all tensors of a model of these sizes; or all but own bag and flow head, which are then not written.
        dtype: of the published tensors; convolutions, router biases and router scales stay as they are. None: all as they are.
        carried: of the folder that the weights came from.

    Raises:
        InputError: a tensor too many or too few, a size that the format cannot say, or a folder that is not empty.
    """
    shapes, table = shapes_of(spec), parts(spec)
    ours = [name for name in shapes if is_ours_only(name)]
    published = [name for name in shapes if not is_ours_only(name)]
    refuse_other_names(weights, [*published, *ours] if any(name in weights for name in ours) else published, "the model")
    config = config_of(spec, layout, carried.fields, dtype or dtype_of(weights, "embedding.table"))
    to = new_folder(folder)
    planned = {part.theirs: _planned(part, shapes[part.ours], weights, dtype) for part in table}
    for name in carried.tensors:
        planned[name] = _unchanged(carried.tensors, name)
    write(planned, to, shard_bytes=shard_bytes)
    beside = {name: Planned(tuple(shapes[name]), torch.float32, partial(weights.__getitem__, name)) for name in ours if name in weights}
    if beside:
        write(beside, to, stem=OURS, index=None, shard_bytes=1 << 62)
        Passport.of("inkling", spec, layout, NOTE).write(to)
        (to / "README.md").write_text(f"# A microturn model in the open Inkling format\n\n{NOTE}\n", encoding="utf-8")
    (to / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: str | Path, *, flow_width: int = 1024, flow_layers: int = 6, flow_steps: int = 8) -> Opened:
    """What a folder holds, ours or anybody's. Of the tensors only their heads are read here.

    Args:
        flow_width, flow_layers, flow_steps: of the flow head that a model with these weights is to have, where nothing of ours lies beside.

    Raises:
        InputError: a field of config.json or a tensor that this model has no place for, a missing one, or one of another shape.
    """
    at = Path(folder)
    config, passport = read_json(at / "config.json"), Passport.read(at, "inkling")
    where = str(at / "config.json")
    if passport:
        flow_width, flow_layers, flow_steps = (getattr(passport.model, name) for name in ("flow_width", "flow_layers", "flow_steps"))
    spec = spec_of(config, flow_width=flow_width, flow_layers=flow_layers, flow_steps=flow_steps, where=where)
    if passport:
        again = config_of(passport.model, passport.layout, {}, torch.float32)
        if spec != spec_of(again, flow_width=flow_width, flow_layers=flow_layers, flow_steps=flow_steps, where=where):
            raise InputError(f"{where} speaks of another model than microturn.json beside it")
        spec = passport.model
    files, table = Files.in_folder(at), parts(spec)
    prediction = [name for name in files if name.startswith(PREDICTION)]
    refuse_other_names([name for name in files if not name.startswith(PREDICTION)], [part.theirs for part in table], str(at))
    beside = Files.of(at / f"{OURS}.safetensors") if passport else None
    weights = _Weights(table, files, beside)
    fields = carried_of(config, where)
    weights.refuse_shapes(shapes_of(spec), fields.get("text_config.unpadded_vocab_size"), where=str(at))
    carried = Carried(fields, files.only(prediction))
    return Opened(spec, passport.layout if passport else None, weights, carried)


def published(weights: Mapping[str, Tensor], spec: ModelSpec) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the published format with its name, made of ours; also of gradients."""
    for part in parts(spec):
        yield part.theirs, part.form.out(weights[part.ours][part.start : part.stop])


def _planned(part: Part, shape: torch.Size, weights: Mapping[str, Tensor], dtype: torch.dtype | None) -> Planned:
    wanted = dtype_of(weights, part.ours) if dtype is None or part.theirs.endswith(STAYS_FP32) else dtype
    return Planned(_shape_there(part, shape), wanted, lambda: part.form.out(weights[part.ours][part.start : part.stop]))


def _unchanged(tensors: Mapping[str, Tensor], name: str) -> Planned:
    if isinstance(tensors, Files):
        return Planned(tensors.shape(name), tensors.dtype(name), partial(tensors.__getitem__, name))
    return Planned(tuple(tensors[name].shape), tensors[name].dtype, partial(tensors.__getitem__, name))


def _shape_there(part: Part, shape: torch.Size) -> tuple[int, ...]:
    return tuple(part.form.out(torch.empty(shape, device="meta")[part.start : part.stop]).shape)


class _Weights(Stored):
    """Tensors of ours, put together from published ones when asked for."""

    def __init__(self, table: list[Part], files: Files, beside: Files | None) -> None:
        self._parts: dict[str, list[Part]] = {}
        for part in table:
            self._parts.setdefault(part.ours, []).append(part)
        self._files, self._beside = files, beside
        self._rows_added = 0

    def refuse_shapes(self, shapes: Mapping[str, torch.Size], unpadded: int | None, *, where: str) -> None:
        """Nothing. Raises InputError for a tensor of another shape or dtype than ours can be made of."""
        for name, its_parts in self._parts.items():
            for part in its_parts:
                self._files.dtype(part.theirs)
                wanted = _shape_there(part, shapes[name])
                found = self._files.shape(part.theirs)
                if part.theirs == UNEMBEDDING and unpadded and found == (unpadded, *wanted[1:]):
                    self._rows_added = wanted[0] - unpadded
                elif found != wanted:
                    raise InputError(f"{where}: {part.theirs} is {list(found)}; config.json says {list(wanted)}")
        if self._beside is None:
            return
        refuse_other_names(self._beside, [name for name in shapes if is_ours_only(name)], f"{where}/{OURS}.safetensors")
        for name in self._beside:
            found = self._beside.shape(name)
            if found != tuple(shapes[name]):
                raise InputError(f"{where}/{OURS}.safetensors: {name} is {list(found)}, not {list(shapes[name])}")

    def dtype(self, name: str) -> torch.dtype:
        if self._beside is not None and name in self._beside:
            return self._beside.dtype(name)
        return self._files.dtype(self._parts[name][0].theirs)

    def __getitem__(self, name: str) -> Tensor:
        if self._beside is not None and name in self._beside:
            return self._beside[name]
        pieces = [part.form.back(self._files[part.theirs]) for part in self._parts[name]]
        if self._parts[name][0].theirs == UNEMBEDDING and self._rows_added:  # logits of ids that nobody uses
            pieces.append(pieces[0].new_zeros(self._rows_added, pieces[0].shape[1]))
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0].contiguous()

    def __iter__(self) -> Iterator[str]:
        yield from self._parts
        yield from self._beside or ()

    def __len__(self) -> int:
        return len(self._parts) + len(self._beside or ())
