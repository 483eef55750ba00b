"""Parameters of merge methods, as the signature of a method declares them."""

from __future__ import annotations

import dataclasses
import math
from numbers import Real
from typing import Any

from repsim.core.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a merge method: its default, and what values it may have."""

    default: Any  # Value where a recipe says nothing; its type is the parameter's
    each: bool = False  # Whether every model may have a value of its own
    least: float | None = None  # Smallest value; `above`, `most` and `below` likewise
    above: float | None = None  # Bound that values lie above
    most: float | None = None  # Largest value
    below: float | None = None  # Bound that values lie below
    choices: tuple[str, ...] = ()  # The words that it may be
    hint: str | None = None  # What to do about a value outside the range

    @property
    def range(self) -> str:
        """The range in words, empty if there is none."""
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if high is None:
            verb = "be at least" if self.above is None else "exceed"
            return "" if low is None else f"{verb} {low:g}"
        first = "(" if self.above is not None or low is None else "["
        last = ")" if self.below is not None else "]"
        return f"lie in {first}{-math.inf if low is None else low:g}, {high:g}{last}"

    def check(self, name: str, value: Any, tensor: str = "") -> None:
        """Refuse a value of another type than the default, or outside the range, by its name."""
        default = self.default
        if isinstance(default, bool):
            fits, wanted = isinstance(value, bool), "true or false"
        elif isinstance(default, str):
            fits, wanted = isinstance(value, str), "a word"
        else:
            whole = isinstance(default, int)
            number = isinstance(value, Real) and not isinstance(value, bool)
            fits = number and (isinstance(value, int) if whole else math.isfinite(value))
            wanted = "a whole number" if whole else "a finite number"
        if not fits:
            raise UsageError(f"parameter '{name}' must be {wanted}, got {value!r}")
        if self.choices and value not in self.choices:
            hint = f"use one of: {', '.join(self.choices)}"
            raise UsageError(f"parameter '{name}' cannot be '{value}'", hint=hint)
        if not self.covers(value):
            where = f" for tensor '{tensor}'" if tensor else ""
            raise UsageError(f"{name} must {self.range}, got {value:g}{where}", hint=self.hint)

    def covers(self, value: Any) -> bool:
        """Whether a number lies in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def parameter(default: Any, **declaration: Any) -> Any:
    """Default and range of a parameter that is common to all models: fields of `Parameter`.

    Example:
        >>> parameter(0.5, least=0, most=1).range
        'lie in [0, 1]'
    """
    return Parameter(default, **declaration)


def per_model(default: float, **declaration: Any) -> Any:
    """Default of a parameter that each model may have its own value of; see `parameter`.

    The function that declares it receives a list with one number per model.

    Example:
        >>> from repsim.merging import merge_method
        >>> @merge_method(name="sum", label="sum", definition="sum_i a_i w_i", reference="-",
        ...               register=False)
        ... def weighted(tensors, *, base, context, weight=per_model(1.0)):
        ...     return sum(w * tensor for w, tensor in zip(weight, tensors, strict=True))
        >>> weighted.model_defaults
        {'weight': 1.0}
    """
    return Parameter(default, each=True, **declaration)
