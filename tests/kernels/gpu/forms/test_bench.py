"""What the bench would time beside each other computes the same."""

import torch
from microturn.kernels.gpu import bench


def test_ours_and_torchs_agree():
    for dtype, tolerance in bench.TOLERANCE.items():
        pairs = bench.cases(3, dtype, width=80, vocabulary=300).items()
        far = {name: bench.difference(ours(), torchs()) for name, (ours, torchs) in pairs}
        assert len(far) >= 8 and {name: error for name, error in far.items() if not error < tolerance} == {}, dtype
        assert bench.difference(torch.ones(3), torch.zeros(3) + 0.9) > tolerance
