"""Recipes: what is merged, how, and with which values for which layer.

A recipe is a YAML file. Unknown keys are refused, with the path of the key and the nearest known
one. Files written for mergekit are read too; see `repsim.merging.mergekit_recipe`.

Keys: `method`; `models` (folders or names, or mappings of `model`, `layers`, `statistics` and the
model's own parameters); `base_model`; `parameters`; `dtype` (of the computation) and `out_dtype`
(of the stored weights); `align` (none, permutation, orthogonal); `repair` (see `Repair`);
`tokenizer: {strategy: same | map}`; `seed`.

A value is a number (or switch, or word), a list of numbers that runs linearly over the layers, or
a list of `{filter: part of a tensor's name, value: ...}` of which the first that fits holds.
Values of a model come before values of its slice, and those before values of the whole recipe;
where no filter fits, the next one in that order decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.merging.base import MergeMethod
from repsim.merging.methods import find_method
from repsim.merging.settings import (
    Scalar,
    Settings,
    check_keys,
    choice,
    layer_range,
    optional,
    parse_settings,
    required,
)

#: Types in which weights can be stored.
STORED_TYPES = ("float64", "float32", "float16", "bfloat16")
Align = Literal["none", "permutation", "orthogonal"]
Strategy = Literal["same", "map"]


@dataclasses.dataclass(frozen=True)
class Source:
    """One model, or some of its layers, as an input.

    Attributes:
        model: Folder, or the name of a packaged model; relative to the working directory.
        parameters: Values for this model.
        layers: First layer and the one after the last; all if None.
        statistics: File with statistics of this model for data-aware methods.

    Example:
        >>> Source("runs/en", {"weight": 0.3}, layers=(0, 4)).layers
        (0, 4)
    """

    model: str
    parameters: Settings = dataclasses.field(default_factory=dict)
    layers: tuple[int, int] | None = None
    statistics: str | None = None


@dataclasses.dataclass(frozen=True)
class Slice:
    """Models that are merged layer by layer. The slices of a recipe are stacked.

    Attributes:
        sources: What is merged.
        parameters: Values for this slice.
        base_layers: Layers of the base; those of the first source if None.

    Example:
        >>> Slice((Source("runs/en"), Source("runs/de"))).base_layers is None
        True
    """

    sources: tuple[Source, ...]
    parameters: Settings = dataclasses.field(default_factory=dict)
    base_layers: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Repair:
    """Text on which the merged model's units are given the deviations of its parents.

    Averaging units that agree only in part shrinks what they vary by; see
    `repsim.merging.align.repair`. As a recipe has it:
    `repair: {corpus: bible, languages: [eng_Latn, deu_Latn], limit: 32}`.

    Attributes:
        corpus: Training text, as `repsim.corpora.load_training_text` names it: "bible", a folder,
            "hub:NAME".
        languages: Languages to read; those that the parents state if empty.
        limit: At most so many windows of text per language.

    Example:
        >>> recipe = read_recipe({"method": "linear", "models": ["a", "b"],
        ...                       "repair": {"corpus": "bible", "limit": 8}})
        >>> recipe.repair
        Repair(corpus='bible', languages=(), limit=8)
    """

    corpus: str
    languages: tuple[str, ...] = ()
    limit: int = 32


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        method: Name of a merge method.
        slices: What is merged; one slice unless layers are stacked.
        base_model: Model that differences are taken to.
        parameters: Values for all models and tensors.
        defaults: Values that replace the method's own defaults.
        required: Parameters that must be given.
        dtype: Precision of the computation.
        out_dtype: Type of the stored weights; that of the first model if None.
        align: How models are brought to the first one's (or the base's) coordinates beforehand.
        repair: Text on which the result is repaired; None if it is not.
        tokenizer: "same" refuses models whose tokens differ; "map" matches rows by token.
        tokenizer_model: Model whose tokenizer and vocabulary the result has; the donor if None.
        chat_template: Text of a chat template for the result; the donor's if None.
        seed: Seed of methods that draw.
        notes: What a reader of the result should know about how the file was understood.
        text: The file as it was written.

    Example:
        >>> recipe = Recipe("slerp", (Slice((Source("runs/en"), Source("runs/de"))),))
        >>> recipe.donor, recipe.stacked
        ('runs/en', False)
    """

    method: str
    slices: tuple[Slice, ...]
    base_model: str | None = None
    parameters: Settings = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    required: frozenset[str] = frozenset()
    dtype: Literal["float32", "float64"] = "float32"
    out_dtype: str | None = None
    align: Align = "none"
    repair: Repair | None = None
    tokenizer: Strategy = "same"
    tokenizer_model: str | None = None
    chat_template: str | None = None
    seed: int = 0
    notes: tuple[str, ...] = ()
    text: str = ""

    @property
    def models(self) -> tuple[str, ...]:
        """Models that are merged, each once, in the order of the file; without the base."""
        return tuple(dict.fromkeys(s.model for part in self.slices for s in part.sources))

    @property
    def sources(self) -> tuple[str, ...]:
        """All models that are read, each once: those that are merged, then the base."""
        return tuple(
            dict.fromkeys((*self.models, *((self.base_model,) if self.base_model else ())))
        )

    @property
    def stacked(self) -> bool:
        """Whether some layers are taken instead of all."""
        return len(self.slices) > 1 or any(s.layers for part in self.slices for s in part.sources)

    @property
    def donor(self) -> str:
        """Model whose config and other files the result takes: the base, or the first model."""
        return self.base_model or self.models[0]

    @property
    def tokenizer_owner(self) -> str:
        """Model whose tokenizer and vocabulary the result has."""
        return self.tokenizer_model or self.donor


