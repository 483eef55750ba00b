"""What a result depends on: versions, device, seeds, the code's own state."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "pyarrow")
DISTRIBUTION = "repsim-lm"
#: Absolute paths in a text: a slash (or ~/) that nothing precedes, and at least two parts.
_ABSOLUTE = re.compile(r"(?<![\w:./~-])~?/[^\s/'\",=\[\]]+(?:/[^\s/'\",=\[\]]+)+")


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, None if it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that move numbers."""
    found = {"python": platform.python_version(), "repsim": version_of(DISTRIBUTION) or "source"}
    return found | {name: v for name in LIBRARIES if (v := version_of(name))}


def git_revision() -> str | None:
    """Commit of the source checkout (with "+" if it is modified), None when installed elsewhere."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(here)]
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        status = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if status.strip() else "")


def shown_path(path: str) -> str:
    """A path as pages state it: relative to the working folder, or its last part."""
    if not path.startswith(("/", "~")) and not Path(path).is_absolute():
        return path
    full = Path(path).expanduser()
    below = full.is_relative_to(Path.cwd())
    return str(full.relative_to(Path.cwd())) if below and full != Path.cwd() else full.name


def shown_text(text: str) -> str:
    """Text in which absolute paths are shortened as by `shown_path`."""
    return _ABSOLUTE.sub(lambda found: shown_path(found[0]), text)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def environment() -> dict[str, Any]:
    """What a manifest states of the machine and the code (no user or host names)."""
    return {
        "versions": versions(),
        "git": git_revision(),
        "platform": f"{platform.system()} {platform.machine()}",
        "command": shown_text(" ".join(["repsim", *sys.argv[1:]])),
    }
