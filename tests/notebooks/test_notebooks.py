"""The notebooks run from top to bottom, each on the store that the one before has left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.small import SMALL

nbclient = pytest.importorskip("nbclient", reason="needs nbclient, see the extra test")
nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = (
    "01_ingest", "02_quality_and_pca", "03_fit", "04_groups", "05_apply", "06_cluster_and_s3",
    "07_explore",
)  # fmt: skip
LEFT_TO_FULL_RUNS = ("04_groups", "05_apply", "06_cluster_and_s3")


# What takes long, and what a run that is not full has in its place.
SMALLER = {
    "n_animals=3, n_frames=1_800": "n_animals=1, n_frames=600",
    "ar_sweeps=20, sweeps=30": ", ".join(f"{name}={vars(SMALL)[name]!r}" for name in SMALL.given),
}


def run(notebook: Any, folder: Path) -> None:
    """Run a notebook in a folder; an error in a cell is an error here."""
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"], outputs
    assert [o for o in outputs if o.output_type in ("display_data", "execute_result")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zmq.*", "ignore::DeprecationWarning")
def test_notebooks__run_in_their_order(tmp_path, full):
    names = [name for name in NAMES if full or name not in LEFT_TO_FULL_RUNS]
    notebooks = [nbformat.read(FOLDER / f"{name}.ipynb", as_version=4) for name in names]
    if not full:  # one process, which forgets every name after each notebook
        forget = nbformat.v4.new_code_cell
        cells = [cell for one in notebooks for cell in (*one.cells, forget("%reset -f"))]
        cells = [cell for cell in cells if "agreed" not in cell.source]  # ensembles take long
        for long, short in SMALLER.items():
            assert any(long in cell.source for cell in cells)
            for cell in cells:
                cell.source = cell.source.replace(long, short)
        notebooks = [nbformat.v4.new_notebook(cells=cells)]
    for notebook in notebooks:
        run(notebook, tmp_path)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook__is_committed_without_outputs(path):
    assert path.stem in NAMES
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
