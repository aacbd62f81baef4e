"""docs/first_steps.ipynb runs from top to bottom in a real kernel."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_notebook_runs_top_to_bottom(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("SANBU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "first_steps.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    results = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = "\n".join(str(output.get("data", {}).get("text/plain", "")) for output in results)
    assert "Recipe 'gpt2', 60 steps" in texts and "Run('runs/text', gpt2, step 60" in texts
    assert "Focal(" in texts and any("image/png" in output.get("data", {}) for output in results)
