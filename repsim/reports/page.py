"""One writer of pages: HTML in one file, Markdown, JSON, and beside them figures and tables."""

from __future__ import annotations

import base64
import dataclasses
import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import UsageError
from repsim.core.files import write_json, write_text
from repsim.core.formatting import markdown_text, singular
from repsim.reports.blocks import (
    Block,
    Details,
    FigureBlock,
    Items,
    Page,
    Picture,
    Section,
    TableBlock,
    heading_of,
)
from repsim.reports.tables import cell, exact, markdown_table, write_table

#: A page above this size crashes mail programs and slow browsers.
MAX_BYTES = 3_000_000
#: Figures above this size are shown as PNG.
MAX_VECTOR = 250_000
_MIME = {".svg": "image/svg+xml", ".png": "image/png"}


def write_page(page: Page, folder: str | Path) -> Path:
    """Write a report: `report.html` (its path is returned), `.md`, `.json`, `figures/`, `tables/`.

    The page is a single file: it opens from disk, needs no network and no JavaScript (with it,
    tables are sorted, filtered and copied), prints, and stays under 3 MB: the last figures are left
    out of it, and named, if it would grow too large; so are figures that cannot be drawn.

    Example:
        >>> import tempfile
        >>> from repsim.reports import Page, Section, Text, write_page
        >>> page = Page("Two models", [Section("Found", [Text("They are alike.")])])
        >>> write_page(page, tempfile.mkdtemp()).name
        'report.html'
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    shown = [_drawn(section, target / "figures") for section in page.blocks if section.blocks]
    page = dataclasses.replace(page, blocks=shown)
    for block in _walk(page.blocks):
        if isinstance(block, TableBlock) and block.name:
            write_table(block, target / "tables")
    for name, table in page.beside.items():
        table.save(target / "tables" / f"{name}.csv")
    write_json(target / "report.json", as_document(page))
    write_text(target / "report.md", as_markdown(page))
    return write_text(target / "report.html", as_html(page, target))


def as_document(page: Page) -> dict[str, Any]:
    """A page as a JSON document: every block with its kind, tables with all their columns."""
    head = {"title": page.title, "kicker": page.kicker, "lead": page.lead, "facts": page.facts}
    return {"schema": "repsim/report/2", **head, "blocks": [_plain(b) for b in page.blocks]}


def as_html(page: Page, folder: Path) -> str:
    """A page as HTML that stands alone; pictures are read from the folder."""
    names = [block.name for block in _walk(page.blocks) if isinstance(block, Picture)]
    for kept in range(len(names), -1, -1):
        text = unbroken(_filled("page.html.j2", page, folder=folder, left_out=names[kept:]))
        if len(text.encode()) <= MAX_BYTES:
            break
    return text


def as_markdown(page: Page) -> str:
    """A page as Markdown; folded tables and figures are links to the files beside it."""
    text = singular(_filled("page.md.j2", page))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def unbroken(text: str) -> str:
    r"""Text in which one is no plural, and no line ends between a number and its percent sign."""
    return re.sub(r"(?<=\d) %", "\xa0%", singular(text))


def sentence(text: str) -> str:
    """Text with a capital at its beginning and a full stop at its end."""
    text = text.strip()
    if not text:
        return ""
    # A formula such as "tr(KL)" keeps its small letter.
    word = text.split()[0]
    start = text[0].upper() + text[1:] if word.isalpha() and len(word) > 3 else text
    return start if start.endswith((".", "!", "?")) else start + "."


def _drawn(section: Section, folder: Path) -> Section:
    """A section whose figures are drawn and saved, and those that cannot be are named."""
    from repsim.plots import FIGURES, save_figure
    from repsim.plots.drawing.hover import spots

    blocks: list[Block] = []
    missing: list[str] = []
    for block in section.blocks:
        if not isinstance(block, FigureBlock):
            blocks.append(block)
            continue
        try:
            spec = FIGURES[block.figure]
            info = spec.info(block.source, **block.options)
        except UsageError as reason:
            missing.append(f"{block.title}: {reason.what}.")
            continue
        drawing = spec.draw(info)
        files = save_figure(drawing, folder / block.name, ("png", "svg"))
        wide, tall = (72 * float(side) for side in drawing.get_size_inches())
        # Curves and small matrices follow the reader's colours; a cloud of points is too large.
        shown = next(path.name for path in (files[1], files[0])
                     if path.suffix == ".png" or path.stat().st_size <= MAX_VECTOR)  # fmt: skip
        caption = info.caption()
        blocks.append(
            Picture(block.name, block.title, caption, shown, (wide, tall), spots(drawing))
        )
    if missing:
        blocks.append(Details("Figures that these data do not allow", [Items(missing, "note")]))
    return dataclasses.replace(section, blocks=blocks)


def _walk(blocks: Sequence[Block]) -> Iterator[Block]:
    """Every block, those of sections and folded ones too."""
    for block in blocks:
        yield block
        if isinstance(block, Section | Details):
            yield from _walk(block.blocks)


def _plain(block: Block) -> dict[str, Any]:
    if isinstance(block, Section | Details):
        inner = [_plain(one) for one in block.blocks]
        return {"kind": block.kind, "title": block.title, "blocks": inner}
    if isinstance(block, TableBlock):
        rows = [{name: _finite(value) for name, value in row.items()} for row in block.rows]
        columns = {name: block.table.declared(name)._asdict() for name in block.table.COLUMNS}
        return {"kind": block.kind, "name": block.name, "title": block.title,
                "columns": columns, "shown": list(block.shown), "rows": rows}  # fmt: skip
    if isinstance(block, Picture):
        named = {name: getattr(block, name) for name in ("name", "title", "caption", "shown")}
        return {"kind": block.kind, **named}
    fields = dataclasses.asdict(block)
    if "entries" in fields:
        fields["entries"] = [entry._asdict() for entry in fields["entries"]]
    return {"kind": block.kind, **fields}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return cell(value) if isinstance(value, float) and math.isinf(value) else value


def _filled(template: str, page: Page, **context: Any) -> str:
    """A template of this package, filled; a name that it lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("repsim.reports"), autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip

    def data(name: str) -> str:
        path = context["folder"] / "figures" / name
        return f"data:{_MIME[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    def code(text: str) -> Markup:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)))

    environment.filters |= {
        "cell": cell, "code": code, "data": data, "heading": heading_of, "plain": markdown_text,
        "markdown_table": markdown_table, "anchor": _anchor, "exact": exact,
        "target": lambda block: _anchor(f"{block.kind} {block.name} {block.title}"),
    }  # fmt: skip
    return environment.get_template(template).render(page=page, **context)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower()).strip("-")
