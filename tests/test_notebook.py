"""The notebook of the examples runs from top to bottom, and says what it claims."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; the extra `dev` has it")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel", reason="ipykernel is not installed; the extra `dev` has it")
pytest.importorskip("matplotlib", reason="matplotlib is not installed; the extra `plot` has it")

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.filterwarnings("ignore")  # of Jupyter
def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [cell.outputs for cell in book.cells if cell.cell_type == "code"]
    assert [sum("image/png" in one.get("data", {}) for one in cell) for cell in outputs] == [0, 1, 1, 3, 0, 1, 0, 0]
    (skipped,) = outputs[4]
    words = " ".join(skipped.data["text/plain"].split())
    assert words == "([0, 2], {1: 'box 600,600,700,700 lies outside the photo; the photo is 512x512 pixels'})"
