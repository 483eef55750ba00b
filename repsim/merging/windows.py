"""Windows of text for what reads text during a merge: repair, and learned alignment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import InputError, UsageError
from repsim.merging.recipe import LearnSettings, Recipe
from repsim.models.inspect import read_provenance

if TYPE_CHECKING:
    import torch

    from repsim.merging.align import Learning

#: Text that is drawn for each window that is asked for: a token is seldom more bytes.
BYTES_PER_TOKEN = 8
#: The least text that is drawn, so that whole documents fit.
LEAST_BYTES = 1 << 16


def stated_languages(recipe: Recipe, folders: Mapping[str, Path], key: str) -> tuple[str, ...]:
    """Languages that the parents state."""
    stated = [read_provenance(folders[model]).get("languages", ()) for model in recipe.models]
    found = tuple(dict.fromkeys(language for languages in stated for language in languages))
    if not found:
        raise UsageError(
            f"no model states its languages, so there is no text to {key} on",
            hint=f"name them: {key}: {{corpus: ..., languages: [eng_Latn, deu_Latn]}}",
        )
    return found


def learning_on(
    corpus: str, languages: Sequence[str], how: LearnSettings, tokenizer: Any, config: Any,
    seed: int,
) -> tuple[torch.Tensor, Learning]:  # fmt: skip
    """What learned alignment takes: windows of all languages in turn, and its settings."""
    import torch

    from repsim.merging.align import Learning

    context = min(how.context, int(getattr(config, "max_position_embeddings", how.context)))
    limit = math.ceil(how.tokens / context / len(languages))
    texts = read_windows(corpus, languages, limit, tokenizer, context + 1, seed)
    turns = [row for rows in zip(*texts.values(), strict=False) for row in rows]
    settings = how.model_dump(include={"tokens", "batch", "learning_rate", "path", "start"})
    return torch.tensor(turns), Learning(**settings, seed=seed)


def read_windows(
    corpus: str, languages: Sequence[str], limit: int, tokenizer: Any, length: int, seed: int
) -> dict[str, list[tuple[int, ...]]]:  # fmt: skip
    """Language -> at most `limit` windows of whole documents, drawn by seed and strung together."""
    from repsim.corpora import load_training_text

    ends = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id)
    start = [number for number in ends if number is not None][:1]
    wanted = limit * length
    budget = max(LEAST_BYTES, wanted * BYTES_PER_TOKEN)
    texts = load_training_text(corpus, list(languages), max_bytes=budget, seed=seed)
    found = {}
    for language, text in texts.items():
        ids: list[int] = []
        for document in text.texts():
            ids += [*start, *tokenizer(document, add_special_tokens=False)["input_ids"]]
            if len(ids) >= wanted:
                break
        count = min(len(ids), wanted) // length
        if count == 0:
            raise InputError(
                f"'{corpus}' has {len(ids)} tokens in {language}, less than one window of {length}",
                hint="name a larger corpus, or leave the language out",
            )
        found[language] = [tuple(ids[i * length : (i + 1) * length]) for i in range(count)]
    return found
