"""All weights of a model under our own names: model.safetensors with its index, and microturn.json. Nothing is left out or moved."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...schemas.errors import InputError
from ...schemas.layout import LayoutSpec
from ..model import ModelSpec
from .inkling import Carried, Opened
from .names import shapes_of
from .passport import FILE, Passport
from .shards import SHARD_BYTES, Files, Planned, dtype_of, new_folder, refuse_other_names, write


def export_plain(
    weights: Mapping[str, Tensor],
    spec: ModelSpec,
    layout: LayoutSpec | None,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Nothing; writes the weights, all in `dtype` if one is given, into a new folder. microturn.json comes last.

    Raises:
        InputError: a tensor too many or too few, or a folder that is not empty.
    """
    shapes = shapes_of(spec)
    refuse_other_names(weights, list(shapes), "the model")
    to = new_folder(folder)
    planned = {}
    for name, shape in shapes.items():
        planned[name] = Planned(tuple(shape), dtype or dtype_of(weights, name), partial(weights.__getitem__, name))
    write(planned, to, shard_bytes=shard_bytes)
    Passport.of("safetensors", spec, layout).write(to)


def load_plain(folder: str | Path) -> Opened:
    """What `export_plain` wrote. Raises InputError for a folder that it did not write."""
    at = Path(folder)
    passport = Passport.read(at, "safetensors")
    if passport is None:
        raise InputError(f"{at / FILE} is missing", hint="a folder in the open Inkling format is read by `load`")
    files = Files.in_folder(at)
    refuse_other_names(files, list(shapes_of(passport.model)), str(at))
    return Opened(passport.model, passport.layout, files, Carried({}, {}))
