"""A session as data: its committed rows' pages and the convolutions' states, to be taken up again by another engine on the same model.

Only committed rows are kept; what is uncommitted must be committed or aborted first. A snapshot names the model it belongs to, and another
model refuses it; bits go on being equal on machines of one numerics fingerprint. As a file it is safetensors: nothing is unpickled.

Letters: N pages, G key/value heads, D columns of a head.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...kernels import PAGE_ROWS
from ...schemas.errors import CorpusError
from ..model import InteractionModel
from ..model.state import ConvState
from .engine import Engine, Mark, Session, SessionError

FORMAT = "microturn-session-v1"
CONVS = ("keys", "values", "attention", "mlp")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A session's past.

    Attributes:
        key, rows, capacity: of the session.
        identity: of the model, as its owner names it: `Trained.identity` for a run's.
        tensors: per layer l, `l.pages.keys`, `l.pages.values` [N, G, 64, D] of the blocks still needed, oldest first, and `l.convs.…`.
    """

    key: str
    rows: int
    capacity: int
    identity: str
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, engine: Engine, session: Session, identity: str) -> "Snapshot":
        """The snapshot of a session without uncommitted rows."""
        if session.rows != session.committed:
            raise SessionError(
                f"session {session.key!r} has {session.rows - session.committed} uncommitted rows", hint="commit or abort before a snapshot"
            )
        tensors: dict[str, Tensor] = {}
        for layer, conv in enumerate(session.marks[0].convs):
            pages = _pages(engine, session, layer)
            tensors[f"{layer}.pages.keys"] = engine.pools.keys[layer][pages].clone()
            tensors[f"{layer}.pages.values"] = engine.pools.values[layer][pages].clone()
            tensors |= {f"{layer}.convs.{name}": getattr(conv, name).clone() for name in CONVS}
        return cls(session.key, session.rows, session.capacity, identity, tensors)

    def restore(self, engine: Engine, identity: str) -> Session:
        """The session, open on this engine. Raises SessionError for another model's snapshot, CorpusError for tensors of other shapes."""
        if identity != self.identity:
            raise SessionError(f"session {self.key!r} belongs to the model {self.identity[:12]}, this one is {identity[:12]}")
        self._refuse_strange(engine)
        session = engine.open(self.key, rows=self.capacity)
        layers = engine.model.spec.layers
        convs = tuple(ConvState(*(self.tensors[f"{layer}.convs.{name}"].clone() for name in CONVS)) for layer in range(layers))
        session.marks = [Mark(self.rows, convs)]
        for layer in range(layers):
            pages = _pages(engine, session, layer)
            engine.pools.keys[layer][pages] = self.tensors[f"{layer}.pages.keys"]
            engine.pools.values[layer][pages] = self.tensors[f"{layer}.pages.values"]
        return session

    def _refuse_strange(self, engine: Engine) -> None:
        if not 0 <= self.rows <= self.capacity:
            raise CorpusError(f"session {self.key!r} has {self.rows} rows of {self.capacity}")
        for name, (shape, dtype) in _wanted(engine.model, self.rows).items():
            found = self.tensors.get(name)
            if found is None or tuple(found.shape) != shape or found.dtype != dtype:
                what = "nothing" if found is None else f"{found.dtype} {tuple(found.shape)}"
                raise CorpusError(f"session {self.key!r}: {name} is {what}, a session of {self.rows} rows has {dtype} {shape}")

    def save(self, path: Path) -> None:
        """Nothing; writes one safetensors file."""
        about = {"format": FORMAT, "key": self.key, "rows": str(self.rows), "capacity": str(self.capacity), "identity": self.identity}
        save_file(self.tensors, path, metadata={"microturn": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> "Snapshot":
        """The snapshot in a file. Raises CorpusError when it is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["microturn"])
            if about["format"] != FORMAT:
                raise KeyError("format")
            return cls(about["key"], int(about["rows"]), int(about["capacity"]), about["identity"], load_file(path))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CorpusError(f"{path}: not a session of microturn: {error}") from None


def _wanted(model: InteractionModel, rows: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of every tensor of a session of so many rows."""
    spec = model.spec
    wanted: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for layer in range(spec.layers):
        kv_heads = spec.num_heads(layer)[1]
        first = 0 if spec.is_global(layer) else max(0, rows - spec.window + 1) // PAGE_ROWS
        pages = (-(-rows // PAGE_ROWS) - first, kv_heads, PAGE_ROWS, spec.head_dim)
        wanted |= {f"{layer}.pages.{side}": (pages, model.dtype) for side in ("keys", "values")}
        widths = (kv_heads * spec.head_dim, kv_heads * spec.head_dim, spec.hidden, spec.hidden)
        for name, width in zip(CONVS, widths, strict=True):
            wanted[f"{layer}.convs.{name}"] = ((1, spec.conv_taps - 1, width), torch.float32)
    return wanted


def _pages(engine: Engine, session: Session, layer: int) -> Tensor:
    """The pages, oldest first, of the blocks that the session's next rows may see in this layer."""
    spec, stop = engine.model.spec, -(-session.committed // PAGE_ROWS)
    if spec.is_global(layer):
        return torch.tensor(session.pages[:stop], dtype=torch.int64)
    first = max(0, session.committed - spec.window + 1) // PAGE_ROWS
    return torch.tensor([session.ring[block % len(session.ring)] for block in range(first, stop)], dtype=torch.int64)
