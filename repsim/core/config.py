"""Configuration files: YAML in, a checked model out, errors that name the key (`runs[2].at`)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticKnownError

from repsim.core.errors import InputError, UsageError

#: Bounds of a document: bytes of its file, levels of nesting, and values with aliases followed.
MOST_BYTES, MOST_LEVELS, MOST_VALUES = 250_000, 40, 500_000
#: Most characters of a value in a message.
SHOWN = 80
_WANTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
    "finite": "a finite number", "tuple": "a list", "list": "a list",
    "dict": "a mapping of keys to values",
    "model": "a mapping of keys to values", "mapping": "a mapping of keys to values",
}  # fmt: skip
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _whole(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticKnownError("int_type")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    try:
        value = float(value) if isinstance(value, str | int) else value
    except ValueError:
        raise PydanticKnownError("float_type") from None
    except OverflowError:  # a whole number of hundreds of digits
        raise PydanticKnownError("finite_number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    return value


#: A whole number; 3.0 is one, `true` and "3" are not.
Whole = Annotated[int, BeforeValidator(_whole)]
#: A finite number. YAML 1.1 reads 3e-3, without a dot, as text: it counts as the number it is.
Number = Annotated[float, BeforeValidator(_number)]
#: `true` or `false`, and nothing that resembles them.
Switch = StrictBool


class Config(BaseModel):
    """Base of configurations: immutable, and keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, document: Any) -> Any:
        if not isinstance(document, Mapping):
            return document
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in document:
            if key not in known:
                context = {"key": str(key), "known": known}
                raise PydanticCustomError("unknown_key", "unknown key", context)
        return dict(document)


C = TypeVar("C", bound=Config)


def parse(kind: type[C], document: Any, where: str = "") -> C:
    """Turn a mapping into a configuration."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise _translated(error.errors(), document, where) from None


def load(kind: type[C], path: str | Path, what: str) -> C:
    """Turn a YAML file into a configuration; messages name the file."""
    document = read_yaml(path, what)
    try:
        return parse(kind, document)
    except UsageError as error:
        raise UsageError(f"{what} '{path}': {error.what}", hint=error.hint) from None


def find_file(name: str | Path, examples: Path, what: str) -> Path:
    """A YAML file, or one that ships with the package, by its name."""
    path, shipped = Path(name), examples / f"{Path(name).stem}.yaml"
    if path.is_file():
        return path
    if len(path.parts) == 1 and shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in examples.glob("*.yaml")))
    raise InputError(f"{what} '{name}' does not exist", hint=f"a path, or one of: {known}")


def read_yaml(path: str | Path, what: str, *, several: bool = False) -> Any:
    """Read a YAML document; keys that are repeated and documents beyond all measure are refused."""
    import yaml

    subject = f"{what} '{path}'"
    try:
        if Path(path).stat().st_size > MOST_BYTES:
            raise InputError(f"{subject} has more than {MOST_BYTES:,} bytes")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{subject} cannot be read: {reason}") from None
    try:
        loader = _strict_loader()
        document = list(yaml.load_all(text, loader)) if several else yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise InputError(f"{subject} is not valid YAML: {_short(error)}") from None
    except RecursionError:
        raise InputError(f"{subject} is nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A date of a month 13, `!!int x`, a number of thousands of digits.
        what = f"it holds a value that it says is another kind ({_short(error)})"
        raise InputError(f"{subject} is not valid YAML: {what}") from None
    _check_bounds(document, subject)
    return document


def _strict_loader() -> Any:
    """YAML's safe loader, refusing repeated keys, of which the last would silently win."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, Hashable) or key in seen:
                    what = "is repeated" if isinstance(key, Hashable) else "is no text"
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key '{_short(key)}' {what}", key_node.start_mark
                    )
                seen.add(key)
            return dict(super().construct_mapping(node, deep=deep))

    return Loader


def _check_bounds(document: Any, subject: str) -> None:
    """Refuse documents that aliases (`&a`, `*a`) make deep, endless or huge."""
    level, values = [document], 0
    for _ in range(MOST_LEVELS):
        level = [
            child
            for value in level
            if isinstance(value, list | dict)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        values += len(level)
        if not level:
            return
        if values > MOST_VALUES:
            raise InputError(f"{subject} has more than {MOST_VALUES:,} values")
    raise InputError(f"{subject} is nested deeper than {MOST_LEVELS} levels")


def _short(value: Any, form: Callable[[Any], str] = str) -> str:
    """A value in a message, cut to a length that can be read."""
    try:
        text = form(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 3 * SHOWN else text[:SHOWN] + " ..."


def join(path: str, key: str) -> str:
    """The path of a key below a path."""
    return f"{path}.{key}" if path else key


def _translated(errors: list[ErrorDetails], document: Any, where: str) -> UsageError:
    """The first of pydantic's errors; of a union's alternatives, those that got furthest."""
    located = [(_path(error, document, where), error) for error in errors]
    first = located[0][0]
    path = max((p for p, _ in located if p.startswith(first)), key=len)
    here = [error for p, error in located if p == path]
    error = here[-1]
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "unknown_key":
        return _unknown_key(path, context["key"], context["known"])
    if kind == "missing":
        return UsageError(f"'{path}' is missing")
    if kind == "finite_number":
        return UsageError(f"'{path}' is {_short(value)}, not a finite number")
    for name, words in _BOUNDS.items():
        if name in context:
            bound = context[name]
            shown = f"{float(value):g}" if abs(value) < 1e300 else _short(value)
            return UsageError(f"'{path}' is {shown}, must be {words} {bound:g}")
    subject = f"'{path}'" if path else "the document"
    shown = "nothing" if value is None else _short(value, repr)
    options = [option for e in here for option in _options(e)]
    wanted = dict.fromkeys(_wanted(e) for e in here)
    return UsageError(
        f"{subject} is {shown}, must be {' or '.join(wanted)}", hint=_nearest(value, options)
    )


def _path(error: ErrorDetails, document: Any, where: str) -> str:
    """Where an error stands in the document; pydantic adds the alternatives of a union to it."""
    path, value, last = where, document, len(error["loc"]) - 1
    for i, key in enumerate(error["loc"]):
        if isinstance(key, int):
            if isinstance(value, list | tuple) and key < len(value):
                path, value = f"{path}[{key}]", value[key]
        elif isinstance(value, Mapping) and key in value:
            path, value = join(path, key), value[key]
        elif i == last and error["type"] == "missing":
            path = join(path, key)
    return path


def _wanted(error: ErrorDetails) -> str:
    if options := _options(error):
        return f"one of: {', '.join(options)}"
    for name, words in _BOUNDS.items():
        if name in error.get("ctx", {}):
            return f"{words} {error['ctx'][name]:g}"
    return _WANTED.get(error["type"].split("_")[0], error["msg"])


def _options(error: ErrorDetails) -> list[str]:
    if error["type"] != "literal_error":
        return []
    return re.findall(r"'([^']*)'", error["ctx"]["expected"])


def _nearest(value: Any, options: list[str]) -> str | None:
    close = difflib.get_close_matches(_short(value), options, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else None


def _unknown_key(path: str, key: str, known: list[str]) -> UsageError:
    key = _short(key)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{join(path, near[0])}'?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown key '{join(path, key)}'", hint=hint)
