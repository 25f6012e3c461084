"""Arithmetic with a fixed order: the ops that trainer and sampler share, each beside its plain meaning (`naive_…`).

Law 3 in one sentence: a row's bits depend on its own document up to that row and on the weights, not on how its rows were cut into
appends, who else is in the batch, where anything lies in memory, or the number of threads. Forward passes keep it; backward is
deterministic.

    products       linear · grouped_linear, expert_places, combine
    rows           rms_norm · log_softmax · cross_entropy · route · bag
    elementwise    sigmoid · log_sigmoid · silu · gelu · swiglu
    documents      Ragged, ragged, positions_of · attention, PageTable, page_table, fresh_table, lay_out, write · short_conv
    pictures       stages, fold
    noise          philox: key, uniforms, gumbels, normals
    this machine   fingerprint, tried

All take fp32 and bf16. CPU tensors take the CPU form, CUDA tensors the Triton form (gpu/); both keep the law, each with bits of its own.
The Triton forms have not run on a GPU yet: they are proven in Triton's interpreter and compiled ahead of time, no further (gpu/__init__.py
says what that leaves open). Bits belong to one machine: compare two computations of one process, or see `fingerprint`.
"""

from .activations import gelu, log_sigmoid, sigmoid, silu, swiglu
from .bags import bag
from .convolution import short_conv
from .documents import Ragged, positions_of, ragged
from .experts import ExpertPlaces, combine, expert_places, grouped_linear
from .folding import Stage, fold, stages
from .machine import fingerprint
from .pages import PAGE_ROWS, PageTable, fresh_table, lay_out, page_table, write
from .products import linear
from .relative_attention import attention
from .router import route
from .rows import cross_entropy, log_softmax, rms_norm
from .selfcheck import tried

__all__ = [
    "PAGE_ROWS",
    "ExpertPlaces",
    "PageTable",
    "Ragged",
    "Stage",
    "attention",
    "bag",
    "combine",
    "cross_entropy",
    "expert_places",
    "fingerprint",
    "fold",
    "fresh_table",
    "gelu",
    "grouped_linear",
    "lay_out",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "page_table",
    "positions_of",
    "ragged",
    "rms_norm",
    "route",
    "short_conv",
    "sigmoid",
    "silu",
    "stages",
    "swiglu",
    "tried",
    "write",
]
