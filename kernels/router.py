"""Which experts a row goes to, and with what weights. Everything about a row depends on that row alone.

    scores  = sigmoid(routed logits) + bias            the bias chooses, it never weighs
    chosen  = the k largest, ties to the smaller index  (torch's topk does not keep the order of ties)
    weights = softmax(log sigmoid of [chosen logits, shared logits]) · route_scale · global_scale

There is no capacity: no row is ever dropped because of others. Logits are fp32 and come from `linear` of fp32 rows and weights.
Source: transformers.models.inkling `InklingTopkRouter`. The Triton form is gpu/router.py.

Letters: T rows, E routed experts, S shared experts, k chosen.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .activations import log_sigmoid, sigmoid
from .dispatch import by_triton


def naive_route(
    logits_TE: Tensor, bias_E: Tensor, top_k: int, route_scale: float, global_scale: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """What `route` returns, by a stable sort and torch's own functions, in float64."""
    num_routed = bias_E.shape[0]
    logits_TE = logits_TE.double()
    chosen_Tk = torch.sort(torch.sigmoid(logits_TE[:, :num_routed]) + bias_E, dim=-1, descending=True, stable=True).indices[:, :top_k]
    picked = torch.cat([logits_TE.gather(-1, chosen_Tk), logits_TE[:, num_routed:]], -1)
    return chosen_Tk, torch.softmax(torch.nn.functional.logsigmoid(picked), -1) * route_scale * global_scale


def route(logits_TE: Tensor, bias_E: Tensor, top_k: int, route_scale: float, global_scale: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """The chosen experts, int64 [T, k] from best to worst, and the weights, fp32 [T, k + S], of these and then of the shared experts.

    Args:
        logits_TE: fp32 [T, E + S], the shared experts' last.
        bias_E: fp32 [E], added to the scores for the choice only.
        global_scale: the learned scalar, fp32 [1].

    Raises:
        ValueError: logits that are not fp32 or have fewer columns than the bias, or more chosen than there are.
    """
    on_gpu = by_triton("route", logits_TE, bias_E)
    num_routed = bias_E.shape[0]
    if logits_TE.dtype != torch.float32 or logits_TE.ndim != 2 or logits_TE.shape[1] < num_routed or not 0 < top_k <= num_routed:
        raise ValueError(
            f"route takes fp32 logits [T, E + S] and chooses 1 to E of them, not {top_k} of {num_routed} from {logits_TE.dtype}"
            f" {tuple(logits_TE.shape)}"
        )
    if on_gpu:
        chosen_Tk, weights_Tk = _Route.apply(logits_TE, bias_E, top_k)
        return chosen_Tk, weights_Tk * route_scale * global_scale
    routed_TE, shared_TS = logits_TE[:, :num_routed], logits_TE[:, num_routed:]
    with torch.no_grad():
        chosen_Tk = largest(sigmoid(routed_TE) + bias_E, top_k)
    picked = torch.cat([routed_TE.gather(-1, chosen_Tk), shared_TS], -1)
    return chosen_Tk, torch.softmax(log_sigmoid(picked), -1) * route_scale * global_scale


def largest(scores_TE: Tensor, count: int) -> Tensor:
    """The indices, int64 [T, count], of each row's largest scores from large to small, equal ones by index. Scores are finite.

    Rounds of argmax, which promises the first of equals: 3 to 10 times as fast as a stable sort for the few experts of small models.
    """
    left_TE = scores_TE.clone()
    indices = []
    for _ in range(count):
        best_T1 = left_TE.argmax(-1, keepdim=True)
        left_TE.scatter_(-1, best_T1, float("-inf"))
        indices.append(best_T1)
    return torch.cat(indices, -1)


class _Route(Function):
    """The Triton form's: the choice, and the weights before any scale. On the CPU torch has its own."""

    @staticmethod
    def forward(ctx, logits_TE: Tensor, bias_E: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        from .gpu import router as triton_form

        chosen_Tk, weights_Tk = triton_form.route(logits_TE, bias_E, top_k)
        ctx.save_for_backward(logits_TE, chosen_Tk)
        ctx.mark_non_differentiable(chosen_Tk)
        return chosen_Tk, weights_Tk

    @staticmethod
    @once_differentiable
    def backward(ctx, _: Tensor, d_weights_Tk: Tensor) -> tuple[Tensor, None, None]:
        from .gpu import router as triton_form

        return triton_form.route_dx(d_weights_Tk, *ctx.saved_tensors), None, None
