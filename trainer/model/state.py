"""What documents leave behind for their next rows: pages of keys and values, and the last inputs of every convolution.

A trainer has none: its documents are whole, and their keys lie on fresh pages. A sampler keeps pools of pages; an append writes its rows
behind the committed ones and gets the convolutions' next state back, so that the old state stays good until it is given up.

Letters: S segments, K taps, C columns of a convolution, N pages, G key/value heads, D columns of a head.
"""

from dataclasses import dataclass

from torch import Tensor

from ...kernels import PageTable


@dataclass(frozen=True, slots=True, eq=False)
class ConvState:
    """fp32 [S, K - 1, C] each: the newest inputs of the four convolutions of a layer, oldest first."""

    keys: Tensor
    values: Tensor
    attention: Tensor
    mlp: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class LayerState:
    """What one layer reads of the documents' past.

    Attributes:
        table: where the pages of each document lie in the pools, with room for the new rows.
        keys, values: [N, G, 64, D], pools in the dtype of the rows; new rows are written into them.
        convs: None when every document begins here.
    """

    table: PageTable
    keys: Tensor
    values: Tensor
    convs: ConvState | None


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One LayerState per layer."""

    layers: tuple[LayerState, ...]
