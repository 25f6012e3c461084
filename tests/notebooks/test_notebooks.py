"""The notebooks: they run, they assert what they claim, and they are kept without outputs."""

from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
MAX_LINES = 10


def read(path):
    return nbformat.read(path, as_version=4)


def test_there_is_a_notebook():
    assert [path.name for path in NOTEBOOKS][:1] == ["01-one-recording-to-micro-turns.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None and not cell.metadata for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_prose_comes_before_each_cell_of_at_most_ten_lines(path):
    cells = read(path).cells
    assert cells[0].cell_type == "markdown" and "You will be able to see" in cells[0].source
    for before, cell in pairwise(cells):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", cell.source
            assert sum(bool(line.strip()) for line in cell.source.splitlines()) <= MAX_LINES, cell.source
    assert "assert " in cells[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_what_it_claims_holds(path, tmp_path):
    notebook = read(path)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert any("<audio" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert outputs[-1].text == "all of it holds\n"
