"""Bags of embeddings and the hMLP's folding: what they compute."""

import pytest
import torch
from microturn.kernels import bag, fold, stages
from microturn.kernels.bags import naive_bag
from tensors import close, randn


@pytest.mark.parametrize("columns", [80, 320])
def test_a_bag_is_the_sum_of_its_rows(columns):
    codes = torch.randint(0, 16, (23, columns), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    table = randn(2, columns * 16, 32).requires_grad_()
    y, wanted, dy = bag(codes, table), naive_bag(codes, table), randn(3, 23, 32)
    assert close(y, wanted, 1e-6)
    (got,), (want,) = torch.autograd.grad(y, table, dy), torch.autograd.grad(wanted, table, dy.double())
    assert close(got, want, 1e-6)


def test_a_bag_of_bfloat16_adds_in_fp32():
    codes, table = torch.full((1, 300), 1, dtype=torch.uint8), torch.full((600, 4), 1.0078125, dtype=torch.bfloat16)
    assert bag(codes, table).tolist() == [[302.0] * 4]  # 302.34 to the nearest bf16; adding in bf16 would stick at 256


def test_own_codes_read_the_rows_that_the_format_names():
    codes = torch.randint(0, 16, (1, 4, 80), generator=torch.Generator().manual_seed(1))
    table = torch.arange(4 * 80 * 16, dtype=torch.float32)[:, None]
    assert float(bag(codes.flatten(1), table)) == sum((80 * s + b) * 16 + int(codes[0, s, b]) for s in range(4) for b in range(80))


def test_a_code_beyond_its_levels_is_refused():
    with pytest.raises(ValueError, match="codes are 0 … 16, the table has 16 levels"):
        bag(torch.tensor([[0, 16]]), randn(1, 32, 4))
    with pytest.raises(ValueError, match="equally many levels"):
        bag(torch.zeros(1, 3, dtype=torch.uint8), randn(1, 32, 4))


def test_the_released_plan():
    """The stages and the 64.08M parameters of the released Inkling-Small, and the same rule with two layers."""
    widths = [(s.time_fold, s.side_fold, s.num_inputs, s.num_outputs) for s in stages(4, 4096)]
    assert widths == [(1, 5, 75, 128), (1, 2, 512, 320), (1, 4, 5120, 4800), (2, 1, 9600, 4096)]
    assert [(s.num_inputs, s.num_outputs) for s in stages(2, 128)] == [(300, 320), (10240, 128)]
    assert round(sum((s.num_inputs + 1) * s.num_outputs for s in stages(4, 4096)) / 1e6, 2) == 64.08  # with the norms' weights


def test_folding_moves_every_number_and_keeps_cells_together():
    x = torch.arange(2 * 2 * 4 * 6 * 3).view(2, 2, 4, 6, 3)
    y = fold(x, 2, 2)
    assert y.shape == (2, 1, 2, 3, 24)
    for t, row, column, channel in ((0, 0, 0, 0), (1, 1, 0, 2), (0, 1, 1, 1)):
        assert int(y[1, 0, 1, 2, ((t * 2 + row) * 2 + column) * 3 + channel]) == int(x[1, t, 2 + row, 4 + column, channel])
    assert sorted(y.flatten().tolist()) == sorted(x.flatten().tolist())


def test_a_patch_folds_to_one_row_by_its_plan():
    x = torch.zeros(3, 2, 40, 40, 3)
    for stage in stages(4, 64):
        x = fold(x, stage.time_fold, stage.side_fold)
        assert x.shape[-1] == stage.num_inputs
        x = torch.zeros(*x.shape[:-1], stage.num_outputs)
    assert x.shape == (3, 1, 1, 1, 64)


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match="cannot be folded"):
        fold(torch.zeros(1, 2, 40, 40, 3), 1, 3)
    with pytest.raises(ValueError, match="1 to 5 layers, not 6"):
        stages(6, 64)
