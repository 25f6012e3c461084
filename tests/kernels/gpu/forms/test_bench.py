"""What the bench would time beside each other computes the same."""

import torch
from microturn.kernels.gpu import bench

SMALL = bench.Sizes(width=80, vocabulary=300, heads=4, kv_heads=2, head_dim=16, extent=20, seen=70, experts=8, expert_width=24)


def test_ours_and_torchs_agree():
    for dtype, tolerance in bench.TOLERANCE.items():
        pairs = bench.cases(3, dtype, SMALL).items()
        far = {name: bench.difference(ours(), torchs()) for name, (ours, torchs) in pairs}
        assert len(far) >= 10 and {name: error for name, error in far.items() if not error < tolerance} == {}, dtype
        assert bench.difference(torch.ones(3), torch.zeros(3) + 0.9) > tolerance
