"""How many parameters a model has, by formula: in all, and those that one row is multiplied with."""

from dataclasses import dataclass

from ...kernels import stages
from .embedding import HEARD_ROWS, OWN_ROWS
from .flow import FRAME_VALUES, TIME_COLUMNS
from .spec import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Parameters by part.

    Attributes:
        attention, convolutions, norms, dense, router, routed, shared: of all layers, `norms` with the embedding's and the last one.
        tables: embedding and unembedding.
        heard, patches: the towers of the open model, with their norms.
        own, flow: what is ours only.
        routed_active: of the routed experts, those that one row meets.
    """

    attention: int
    convolutions: int
    norms: int
    dense: int
    router: int
    routed: int
    shared: int
    tables: int
    heard: int
    patches: int
    own: int
    flow: int
    routed_active: int

    @property
    def text(self) -> int:
        """The open model without its towers."""
        return self.attention + self.convolutions + self.norms + self.dense + self.router + self.routed + self.shared + self.tables

    @property
    def open(self) -> int:
        """What the open format holds, prediction layers aside."""
        return self.text + self.heard + self.patches

    @property
    def total(self) -> int:
        """Every parameter."""
        return self.open + self.own + self.flow

    @property
    def active(self) -> int:
        """`text`, but of the routed experts only those that one row meets: the published way to count."""
        return self.text - self.routed + self.routed_active


def count(spec: ModelSpec) -> Counts:
    """The counts of a model of these sizes. Biases of routers are no parameters."""
    d, w = spec.hidden, spec.expert_width
    attention = convolutions = norms = dense = router = 0
    for layer in range(spec.layers):
        heads, kv_heads = spec.num_heads(layer)
        q, kv = heads * spec.head_dim, kv_heads * spec.head_dim
        attention += d * (2 * q + 2 * kv + heads * spec.bias_columns) + spec.bias_columns * spec.extent(layer) + 2 * spec.head_dim
        convolutions += spec.conv_taps * (2 * kv + 2 * d)
        norms += 2 * d
        if spec.is_dense(layer):
            dense += 3 * d * spec.dense_width + 1
        else:
            router += (spec.experts + spec.shared_experts) * d + 1
    mixtures = spec.layers - spec.dense_layers
    width = spec.flow_width
    return Counts(
        attention=attention,
        convolutions=convolutions,
        norms=norms + 2 * d,
        dense=dense,
        router=router,
        routed=mixtures * spec.experts * 3 * d * w,
        shared=mixtures * spec.shared_experts * 3 * d * w,
        tables=2 * spec.vocabulary * d,
        heard=HEARD_ROWS * d + d,
        patches=sum(stage.num_inputs * stage.num_outputs + stage.num_outputs for stage in stages(spec.vision_layers, d)),
        own=OWN_ROWS * d + d,
        flow=width * (d + TIME_COLUMNS + 3 * FRAME_VALUES + 2 * width + 1) + spec.flow_layers * (5 * width * width + width),
        routed_active=mixtures * spec.experts_per_row * 3 * d * w,
    )
