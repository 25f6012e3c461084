"""Small models whose every parameter matters, documents by hand, and the plainest sampler: `from handmade import SPEC, made, pieces`.

A document is a string, a letter a row: `t` text, `h` heard, `o` own, `p` patch.
"""

from collections.abc import Sequence

import torch
from microturn.kernels import PAGE_ROWS, page_table, ragged
from microturn.trainer.model import Inputs, InteractionModel, ModelSpec, State, initialise
from microturn.trainer.model.state import ConvState, LayerState
from tensors import randn
from torch import Tensor

SPEC = ModelSpec(
    hidden=64, layers=4, global_every=2, heads=4, kv_heads=2, window_heads=4, window_kv_heads=1, head_dim=16, window=20, bias_columns=8,
    bias_extent=30, dense_layers=1, dense_width=96, experts=8, experts_per_row=3, shared_experts=2, expert_width=24, route_scale=8.0,
    logit_divisor=2.5, log_floor=16, vocabulary=64, vision_layers=2, flow_width=24, flow_layers=2,
)  # fmt: skip
HEARD_ID, PATCH_ID = 62, 63
TICK = "tpphhhhtttoooo"


@torch.no_grad()
def shaken(model: torch.nn.Module, seed: int) -> None:
    """Nothing; gives every tensor of the model random values with which it matters, biases of routers too."""
    for number, (name, x) in enumerate([*model.named_parameters(), *model.named_buffers()]):
        if not x.is_floating_point():
            continue
        noise = randn(1000 * seed + number, *x.shape)
        if "bias" in name:
            x.copy_(noise * 0.1)
        elif "conv" in name:
            x.copy_(noise * 0.3)
        elif x.ndim == 1:  # norms and scales
            x.copy_(1 + noise * 0.3)
        elif "profiles" in name or "rel_logits" in name:
            x.copy_(noise * 0.5)
        elif "embed" in name or "table" in name:
            x.copy_(noise)
        else:
            x.copy_(noise * x.shape[-1] ** -0.5)


def model_of(spec: ModelSpec = SPEC, seed: int = 1, **how) -> InteractionModel:
    """A shaken model."""
    model = initialise(InteractionModel(spec, **how), seed)
    shaken(model, seed)
    return model


def made(documents: Sequence[str], seed: int = 0, vocabulary: int = 60) -> Inputs:
    """Inputs with these kinds of rows and random values; patches of the right half of every document's last one are padding."""
    kinds, random = "".join(documents), torch.Generator().manual_seed(seed)

    def where(kind: str) -> Tensor:
        return torch.tensor([row for row, found in enumerate(kinds) if found == kind], dtype=torch.int64)

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, shape, generator=random)

    num_patches = kinds.count("p")
    px = torch.full((num_patches, 2), 40, dtype=torch.uint8)
    px[-1:, 1] = 20
    return Inputs(
        rows=ragged([len(document) for document in documents]),
        ids=whole(vocabulary, len(kinds)),
        heard_rows=where("h"),
        heard_codes=whole(16, kinds.count("h"), 80).to(torch.uint8),
        own_rows=where("o"),
        own_codes=whole(16, kinds.count("o"), 4, 80).to(torch.uint8),
        patch_rows=where("p"),
        patches=whole(256, num_patches, 2, 40, 40, 3).to(torch.uint8),
        patch_px=px,
        counted=whole(2, len(kinds)).bool(),
    )


def alone(inputs: Inputs, document: int) -> Inputs:
    """One document of a batch."""
    lengths = inputs.rows.lengths
    return inputs.piece([0] * len(lengths), [length if s == document else 0 for s, length in enumerate(lengths)])


@torch.no_grad()
def pieces(model: InteractionModel, inputs: Inputs, takes: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Hidden rows [N, D] of the documents and the experts' counts, when appends come as `takes` says: rows per document, call by call.

    Pools begin as NaN; pages lie in a shuffled order; a document from which nothing is taken sits a call out.
    """
    spec, lengths, starts = model.spec, inputs.rows.lengths, inputs.rows.row_starts
    needed = [-(-length // PAGE_ROWS) for length in lengths]
    order = iter(torch.randperm(sum(needed), generator=torch.Generator().manual_seed(5)).tolist())
    pages = [[next(order) for _ in range(count)] for count in needed]
    pools = [
        [torch.full((sum(needed), spec.num_heads(layer)[1], PAGE_ROWS, spec.head_dim), float("nan"), dtype=model.dtype) for _ in "kv"]
        for layer in range(spec.layers)
    ]
    convs = [[nothing(spec, layer) for layer in range(spec.layers)] for _ in lengths]
    done, hidden, counts = [0] * len(lengths), torch.full((inputs.rows.num_rows, spec.hidden), float("nan"), dtype=model.dtype), 0
    for take in takes:
        stops = [start + count for start, count in zip(done, take, strict=True)]
        piece, who = inputs.piece(done, stops), [s for s, count in enumerate(take) if count]
        table = page_table(piece.rows, [pages[s] for s in who])
        layers = []
        for layer, (keys, values) in enumerate(pools):
            past = ConvState(*(torch.stack([getattr(convs[s][layer], name) for s in who]) for name in ConvState.__slots__))
            layers.append(LayerState(table, keys, values, past if any(piece.rows.positions) else None))
        output = model(piece, State(tuple(layers)))
        for place, s in enumerate(who):
            rows = slice(piece.rows.row_starts[place], piece.rows.row_starts[place + 1])
            hidden[starts[s] + done[s] : starts[s] + stops[s]] = output.hidden_TD[rows]
            convs[s] = [ConvState(*(getattr(conv, name)[place] for name in ConvState.__slots__)) for conv in output.convs]
        done, counts = stops, counts + output.counts_LE
    assert tuple(done) == lengths
    return hidden, counts


def nothing(spec: ModelSpec, layer: int) -> ConvState:
    """The convolutions' state before a document, of one document."""
    past, kv = spec.conv_taps - 1, spec.num_heads(layer)[1] * spec.head_dim
    return ConvState(*(torch.zeros(past, columns) for columns in (kv, kv, spec.hidden, spec.hidden)))
