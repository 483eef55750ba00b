"""Rows of embedding and head weighed by how often the text of each model has the token.

A model knows little of tokens that its own text hardly has: their rows are near where they were
initialised. In a mean of models of several languages half of each such row comes from the model
that never used it. Weighed by counts, a row is mostly that of the models that learned it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repsim.core.errors import UsageError
from repsim.merging.checkpoint import TensorSource, View
from repsim.merging.recipe import Recipe, TokenWeights
from repsim.merging.tensors import token_tensors
from repsim.merging.windows import read_windows
from repsim.models.inspect import Located, read_config, read_provenance

if TYPE_CHECKING:
    import torch


#: Tokens that are counted at a time.
WINDOW = 128
#: From this share on a row is said to be that of one model.
SOLE = 0.9


def weigh(counts: torch.Tensor) -> torch.Tensor:
    """Share of each model in the row of each token.

    Args:
        counts: How often each model's text has each token, `[models, tokens]`.

    Returns:
        Shares `[models, tokens]`, float64, that add up to 1 over models: relative frequencies with
        one occurrence more of every token, so that what no text has is an equal mean.

    Example:
        >>> import torch
        >>> weigh(torch.tensor([[7, 0, 0], [0, 7, 0]])).T.round(decimals=2).tolist()
        [[0.89, 0.11], [0.11, 0.89], [0.5, 0.5]]
    """
    smooth = counts.double() + 1.0
    frequency = smooth / smooth.sum(1, keepdim=True)
    return frequency / frequency.sum(0)


def token_shares(
    recipe: Recipe, located: Mapping[str, Located], sources: Mapping[str, TensorSource]
) -> torch.Tensor | None:
    """Share of each model in each row, `[models, rows]`, where the recipe weighs rows."""
    how, headers = recipe.token_weights, sources[recipe.models[0]].headers
    if how is None:
        return None
    import torch

    names = token_tensors(headers)
    if not names:
        raise UsageError("the models have no rows of tokens to weigh", hint="no token_weights")
    rows = headers[min(names)].shape[0]
    languages = {model: _languages(how, model, located[model].folder) for model in recipe.models}
    every = list(dict.fromkeys(code for codes in languages.values() for code in codes))
    folder = located[recipe.tokenizer_owner].folder
    config, _ = read_config(located[recipe.donor].folder)
    limit = math.ceil(how.tokens / WINDOW)
    texts = read_windows(how.corpus, every, limit, folder, config, WINDOW, recipe.seed)
    counts = {
        code: torch.bincount(torch.tensor(windows).flatten(), minlength=rows)
        for code, windows in texts.items()
    }
    none = torch.zeros(rows, dtype=torch.long)
    return weigh(
        torch.stack([sum((counts[c] for c in codes), none) for codes in languages.values()])
    )


def _languages(how: TokenWeights, model: str, folder: Path) -> Sequence[str]:
    """Languages of a model's text: as the recipe has them, else as the model states them."""
    found = how.languages.get(model) or tuple(read_provenance(folder).get("languages", ()))
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


@dataclasses.dataclass(frozen=True)
class Weighed(View):
    """A source whose rows of tokens are the weighed means of those of all models.

    Attributes:
        models: All models, this one among them.
        shares: Of each model in each row, `[models, rows]`.
    """

    models: Sequence[TensorSource]
    shares: torch.Tensor

    def read(self, tensor: str, rows: slice | None = None) -> torch.Tensor:
        """A tensor, or a range of its rows."""
        import torch

        if tensor not in token_tensors([tensor]):
            return self.source.read(tensor, rows)
        like = self.source.read(tensor, slice(0, 1))
        shares = self.shares if rows is None else self.shares[:, rows]
        total = torch.zeros((shares.shape[1], *like.shape[1:]), dtype=torch.float32)
        for model, share in zip(self.models, shares.float(), strict=True):
            total += share.reshape(-1, *(1,) * (like.ndim - 1)) * model.read(tensor, rows).float()
        return total.to(like.dtype)


def weigh_tokens(
    models: Mapping[str, TensorSource], shares: torch.Tensor, parents: Sequence[str]
) -> dict[str, TensorSource]:
    """Sources of which those that are merged have common rows of tokens; a base stays as it is."""
    merged = [models[name] for name in parents]
    return {
        name: Weighed(source, merged, shares) if name in parents else source
        for name, source in models.items()
    }
