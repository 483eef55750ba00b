"""The parts of a recipe, checked: keys, types and values that may differ from layer to layer.

A value is a number (or switch, or word), a list of numbers that runs linearly over the layers, or
a list of `{filter: part of a tensor's name, value: ...}` of which the first that fits holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from repsim.core.errors import UsageError, unknown_name

Scalar = bool | int | float | str


class Rule(NamedTuple):
    """A value for tensors whose name contains `filter`; for all if it is None or "*".

    Example:
        >>> evaluate((Rule("mlp", 0.2), Rule(None, 0.5)), "layers.0.mlp.up_proj.weight", 0.0)
        0.2
    """

    filter: str | None
    value: Scalar | tuple[Scalar, ...]


Setting = Scalar | tuple[Scalar, ...] | tuple[Rule, ...]
Settings = Mapping[str, Setting]


def check_keys(document: Any, known: Sequence[str], where: str) -> None:
    """Refuse a part of a recipe that is no mapping, or has keys that do not exist.

    Raises:
        UsageError: It names the path of the key and the nearest known one.

    Example:
        >>> check_keys({"wieght": 1}, ["model", "weight"], "models[0]")
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: unknown recipe key 'models[0].wieght' (hint: did you mean
        'weight'?)
    """
    if not isinstance(document, Mapping):
        raise UsageError(f"recipe key '{where}' must be a mapping, got {document!r}")
    for key in document:
        if key not in known:
            raise unknown_key(where, key, known)


def unknown_key(where: str, key: Any, known: Iterable[str]) -> UsageError:
    """The error for a key that does not exist, with its path and the nearest known one.

    Example:
        >>> str(unknown_key("models[0]", "wieght", ["model", "weight"]))
        "unknown recipe key 'models[0].wieght' (hint: did you mean 'weight'?)"
    """
    nearest = unknown_name("key", str(key), known)
    return UsageError(f"unknown recipe key '{path_of(where, key)}'", hint=nearest.hint)


def path_of(where: str, key: Any) -> str:
    """Path of a key inside a recipe: `models[0].weight`.

    Example:
        >>> path_of("models[0]", "weight"), path_of("", "method")
        ('models[0].weight', 'method')
    """
    return f"{where}.{key}" if where else str(key)


def required(document: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a key that must be there.

    Raises:
        UsageError: It is not.

    Example:
        >>> required({"method": "linear"}, "method", "")
        'linear'
    """
    if document.get(key) is None:
        raise UsageError(f"recipe key '{path_of(where, key)}' is missing")
    return document[key]


def optional(document: Mapping[str, Any], key: str, where: str, default: Any, kind: type) -> Any:
    """The value of a key, or a default.

    Raises:
        UsageError: It is of another type.

    Example:
        >>> optional({}, "seed", "", 0, int), optional({"seed": 3}, "seed", "", 0, int)
        (0, 3)
    """
    value = document.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UsageError(
            f"recipe key '{path_of(where, key)}' must be {_TYPE_NAMES[kind]}, got {value!r}"
        )
    return value


_TYPE_NAMES = {str: "a text", int: "an integer", dict: "a mapping"}


def choice(
    document: Mapping[str, Any],
    key: str,
    known: Sequence[str],
    default: str | None,
    hint: str | None = None,
) -> Any:
    """The value of a key that must be one of some words.

    Raises:
        UsageError: It is none of them.

    Example:
        >>> choice({"dtype": "float16"}, "dtype", ("float32", "float64"), "float32")
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: recipe key 'dtype' must be one of float32, float64, got
        'float16'
    """
    value = document.get(key)
    if value is None:
        return default
    if value not in known:
        names = ", ".join(known)
        raise UsageError(
            f"recipe key '{key}' must be one of {names}, got {value!r}", hint=hint or None
        )
    return value


def layer_range(value: Any, where: str) -> tuple[int, int] | None:
    """First layer and the one after the last.

    Raises:
        UsageError: It is not such a pair.

    Example:
        >>> layer_range([0, 4], "models[0].layers")
        (0, 4)
    """
    if value is None:
        return None
    whole = isinstance(value, Sequence) and all(type(item) is int for item in value)
    if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
        raise UsageError(
            f"recipe key '{where}' must be [first, one after the last], got {value!r}",
            hint="layers are counted from 0",
        )
    return value[0], value[1]


