"""Errors that a user can act on: what happened, why, and what to do.

Every error that the toolkit raises on purpose is a `RepsimError`. The command line prints it
without a traceback and leaves with its `exit_code`; the codes are part of the interface.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class RepsimError(Exception):
    """Base of all expected errors.

    Args:
        what: What happened, with the offending value.
        hint: What the user can do about it, ideally the next command.

    Example:
        >>> error = InputError("corpus file 'a.tsv' is empty", hint="check the path")
        >>> error.exit_code, str(error)
        (3, "corpus file 'a.tsv' is empty (hint: check the path)")
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} (hint: {self.hint})" if self.hint else self.what


class UsageError(RepsimError):
    """An option or argument has a value that is not possible (exit code 2)."""

    exit_code = 2


class InputError(RepsimError):
    """A file, corpus, table or array is missing or malformed (exit code 3)."""

    exit_code = 3


class IncompatibleModelsError(RepsimError):
    """Models do not fit each other, or have no known architecture (exit code 4)."""

    exit_code = 4


class ResourceError(RepsimError):
    """Memory, disk or device ran out or is not there (exit code 5)."""

    exit_code = 5


class GateFailedError(RepsimError):
    """A gate that the user asked for was not passed (exit code 10)."""

    exit_code = 10


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, see: str | None = None
) -> UsageError:
    """The error for a name that is not registered, with the nearest known ones.

    Args:
        kind: What was looked up, singular ("measure").
        name: What the user wrote.
        known: The names that exist.
        see: A command that lists them.

    Example:
        >>> str(unknown_name("measure", "ckaa", ["cka", "rsa"]))
        "unknown measure 'ckaa' (hint: did you mean 'cka'?)"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        hint = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    else:
        hint = f"known: {', '.join(names)}" if len(names) <= 20 else f"{len(names)} are known"
    if see:
        hint += f"; see: {see}"
    return UsageError(f"unknown {kind} '{name}'", hint=hint)
