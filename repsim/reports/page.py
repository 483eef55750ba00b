"""What the pages of all reports share: pictures, filled templates, a size that can be mailed."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from repsim.core.errors import UsageError
from repsim.core.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A page above this size crashes mail programs and slow browsers.
MAX_BYTES = 3_000_000
_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


class Prepared(Protocol):
    """The numbers of a figure."""

    def caption(self) -> str:
        """What, n, interval, how to read it."""
        ...


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A figure that a report would like to show.

    Attributes:
        name: Stem of its files.
        title: Heading in the page.
        vector: Whether the page holds it as SVG (curves) or as PNG (many points).
        make: Gives its numbers and the drawing; raises UsageError if there is nothing to show.
    """

    name: str
    title: str
    vector: bool
    make: Callable[[], tuple[Prepared, Figure]]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One figure of a report.

    Attributes:
        title: Heading in the page.
        caption: What, n, interval, how to read it; also the alternative text.
        paths: The files that were written, PNG first.
        data_uri: The picture itself for the single-file page.
    """

    title: str
    caption: str
    paths: tuple[Path, ...]
    data_uri: str


def draw_pictures(wanted: Iterable[Wanted], folder: Path) -> tuple[list[Picture], list[str]]:
    """Draw every figure for which there are numbers and save it as PNG and SVG.

    Args:
        wanted: Figures in the order of the page.
        folder: Where to write.

    Returns:
        The pictures, and for each figure that cannot be filled (one language has no language
        matrix) a sentence that says why it is not there.
    """
    from repsim.plots import save_figure

    pictures, missing = [], []
    for one in wanted:
        try:
            data, figure = one.make()
        except UsageError as reason:
            missing.append(f"{one.title}: {reason.what}.")
            continue
        png, svg = save_figure(figure, folder / one.name, ("png", "svg"))
        shown = as_data(svg if one.vector else png)
        pictures.append(Picture(one.title, data.caption(), (png, svg), shown))
    return pictures, missing


def as_data(path: Path) -> str:
    """A picture as the address of itself.

    Args:
        path: PNG or SVG.
    """
    return f"data:{_KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


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
    environment.filters["sentence"] = sentence
    return environment.get_template(template).render(content)


def unbroken(text: str) -> str:
    r"""Text in which no line ends between a number and its percent sign.

    Example:
        >>> unbroken("92 % of outcomes")
        '92\xa0% of outcomes'
    """
    return re.sub(r"(?<=\d) %", "\xa0%", text)


def sentence(text: str) -> str:
    """Text with a capital at its beginning and a full stop at its end.

    Example:
        >>> sentence("debiased as in the source"), sentence("tr(KL) over its norm.")
        ('Debiased as in the source.', 'tr(KL) over its norm.')
    """
    text = text.strip()
    if not text:
        return ""
    # A formula such as "tr(KL)" keeps its small letter.
    word = text.split()[0]
    start = text[0].upper() + text[1:] if word.isalpha() and len(word) > 3 else text
    return start if start.endswith((".", "!", "?")) else start + "."


def write_page(path: Path, template: str, content: dict[str, Any]) -> Path:
    """Write a page; the last pictures are left out, and named, if it would grow too large.

    Args:
        path: Where to.
        template: File in `repsim/reports/templates`.
        content: What the template shows, `pictures` among it.

    Returns:
        The path.
    """
    pictures: list[Picture] = list(content["pictures"])
    left_out: list[str] = []
    while True:
        shown = {**content, "pictures": pictures, "left_out": left_out}
        page = unbroken(filled(template, shown, escape=True))
        if len(page.encode()) <= MAX_BYTES or not pictures:
            return write_text(path, page)
        left_out.insert(0, pictures.pop().paths[0].name)
