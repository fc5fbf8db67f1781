"""The notebook, cell by cell, as it is shown."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
pytest.importorskip("matplotlib", reason="Matplotlib is not installed: pip install matplotlib")

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "own_penalty.ipynb"


def test_the_notebook_runs_and_its_penalty_helps() -> None:
    os.environ["MPLBACKEND"] = "Agg"
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "cells are kept without their outputs"
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)  # noqa: S102
    plain, worst = names["accuracy"].values()
    assert plain[0] > 0.9
    assert worst[0] > 0.9
    assert worst[2] > plain[2] + 0.1
    figure = names["plt"].gcf()
    assert len(figure.axes[0].lines) == 2
