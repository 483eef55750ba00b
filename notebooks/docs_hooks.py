"""Hook of mkdocs: files outside the pages' folder (figures, guides) that a page links to come along.

Pages link to them as they lie in the repository, so that they can be read there too; in the site
they lie below `repository/`, and links are turned there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def _outside(page: Path, link: str, docs: Path) -> Path | None:
    """The file of the repository that a link names, if it is none of the pages."""
    target = (page.parent / link).resolve()
    inside = target.is_relative_to(docs) or not target.is_relative_to(ROOT)
    return None if inside or not target.is_file() else target


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to, and what those link to in turn."""
    docs = Path(config.docs_dir)
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for _, link in LINK.findall(page.read_text(encoding="utf-8")):
            found = _outside(page, link, docs)
            if found is None:
                continue
            name = f"repository/{found.relative_to(ROOT).as_posix()}"
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(found)))
                if found.suffix == ".md":
                    waiting.append(found)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links that lead out of the pages' folder to the copies."""
    source = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent

    def turned(match: re.Match[str]) -> str:
        found = _outside(source, match[2], Path(config.docs_dir))
        if found is None:
            return match[0]
        copy = f"repository/{found.relative_to(ROOT).as_posix()}"
        return match[1] + Path(os.path.relpath(copy, here)).as_posix()

    return LINK.sub(turned, markdown)
