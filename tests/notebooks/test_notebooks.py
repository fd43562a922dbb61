"""The notebooks run from top to bottom, each on the store that the one before has left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient, see the extra test")
nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = ("01_ingest", "02_quality_and_pca", "03_fit", "04_explore")


def run(name: str, folder: Path) -> None:
    """Run a notebook in a folder; an error in a cell is an error here."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"], outputs
    assert [o for o in outputs if o.output_type in ("display_data", "execute_result")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zmq.*", "ignore::DeprecationWarning")
def test_notebooks__run_in_their_order(tmp_path):
    for name in NAMES:
        run(name, tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook__is_committed_without_outputs(path):
    assert path.stem in NAMES
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
