"""The part of a recipe that says whose tokenizer the result has: the same keys in both formats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from repsim.core.config import Config, Switch, Whole, parse
from repsim.core.errors import UsageError, unknown_name
from repsim.merging.recipe import TokenChoice


class _Reference(Config):
    model: Any = None
    path: Any = None
    revision: str | None = None
    lora: Any = None
    override_architecture: None = None


def model_name(value: Any) -> Any:
    """A model as mergekit writes one: `path@revision+adapter`, or a mapping of these parts."""
    if not isinstance(value, Mapping):
        return value
    given = parse(_Reference, value)
    if (given.model is None) == (given.path is None):
        raise PydanticCustomError("model", "the path of a model")
    name = model_name(given.path if given.model is None else given.model)
    if given.revision:
        name = f"{name}@{given.revision}"
    return name if given.lora is None else f"{name}+{model_name(given.lora)}"


#: A model of a recipe.
ModelName = Annotated[str, Field(min_length=1), BeforeValidator(model_name)]


class _ModelToken(Config):
    kind: Literal["model_token"]
    model: ModelName
    token: str | None = None
    token_id: Whole | None = Field(None, ge=0)


class _Zero(Config):
    kind: Literal["zero"]


class _Choice(Config):
    source: Any = None
    force: Switch = False


class TokenizerKeys(Config):
    """What both formats say of the tokenizer.

    Attributes:
        tokens: Token -> `{source: MODEL | {kind: zero} | {kind: model_token, model, token or
            token_id}, force: true | false}`.
        pad_to_multiple_of: Rows are rounded up to a multiple of this.
    """

    tokens: dict[str, _Choice] | None = None
    pad_to_multiple_of: Whole | None = Field(None, ge=1)

    def choices(self) -> dict[str, TokenChoice]:
        """Whose row each listed token takes."""
        return {token: _chosen(token, each) for token, each in (self.tokens or {}).items()}


def _chosen(token: str, choice: _Choice) -> TokenChoice:
    where = f"tokenizer.tokens[{token!r}].source"
    source = choice.source
    if source is None:
        return TokenChoice(None, force=choice.force, default=True)
    if not isinstance(source, Mapping) or "kind" not in source:
        name = model_name(source)
        if not isinstance(name, str) or not name:
            raise UsageError(f"'{where}' is {source!r}, must be a model or a mapping with a kind")
        return TokenChoice(name, force=choice.force)
    if source["kind"] == "zero":
        parse(_Zero, source, where)
        return TokenChoice(None, force=choice.force)
    if source["kind"] != "model_token":
        raise unknown_name(f"kind in '{where}'", str(source["kind"]), ("model_token", "zero"))
    found = parse(_ModelToken, source, where)
    if (found.token is None) == (found.token_id is None):
        raise UsageError(f"'{where}' has exactly one of token and token_id")
    own = found.token if found.token_id is None else found.token_id
    return TokenChoice(found.model, own, choice.force)
