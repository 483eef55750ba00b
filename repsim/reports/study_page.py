"""The page of a study's report: templates filled, pictures written into it, its size kept small."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from repsim.core.files import write_text
from repsim.reports.build import MAX_BYTES
from repsim.reports.figures import Picture

_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def filled(template: str, content: dict[str, Any], *, escape: bool) -> str:
    """A template of this package, filled; a name that it lacks is an error.

    Args:
        template: File in `repsim/reports/templates`.
        content: What it shows.
        escape: Whether for HTML.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("repsim.reports"), autoescape=escape, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(template).render(content)


def as_data(path: Path) -> str:
    """A picture as the address of itself.

    Args:
        path: PNG or SVG.
    """
    return f"data:{_KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def write_study_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page; the last pictures are left out, and named, if it would grow too large.

    Args:
        path: Where to.
        content: What the template shows, `pictures` among it.

    Returns:
        The path.
    """
    pictures: list[Picture] = list(content["pictures"])
    left_out: list[str] = []
    while True:
        shown = {**content, "pictures": pictures, "left_out": left_out}
        page = filled("study.html.j2", shown, escape=True)
        if len(page.encode()) <= MAX_BYTES or not pictures:
            break
        left_out.insert(0, pictures.pop().paths[0].name)
    write_text(path, page)
    return path
