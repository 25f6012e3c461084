"""The price of law 3 op by op: each op of the model with the law and in plain torch, on its own, with rows of the shapes that it meets.

Columns: `whole` (all rows of a document, forward), `training` (forward and backward), and appends of 20 rows and of 1, which for attention
and convolutions stand behind half a document. Weights are those that a session computes with.

Letters: T rows, D columns, k experts of a row, P places, G key/value heads, N pages or rows of a cache, X values of a frame.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import kernels
from ...kernels import PAGE_ROWS, Ragged, fresh_table, page_table, ragged
from ..model import InteractionModel
from ..model.attention import Attention
from ..model.block import Block
from ..model.experts import Mixture
from ..model.flow import FRAME_VALUES
from ..session.serving import served
from .plain import plain

Call = Callable[[], Tensor]
COLUMNS = ("whole", "training", "20 rows", "1 row")
MOST_PATCHES = 64


@dataclass(frozen=True, slots=True)
class OpTimed:
    """One op at one number of rows.

    Attributes:
        op, column: its row and column in the table.
        law, plain: the same computation in both forms; the latter is to be called inside `plain()`.
    """

    op: str
    column: str
    law: Call
    plain: Call


def timed_ops(model: InteractionModel, rows: int) -> list[OpTimed]:
    """Every op in every column; `rows` are those of a whole document."""
    found, serving = [], served(model)
    learning = copy.deepcopy(serving).requires_grad_()
    for column, count, past in (("whole", rows, 0), ("training", rows, 0), ("20 rows", 20, rows // 2), ("1 row", 1, rows // 2)):
        trains = column == "training"
        ops = _Ops(learning if trains else serving, ragged([count], [past]), trains)
        for op, (law, in_plain) in ops.all().items():
            found.append(OpTimed(op, column, _run(law, trains), _run(in_plain, trains)))
    return found


def _run(call: Call, trains: bool) -> Call:
    def forward() -> Tensor:
        with torch.no_grad():
            return call()

    def training() -> Tensor:
        y = call()
        y.float().sum().backward()
        return y

    return training if trains else forward


class _Ops:
    """The ops of one model on so many rows behind so many, each as (law, plain)."""

    def __init__(self, model: InteractionModel, rows: Ragged, trains: bool) -> None:
        self.model, self.rows, self.trains, self.count = model, rows, trains, rows.num_rows
        self.generator = torch.Generator().manual_seed(self.count)

    def all(self) -> dict[str, tuple[Call, Call]]:
        """By name. Most find their form by themselves: one function serves both."""
        found = {name: (call, call) for calls in (self._by_row(), self._of_experts(), self._embedded()) for name, call in calls.items()}
        return found | {"combine": self._combine()} | {name: self._attention(layer) for name, layer in self._attentions().items()}

    def _randn(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(dtype or self.model.dtype).requires_grad_(self.trains)

    def _integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator, dtype=dtype)

    def _block(self, is_global: bool) -> Block | None:
        spec = self.model.spec
        for layer, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            if spec.is_global(layer) == is_global and isinstance(block.mlp, Mixture):
                return block
        return None

    def _some_block(self) -> tuple[Block, Mixture]:
        block = self._block(is_global=False) or self._block(is_global=True)
        assert block is not None and isinstance(block.mlp, Mixture)
        return block, block.mlp

    def _by_row(self) -> dict[str, Call]:
        spec, model = self.model.spec, self.model
        block, _ = self._some_block()
        x_TD, wide = self._randn(self.count, spec.hidden), spec.experts_per_row * spec.expert_width
        gate, up = self._randn(self.count, wide), self._randn(self.count, wide)
        past = self._randn(1, spec.conv_taps - 1, spec.hidden, dtype=torch.float32).detach() if self.rows.positions[0] else None
        logits_TV, targets_T = self._randn(self.count, spec.vocabulary), self._integers(spec.vocabulary, self.count)
        hidden_TD, frame_TX = (self._randn(self.count, columns, dtype=torch.float32) for columns in (spec.hidden, FRAME_VALUES))
        time_T = torch.rand(self.count, generator=self.generator)
        return {
            "linear, in": lambda: block.attention.inward(x_TD),
            "linear, unembedding": lambda: model.text_logits(x_TD),
            "rms norm": lambda: block.attention_norm(x_TD),
            "swiglu": lambda: kernels.swiglu(gate, up),
            "short convolution": lambda: block.mlp_conv(x_TD, self.rows, past)[0],
            "log-softmax": lambda: kernels.log_softmax(logits_TV),
            "cross-entropy": lambda: kernels.cross_entropy(logits_TV, targets_T),
            "flow head": lambda: model.flow(hidden_TD, frame_TX, time_T),
        }

    def _of_experts(self) -> dict[str, Call]:
        spec = self.model.spec
        _, mixture = self._some_block()
        router, routed = mixture.router, mixture.routed
        logits, x_TD = (
            self._randn(self.count, spec.experts + spec.shared_experts, dtype=torch.float32),
            self._randn(self.count, spec.hidden),
        )
        chosen_Tk = self._integers(spec.experts, self.count, spec.experts_per_row)

        def experts() -> Tensor:
            places = kernels.expert_places(chosen_Tk, spec.experts)
            gate, up = kernels.grouped_linear(x_TD, routed.gate_up, places, by_token=True).chunk(2, dim=-1)
            return kernels.grouped_linear(kernels.swiglu(gate, up), routed.down, places, by_token=False)

        return {
            "router": lambda: kernels.route(logits, router.bias, spec.experts_per_row, spec.route_scale, router.scale)[1],
            "grouped experts": experts,
        }

    def _embedded(self) -> dict[str, Call]:
        embedding, dtype, patches = self.model.embedding, self.model.dtype, min(self.count, MOST_PATCHES)
        heard, own = (self._integers(16, self.count, columns, dtype=torch.uint8) for columns in (80, FRAME_VALUES))
        pixels, px = self._integers(256, patches, 2, 40, 40, 3, dtype=torch.uint8), torch.full((patches, 2), 40, dtype=torch.uint8)
        return {
            "bag, heard": lambda: kernels.bag(heard, embedding.heard.table),
            "bag, own": lambda: kernels.bag(own, embedding.own.table),
            f"hMLP, ≤ {MOST_PATCHES} patches": lambda: embedding.patch(pixels, px, dtype),
        }

    def _combine(self) -> tuple[Call, Call]:
        """The same results in places of either form."""
        spec, slots = self.model.spec, self.model.spec.experts_per_row
        y_RD, weights_Tk = self._randn(self.count * slots, spec.hidden).detach(), self._randn(self.count, slots, dtype=torch.float32)
        chosen_Tk = self._integers(spec.experts, self.count, slots)
        places = kernels.expert_places(chosen_Tk, spec.experts)
        y_PD = torch.zeros(len(places.token_P), spec.hidden, dtype=y_RD.dtype)
        y_PD[places.place_Tk.flatten()] = y_RD
        with plain():
            plain_places = kernels.expert_places(chosen_Tk, spec.experts)
        plain_y_PD = y_RD[plain_places.place_Tk]
        laid = [(y.requires_grad_(self.trains), where) for y, where in ((y_PD, places), (plain_y_PD, plain_places))]
        law, in_plain = (lambda y=y, where=where: kernels.combine(y, weights_Tk, where) for y, where in laid)
        return law, in_plain

    def _attentions(self) -> dict[str, Attention]:
        blocks = {"attention, windowed": self._block(is_global=False), "attention, global": self._block(is_global=True)}
        return {name: block.attention for name, block in blocks.items() if block is not None}

    def _attention(self, layer: Attention) -> tuple[Call, Call]:
        """Writing the new rows and reading all: pages with the law, one long cache of the same rows in plain torch."""
        kv_heads, width, rows = layer.kv_heads, layer.head_dim, self.rows
        q, r = (self._randn(self.count, layer.heads, columns) for columns in (width, layer.bias_columns))
        k_TGD, v_TGD = (self._randn(self.count, kv_heads, width) for _ in "kv")
        profiles, scale, window = self._randn(*layer.profiles.shape), 1 / width, layer.window
        if not rows.positions[0]:

            def whole() -> Tensor:
                table = fresh_table(rows)
                keys, values = kernels.lay_out(k_TGD, table), kernels.lay_out(v_TGD, table)
                return kernels.attention(q, keys, values, r, profiles, table, scale=scale, window=window)

            return whole, whole
        pages = -(-(rows.positions[0] + self.count) // PAGE_ROWS)
        table = page_table(rows, [range(pages)])

        def append(keys: Tensor, values: Tensor) -> Call:
            def run() -> Tensor:
                kernels.write(k_TGD, keys, table)
                kernels.write(v_TGD, values, table)
                return kernels.attention(q, keys, values, r, profiles, table, scale=scale, window=window)

            return run

        past = [self._randn(pages, kv_heads, PAGE_ROWS, width) for _ in "kv"]
        caches = [x_NGRD.transpose(0, 1).flatten(1, 2).contiguous() for x_NGRD in past]
        return append(*past), append(*caches)
