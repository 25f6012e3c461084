"""`microturn export`: a run's weights come out as they are."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from microturn.schemas.errors import InputError
from microturn.trainer.exchange import load, load_plain
from microturn.trainer.exchange.command import export_command
from microturn.trainer.train.trained import trained
from runs import config, go
from tensors import same_bits, threads


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a tiny model."""
    at = tmp_path_factory.mktemp("runs") / "run"
    with threads(1):
        go(at, config(folder, 2))
    return at


@pytest.mark.parametrize("form, reads", [("inkling", load), ("safetensors", load_plain)])
def test_a_runs_weights_come_out_as_they_are(run, tmp_path, form, reads):
    result = CliRunner().invoke(export_command, [str(run), str(tmp_path / "out"), "--format", form])
    assert result.exit_code == 0, result.output
    opened, known = reads(tmp_path / "out"), trained(run)
    weights = known.model.state_dict()
    assert (opened.spec, opened.layout) == (known.spec.model, known.layout) and "step 2 of" in result.stderr
    (model,) = (tmp_path / "out").glob("model.safetensors")
    assert model.stat().st_mode == (tmp_path / "out/microturn.json").stat().st_mode  # others may read the one as the other
    assert set(opened.weights) == set(weights) and all(same_bits(opened.weights[name], weights[name]) for name in weights)


def test_bf16_is_half_as_large(run, tmp_path):
    """All but what stays fp32."""
    for dtype in ("float32", "bfloat16"):
        assert CliRunner().invoke(export_command, [str(run), str(tmp_path / dtype), "--dtype", dtype]).exit_code == 0
    wide, narrow = ((tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float32", "bfloat16"))
    assert 0.5 < narrow / wide < 0.55 and load(tmp_path / "bfloat16").weights["norm.weight"].dtype == torch.bfloat16


def test_no_run_and_a_full_folder_are_refused(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("something")
    for given in ([str(run), str(tmp_path / "full")], [str(tmp_path / "none"), str(tmp_path / "out")]):
        assert isinstance(CliRunner().invoke(export_command, given).exception, InputError)
    assert not (tmp_path / "out").exists() and [at.name for at in (tmp_path / "full").iterdir()] == ["a"]
