"""How fast the Triton forms are, each beside what torch does for the same, on the GPU that is there.

    python -m microturn.kernels.gpu.bench          prints a table: op, rows, dtype, ours, torch's, ratio

Every op is first compared with torch's result (within tolerance) at the size that is timed; a line whose results differ says so in place
of a time. Times are medians of whole calls through the public op, launch included, with the L2 cache emptied in between. Rows: 1 and 20
(an append), 4096 (training).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton.testing
from torch import Tensor

from .. import activations, bags, convolution, documents, experts, pages, products, relative_attention, rows

ROW_COUNTS = (1, 20, 4096)
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
Case = tuple[Callable[[], Tensor], Callable[[], Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """What is timed: by default, about one layer of the open model. `seen`: rows of the document that attention's newest rows belong to."""

    width: int = 4096
    vocabulary: int = 201_024
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 128
    extent: int = 1024
    seen: int = 4096
    experts: int = 32
    expert_width: int = 2048


def cases(num_rows: int, dtype: torch.dtype, sizes: Sizes) -> dict[str, Case]:
    """Per op what is timed: ours, and torch's, on torch's default device."""
    width = sizes.width
    x, dy = _randn(num_rows, width, dtype), _randn(num_rows, width, dtype)
    w, weight = _randn(width, width, dtype) / width**0.5, _randn(1, width, dtype)[0]
    logits, targets = _randn(min(num_rows, 512), sizes.vocabulary, dtype), torch.arange(min(num_rows, 512))
    codes, table = torch.randint(16, (num_rows, 80), dtype=torch.uint8), _randn(1280, width, dtype)
    entries = codes.long() + torch.arange(80) * 16
    taps, whole = _randn(width, 4, torch.float32), documents.ragged([num_rows])
    x_needing = x.clone().requires_grad_()
    w_needing = w.clone().requires_grad_()

    def slopes(y: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(y(x_needing, w_needing), (x_needing, w_needing), dy)[1]

    return {
        "linear": (lambda: products.linear(x, w), lambda: F.linear(x, w)),
        "linear, both ways": (lambda: slopes(products.linear), lambda: slopes(F.linear)),
        "rms_norm": (lambda: rows.rms_norm(x, weight, 1e-6), lambda: F.rms_norm(x, (width,), weight, 1e-6)),
        "swiglu": (lambda: activations.swiglu(x, dy), lambda: F.silu(x) * dy),
        "gelu": (lambda: activations.gelu(x), lambda: F.gelu(x)),
        "cross_entropy": (
            lambda: rows.cross_entropy(logits, targets),
            lambda: F.cross_entropy(logits.float(), targets, reduction="none"),
        ),
        "bag": (lambda: bags.bag(codes, table), lambda: F.embedding_bag(entries, table, mode="sum")),
        "short_conv": (
            lambda: convolution.short_conv(x, taps, whole)[0],
            lambda: (F.conv1d(F.pad(x.float().T, (3, 0)), taps[:, None], groups=width).T + x.float()).to(dtype),
        ),
        "attention": attention_case(num_rows, dtype, sizes),
        "grouped_linear": experts_case(x, dtype, sizes),
    }


def attention_case(num_rows: int, dtype: torch.dtype, sizes: Sizes) -> Case:
    """The newest rows of a document that see all of it; torch's gets the bias as a matrix that is already there."""
    heads, kv_heads, width, extent, total, states = sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.extent, sizes.seen, 16
    q, relative = (_randn(num_rows, heads * n, dtype).view(num_rows, heads, n) for n in (width, states))
    k, v = (_randn(total, kv_heads * width, dtype).view(total, kv_heads, width) for _ in range(2))
    profiles, all_pages = _randn(states, extent, dtype) * 0.1, pages.fresh_table(documents.ragged([total]))
    keys, values = pages.lay_out(k, all_pages), pages.lay_out(v, all_pages)
    table = pages.page_table(documents.ragged([num_rows], [total - num_rows]), all_pages.pages)
    distance = torch.arange(total - num_rows, total)[:, None] - torch.arange(total)
    bias = (relative.transpose(0, 1) @ profiles).gather(2, distance.clamp(0, extent - 1).expand(heads, -1, -1))
    bias = bias.masked_fill(distance >= extent, 0).masked_fill(distance < 0, float("-inf"))[None]
    queries, plain_k, plain_v = (t.transpose(0, 1)[None].contiguous() for t in (q, k, v))
    return (
        lambda: relative_attention.attention(q, keys, values, relative, profiles, table, scale=1 / width, window=None),
        lambda: F.scaled_dot_product_attention(queries, plain_k, plain_v, bias, scale=1 / width, enable_gqa=True)[0].transpose(0, 1),
    )


def experts_case(x: Tensor, dtype: torch.dtype, sizes: Sizes) -> Case:
    """Products of 6 experts a row; torch's is one call per expert, who gets which rows known beforehand."""
    num_experts = sizes.experts
    w = torch.randn(num_experts, sizes.expert_width, x.shape[1]).to(dtype) / x.shape[1] ** 0.5
    places = experts.expert_places(torch.rand(x.shape[0], num_experts).argsort(-1)[:, :6].contiguous(), num_experts)
    groups = [(e, places.token_P[int(places.starts[e]) : int(places.starts[e + 1])]) for e in range(num_experts)]
    return (
        lambda: experts.grouped_linear(x, w, places, by_token=True),
        lambda: torch.cat([F.linear(x[rows], w[e]) for e, rows in groups]),
    )


def lines() -> list[str]:
    """The table, a line each."""
    found = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}"]
    found.append(f"{'op':20}{'dtype':>10}{'rows':>7}{'ours ms':>10}{'torch ms':>10}{'ours/torch':>12}")
    for dtype in (torch.bfloat16, torch.float32):
        for num_rows in ROW_COUNTS:
            for name, (ours, torchs) in cases(num_rows, dtype, Sizes()).items():
                label = f"{name:20}{str(dtype).removeprefix('torch.'):>10}{num_rows:>7}"
                error = difference(ours(), torchs())
                if not error < TOLERANCE[dtype]:
                    found.append(f"{label}  results differ by {error:.1e} of the largest: not timed")
                    continue
                mine, theirs = (triton.testing.do_bench(call, return_mode="median") for call in (ours, torchs))
                found.append(f"{label}{mine:10.3f}{theirs:10.3f}{mine / theirs:12.2f}")
    return found


def difference(ours: Tensor, torchs: Tensor) -> float:
    """The largest difference, of the largest value."""
    return float((ours.float() - torchs.float()).abs().max() / torchs.float().abs().max())


def _randn(num_rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(num_rows, columns).to(dtype)


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: there is nothing to time")
    with torch.device("cuda"):
        print("\n".join(lines()))
