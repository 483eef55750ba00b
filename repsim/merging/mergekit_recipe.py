"""Recipes written for mergekit 0.1.5, read as mergekit means them; notes say where that differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from repsim.core.config import Config, Number, Switch, Whole, join, parse
from repsim.core.errors import UsageError
from repsim.merging.base import MergeMethod
from repsim.merging.chat_templates import find_template
from repsim.merging.methods import find_method
from repsim.merging.recipe import (
    Recipe,
    Scalar,
    Settings,
    Slice,
    Source,
    StoredType,
    Strategy,
    combine,
)
from repsim.merging.settings import read_settings
from repsim.merging.tokenizer_keys import ModelName, TokenizerKeys

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


def _ordered(layers: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= layers[0] < layers[1]:
        raise PydanticCustomError("layers", "[first, one after the last], counted from 0")
    return layers


#: First layer and the one after the last.
Layers = Annotated[tuple[Whole, Whole], AfterValidator(_ordered)]


_Parameters = dict[str, Any] | None


class _Listed(Config):
    model: ModelName
    parameters: _Parameters = None


class _Sliced(_Listed):
    layer_range: Layers | None = None


class _Slice(Config):
    sources: tuple[_Sliced, ...]
    parameters: _Parameters = None
    base_model: ModelName | None = None
    residual_weight: Number | None = None


class _Module(Config):
    slices: tuple[_Slice, ...] | None = None
    models: tuple[_Listed, ...] | None = None
    parameters: _Parameters = None


class _Tokenizer(TokenizerKeys):
    source: ModelName = "union"


class _Keys(Config):
    merge_method: str
    models: tuple[_Listed, ...] | None = None
    slices: tuple[_Slice, ...] | None = None
    modules: dict[str, _Module] | None = None
    base_model: ModelName | None = None
    dtype: StoredType | None = None
    out_dtype: StoredType | None = None
    parameters: _Parameters = None
    tokenizer: _Tokenizer | None = None
    tokenizer_source: ModelName | None = None
    chat_template: Annotated[str, AfterValidator(find_template)] | None = None


def parse_mergekit(document: Mapping[str, Any], text: str) -> Recipe:
    """Understand a document with mergekit's keys."""
    keys = parse(_Keys, document)
    method = find_method(keys.merge_method)
    parts, module_parameters, where = _slices(keys)
    reader, base = _Reader(method), _one_base(keys.base_model, parts, where)
    if any(part.residual_weight is not None for part in parts):
        reader.note("residual_weight has no effect, in mergekit as here")
    slices = tuple(
        reader.part(part, f"{where}[{i}].sources" if where.endswith("slices") else where)
        for i, part in enumerate(parts)
    )
    slices = tuple(_with_base(part, base, method) for part in slices)
    for part in slices:
        method.check(len(part.sources), has_base=base is not None)
    common = reader.parameters(keys.parameters, "parameters")
    if module_parameters:
        inner = reader.parameters(module_parameters, "modules.parameters")
        both = {k: combine(inner[k], common[k]) for k in inner if k in common}
        common = {**common, **inner, **both}
    strategy, tokenizer_model = _tokenizer(keys)
    defaults = dict(_DEFAULTS.get(method.name, {}))
    if method.name in _RESCALED:
        defaults["rescale"] = "l1"
        reader.note("rescale: l1, as mergekit rescales; the papers' is unbiased")
    if method.name == "model_stock":
        reader.note("clamp: false, as mergekit has it: t may leave [0, 1]")
    if keys.dtype in ("float16", "bfloat16"):
        reader.note(f"computed in float32 and stored as {keys.out_dtype or keys.dtype}")
    return Recipe(
        method=method.name,
        slices=slices,
        base_model=base,
        parameters=common,
        defaults=defaults,
        required=frozenset(_REQUIRED & {*method.parameters}),
        dtype="float64" if keys.dtype == "float64" else "float32",
        out_dtype=keys.out_dtype or keys.dtype,
        tokenizer=strategy,
        tokenizer_model=tokenizer_model,
        tokens=keys.tokenizer.choices() if keys.tokenizer else {},
        pad_to_multiple_of=keys.tokenizer.pad_to_multiple_of if keys.tokenizer else None,
        chat_template=keys.chat_template,
        notes=tuple(reader.notes),
        text=text,
    )


def _slices(keys: _Keys) -> tuple[tuple[_Slice, ...], _Parameters, str]:
    """The slices of a document in whichever form, parameters of a module, and the list's path."""
    forms = {"models": keys.models, "slices": keys.slices, "modules": keys.modules}
    present = [name for name, form in forms.items() if form]
    if len(present) != 1:
        raise UsageError(
            f"a mergekit recipe has exactly one of models, slices and modules, found "
            f"{' and '.join(present) or 'none'}"
        )
    if not keys.modules:
        return _as_slices(keys.models, keys.slices), None, present[0]
    if len(keys.modules) > 1:
        raise UsageError(
            f"'modules' has {len(keys.modules)} modules; models of several modules are not "
            "supported",
            hint="merge the language models by themselves",
        )
    name, module = next(iter(keys.modules.items()))
    if bool(module.models) == bool(module.slices):
        raise UsageError(f"'modules.{name}' has exactly one of models and slices")
    where = f"modules.{name}.{'slices' if module.slices else 'models'}"
    return _as_slices(module.models, module.slices), module.parameters, where


