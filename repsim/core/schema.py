"""Reading plain mappings (YAML) into frozen dataclasses, strictly.

Unknown keys, wrong types and values out of range are refused, each with the path of the key
(`runs[2].fork.at`). A validation library would do the same; this path must run where there is none.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from repsim.core.errors import UsageError

T = TypeVar("T")


def setting(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    key: str | None = None,
) -> Any:
    """A dataclass field with an inclusive range for its number, and another key in the document."""
    metadata = {"low": low, "high": high, "key": key}
    return dataclasses.field(default=default, metadata=metadata)


def parse(kind: type[T], document: Any, path: str = "") -> T:
    """Build a dataclass from a mapping.

    Args:
        kind: A frozen dataclass whose fields are numbers, strings, booleans, literals, optionals,
            tuples, string-keyed mappings or further dataclasses.
        document: The mapping.
        path: Where the mapping stands, for messages.

    Raises:
        UsageError: An unknown or missing key, a wrong type, a value out of range.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Wheel:
        ...     spokes: int = setting(low=3)
        >>> parse(Wheel, {"spokes": 32})
        Wheel(spokes=32)
        >>> parse(Wheel, {"spoke": 32})
        Traceback (most recent call last):
        repsim.core.errors.UsageError: unknown key 'spoke' (hint: did you mean 'spokes'?)
    """
    if not isinstance(document, Mapping):
        raise _wrong_type(path, "a mapping of keys to values", document)
    fields = {
        field.metadata.get("key") or field.name: field
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    }
    for key in document:
        if key not in fields:
            raise _unknown_key(path, str(key), list(fields))
    hints = typing.get_type_hints(kind)
    values = {}
    for key, field in fields.items():
        where = join(path, key)
        if key in document:
            values[field.name] = _convert(hints[field.name], document[key], where)
            _check_range(values[field.name], field.metadata, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"'{where}' is missing")
    return kind(**values)


def join(path: str, key: str) -> str:
    """The path of a key below a path."""
    return f"{path}.{key}" if path else key


def _convert(hint: Any, value: Any, path: str) -> Any:
    """`value` as the type that `hint` names."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool) not in {
            isinstance(option, bool) for option in arguments
        }:
            raise _not_an_option(path, value, arguments)
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise _wrong_type(path, "a list", value)
        return tuple(_convert(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong_type(path, "a mapping of keys to values", value)
        return {
            str(key): _convert(arguments[1], v, join(path, str(key))) for key, v in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return parse(typing.cast("type", hint), value, path)
    return _convert_scalar(hint, value, path)


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    """The first option that takes the value; `None` only where it is one of them."""
    if value is None and type(None) in options:
        return None
    problems = []
    for option in options:
        if option is not type(None):
            try:
                return _convert(option, value, path)
            except UsageError as error:
                problems.append(error)
    raise problems[-1]


def _convert_scalar(hint: Any, value: Any, path: str) -> Any:
    """Numbers, strings and booleans; whole floats count as integers, "3e-3" as the number it is."""
    if hint is bool:
        if not isinstance(value, bool):
            raise _wrong_type(path, "true or false", value)
        return value
    if hint is int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(path, "a whole number", value)
        return value
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 3e-3, without a dot, as text
            try:
                value = float(value)
            except ValueError:
                raise _wrong_type(path, "a number", value) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(path, "a number", value)
        return float(value)
    if not isinstance(value, str):
        raise _wrong_type(path, "text", value)
    return value


def _check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    """Refuse numbers outside the field's range, and those that are not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, high = metadata.get("low"), metadata.get("high")
    if not math.isfinite(value):
        raise UsageError(f"'{path}' is {value}, not a finite number")
    if low is not None and value < low:
        raise UsageError(f"'{path}' is {value:g}, must be at least {low:g}")
    if high is not None and value > high:
        raise UsageError(f"'{path}' is {value:g}, must be at most {high:g}")


def _wrong_type(path: str, wanted: str, value: Any) -> UsageError:
    shown = "nothing" if value is None else f"{value!r}"
    subject = f"'{path}'" if path else "the document"
    return UsageError(f"{subject} is {shown}, must be {wanted}")


def _unknown_key(path: str, key: str, known: list[str]) -> UsageError:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{join(path, close[0])}'?" if close else f"known: {', '.join(known)}"
    return UsageError(f"unknown key '{join(path, key)}'", hint=hint)


def _not_an_option(path: str, value: Any, options: tuple[Any, ...]) -> UsageError:
    shown = ", ".join(str(option) for option in options)
    close = difflib.get_close_matches(str(value), [str(o) for o in options], n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else None
    return UsageError(f"'{path}' is '{value}', must be one of: {shown}", hint=hint)
