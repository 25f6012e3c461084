"""What training a model on N GPUs takes, by formula: bytes a GPU, tokens a step, bytes sent. Not measured on GPUs.

    masters, gradients, moments   4 + 4 + 8 bytes of each parameter, ÷ GPUs
    gathered                      what a GPU holds whole for a while: two blocks (the next is on its way) and the unembedding, in the
                                  rows' dtype; flow head, routers and convolutions of the two, fp32
    reducing                      the largest group's gradient, in the rows' dtype and as the fp32 copy that is reduced
    activations                   memory.py
    reserve                       a tenth of the GPU, for fragmentation, communicators and the driver

Ranks are laid out as fsdp × ep. All parameters are sharded over all ranks; `ep` neighbours never gather each other's experts but send rows
to them, so a layer's experts are gathered by a factor ep fewer. One GPU alone gathers nothing; in bf16 it keeps a bf16 copy of what it
multiplies with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ...schemas.errors import InputError, MicroturnError
from ..model import Counts, ModelSpec, count
from .memory import FLOW_DRAWS, FP32, Kept, kept, sampling_bytes

GIB = 2**30
RESERVE = 0.1
MAX_EXPERT_RANKS = 64
MAX_GPUS = 2**16
ELEMENT_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to lay the ranks out; all sizes are bytes of one GPU.

    Attributes:
        masters, gradients, moments, gathered, reducing: see the module.
        activations, recomputed: what a forward keeps, without and with recompute.
        gathers, reduces, travels: sent in one step of one batch per GPU, forward computed twice: all-gathers, reduce-scatters, rows to
            experts and back.
    """

    fsdp: int
    ep: int
    masters: int
    gradients: int
    moments: int
    gathered: int
    reducing: int
    activations: Kept
    recomputed: Kept
    gathers: int
    reduces: int
    travels: int

    @property
    def parameters(self) -> int:
        """What is there whatever the batch is."""
        return self.masters + self.gradients + self.moments + self.gathered + self.reducing

    def total(self, *, recompute: bool) -> int:
        """All bytes of one GPU, without the reserve."""
        return self.parameters + (self.recomputed if recompute else self.activations).total


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What was asked, and the layouts.

    Attributes:
        usable: bytes of a GPU without the reserve.
        sampling: bytes of keys and values of one session as long as a sequence.
    """

    spec: ModelSpec
    gpus: int
    usable: int
    sequence_tokens: int
    dtype: str
    counts: Counts
    layouts: tuple[Layout, ...]
    sampling: int

    @property
    def step_tokens(self) -> int:
        """Tokens of a step of one sequence per GPU."""
        return self.gpus * self.sequence_tokens

    def fits(self, layout: Layout, *, recompute: bool) -> bool:
        """Whether a GPU has room for it."""
        return layout.total(recompute=recompute) <= self.usable

    @property
    def fitting(self) -> tuple[Layout, ...]:
        """Those that fit at least with recompute, least memory first."""
        found = [layout for layout in self.layouts if self.fits(layout, recompute=True)]
        return tuple(sorted(found, key=lambda layout: layout.total(recompute=True)))


def plan(
    spec: ModelSpec,
    gpus: int,
    *,
    gpu_memory_gib: float = 80.0,
    sequence_tokens: int = 8192,
    expert_ranks: int | None = None,
    dtype: str = "bfloat16",
) -> Plan:
    """The plan, whether anything fits or not.

    Args:
        expert_ranks: only this `ep`; otherwise every divisor of GPUs and experts, up to 64.

    Raises:
        InputError: `expert_ranks` that divides not both the GPUs and the experts.
    """
    if expert_ranks is not None and (gpus % expert_ranks or spec.experts % expert_ranks):
        fine = ", ".join(str(ep) for ep in _divisors(gpus, spec.experts))
        raise InputError(f"--ep {expert_ranks} does not divide both {gpus} GPUs and {spec.experts} experts", hint=f"there are: {fine}")
    choices = [expert_ranks] if expert_ranks is not None else _divisors(gpus, spec.experts)
    counts, element_bytes = count(spec), ELEMENT_BYTES[dtype]
    return Plan(
        spec=spec,
        gpus=gpus,
        usable=int(gpu_memory_gib * GIB * (1 - RESERVE)),
        sequence_tokens=sequence_tokens,
        dtype=dtype,
        counts=counts,
        layouts=tuple(_layout(spec, counts, gpus // ep, ep, sequence_tokens, element_bytes) for ep in choices),
        sampling=sampling_bytes(spec, sequence_tokens, element_bytes),
    )


def refuse_unfitting(made: Plan) -> None:
    """Nothing if a layout fits. Raises MicroturnError that says what would."""
    if made.fitting:
        return
    gib = made.usable / (1 - RESERVE) / GIB
    best = min(made.layouts, key=lambda layout: layout.total(recompute=True))
    message = (
        f"nothing fits on {made.gpus} GPUs of {gib:g} GiB: the least is {best.total(recompute=True) / GIB:.1f} GiB a GPU"
        f" (fsdp {best.fsdp}, ep {best.ep}, recompute), {made.usable / GIB:.1f} are usable"
    )
    fewest = least_gpus(made, gib)
    if fewest is not None:
        layout = fewest.fitting[0]
        raise MicroturnError(message, hint=f"--gpus {fewest.gpus} would do, as fsdp {layout.fsdp} × ep {layout.ep} with recompute")
    raise MicroturnError(message, hint="more GPUs do not help: choose a smaller --sequence-tokens, or GPUs with more memory")


def least_gpus(made: Plan, gpu_memory_gib: float) -> Plan | None:
    """The plan of the fewest GPUs that hold the model: one machine's 1, 2, 4, 8, then multiples of 8. None if no number does."""
    tried: Sequence[int] = (1, 2, 4, *range(8, 4096, 8), *(2**power for power in range(12, MAX_GPUS.bit_length())))
    for gpus in (gpus for gpus in tried if gpus > made.gpus):
        other = plan(made.spec, gpus, gpu_memory_gib=gpu_memory_gib, sequence_tokens=made.sequence_tokens, dtype=made.dtype)
        if other.fitting:
            return other
    return None