def parse_settings(
    values: Any, known: Mapping[str, Any], where: str, method: str
) -> dict[str, Setting]:
    """Values of parameters, checked against the method's declaration.

    Args:
        values: Parameter -> value, gradient or list of filters, as written.
        known: Parameter -> default.
        where: Path of the mapping.
        method: Name of the method.

    Raises:
        UsageError: An unknown parameter, or a value of another type than the default.

    Example:
        >>> parse_settings({"weight": [0, 1], "normalize": False}, {"weight": 1.0,
        ...                "normalize": True}, "parameters", "linear")
        {'weight': (0.0, 1.0), 'normalize': False}
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"recipe key '{where}' must be a mapping, got {values!r}")
    found = {}
    for name, value in values.items():
        path = path_of(where, name)
        if name not in known:
            error = unknown_key(where, name, known)
            hint = f"{error.hint}; method '{method}' has: {', '.join(known) or 'no parameters'}"
            raise UsageError(error.what, hint=hint)
        found[name] = _setting(value, known[name], path)
    return found


def _setting(value: Any, default: Any, where: str) -> Setting:
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        return _scalar(value, default, where)
    if not value:
        raise UsageError(f"recipe key '{where}' is an empty list")
    if not isinstance(value[0], Mapping):
        return tuple(_scalar(v, default, f"{where}[{i}]") for i, v in enumerate(value))
    rules = []
    for index, rule in enumerate(value):
        at = f"{where}[{index}]"
        check_keys(rule, ("filter", "value"), at)
        inner = _setting(required(rule, "value", at), default, f"{at}.value")
        if isinstance(inner, tuple) and isinstance(inner[0], Rule):
            raise UsageError(f"recipe key '{at}.value' has filters inside a filter")
        rules.append(Rule(optional(rule, "filter", at, None, str), inner))
    return tuple(rules)


def _scalar(value: Any, default: Any, where: str) -> Scalar:
    """A single value of the default's type. YAML 1.1 reads 1e-5 as text; a number is meant."""
    if isinstance(default, bool | str):
        if isinstance(value, type(default)):
            return value
    elif isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if number == number and abs(number) != float("inf"):
            if not isinstance(default, int):
                return number
            if number == int(number):
                return int(number)
    names = {bool: "true or false", str: "a word", int: "an integer"}
    wanted = names.get(type(default), "a number")
    raise UsageError(f"recipe key '{where}' must be {wanted}, got {value!r}")


def combine(first: Setting, second: Setting) -> Setting:
    """Filters of an inner scope, then what the outer one says where none of them fits.

    Example:
        >>> combine((Rule("mlp", 0.2),), 0.5)
        (Rule(filter='mlp', value=0.2), Rule(filter=None, value=0.5))
        >>> combine(0.2, 0.5)
        0.2
    """
    if not (isinstance(first, tuple) and isinstance(first[0], Rule)):
        return first
    if isinstance(second, tuple) and isinstance(second[0], Rule):
        return (*first, *second)
    return (*first, Rule(None, second))


def evaluate(setting: Setting, tensor: str, depth: float) -> Scalar | None:
    """The value of a setting for one tensor.

    Args:
        setting: A value, gradient or list of filters.
        tensor: Name of the tensor.
        depth: 0 at the first layer of its slice, 1 at the last; 0 outside layers.

    Returns:
        The value; None where no filter fits. Gradients of numbers are interpolated, of anything
        else the entry at or below the depth is taken.

    Example:
        >>> evaluate((0.0, 1.0), "layers.1.mlp.up_proj.weight", 0.25)
        0.25
        >>> evaluate((Rule("mlp", 0.2), Rule(None, (0.0, 1.0))), "layers.1.self_attn", 1.0)
        1.0
        >>> evaluate((Rule("mlp", 0.2),), "norm.weight", 0.0) is None
        True
    """
    if not isinstance(setting, tuple):
        return setting
    if isinstance(setting[0], Rule):
        for rule in setting:
            assert isinstance(rule, Rule)
            if rule.filter in (None, "*") or str(rule.filter) in tensor:
                return evaluate(rule.value, tensor, depth)
        return None
    place = depth * (len(setting) - 1)
    low = int(place)
    first, second = setting[low], setting[min(low + 1, len(setting) - 1)]
    if isinstance(first, bool | str) or isinstance(second, bool | str | Rule | tuple):
        return first
    return (1 - (place - low)) * first + (place - low) * second
