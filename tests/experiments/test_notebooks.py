"""The notebooks run, with fewer epochs and samples, and the committed ones have outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "experiments/notebooks").glob("*.ipynb"))


def test_both_notebooks_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["extend", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    committed = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert path.stat().st_size < 400_000
    assert any(cell.outputs for cell in committed), "committed without outputs"
    for cell in committed:
        assert not any(output.output_type == "error" for output in cell.outputs)
        for many, few in (("epochs=20", "epochs=1"), ("epochs=60", "epochs=1"), ("samples=500", "samples=5")):
            cell.source = cell.source.replace(many, few)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for cell in committed for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == (3 if path.stem == "quickstart" else 0)
