"""Execute notebooks and store their outputs: python notebooks/store_outputs.py [NOTEBOOK ...].

The tests execute them again and hold fresh outputs against the stored ones (`differences`).
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nbclient
import nbformat

FOLDER = Path(__file__).parent
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def executed(path: Path, folder: Path) -> Any:
    """The notebook with fresh outputs, run inside a folder; a cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the kernel's transport, not of the notebook
        client = nbclient.NotebookClient(notebook, timeout=1800, coalesce_streams=True)
        client.execute(cwd=str(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":  # warnings of other packages name paths of one machine
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def said(cell: Any) -> str:
    """All that a cell printed, and the plain form of its value; of others that they are there."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        kind = next((kind for kind in ("image/png", "text/html") if kind in data), None)
        texts.append(kind or output.get("text") or data.get("text/plain", ""))
    return "\n".join(texts)


def differences(stored: Any, fresh: Any, tolerance: float = 0.06) -> list[str]:
    """Cells whose words or pictures differ, or whose numbers differ by more than `tolerance`.

    A cell with the tag "optional" shows what is not everywhere (models that are fetched): it is
    not compared.
    """
    found = []
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        before, after = said(old), said(new)
        words = [" ".join(NUMBER.sub("#", text).split()) for text in (before, after)]
        numbers = [[float(one) for one in NUMBER.findall(text)] for text in (before, after)]
        near = words[0] == words[1] and all(
            abs(a - b) <= tolerance * max(1.0, abs(a)) for a, b in zip(*numbers, strict=True)
        )
        if not near and "optional" not in old.metadata.get("tags", []):
            found.append(f"{old.source[:60]!r}: stored {before[:300]!r}, now {after[:300]!r}")
    return found


def small(picture: str) -> str:
    """A PNG, as base64, in 96 colours: a few tens of kB."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((860, 860))
    buffer = io.BytesIO()
    image.quantize(96, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main(names: list[str]) -> None:
    """Execute and store the notebooks that are named, or all of them."""
    for path in [Path(name) for name in names] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data:
                    output["data"] = {"image/png": small(data["image/png"])}
        nbformat.write(notebook, path)
        print(path.name, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