def _one_base(base: str | None, parts: tuple[_Slice, ...], where: str) -> str | None:
    """The base of the recipe, which a slice may repeat, or all slices may name."""
    stated = {part.base_model for part in parts if part.base_model is not None}
    whole = {base} if base is not None else set[str]()
    if base is None and len(stated) == 1 and all(part.base_model for part in parts):
        return stated.pop()
    if stated - whole:
        raise UsageError(
            f"'{where}.base_model': slices with bases of their own are not supported: "
            f"{', '.join(repr(name) for name in sorted(stated | whole))}",
            hint="name one base_model for the whole recipe, or merge the slices by themselves and "
            "stack them with passthrough",
        )
    return base


def _as_slices(
    models: tuple[_Listed, ...] | None, slices: tuple[_Slice, ...] | None
) -> tuple[_Slice, ...]:
    if slices:
        return slices
    sources = tuple(_Sliced(model=each.model, parameters=each.parameters) for each in models or ())
    return (_Slice(sources=sources),)


def _with_base(part: Slice, base: str | None, method: MergeMethod) -> Slice:
    """Take the base out of the inputs of methods on differences; else make it the first input."""
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


class _Flags(Config):
    nuslerp_flatten: Switch = True
    nuslerp_row_wise: Switch = False
    rescale: Switch = True


class _Reader:
    """Translates the parts of a document for one method and collects notes."""

    def __init__(self, method: MergeMethod) -> None:
        self.method = method
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """State how something was understood, once."""
        if text not in self.notes:
            self.notes.append(text)

    def part(self, part: _Slice, where: str) -> Slice:
        """One slice of the stack; `where` is the path of its list of models."""
        single = len(part.sources) == 1
        sources = [
            Source(
                each.model,
                self.parameters(
                    each.parameters, f"{where}[{index}].parameters", at_model=not single
                ),
                each.layer_range,
            )
            for index, each in enumerate(part.sources)
        ]
        common = self.parameters(part.parameters, f"{where.rpartition('.')[0]}.parameters")
        return Slice(tuple(sources), common)

    def parameters(self, given: _Parameters, where: str, *, at_model: bool = False) -> Settings:
        """Parameters in this package's names; `at_model`: at one of several models."""
        translated: dict[str, Any] = {}
        for name, value in (given or {}).items():
            translated |= self._translate(name, value, where, given or {})
        for name in translated if at_model else ():
            if name in self.method.defaults:
                raise UsageError(
                    f"'{join(where, name)}' holds for the whole merge, not for one model",
                    hint="write it under the parameters of the recipe or of the slice",
                )
        return read_settings(self.method, translated, where)

    def _translate(
        self, name: str, value: Any, where: str, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        method = self.method.name
        if name == "int8_mask" and method in (*_DELTAS, "sce"):
            self.note("int8_mask saves memory in mergekit and changes nothing here")
            return {}
        if name == "density" and method == "task_arithmetic":
            self.note("density has no effect in task_arithmetic, in mergekit as here")
            return {}
        if name == "rescale" and method in _DELTAS:
            flags = parse(_Flags, {name: value}, where)
            if "rescale" in self.method.defaults:
                return {"rescale": "l1" if flags.rescale else "none"}
            self.note(f"rescale has no effect in {method}, in mergekit as here")
            return {}
        if name in ("nuslerp_flatten", "nuslerp_row_wise") and method == "nuslerp":
            # Rows are interpolated if not flattened; mergekit's `row_wise` means columns.
            known = {key: given[key] for key in given if key.startswith("nuslerp_")}
            flags = parse(_Flags, known, where)
            if flags.nuslerp_flatten:
                return {}
            return {"column_wise" if flags.nuslerp_row_wise else "row_wise": True}
        if (method, name) == ("multislerp", "eps"):
            if value != 1e-8:
                raise UsageError(f"'{join(where, name)}': {value!r} is not supported, only 1e-8")
            return {}
        return {name: value}


def _tokenizer(keys: _Keys) -> tuple[Strategy, str | None]:
    """Strategy and model of the result's vocabulary."""
    source = keys.tokenizer_source
    if keys.tokenizer is not None:
        if source is not None:
            raise UsageError("a mergekit recipe has tokenizer or tokenizer_source, not both")
        source = keys.tokenizer.source
    if source is None:
        return "same", None
    if source == "union":
        return "union", None
    if source == "base":
        if keys.base_model is None:
            raise UsageError(
                "tokenizer source 'base' needs a base_model",
                hint="name the model whose tokenizer is meant",
            )
        return "map", keys.base_model
    return "map", source
