"""Make the API reference from docstrings: `python tests/docs/api_reference.py out/api`.

Packages load their public names on first use, which a reference would not see: they are loaded
first. Modules and names that begin with an underscore, and tests' own models, are left out.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pdoc
import pdoc.render

import repsim

#: Modules that are no reference: they run when imported as programs, or hold data.
LEFT_OUT = ("__main__", "templates")


def modules(package: ModuleType) -> Iterator[ModuleType]:
    """A package and everything below it, with its public names in place."""
    for name in getattr(package, "__all__", ()):
        setattr(package, name, getattr(package, name))
    yield package
    for found in pkgutil.iter_modules(getattr(package, "__path__", ())):
        if not found.name.startswith("_") and found.name not in LEFT_OUT:
            yield from modules(importlib.import_module(f"{package.__name__}.{found.name}"))


def write_reference(folder: Path, package: ModuleType = repsim) -> list[str]:
    """Write one page per module.

    Args:
        folder: Where to.
        package: What to describe.

    Returns:
        Names of the modules.
    """
    names = [module.__name__ for module in modules(package)]
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(*names, output_directory=folder)
    return names


if __name__ == "__main__":
    target = Path(sys.argv[1])
    click.echo(f"{len(write_reference(target))} modules: {target / 'index.html'}")
