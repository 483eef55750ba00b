"""Rows of embedding and head weighed by how often the text of each model has the token.

A model knows little of tokens that its own text hardly has: their rows are near where they were
initialised. In a mean of models of several languages half of each such row comes from the model
that never used it. Weighed by counts, a row is mostly that of the models that learned it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.merging.checkpoint import TensorSource, View
from repsim.merging.recipe import Recipe, TokenWeights
from repsim.merging.tensors import token_tensors
from repsim.merging.token_rows import Reindexed
from repsim.merging.windows import read_windows
from repsim.models.headers import TensorHeader
from repsim.models.inspect import Located, read_config, read_provenance
from repsim.models.load import load_tokenizer

if TYPE_CHECKING:
    import torch


#: Tokens that are counted at a time.
WINDOW = 128
#: From this share on a row is said to be that of one model.
SOLE = 0.9


def weigh(counts: torch.Tensor) -> torch.Tensor:
    """Share of each model in each row, from counts `[models, tokens]`, smoothed by one each."""
    smooth = counts.double() + 1.0
    frequency = smooth / smooth.sum(1, keepdim=True)
    return frequency / frequency.sum(0)


def count_rows(
    how: TokenWeights, languages: Sequence[str], tokenizer: Any, rows: int, seed: int
) -> torch.Tensor:
    """How often text of some languages, as a tokenizer cuts it, has the token of each row."""
    import torch

    texts = read_windows(
        how.corpus, languages, math.ceil(how.tokens / WINDOW), tokenizer, WINDOW, seed
    )
    ids = torch.tensor([window for windows in texts.values() for window in windows])
    return torch.bincount(ids.flatten(), minlength=rows)[:rows]


def token_shares(
    recipe: Recipe, located: Mapping[str, Located], sources: Mapping[str, TensorSource]
) -> torch.Tensor | None:
    """Share of each model in each row, by its text as its tokenizer cuts it; None if unasked."""
    how, headers = recipe.token_weights, sources[recipe.models[0]].headers
    if how is None:
        return None
    import torch

    names = token_tensors(headers)
    if not names:
        raise UsageError("the models have no rows of tokens to weigh", hint="no token_weights")
    counts, known = [], dict[Any, "torch.Tensor"]()
    for model in recipe.models:
        stated = read_provenance(located[model].folder).get("languages", ())
        languages = languages_of(how, model, stated)
        whose = recipe.tokenizer_owner if recipe.tokenizer == "same" else model
        if (whose, languages) not in known:
            folder = located[whose].folder
            tokenizer = load_tokenizer(folder, read_config(folder)[0])
            rows = max(len(tokenizer), headers[min(names)].shape[0])
            known[whose, languages] = count_rows(how, languages, tokenizer, rows, recipe.seed)
        counts.append(_as_placed(known[whose, languages], sources[model], headers[min(names)]))
    return weigh(torch.stack(counts))


def shares_by(
    how: TokenWeights, stated: Mapping[str, Sequence[str]], tokenizer: Any, rows: int, seed: int
) -> torch.Tensor:
    """Share of each model of one tokenizer in each row; `stated`: model -> its languages."""
    import torch

    spoken = [languages_of(how, model, languages) for model, languages in stated.items()]
    counts = {codes: count_rows(how, codes, tokenizer, rows, seed)
              for codes in dict.fromkeys(spoken)}  # fmt: skip
    return weigh(torch.stack([counts[codes] for codes in spoken]))


def _as_placed(counts: torch.Tensor, source: TensorSource, header: TensorHeader) -> torch.Tensor:
    """Counts in the rows of the result, nothing where a model takes the row of another."""
    if not isinstance(source, Reindexed):
        return counts[: header.shape[0]]
    own = next(rows for donor, rows in source.donors if donor is source.source)
    return counts[own].where(own >= 0, 0)


def languages_of(how: TokenWeights, model: str, stated: Sequence[str]) -> tuple[str, ...]:
    """Languages of a model's text: as the recipe has them, else as the model states them."""
    found = how.languages.get(model) or tuple(stated)
    if not found:
        raise UsageError(
            f"'{model}' does not state its languages, so its tokens cannot be counted",
            hint=f"name them: token_weights: {{corpus: ..., languages: {{{model}: [eng_Latn]}}}}",
        )
    return found


def describe_shares(recipe: Recipe, shares: torch.Tensor) -> str:
    """What was done, and to how many rows one model gives nearly all."""
    assert recipe.token_weights is not None
    sole = float((shares.max(0).values > SOLE).double().mean())
    return (
        f"rows of embedding and head are weighed by counts of tokens in '"
        f"{recipe.token_weights.corpus}': {100 * sole:.0f} % of the rows are those of one model by "
        f"{100 * SOLE:.0f} % or more"
    )


def pool_rows(rows: Iterable[torch.Tensor], shares: torch.Tensor) -> torch.Tensor:
    """Weighed mean over models of the rows of one tensor, float32."""
    weighed = (
        share.reshape(-1, *(1,) * (own.ndim - 1)) * own.float()
        for own, share in zip(rows, shares.float(), strict=True)
    )
    return functools.reduce(operator.add, weighed)


def pool_states(
    states: Sequence[Mapping[str, torch.Tensor]], shares: torch.Tensor
) -> list[dict[str, torch.Tensor]]:
    """State dicts of models of one vocabulary with common rows of tokens."""
    common = {name: pool_rows((state[name] for state in states), shares)
              for name in token_tensors(states[0])}  # fmt: skip
    return [
        {**state, **{name: rows.to(state[name].dtype) for name, rows in common.items()}}
        for state in states
    ]


@dataclasses.dataclass(frozen=True)
class Weighed(View):
    """A source whose rows of tokens are the means of those of all models, weighed by `shares`."""

    models: Sequence[TensorSource]
    shares: torch.Tensor

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        if tensor not in token_tensors([tensor]):
            return self.source.read(tensor, rows)
        like = self.source.read(tensor, slice(0, 1))
        shares = self.shares if rows is None else self.shares[:, rows]
        return pool_rows((model.read(tensor, rows) for model in self.models), shares).to(like.dtype)


def weigh_tokens(
    models: Mapping[str, TensorSource], shares: torch.Tensor, parents: Sequence[str]
) -> dict[str, TensorSource]:
    """Sources of which those that are merged have common rows of tokens; a base stays as it is."""
    merged = [models[name] for name in parents]
    return {
        name: Weighed(source, merged, shares) if name in parents else source
        for name, source in models.items()
    }
