"""Safetensors files of any size: written a shard at a time, read a tensor at a time.

`write` makes each tensor when its shard is due, so that memory holds one shard. There is always an index, also beside a single file:
engines that load every *.safetensors of a folder go by it, and ours-only weights may lie in the same folder. Which tensor goes into which
shard is huggingface_hub's choice, as in every other checkpoint of its kind.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...schemas.errors import InputError

SHARD_BYTES = 5 << 30
INDEX = "model.safetensors.index.json"
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A tensor to be written: its shape and dtype, and how to get it when it is due."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def write(tensors: Mapping[str, Planned], folder: Path, *, stem: str = "model", index: str | None = INDEX, shard_bytes: int) -> None:
    """Nothing; writes `stem`.safetensors, or `stem`-00001-of-… if that would exceed `shard_bytes`, and the index."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    twins = {name: torch.empty(planned.shape, dtype=planned.dtype, device="meta") for name, planned in tensors.items()}
    split = split_torch_state_dict_into_shards(twins, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=shard_bytes)
    for file, names in split.filename_to_tensors.items():
        made = {name: _made(name, tensors[name]) for name in names}
        partial = folder / f"{file}.partial"
        partial.touch()
        mode = partial.stat().st_mode  # a new file's; safetensors makes its own for one's own eyes alone
        save_file(made, partial, metadata={"format": "pt"})
        partial.chmod(mode)
        partial.rename(folder / file)
    if index is not None:
        where = {name: file for file, names in split.filename_to_tensors.items() for name in names}
        total = sum(twin.nbytes for twin in twins.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2, sort_keys=True)
        (folder / index).write_text(text + "\n", encoding="utf-8")


def _made(name: str, planned: Planned) -> Tensor:
    tensor = planned.make().detach().to("cpu", planned.dtype).contiguous()
    assert tuple(tensor.shape) == planned.shape, f"{name}: {tuple(tensor.shape)} made, {planned.shape} planned"
    return tensor.clone() if tensor.untyped_storage().nbytes() != tensor.nbytes else tensor


class Stored(Mapping[str, Tensor]):
    """Tensors that are read when asked for, whose dtypes are known without reading them."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """Of the tensor with this name."""


def dtype_of(weights: Mapping[str, Tensor], name: str) -> torch.dtype:
    """A tensor's dtype, if possible without reading it."""
    return weights.dtype(name) if isinstance(weights, Stored) else weights[name].dtype


class Files(Stored):
    """Tensors of safetensors files by name."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """`files` says where each name lies; see `in_folder`."""
        self._files, self._open = dict(files), dict[Path, Any]()

    @classmethod
    def in_folder(cls, folder: Path, *, stem: str = "model", index: str = INDEX) -> "Files":
        """Those that the index names, or those of `stem`.safetensors where there is none.

        Raises:
            InputError: neither is there, or a file is not what it should be.
        """
        if (folder / index).is_file():
            where = read_json(folder / index).get("weight_map")
            if not isinstance(where, dict) or not all(isinstance(file, str) and file == Path(file).name for file in where.values()):
                raise InputError(f"{folder / index}: weight_map must name files of its folder")
            files = cls({name: folder / file for name, file in where.items()})
            files._refuse_missing()
            return files
        if not (folder / f"{stem}.safetensors").is_file():
            raise InputError(f"{folder}: neither {index} nor {stem}.safetensors is there")
        return cls.of(folder / f"{stem}.safetensors")

    @classmethod
    def of(cls, file: Path) -> "Files":
        """Those of one file."""
        files = cls({})
        files._files = {name: file for name in files._handle(file).keys()}  # noqa: SIM118 (a handle is no mapping)
        return files

    def only(self, names: Sequence[str]) -> "Files":
        """These of them."""
        some = Files({name: self._files[name] for name in names})
        some._open = self._open
        return some

    def shape(self, name: str) -> tuple[int, ...]:
        """Read from the file's head alone."""
        return tuple(self._handle(self._files[name]).get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Raises InputError for anything but fp32, bf16 and fp16: a quantised tensor means nothing without its scales."""
        found = self._handle(self._files[name]).get_slice(name).get_dtype()
        if found not in DTYPES:
            raise InputError(f"{self._files[name]}: {name} is {found}; weights are read as {', '.join(DTYPES)}")
        return DTYPES[found]

    def __getitem__(self, name: str) -> Tensor:
        return self._handle(self._files[name]).get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _handle(self, file: Path) -> Any:
        from safetensors import SafetensorError, safe_open

        if file not in self._open:
            try:
                self._open[file] = safe_open(file, framework="pt")
            except (SafetensorError, FileNotFoundError) as error:
                raise InputError(f"{file}: {error}", hint="fetch or export it again") from None
        return self._open[file]

    def _refuse_missing(self) -> None:
        for file in dict.fromkeys(self._files.values()):
            listed, held = {name for name, at in self._files.items() if at == file}, set(self._handle(file).keys())
            if listed - held:
                raise InputError(f"{file}: {min(listed - held)} is listed in the index and not there")


@torch.no_grad()
def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the model's that `weights` does not have; the others' values are copied into the model, one after the other.

    Raises:
        InputError: a name that the model does not have, or another shape.
    """
    state = model.state_dict()
    for name in weights:
        if name not in state:
            raise InputError(f"the model has no tensor {name}")
        tensor = weights[name]
        if tensor.shape != state[name].shape:
            raise InputError(f"{name} is {list(tensor.shape)}, the model's {list(state[name].shape)}")
        state[name].copy_(tensor)
    return [name for name in state if name not in weights]


def new_folder(path: str | Path) -> Path:
    """The folder, made. Raises InputError if something lies in it: nothing is written over."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", hint="name a folder that does not exist yet")
    return folder


def refuse_other_names(found: Collection[str], wanted: Collection[str], where: str) -> None:
    """Nothing. Raises InputError naming a tensor that is missing, or there and not known."""
    if missing := set(wanted) - set(found):
        raise InputError(f"{where}: {min(missing)} is missing")
    if strange := set(found) - set(wanted):
        raise InputError(f"{where}: {min(strange)} has no place in this model")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError if it is missing or none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} is missing") from None
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file}: not an object")
    return found
