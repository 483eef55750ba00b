"""Errors that a user can act on: what happened, why, and what to do.

Every error that the toolkit raises on purpose is a `RepsimError`. The command line prints it
without a traceback and leaves with its `exit_code`; the codes are part of the interface. One kind
of error has one code, whatever the verb: 2 for what stands on the command line or in a recipe or
study file, 3 for what it names (a model or file that is missing, damaged or contradicts itself), 4
for sound models of an unknown family, or that do not fit each other, 5 for the machine's limits.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import re
from collections.abc import Iterable
from typing import Any, ClassVar

#: Characters of a word and of a whole message beyond which they are cut. Paths may be long.
LONGEST_WORD, LONGEST_MESSAGE = 400, 2000
_LONG = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class RepsimError(Exception):
    """Base of all expected errors: what happened, and what to do about it, such as a command.

    Example:
        >>> error = InputError("corpus file 'a.tsv' is empty", hint="check the path")
        >>> error.exit_code, str(error)
        (3, "corpus file 'a.tsv' is empty (hint: check the path)")
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = readable(what)
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} (hint: {self.hint})" if self.hint else self.what


def readable(message: str) -> str:
    """A message that a person reads: values and names that are too long are cut in the middle."""
    whole = _LONG.sub(lambda found: _cut(found[0], 100, 40), message)
    return _cut(whole, LONGEST_MESSAGE - 100, 40) if len(whole) > LONGEST_MESSAGE else whole


def _cut(text: str, head: int, tail: int) -> str:
    return f"{text[:head]}... ({len(text):,} characters) ...{text[-tail:]}"


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


def optional(module: str, what: str, install: str) -> Any:
    """A package that is not always there: `what` needs it, and `pip install` brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ResourceError(
            f"{what} needs the package '{package}', which is not installed",
            hint=f"pip install '{install}'",
        ) from None


def unknown_name(
    kind: str,
    name: str,
    known: Iterable[str],
    *,
    see: str | None = None,
    error: type[RepsimError] = UsageError,
) -> RepsimError:
    """The error for a name that is not registered, with the nearest known ones."""
    names = sorted(known)
    close = _nearest(name, names)
    if close:
        hint = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    else:
        hint = f"known: {', '.join(names)}" if len(names) <= 20 else f"{len(names)} are known"
    if see:
        hint += f"; see: {see}"
    return error(f"unknown {kind} '{name[:80]}'", hint=hint)


def _nearest(name: str, names: list[str]) -> list[str]:
    """Up to three names that were meant: other case or order of words, a part of it, a slip."""
    words = set(re.split(r"[\W_]+", name.lower()))
    parts = {own: set(re.split(r"[\W_]+", own.lower())) for own in names}
    same = [own for own in names if parts[own] == words]
    within = [own for own in names if parts[own] < words]
    slips = difflib.get_close_matches(name.lower(), [own.lower() for own in names], 3, 0.5)
    spelled = {own.lower(): own for own in names}
    if name.lower() in spelled:
        return [spelled[name.lower()]]
    return list(dict.fromkeys([*same, *within, *(spelled[own] for own in slips)]))[:3]


#: Error number of the system -> limit of the machine.
_LIMITS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than the system allows (ulimit -f)",
    errno.EMFILE: "too many files are open (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOMEM: "out of memory",
    errno.EAGAIN: "no more processes or threads can be started (ulimit -u, -v)",
}
#: Other error numbers of the system that come of what was named, and not of a defect.
_FILES = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ENOTEMPTY, errno.EXDEV, errno.ETXTBSY,
    errno.ENODEV, errno.ESTALE,
}  # fmt: skip
_MEMORY = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "alloc failed")


def expected(error: BaseException) -> RepsimError | None:
    """What an error of the system or of a library amounts to; None if it is ours."""
    if isinstance(error, RepsimError):
        return error
    text = " ".join(str(error).split())[:200]
    number = error.errno if isinstance(error, OSError) else None
    if wrapped := re.search(r"\(os error (\d+)\)", text):  # as libraries in Rust say it
        number = int(wrapped[1])
    if number in _LIMITS:
        hint = "free some and run the command again: what was finished is kept"
        return ResourceError(f"{_LIMITS[number]}: {text}", hint=hint)
    if number in _FILES:
        name = getattr(error, "filename", None)
        reason = getattr(error, "strerror", None) or text
        return InputError(f"'{str(name)[:200]}': {reason}" if name else text)
    short = any(words in text.lower() for words in _MEMORY)
    named = type(error).__name__
    if isinstance(error, MemoryError) or named == "OutOfMemoryError" or short:
        hint = "use a smaller --limit or --batch-size, or another --device"
        return ResourceError("out of memory" + (f": {text}" if text else ""), hint=hint)
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return ResourceError(_LIMITS[errno.EAGAIN], hint="raise the limit, or use fewer workers")
    if isinstance(error, RecursionError):
        return InputError("a file or value is nested too deeply", hint="is it what it should be?")
    if named == "PanicException":
        return InputError(
            f"a library gave up on a file of a model: {text}",
            hint="its tokenizer.json or weights are damaged: copy or download them again",
        )
    return None
