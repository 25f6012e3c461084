"""The ordinary ways to compute, each of which must break law 3. If one of them stops breaking it, the law's own tests have lost their
teeth.
"""

import torch
import torch.nn.functional as F
from microturn.kernels import activations, attention, combine, expert_places, fresh_table, lay_out, linear, ragged, route
from tensors import randn, rows_that_differ, same_bits


def test_plain_linear_of_one_row_breaks_it():
    x, w = randn(1, 64, 256), randn(2, 128, 256)
    one_by_one = torch.cat([F.linear(row[None], w) for row in x])
    assert rows_that_differ(F.linear(x, w), one_by_one) > 32
    assert rows_that_differ(linear(x, w), torch.cat([linear(row[None], w) for row in x])) == 0


def test_the_tail_of_plain_silu_breaks_it():
    x = randn(3, 4096) * 4
    pieces = [x[start : start + 3] for start in range(0, 4000, 3)]
    assert not same_bits(F.silu(x)[:4002], torch.cat([F.silu(piece) for piece in pieces]))
    assert same_bits(activations.silu(x)[:4002], torch.cat([activations.silu(piece) for piece in pieces]))


def blocked(q_TD, k_TD, v_TD, start: int):
    """Causal online softmax over blocks of 64 rows of a packed buffer, for the document that begins at row `start` of it."""
    num_rows, out = k_TD.shape[0], []
    for t in range(start, num_rows):
        top, total, y = torch.tensor(-1e30), torch.zeros(()), torch.zeros(k_TD.shape[1])
        for block in range(start // 64 * 64, t + 1, 64):
            rows = slice(max(block, start), min(block + 64, t + 1))
            scores = F.pad(k_TD[rows] @ q_TD[t], (rows.start - block, block + 64 - rows.stop), value=float("-inf"))
            new_top = torch.maximum(top, scores.max())
            weights, shrink = torch.exp(scores - new_top), torch.exp(top - new_top)
            total, top = total * shrink + weights.sum(), new_top
            y = y * shrink + F.pad(v_TD[rows], (0, 0, rows.start - block, block + 64 - rows.stop)).T @ weights
        out.append(y / total)
    return torch.stack(out)


def test_attention_anchored_at_the_buffer_breaks_it():
    first, second = randn(1, 3, 37, 16), randn(2, 3, 150, 16)
    alone, packed = blocked(*second, 0), blocked(*torch.cat([first, second], 1), 37)
    assert rows_that_differ(alone, packed) > 75
    q, k, v = (torch.cat([a, b])[:, None] for a, b in zip(first, second, strict=True))
    r, p = torch.zeros(187, 1, 1), torch.zeros(1, 1)
    tables = fresh_table(ragged([37, 150])), fresh_table(ragged([150]))
    both = attention(q, lay_out(k, tables[0]), lay_out(v, tables[0]), r, p, tables[0], scale=1.0, window=None)
    single = attention(q[37:], lay_out(k[37:], tables[1]), lay_out(v[37:], tables[1]), r[37:], p, tables[1], scale=1.0, window=None)
    assert same_bits(both[37:], single)


def test_plain_attention_of_one_new_row_breaks_it():
    q, k, v = randn(1, 3, 1, 2, 200, 64)
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)
    steps = [F.scaled_dot_product_attention(q[..., t : t + 1, :], k[..., : t + 1, :], v[..., : t + 1, :])[0, :, 0] for t in range(200)]
    assert rows_that_differ(whole, torch.stack(steps)) > 50


def test_adding_experts_in_order_of_arrival_breaks_it():
    y, weights, tokens = randn(1, 240, 32), randn(2, 40, 6), torch.arange(40).repeat_interleave(6)
    terms = y * weights.flatten()[:, None]
    shuffled = torch.randperm(240, generator=torch.Generator().manual_seed(3))
    arrivals = [torch.zeros(40, 32).index_add_(0, tokens[order], terms[order]) for order in (torch.arange(240), shuffled)]
    assert rows_that_differ(*arrivals) > 20
    chosen = torch.stack([torch.randperm(8, generator=torch.Generator().manual_seed(t))[:6] for t in range(40)])
    alone = [combine(*placed(chosen[t : t + 1], y[6 * t : 6 * t + 6], weights[t : t + 1])) for t in range(40)]
    assert same_bits(combine(*placed(chosen, y, weights)), torch.cat(alone))


def placed(chosen, y_RN, weights):
    """Results of (token, slot) pairs where `expert_places` says they stand."""
    places = expert_places(chosen, 8)
    y_PN = torch.full((places.starts[-1], y_RN.shape[1]), float("nan"))
    y_PN[places.place_Tk.flatten()] = y_RN
    return y_PN, weights, places


def test_a_capacity_breaks_it():
    """A token whose expert is full goes without, so what it gets depends on who came before it."""
    logits = randn(1, 64, 8)
    chosen = route(logits, torch.zeros(8), 2, 1.0)[0]

    def kept(chosen_Tk, capacity=8):
        hot = F.one_hot(chosen_Tk.flatten(), 8)
        return ((hot.cumsum(0) * hot).sum(-1) <= capacity).view_as(chosen_Tk)

    assert not torch.equal(kept(chosen)[40:], kept(chosen[40:]))


def test_topk_does_not_order_ties_by_index():
    scores = torch.zeros(1, 64)
    assert torch.topk(scores, 6).indices.tolist() != [[0, 1, 2, 3, 4, 5]]
    assert route(scores, torch.zeros(64), 6, 1.0)[0].tolist() == [[0, 1, 2, 3, 4, 5]]
