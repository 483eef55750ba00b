"""Reading recipes: this package's own keys, and files written for mergekit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, create_model
from pydantic_core import PydanticCustomError

from repsim.core.config import Config, Whole, parse, read_yaml
from repsim.core.errors import InputError, UsageError
from repsim.merging.base import MergeMethod
from repsim.merging.chat_templates import find_template
from repsim.merging.mergekit_recipe import Layers, parse_mergekit
from repsim.merging.methods import find_method
from repsim.merging.recipe import (
    Align,
    Learn,
    Recipe,
    Repair,
    Slice,
    Source,
    StoredType,
    Strategy,
    ThenFinetune,
    TokenWeights,
)
from repsim.merging.settings import fields_of, settings_of, settings_type
from repsim.merging.tokenizer_keys import ModelName, TokenizerKeys


def read_recipe(source: str | Path | Mapping[str, Any]) -> Recipe:
    """Read a recipe from a file or a dictionary; mergekit's files are recognised.

    Keys: `method`; `models` (folders or names, or mappings of `model`, `layers`, `statistics` and
    the model's own parameters); `base_model`; `parameters`; `dtype` (of the computation) and
    `out_dtype` (of the stored weights); `align` (none, permutation, orthogonal, or learned with
    `learn`, see `Learn`); `repair` (see `Repair`); `token_weights` (see `TokenWeights`);
    `then_finetune` (see `ThenFinetune`);
    `tokenizer: {strategy: same | map | union, model, tokens, pad_to_multiple_of}` (see `Recipe`);
    `chat_template` (auto, a name, or written out); `seed`.

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
        repsim.core.errors.UsageError: unknown key 'models[0].wieght' (hint: did you mean
        'models[0].weight'?)
    """
    if isinstance(source, Mapping):
        import yaml

        document, text = dict(source), yaml.safe_dump(dict(source), sort_keys=False)
    else:
        documents = [d for d in read_yaml(source, "recipe", several=True) if d is not None]
        if len(documents) > 1:
            raise UsageError(
                f"'{source}' holds {len(documents)} merges, and one is asked for",
                hint="repsim merge makes them one after another; --keep DIR keeps those in between",
            )
        if not documents or not isinstance(documents[0], dict):
            hint = "it starts as: method: linear"
            raise InputError(f"recipe '{source}' is not a mapping", hint=hint)
        document = documents[0]
        text = Path(source).read_text(encoding="utf-8")
    if "merge_method" in document:
        return parse_mergekit(document, text)
    return _parse(document, text)


class _Tokenizer(TokenizerKeys):
    strategy: Strategy
    model: ModelName | None = None


def _sums(value: Any) -> Any:
    if value in ("float16", "bfloat16"):
        raise UsageError(
            f"'dtype' is {value!r}, must be one of: float32, float64",
            hint="sums are never taken in 16 bits; out_dtype states how weights are stored",
        )
    return value


def _listed(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not value:
        raise PydanticCustomError("models", "a list of models")
    return value


class _Keys(Config):
    """Keys of a recipe; `models` and `parameters` are as its method has them."""

    method: str
    models: Annotated[tuple[Any, ...], BeforeValidator(_listed)]
    base_model: str | None = None
    parameters: Any = None
    dtype: Annotated[Literal["float32", "float64"] | None, BeforeValidator(_sums)] = None
    out_dtype: StoredType | None = None
    align: Align | None = None
    learn: Learn | None = None
    repair: Repair | None = None
    token_weights: TokenWeights | None = None
    then_finetune: ThenFinetune | None = None
    tokenizer: _Tokenizer | None = None
    chat_template: Annotated[str, AfterValidator(find_template)] | None = None
    seed: Whole | None = None


#: Keys of a recipe.
KEYS = tuple(_Keys.model_fields)


def _parse(document: Mapping[str, Any], text: str) -> Recipe:
    method = find_method(parse(_Keys, document).method)
    own = tuple(method.parameters if method.name == "passthrough" else method.model_defaults)
    names = tuple(method.parameters)
    fields: dict[str, Any] = {
        "models": (tuple[_entry(method, own), ...], ...),  # type: ignore[misc]
        "parameters": (settings_type(method, names) | None, None),
    }
    typed = create_model("Recipe", __base__=_Keys, **fields)
    keys = parse(typed, document)
    sources = tuple(
        Source(each.model, settings_of(each, own), each.layers, each.statistics)
        for each in keys.models
    )
    base = keys.base_model
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
    vocabulary = keys.tokenizer
    if vocabulary and vocabulary.strategy == "same" and len(vocabulary.model_fields_set) > 1:
        raise UsageError(
            "tokenizer strategy 'same' leaves nothing to choose",
            hint="use strategy: map or union with model, tokens or pad_to_multiple_of",
        )
    if (keys.align == "learned") != (keys.learn is not None):
        raise UsageError(
            "'align: learned' and 'learn' go together: the one needs the text of the other",
            hint="learn: {corpus: bible, languages: [eng_Latn, deu_Latn], tokens: 300000}",
        )
    return Recipe(
        method=method.name,
        slices=slices,
        base_model=base,
        parameters=settings_of(keys.parameters, names) if keys.parameters else {},
        dtype=keys.dtype or "float32",
        out_dtype=keys.out_dtype,
        align=keys.align or "none",
        learn=keys.learn,
        repair=keys.repair,
        token_weights=keys.token_weights,
        then_finetune=_with_text(keys),
        tokenizer=vocabulary.strategy if vocabulary else "same",
        tokenizer_model=vocabulary.model if vocabulary else None,
        tokens=vocabulary.choices() if vocabulary else {},
        pad_to_multiple_of=vocabulary.pad_to_multiple_of if vocabulary else None,
        chat_template=keys.chat_template,
        seed=keys.seed or 0,
        text=text,
    )


def _with_text(keys: _Keys) -> ThenFinetune | None:
    """Fine-tuning with the text of what else reads text, where it names none."""
    asked = keys.then_finetune
    if asked is None:
        return None
    others = (asked, keys.learn, keys.token_weights, keys.repair)
    corpus = next((each.corpus for each in others if each and each.corpus), "")
    if not corpus:
        raise UsageError(
            "'then_finetune' names no text, and nothing else in the recipe reads one",
            hint="then_finetune: {corpus: bible, tokens: 30000}",
        )
    spoken = asked.languages or (keys.learn.languages if keys.learn else ())
    return asked.model_copy(update={"corpus": corpus, "languages": spoken})


def _entry(method: MergeMethod, own: tuple[str, ...]) -> Any:
    """A model in the list of models: its name, or keys among which are its own parameters."""
    keys = create_model(
        "Model",
        __base__=Config,
        model=(str, ...),
        layers=(Layers | None, None),
        statistics=(str | None, None),
        **fields_of(method, own),
    )
    return Annotated[keys, BeforeValidator(_named)]


def _named(value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        raise PydanticCustomError("entry", "the name of a model, or a mapping")
    return {"model": value} if isinstance(value, str) else value
