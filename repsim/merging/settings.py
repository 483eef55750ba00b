"""Values of a method's parameters as a recipe writes them, checked against what it declares."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model
from pydantic_core import PydanticCustomError

from repsim.core.config import Config, Number, Switch, Whole, parse
from repsim.merging.base import MergeMethod
from repsim.merging.parameters import Parameter
from repsim.merging.recipe import Rule, Setting


def read_settings(method: MergeMethod, values: Any, where: str) -> dict[str, Setting]:
    """Values of parameters, as written."""
    names = tuple(method.parameters)
    found = parse(settings_type(method, names), values or {}, where)
    return settings_of(found, names)


def settings_of(found: Config, names: tuple[str, ...]) -> dict[str, Setting]:
    """Those of some fields that were given, as a recipe holds them."""
    values = {name: getattr(found, name) for name in names if name in found.model_fields_set}
    return {
        name: tuple(Rule(each.filter, each.value) for each in value)
        if isinstance(value, tuple) and isinstance(value[0], Config)
        else value
        for name, value in values.items()
    }


@functools.cache
def _type(kind: Any, declared: Parameter) -> Any:
    """The type of a setting; `kind` is asked for because 1.0 and True are equal."""
    scalar = _scalar(kind, declared)
    several: Any = Annotated[tuple[scalar, ...], Field(min_length=1)]  # type: ignore[valid-type]
    rule = create_model(
        "Rule", __base__=Config, filter=(str | None, None), value=(scalar | several, ...)
    )
    rules: Any = Annotated[tuple[rule, ...], Field(min_length=1)]  # type: ignore[valid-type]
    return Annotated[scalar | several | rules, BeforeValidator(_as_list)]


def _scalar(kind: type, declared: Parameter) -> Any:
    if kind is bool:
        return Switch
    if kind is str:
        return Literal[declared.choices] if declared.choices else str
    bounds = Field(
        ge=declared.least, gt=declared.above, le=declared.most, lt=declared.below
    )  # fmt: skip
    return Annotated[Whole if kind is int else Number, bounds]


def _as_list(value: Any) -> Any:
    if value == []:
        raise PydanticCustomError("setting", "a value or a list of them")
    return [value] if isinstance(value, Mapping) else value


def fields_of(method: MergeMethod, names: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a configuration that has parameters of a method among its keys."""
    found = [(name, method.parameters[name]) for name in names]
    kinds: dict[str, Any] = {name: type(own.default) for name, own in found}
    return {name: (_type(kinds[name], own), None) for name, own in found}


def settings_type(method: MergeMethod, names: tuple[str, ...]) -> type[Config]:
    """A configuration whose keys are some parameters of a method."""
    return create_model("Parameters", __base__=Config, **fields_of(method, names))
