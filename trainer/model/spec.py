"""Sizes of a model, and the presets. Everything that parameters' shapes depend on; nothing of how it is trained."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from ...schemas.strict import Strict


class ModelSpec(Strict):
    """The shape of one model.

    Attributes:
        hidden: columns D of the residual stream.
        layers: of which layer i attends to everything if (i + 1) is a multiple of `global_every`, else to the `window` newest rows.
        heads, kv_heads, window_heads, window_kv_heads: query and key/value heads of global and of windowed layers.
        head_dim: columns of a head.
        bias_columns, bias_extent: each head's relative state, and up to which distance it biases a global layer; a windowed one: `window`.
        conv_taps: of the short convolutions.
        dense_layers, dense_width: the first layers have one wide MLP instead of experts.
        experts, experts_per_row, shared_experts, expert_width: the mixture; a row goes to so many experts and to all shared ones.
        route_scale: factor of all experts' weights.
        logit_divisor: of the last hidden rows before the unembedding.
        log_floor, log_slope: from position `log_floor` on, global queries grow by `log_slope` per e-fold; 0 for never.
        vocabulary: rows of embedding and unembedding.
        vision_layers: of the hMLP.
        flow_width, flow_layers: of the flow head.
        flow_steps: of its Euler table.
        norm_eps: of every RMSNorm.
    """

    hidden: PositiveInt
    layers: PositiveInt
    global_every: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    window_heads: PositiveInt
    window_kv_heads: PositiveInt
    head_dim: PositiveInt
    window: PositiveInt
    bias_columns: PositiveInt = 16
    bias_extent: PositiveInt
    conv_taps: int = Field(4, ge=2)
    dense_layers: int = Field(0, ge=0)
    dense_width: int = Field(0, ge=0)
    experts: PositiveInt
    experts_per_row: PositiveInt
    shared_experts: PositiveInt
    expert_width: PositiveInt
    route_scale: float = Field(8.0, gt=0)
    logit_divisor: float = Field(1.0, gt=0)
    log_floor: int = Field(0, ge=0)
    log_slope: float = Field(0.1, ge=0)
    vocabulary: PositiveInt
    vision_layers: int = Field(4, ge=1, le=5)
    flow_width: PositiveInt
    flow_layers: PositiveInt
    flow_steps: PositiveInt = 8
    norm_eps: float = Field(1e-6, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> "ModelSpec":
        for heads, kv_heads in ((self.heads, self.kv_heads), (self.window_heads, self.window_kv_heads)):
            if heads % kv_heads:
                raise ValueError(f"{heads} heads cannot share {kv_heads} key/value heads evenly")
        if self.experts_per_row > self.experts:
            raise ValueError(f"experts_per_row is {self.experts_per_row}, there are {self.experts} experts")
        if bool(self.dense_layers) != bool(self.dense_width) or self.dense_layers > self.layers:
            raise ValueError(f"dense_layers {self.dense_layers} of {self.layers} with dense_width {self.dense_width}: both or none")
        return self

    @classmethod
    def preset(cls, name: str) -> "ModelSpec":
        """A preset's sizes. Raises InputError naming the near miss."""
        return cls.parse(PRESETS[name], where=f"preset {name}") if name in PRESETS else _no_preset(name)

    def is_global(self, layer: int) -> bool:
        """Whether this layer attends to the whole document."""
        return (layer + 1) % self.global_every == 0

    def is_dense(self, layer: int) -> bool:
        """Whether this layer's MLP is one wide one."""
        return layer < self.dense_layers

    def num_heads(self, layer: int) -> tuple[int, int]:
        """(query heads, key/value heads) of this layer."""
        return (self.heads, self.kv_heads) if self.is_global(layer) else (self.window_heads, self.window_kv_heads)

    def extent(self, layer: int) -> int:
        """Up to which distance this layer's attention is biased."""
        return self.bias_extent if self.is_global(layer) else self.window


def _no_preset(name: str) -> "ModelSpec":
    import difflib

    from ...schemas.errors import InputError

    close = difflib.get_close_matches(name, PRESETS, n=1)
    raise InputError(f"no preset {name!r}", hint=f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(PRESETS)}")


Preset = Literal["nano", "micro", "tiny", "small-276b-a12b"]

# nano and micro: few wide heads and a short window, because on a CPU cost follows head count and distance. The last is the released
# configuration of the open relative (its source is named in docs/DESIGN.md); its flow head is ours.
PRESETS: dict[str, dict[str, int | float]] = {
    "nano": {
        "hidden": 128, "layers": 4, "global_every": 4, "heads": 2, "kv_heads": 1, "window_heads": 2, "window_kv_heads": 1,
        "head_dim": 64, "window": 128, "bias_columns": 8, "bias_extent": 512, "experts": 8, "experts_per_row": 2, "shared_experts": 1,
        "expert_width": 64, "route_scale": 2.0, "vocabulary": 512, "vision_layers": 2, "flow_width": 128, "flow_layers": 2,
    },
    "micro": {
        "hidden": 384, "layers": 8, "global_every": 4, "heads": 6, "kv_heads": 2, "window_heads": 6, "window_kv_heads": 2,
        "head_dim": 64, "window": 256, "bias_columns": 16, "bias_extent": 1024, "experts": 16, "experts_per_row": 4,
        "shared_experts": 1, "expert_width": 256, "route_scale": 4.0, "logit_divisor": 1.5, "vocabulary": 8192, "vision_layers": 2,
        "flow_width": 256, "flow_layers": 3,
    },
    "tiny": {
        "hidden": 1024, "layers": 16, "global_every": 6, "heads": 8, "kv_heads": 2, "window_heads": 8, "window_kv_heads": 2,
        "head_dim": 128, "window": 512, "bias_extent": 1024, "dense_layers": 1, "dense_width": 4096, "experts": 64,
        "experts_per_row": 6, "shared_experts": 2, "expert_width": 512, "logit_divisor": 4.0, "vocabulary": 65536, "flow_width": 512,
        "flow_layers": 6,
    },
    "small-276b-a12b": {
        "hidden": 4096, "layers": 42, "global_every": 6, "heads": 32, "kv_heads": 8, "window_heads": 32, "window_kv_heads": 8,
        "head_dim": 128, "window": 512, "bias_extent": 1024, "dense_layers": 2, "dense_width": 16384, "experts": 256,
        "experts_per_row": 6, "shared_experts": 2, "expert_width": 2048, "logit_divisor": 16.0, "log_floor": 128_000,
        "vocabulary": 201_024, "flow_width": 1024, "flow_layers": 6,
    },
}  # fmt: skip
