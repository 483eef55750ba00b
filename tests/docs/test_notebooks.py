"""The notebooks run from top to bottom with nothing but the package, and say what is stored."""

import base64
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
sys.path.insert(0, str(FOLDER))
from store_outputs import differences, executed  # noqa: E402


def test_they_are_numbered() -> None:
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stored_and_small(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        if cell.cell_type == "code":
            shown = [output.get("data", {}) for output in cell.outputs]
            pictures = [data["image/png"] for data in shown if "image/png" in data]
            assert all(len(base64.b64decode(picture)) < 100_000 for picture in pictures)
            drawn = re.search(r"^(FIGURES\[|\w+\.plot\.)", cell.source, re.MULTILINE)
            assert bool(pictures) == bool(drawn), cell.source
            assert not any(output.get("name") == "stderr" for output in cell.outputs)
    assert any(cell.cell_type == "code" and cell.outputs for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_is_stored(
    path: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One cache for all of them, as on a machine where they are read one after another.
    shared = tmp_path_factory.getbasetemp().parent / "notebooks-cache"
    monkeypatch.setenv("REPSIM_CACHE", str(shared))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("REPSIM_MULTIMERGE", raising=False)
    fresh = executed(path, tmp_path)
    assert not differences(nbformat.read(path, as_version=4), fresh)
