"""Recipes written for mergekit 0.1.5, read as they are.

What is not supported is refused by name. Where mergekit's meaning differs from this package's
default, the file means what mergekit makes of it, and a note says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from repsim.core.errors import UsageError
from repsim.merging.base import MergeMethod
from repsim.merging.methods import find_method
from repsim.merging.recipe import STORED_TYPES, Recipe, Slice, Source
from repsim.merging.settings import (
    Scalar,
    Settings,
    check_keys,
    choice,
    combine,
    layer_range,
    optional,
    parse_settings,
    path_of,
    required,
)

_KEYS = (
    "merge_method", "models", "slices", "modules", "base_model", "dtype", "out_dtype",
    "parameters", "tokenizer", "tokenizer_source", "chat_template",
)  # fmt: skip
_SPARSE = ("ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties")
_RESCALED = ("dare_ties", "dare_linear", "della", "della_linear")
#: Defaults of mergekit where they differ from those of the methods here.
_DEFAULTS: dict[str, dict[str, Scalar]] = {
    **{name: {"density": 1.0} for name in (*_SPARSE, "della", "della_linear")},
    "model_stock": {"clamp": False},
}
#: Parameters that mergekit has no default for.
_REQUIRED = {"weight", "t"}
_DELTAS = (*_SPARSE, "della", "della_linear", "task_arithmetic")


def parse_mergekit(document: Mapping[str, Any], text: str) -> Recipe:
    """Understand a document with mergekit's keys.

    Args:
        document: What the YAML file holds.
        text: The file.

    Raises:
        UsageError: A key that mergekit does not have, or something that is not supported here.

    Example:
        >>> recipe = parse_mergekit(
        ...     {"merge_method": "slerp", "base_model": "b", "models": [{"model": "a"},
        ...      {"model": "b"}], "parameters": {"t": [0.0, 1.0]}, "dtype": "bfloat16"}, "")
        >>> recipe.models, recipe.parameters["t"], recipe.out_dtype
        (('b', 'a'), (0.0, 1.0), 'bfloat16')
    """
    check_keys(document, _KEYS, "")
    method = find_method(document["merge_method"])
    reader = _Reader(method)
    base = None if document.get("base_model") is None else reader.model(
        document["base_model"], "base_model"
    )  # fmt: skip
    parts, module_parameters, where = _slices(document)
    slices = tuple(reader.part(part, f"{where}[{i}]") for i, part in enumerate(parts))
    slices = tuple(_with_base(part, base, method) for part in slices)
    for part in slices:
        method.check(len(part.sources), has_base=base is not None)
    common = reader.parameters(document.get("parameters"), "parameters", single=False)
    if module_parameters:
        inner = reader.parameters(module_parameters, "modules.parameters", single=False)
        both = {k: combine(inner[k], common[k]) for k in inner if k in common}
        common = {**common, **inner, **both}
    dtype = choice(document, "dtype", STORED_TYPES, None)
    strategy, tokenizer_model = reader.tokenizer(document, base)
    defaults = dict(_DEFAULTS.get(method.name, {}))
    if method.name in _RESCALED:
        defaults["rescale"] = "l1"
        reader.note("rescale: l1, as mergekit rescales; the papers' is unbiased")
    if method.name == "model_stock":
        reader.note("clamp: false, as mergekit has it: t may leave [0, 1]")
    if dtype in ("float16", "bfloat16"):
        reader.note(f"computed in float32 and stored as {document.get('out_dtype') or dtype}")
    return Recipe(
        method=method.name,
        slices=slices,
        base_model=base,
        parameters=common,
        defaults=defaults,
        required=frozenset(_REQUIRED & {*method.defaults, *method.model_defaults}),
        dtype="float64" if dtype == "float64" else "float32",
        out_dtype=choice(document, "out_dtype", STORED_TYPES, None) or dtype,
        tokenizer=strategy,
        tokenizer_model=tokenizer_model,
        chat_template=_chat_template(document),
        notes=tuple(reader.notes),
        text=text,
    )


def _slices(document: Mapping[str, Any]) -> tuple[list[Any], Any, str]:
    """The slices of a document in whichever form, parameters of a module, and their path."""
    present = [key for key in ("models", "slices", "modules") if document.get(key)]
    if len(present) != 1:
        raise UsageError(
            f"a mergekit recipe has exactly one of models, slices and modules, found "
            f"{' and '.join(present) or 'none'}"
        )
    key = present[0]
    if key != "modules":
        return _as_slices(document[key], key)
    modules = document["modules"]
    check_keys(modules, tuple(modules) if isinstance(modules, Mapping) else (), "modules")
    if len(modules) > 1:
        raise UsageError(
            f"recipe key 'modules' has {len(modules)} modules; models of several modules are not "
            "supported",
            hint="merge the language models by themselves",
        )
    name, module = next(iter(modules.items()))
    where = f"modules.{name}"
    check_keys(module, ("slices", "models", "parameters"), where)
    inner = [k for k in ("models", "slices") if module.get(k)]
    if len(inner) != 1:
        raise UsageError(f"recipe key '{where}' has exactly one of models and slices")
    parts, _, _ = _as_slices(module[inner[0]], f"{where}.{inner[0]}")
    return parts, module.get("parameters"), f"{where}.slices"


def _as_slices(entries: Any, where: str) -> tuple[list[Any], Any, str]:
    if not isinstance(entries, list):
        raise UsageError(f"recipe key '{where}' must be a list")
    if where.endswith("slices"):
        return entries, None, where
    for index, entry in enumerate(entries):
        check_keys(entry, ("model", "parameters"), f"{where}[{index}]")
    return [{"sources": entries}], None, where


def _with_base(part: Slice, base: str | None, method: MergeMethod) -> Slice:
    """Take the base out of the inputs of methods on differences; else make it the first input.

    SLERP runs from the base. Whole-model recipes of methods without differences merge a base that
    is not listed as one more model.
    """
    if base is None:
        return part
    others = tuple(source for source in part.sources if source.model != base)
    listed = tuple(source for source in part.sources if source.model == base)
    if method.needs_base or method.takes_base:
        layers = listed[0].layers if listed else None
        return dataclasses.replace(part, sources=others, base_layers=layers)
    if method.name == "slerp":
        return dataclasses.replace(part, sources=(*(listed or (Source(base),)), *others))
    if not listed and not any(source.layers for source in part.sources):
        return dataclasses.replace(part, sources=(*part.sources, Source(base)))
    return part


def _chat_template(document: Mapping[str, Any]) -> str | None:
    template = optional(document, "chat_template", "", None, str)
    if template is not None and "{" not in template:
        raise UsageError(
            f"chat_template '{template}' is not supported by name",
            hint="leave it out to take the template of the base (or first) model, or write it out",
        )
    return template


class _Reader:
    """Translates the parts of a document for one method and collects notes."""

    def __init__(self, method: MergeMethod) -> None:
        self.method = method
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """State how something was understood, once."""
        if text not in self.notes:
            self.notes.append(text)

    def model(self, value: Any, where: str) -> str:
        """A model's path; adapters and revisions are refused."""
        if isinstance(value, Mapping):
            check_keys(value, ("model", "path", "revision", "lora", "override_architecture"), where)
            for key in ("revision", "lora", "override_architecture"):
                if value.get(key) is not None:
                    raise UsageError(f"'{key}' of {where} is not supported", hint=_ADAPTER)
            return self.model(value.get("model") or value.get("path"), where)
        if not isinstance(value, str) or not value:
            raise UsageError(f"recipe key '{where}' must name a model, got {value!r}")
        if "+" in value or "@" in value:
            what = "a LoRA adapter" if "+" in value else "a revision"
            raise UsageError(f"{where} '{value}' names {what}, not supported here", hint=_ADAPTER)
        return value

    def part(self, part: Any, where: str) -> Slice:
        """One slice of the stack."""
        check_keys(part, ("sources", "base_model", "residual_weight", "parameters"), where)
        for key in ("base_model", "residual_weight"):
            if part.get(key) is not None:
                raise UsageError(f"recipe key '{where}.{key}' is not supported")
        entries = required(part, "sources", where)
        if not isinstance(entries, list):
            raise UsageError(f"recipe key '{where}.sources' must be a list")
        sources = []
        for index, entry in enumerate(entries):
            at = f"{where}.sources[{index}]"
            check_keys(entry, ("model", "layer_range", "parameters"), at)
            sources.append(
                Source(
                    self.model(required(entry, "model", at), f"{at}.model"),
                    self.parameters(
                        entry.get("parameters"), f"{at}.parameters", single=len(entries) == 1
                    ),
                    layer_range(entry.get("layer_range"), f"{at}.layer_range"),
                )
            )
        common = self.parameters(part.get("parameters"), f"{where}.parameters", single=False)
        return Slice(tuple(sources), common)

    def parameters(self, values: Any, where: str, *, single: bool) -> Settings:
        """Parameters in this package's names.

        Args:
            values: As written.
            where: Path of the mapping.
            single: Whether they stand at the only model of a slice.
        """
        if values is not None and not isinstance(values, Mapping):
            raise UsageError(f"recipe key '{where}' must be a mapping, got {values!r}")
        given = dict(values or {})
        at_model = ".sources[" in where
        translated: dict[str, Any] = {}
        for name, value in given.items():
            kept = self._translate(name, value, path_of(where, name), given)
            translated |= kept
        known: dict[str, Any] = {**self.method.defaults, **self.method.model_defaults}
        if at_model and not (single and self.method.name == "passthrough"):
            for name in translated:
                if name in self.method.defaults:
                    raise UsageError(
                        f"recipe key '{path_of(where, name)}' holds for the whole merge, not for "
                        "one model",
                        hint="write it under the parameters of the recipe or of the slice",
                    )
        return parse_settings(translated, known, where, self.method.name)

    def _translate(
        self, name: str, value: Any, where: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        method = self.method.name
        if name == "int8_mask" and method in (*_DELTAS, "sce"):
            self.note("int8_mask saves memory in mergekit and changes nothing here")
            return {}
        if name == "density" and method == "task_arithmetic":
            self.note("density has no effect in task_arithmetic, in mergekit as here")
            return {}
        if name == "rescale" and method in _DELTAS:
            return self._rescale(value, where)
        if name in ("nuslerp_flatten", "nuslerp_row_wise") and method == "nuslerp":
            return self._nuslerp(where, given)
        if (method, name) == ("multislerp", "eps"):
            if value != 1e-8:
                raise UsageError(f"recipe key '{where}': {value!r} is not supported, only 1e-8")
            return {}
        return {name: value}

    def _rescale(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, bool):
            raise UsageError(f"recipe key '{where}' must be true or false, got {value!r}")
        if "rescale" in self.method.defaults:
            return {"rescale": "l1" if value else "none"}
        self.note(f"rescale has no effect in {self.method.name}, in mergekit as here")
        return {}

    def _nuslerp(self, where: str, given: dict[str, Any]) -> dict[str, Any]:
        """Rows are interpolated if not flattened; mergekit's `row_wise` means columns."""
        flatten = given.get("nuslerp_flatten", True)
        columns = given.get("nuslerp_row_wise", False)
        if not isinstance(flatten, bool) or not isinstance(columns, bool):
            raise UsageError(f"recipe key '{where}' must be true or false")
        if flatten:
            return {}
        return {"column_wise": True} if columns else {"row_wise": True}

    def tokenizer(self, document: Mapping[str, Any], base: str | None) -> tuple[Any, str | None]:
        """Strategy and model of the result's vocabulary."""
        source = document.get("tokenizer_source")
        given = document.get("tokenizer")
        if given is not None:
            if source is not None:
                raise UsageError("a mergekit recipe has tokenizer or tokenizer_source, not both")
            check_keys(given, ("source", "tokens", "pad_to_multiple_of"), "tokenizer")
            for key in ("tokens", "pad_to_multiple_of"):
                if given.get(key):
                    raise UsageError(f"recipe key 'tokenizer.{key}' is not supported")
            source = given.get("source", "union")
        if source is None:
            return "same", None
        if source == "union":
            self.note("tokenizer source 'union': accepted only where all tokenizers are the same")
            return "same", None
        if source == "base":
            if base is None:
                raise UsageError("tokenizer source 'base' needs a base_model")
            return "map", base
        return "map", self.model(source, "tokenizer source")


_ADAPTER = "merge an adapter, or fetch a revision, into a folder of its own first"