def _divisors(gpus: int, experts: int) -> list[int]:
    return [ep for ep in range(1, MAX_EXPERT_RANKS + 1) if gpus % ep == 0 and experts % ep == 0]


def _layout(spec: ModelSpec, counts: Counts, fsdp: int, ep: int, rows: int, element_bytes: int) -> Layout:
    gpus = fsdp * ep
    mixtures = max(spec.layers - spec.dense_layers, 1)
    dense = counts.total - counts.routed
    in_fp32 = counts.router + counts.convolutions + counts.flow
    table = spec.vocabulary * spec.hidden
    embedding = table + counts.heard + counts.own + counts.patches
    of_blocks = counts.attention + counts.norms + counts.dense + counts.shared
    experts = counts.routed // mixtures // ep  # of one layer, after its rows have travelled
    block = of_blocks // spec.layers + experts
    if spec.dense_layers:
        block = max(block, of_blocks // spec.layers + counts.dense // spec.dense_layers)
    if gpus == 1:
        gathered = 0 if element_bytes == FP32 else (counts.total - in_fp32) * element_bytes
        reducing = 0
    else:
        gathered = (2 * block + table) * element_bytes + (counts.flow + 2 * (counts.router + counts.convolutions) // spec.layers) * FP32
        reducing = max(block, embedding) * (element_bytes + FP32)
    share = (gpus - 1) / gpus, (fsdp - 1) / fsdp, (ep - 1) / ep
    pairs = rows * spec.experts_per_row * (spec.layers - spec.dense_layers)
    return Layout(
        fsdp=fsdp,
        ep=ep,
        masters=-(-counts.total * FP32 // gpus),
        gradients=-(-counts.total * FP32 // gpus),
        moments=-(-counts.total * 2 * FP32 // gpus),
        gathered=gathered,
        reducing=reducing,
        activations=kept(spec, rows, element_bytes, recompute=False, travelling=ep > 1),
        recomputed=kept(spec, rows, element_bytes, recompute=True, travelling=ep > 1),
        gathers=int(
            share[0] * 2 * ((dense - in_fp32) * element_bytes + (in_fp32 + FLOW_DRAWS * counts.flow) * FP32)
            + share[1] * 2 * counts.routed / ep * element_bytes
        ),
        reduces=int(share[0] * (dense + FLOW_DRAWS * counts.flow) * FP32 + share[1] * counts.routed / ep * FP32),
        travels=int(share[2] * 6 * pairs * spec.hidden * element_bytes),
    )
