"""What autograd keeps of a forward pass, by formula: bytes per row of each part. A test counts the same with saved-tensor hooks.

One block keeps of each row, in elements of the rows' dtype (D stream, q and kv columns of queries and keys, r of relative states, W width
of an expert, k chosen, S shared, V vocabulary):

    attention   5 D + q + 2 kv + r    in and out of norms and products, both norms' and both convolutions' inputs
                2 q + 5 kv            normed queries, attended values; convolved keys, keys and values twice (as rows, as pages)
    experts     D + k (D + 3 W)       normed rows, gates and ups, their product, what comes back
                4 S W                 the same of the shared ones, weighted
    or dense    2 D + 3 W

and in fp32 what was attended to before it was rounded and the router's input (both only where rows are not fp32 anyway), and five times the
number of experts of scores. Experts on other ranks keep the rows that arrived, k D more. Attention keeps no scores.

A kernel that keeps less, or computes again what is cheap, changes the formula.
"""

from dataclasses import dataclass

from ..model import ModelSpec
from ..model.flow import FRAME_VALUES

TEXT_SHARE, FLOW_SHARE = 0.25, 0.25  # of rows, that learn text or a frame; of synthetic talks 0.21 and 0.18
FLOW_DRAWS = 2
FP32 = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Bytes that backward needs of so many rows, on one process.

    Attributes:
        blocks: of all layers; with recompute, the rows that go into each.
        block: of the largest layer, while backward computes it again; 0 without recompute.
        ends: embedding, last norm, logits and their gradient, flow head.
    """

    blocks: int
    block: int
    ends: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.blocks + self.block + self.ends


def kept(spec: ModelSpec, rows: int, element_bytes: int, *, recompute: bool, travelling: bool = False) -> Kept:
    """What a batch of so many rows keeps. Experts are taken to be evenly loaded.

    Args:
        element_bytes: 2 for bf16 rows, 4 for fp32.
        travelling: whether experts are on other ranks.
    """
    layers = [rows * block_bytes(spec, layer, element_bytes, travelling=travelling) for layer in range(spec.layers)]
    ends = ends_bytes(spec, rows, element_bytes)
    if not recompute:
        return Kept(blocks=sum(layers), block=0, ends=ends)
    return Kept(blocks=spec.layers * rows * spec.hidden * element_bytes, block=max(layers), ends=ends)


def block_bytes(spec: ModelSpec, layer: int, element_bytes: int, *, travelling: bool = False) -> int:
    """What one layer keeps of one row."""
    d, w, chosen = spec.hidden, spec.expert_width, spec.experts_per_row
    heads, kv_heads = spec.num_heads(layer)
    q, kv = heads * spec.head_dim, kv_heads * spec.head_dim
    elements = 5 * d + 3 * q + 7 * kv + heads * spec.bias_columns
    in_fp32 = 0 if element_bytes == FP32 else q
    if spec.is_dense(layer):
        return (elements + 2 * d + 3 * spec.dense_width) * element_bytes + in_fp32 * FP32
    elements += d + chosen * (d + 3 * w) + 4 * spec.shared_experts * w + (chosen * d if travelling else 0)
    in_fp32 += 5 * (spec.experts + spec.shared_experts) + (0 if element_bytes == FP32 else d)
    return elements * element_bytes + in_fp32 * FP32


def ends_bytes(spec: ModelSpec, rows: int, element_bytes: int) -> int:
    """What embedding, last norm, text and flow losses hold at most, when backward begins.

    Of logits there are the log-probabilities, their gradient before and after the softmax, all fp32, and that gradient in the rows' dtype.
    """
    text_rows, flow_rows = int(rows * TEXT_SHARE), int(rows * FLOW_SHARE)
    ends = 4 * rows * spec.hidden * element_bytes
    logits = text_rows * (spec.vocabulary * (3 * FP32 + element_bytes) + spec.hidden * element_bytes)
    width = spec.flow_width
    head = FLOW_DRAWS * flow_rows * (10 * width * spec.flow_layers + 8 * width + 2 * FRAME_VALUES) * FP32
    return ends + logits + head


def sampling_bytes(spec: ModelSpec, rows: int, element_bytes: int) -> int:
    """Keys and values of one session of so many rows: all of them in global layers, the window's in the others."""
    total = 0
    for layer in range(spec.layers):
        _, kv_heads = spec.num_heads(layer)
        remembered = rows if spec.is_global(layer) else min(rows, spec.window)
        total += 2 * kv_heads * spec.head_dim * remembered * element_bytes
    return total
