"""Recipes: what is merged, how, and with which values for which layer.

A value is a number (or switch, or word), a list of numbers that runs linearly over the layers, or a
list of `{filter: part of a tensor's name, value: ...}` of which the first that fits holds. Values
of a model come before those of its slice, then those of the recipe; where no filter fits, the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import Field

from repsim.core.config import Config, Number, Whole

#: Types in which weights can be stored.
StoredType = Literal["float64", "float32", "float16", "bfloat16"]
Align = Literal["none", "permutation", "orthogonal", "learned"]
Strategy = Literal["same", "map", "union"]
Scalar = bool | int | float | str
#: Windows of text per language that a merge is repaired on at most: deviations of units are known
#: to a percent from some hundreds.
MOST_WINDOWS = 10_000


class Rule(NamedTuple):
    """A value for tensors whose name contains `filter`; for all if it is None or "*"."""

    filter: str | None
    value: Scalar | tuple[Scalar, ...]


Setting = Scalar | tuple[Scalar, ...] | tuple[Rule, ...]
Settings = Mapping[str, Setting]


def combine(first: Setting, second: Setting) -> Setting:
    """Filters of an inner scope, then what the outer one says where none of them fits."""
    if not (isinstance(first, tuple) and isinstance(first[0], Rule)):
        return first
    if isinstance(second, tuple) and isinstance(second[0], Rule):
        return (*first, *second)
    return (*first, Rule(None, second))


def evaluate(setting: Setting, tensor: str, depth: float) -> Scalar | None:
    """The value of a setting for one tensor at a depth of 0 to 1; None where no filter fits."""
    if not isinstance(setting, tuple):
        return setting
    if isinstance(setting[0], Rule):
        for rule in setting:
            assert isinstance(rule, Rule)
            if rule.filter in (None, "*") or str(rule.filter) in tensor:
                return evaluate(rule.value, tensor, depth)
        return None
    place = depth * (len(setting) - 1)  # of anything but numbers the entry at or below it is taken
    low = int(place)
    first, second = setting[low], setting[min(low + 1, len(setting) - 1)]
    if isinstance(first, bool | str) or isinstance(second, bool | str | Rule | tuple):
        return first
    return (1 - (place - low)) * first + (place - low) * second


@dataclasses.dataclass(frozen=True)
class Source:
    """One model, or some of its layers, as an input."""

    model: str  # Folder, or the name of a packaged model; relative to the working directory
    parameters: Settings = dataclasses.field(default_factory=dict)  # Values for this model
    layers: tuple[int, int] | None = None  # First layer and the one after the last; all if None
    statistics: str | None = None  # File with statistics of this model for data-aware methods


@dataclasses.dataclass(frozen=True)
class Slice:
    """Models that are merged layer by layer, with parameters; slices are stacked."""

    sources: tuple[Source, ...]
    parameters: Settings = dataclasses.field(default_factory=dict)
    base_layers: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class TokenChoice:
    """Whose row one token of the result takes in models that lack the token."""

    model: str | None  # Model whose row it is; None for a row of zeros
    #: Another token of that model, or its id; None for the same token.
    token: str | int | None = None
    force: bool = False  # Whether the row is that in all models, also in those that have the token
    #: Whether nothing but `force` was said: the row is found as that of other tokens.
    default: bool = False


class Repair(Config):
    """Text on which the merged model's units are given the deviations of its parents.

    Averaging units that agree only in part shrinks what they vary by; see
    `repsim.merging.align.repair`. As a recipe has it:
    `repair: {corpus: bible, languages: [eng_Latn, deu_Latn], limit: 32}`.

    Attributes:
        corpus: Training text, as `repsim.corpora.load_training_text` names it: "bible", a folder,
            "hub:NAME".
        languages: Languages to read; those that the parents state if empty.
        limit: At most so many windows of text per language.
    """

    corpus: str
    languages: tuple[str, ...] = ()
    limit: Whole = Field(default=32, ge=1, le=MOST_WINDOWS)


class LearnSettings(Config):
    """How maps of `align: learned` are learned; see `repsim.merging.align.Learning`."""

    tokens: Whole = Field(default=300_000, ge=1)
    batch: Whole = Field(default=2, ge=1)
    learning_rate: Number = Field(default=1e-2, gt=0)
    path: Literal["midpoint", "random"] = "midpoint"
    start: Literal["auto", "orthogonal", "identity"] = "auto"
    context: Whole = Field(default=128, ge=2)  # Tokens of a window, or as many as the models take


class Learn(LearnSettings):
    """Text that `align: learned` learns on, and how.

    As a recipe has it: `learn: {corpus: bible, languages: [eng_Latn, deu_Latn], tokens: 300000}`.

    Attributes:
        corpus: Training text, as `repsim.corpora.load_training_text` names it.
        languages: Languages to read, in equal parts; those that the models state if empty.
    """

    corpus: str
    languages: tuple[str, ...] = ()


class TokenWeights(Config):
    """Text whose tokens say how much each model counts in the rows of embedding and head.

    As a recipe has it: `token_weights: {corpus: bible, languages: {runs/en: [eng_Latn]}}`. These
    rows are means weighed by how often each model's text has the token, whatever the method; see
    `repsim.merging.token_weights`.

    Attributes:
        corpus: Training text, as `repsim.corpora.load_training_text` names it.
        languages: Model -> languages of its text; those that it states if it is not named.
        tokens: At most so many are counted in each language.
    """

    corpus: str
    languages: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    tokens: Whole = Field(default=250_000, ge=1)


class ThenFinetune(Config):
    """Training of all weights of a copy of the merge, which lies beside it as OUT-finetuned.

    As a recipe has it: `then_finetune: {tokens: 30000, corpus: bible, languages: [deu_Latn]}`.

    Attributes:
        tokens: How many to train on.
        corpus: Training text; that of `learn`, `token_weights` or `repair` if not given.
        languages: Languages to train on; those of `learn`, or that the models state, if empty.
        learning_rate: Peak; as `repsim.finetune` has it if not given.
    """

    tokens: Whole = Field(ge=1)
    corpus: str = ""
    languages: tuple[str, ...] = ()
    learning_rate: Number | None = Field(default=None, gt=0)


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
        learn: Text that "learned" alignment reads, and how; None if it is another.
        repair: Text on which the result is repaired; None if it is not.
        token_weights: Text by which rows of tokens are weighed; None if the method merges them.
        then_finetune: Text that a copy of the result is trained on; None if there is to be none.
        tokenizer: "same" refuses models whose tokens differ; "map" matches rows by token; "union"
            gives the result the tokens of all models.
        tokenizer_model: Model whose tokenizer and vocabulary the result has, or that a union starts
            from; the donor if None.
        tokens: Token -> whose row it takes; tokens that the tokenizer lacks are added to it.
        pad_to_multiple_of: Rows of the vocabulary are its tokens, rounded up to a multiple of this;
            as many as in the owner of the tokenizer if None.
        chat_template: Text of a chat template for the result, or "auto" for the one that most of
            the models have; the donor's if None.
        seed: Seed of methods that draw.
        notes: What a reader of the result should know about how the file was understood.
        text: The file as it was written.
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
    learn: Learn | None = None
    repair: Repair | None = None
    token_weights: TokenWeights | None = None
    then_finetune: ThenFinetune | None = None
    tokenizer: Strategy = "same"
    tokenizer_model: str | None = None
    tokens: Mapping[str, TokenChoice] = dataclasses.field(default_factory=dict)
    pad_to_multiple_of: int | None = None
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
    def share_of_training(self) -> float:
        """Tokens of `then_finetune` over all tokens that maps and weights are trained on."""
        tuned = self.then_finetune.tokens if self.then_finetune else 0
        return tuned / max(1, tuned + (self.learn.tokens if self.learn else 0))

    @property
    def donor(self) -> str:
        """Model whose config and other files the result takes: the base, or the first model."""
        return self.base_model or self.models[0]

    @property
    def tokenizer_owner(self) -> str:
        """Model whose tokenizer and vocabulary the result has."""
        return self.tokenizer_model or self.donor