def read_recipe(source: str | Path | Mapping[str, Any]) -> Recipe:
    """Read a recipe from a file or a dictionary; mergekit's files are recognised.

    Raises:
        InputError: The file is missing, or is not YAML.
        UsageError: A key, method, parameter or value that does not exist.

    Example:
        >>> recipe = read_recipe({"method": "linear", "models": ["runs/en", "runs/de"]})
        >>> recipe.models, recipe.donor
        (('runs/en', 'runs/de'), 'runs/en')
        >>> read_recipe({"method": "linear", "models": [{"model": "a", "wieght": 1}]})
        Traceback (most recent call last):
            ...
        repsim.core.errors.UsageError: unknown recipe key 'models[0].wieght' (hint: did you mean
        'weight'?)
    """
    if isinstance(source, Mapping):
        import yaml

        document, text = dict(source), yaml.safe_dump(dict(source), sort_keys=False)
    else:
        document, text = _load(Path(source))
    if "merge_method" in document:
        from repsim.merging.mergekit_recipe import parse_mergekit

        return parse_mergekit(document, text)
    return _parse(document, text)


def _load(path: Path) -> tuple[dict[str, Any], str]:
    import yaml

    class StrictLoader(yaml.SafeLoader):
        """Refuses a key that is written twice; YAML readers otherwise drop the first one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise InputError(f"'{path}' has the key '{key}' twice, {node.start_mark}")
            return super().construct_mapping(node, deep)

    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, StrictLoader)
    except FileNotFoundError:
        raise InputError(f"recipe '{path}' does not exist", hint="check the path") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"recipe '{path}' is not readable YAML: {error}") from None
    if not isinstance(document, dict):
        raise InputError(f"recipe '{path}' is not a mapping", hint="it starts as: method: linear")
    return document, text


_KEYS = (
    "method", "models", "base_model", "parameters", "dtype", "out_dtype", "align", "repair",
    "tokenizer", "seed",
)  # fmt: skip


def _parse(document: Mapping[str, Any], text: str) -> Recipe:
    check_keys(document, _KEYS, "")
    method = find_method(required(document, "method", ""))
    base = optional(document, "base_model", "", None, str)
    sources = _sources(required(document, "models", ""), method)
    if base and (method.needs_base or method.takes_base):
        sources = tuple(source for source in sources if source.model != base)
    elif base and base not in {source.model for source in sources}:
        raise UsageError(
            f"method '{method.name}' takes no differences to a base_model",
            hint=f"list '{base}' among the models, or leave it out",
        )
    stacked = method.name == "passthrough" and len(sources) > 1
    slices = tuple(Slice((s,)) for s in sources) if stacked else (Slice(sources),)
    for part in slices:
        method.check(len(part.sources), has_base=base is not None)
    tokenizer = document.get("tokenizer") or {"strategy": "same"}
    check_keys(tokenizer, ("strategy",), "tokenizer")
    seed = optional(document, "seed", "", 0, int)
    return Recipe(
        method=method.name,
        slices=slices,
        base_model=base,
        parameters=parse_settings(
            document.get("parameters") or {}, {**method.defaults, **method.model_defaults},
            "parameters", method.name,
        ),
        dtype=choice(document, "dtype", ("float32", "float64"), "float32", _COMPUTE_HINT),
        out_dtype=choice(document, "out_dtype", STORED_TYPES, None),
        align=choice(document, "align", ("none", "permutation", "orthogonal"), "none"),
        repair=_repair(document.get("repair")),
        tokenizer=_strategy(tokenizer),
        seed=seed,
        text=text,
    )  # fmt: skip


def _repair(document: Any) -> Repair | None:
    if document is None:
        return None
    check_keys(document, ("corpus", "languages", "limit"), "repair")
    corpus = optional(document, "corpus", "repair", required(document, "corpus", "repair"), str)
    languages = document.get("languages") or []
    if not isinstance(languages, list) or not all(type(code) is str for code in languages):
        raise UsageError(
            f"recipe key 'repair.languages' must be a list of languages, got {languages!r}",
            hint="languages: [eng_Latn, deu_Latn]",
        )
    limit = optional(document, "limit", "repair", Repair.limit, int)
    if limit < 1:
        raise UsageError(f"recipe key 'repair.limit' must be at least 1, got {limit}")
    return Repair(corpus, tuple(languages), limit)


_COMPUTE_HINT = "sums are never taken in 16 bits; out_dtype states how weights are stored"


def _sources(entries: Any, method: MergeMethod) -> tuple[Source, ...]:
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UsageError("recipe key 'models' must be a list of models")
    found = []
    for index, entry in enumerate(entries):
        where = f"models[{index}]"
        if isinstance(entry, str):
            found.append(Source(entry))
            continue
        own = {**method.model_defaults}
        if method.name == "passthrough":
            own |= method.defaults
        check_keys(entry, ("model", "layers", "statistics", *own), where)
        model = required(entry, "model", where)
        values = {k: v for k, v in entry.items() if k not in ("model", "layers", "statistics")}
        found.append(
            Source(
                str(model),
                parse_settings(values, own, where, method.name),
                layer_range(entry.get("layers"), f"{where}.layers"),
                optional(entry, "statistics", where, None, str),
            )
        )
    return tuple(found)


def _strategy(tokenizer: Mapping[str, Any]) -> Strategy:
    name = tokenizer.get("strategy")
    if name == "union":
        raise UsageError(
            "tokenizer strategy 'union' is not offered: adding one tokenizer's tokens to another "
            "leaves out its merges, so text of the second language is cut into other tokens than "
            "those its embeddings were trained on",
            hint="train on one joint tokenizer, or use 'map' where both cut text alike",
        )
    if name not in ("same", "map"):
        raise unknown_name("tokenizer strategy", str(name), ["same", "map"])
    return name
