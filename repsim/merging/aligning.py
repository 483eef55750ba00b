"""Models of a recipe in the coordinates of one of them, tensor by tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.files import hash_json, read_json
from repsim.core.progress import progress
from repsim.merging.checkpoint import Checkpoint, TensorSource
from repsim.merging.recipe import Learn, Recipe
from repsim.merging.tensors import is_tied
from repsim.models.inspect import Located, read_config

if TYPE_CHECKING:
    import torch


def align_models(
    recipe: Recipe, located: Mapping[str, Located], sources: Mapping[str, TensorSource],
    config: Mapping[str, Any], tokenizer: Callable[[], Any], shares: torch.Tensor | None = None,
) -> tuple[dict[str, TensorSource], dict[str, Any], list[str]]:  # fmt: skip
    """Bring all models to the coordinates of the base, or the first; `shares`: of token rows.

    `config` and `tokenizer` are those of the result.
    """
    from repsim.merging.align import align
    from repsim.merging.align.heads import Widened

    reference = recipe.donor
    others = [model for model in recipe.sources if model != reference]
    wide: dict[str, TensorSource] = {m: Widened(source) for m, source in sources.items()}
    parsed, _ = read_config(located[reference].folder)
    if "vocab_size" in config:  # that of a union is larger
        parsed = copy.copy(parsed)
        parsed.vocab_size = config["vocab_size"]
    text = _learning(recipe, recipe.learn, located, parsed, tokenizer()) if recipe.learn else {}
    assert recipe.align != "none"
    updates = text["learning"].updates(text["windows"].shape[1] - 1) if text else 0
    with progress("aligning", total=updates * len(others), unit="update") as bar:
        result = align(
            wide[reference],
            [wide[model] for model in others],
            parsed,
            method=recipe.align,
            seed=recipe.seed,
            tied=[
                is_tied(read_json(located[model].folder / "config.json"), sources[model].headers)
                for model in (reference, *others)
            ],
            on_update=lambda update, total, loss: _count(bar),
            shares=shares if text and reference in recipe.models else None,
            **text,
        )
    notes = []
    for model, report in zip(others, result.report, strict=True):
        change = "not compared" if report.output_change is None else f"{report.output_change:.1e}"
        notes.append(
            f"'{sources[model].name}' aligned to '{sources[reference].name}' ({report.method}, "
            f"{report.match}): distance {report.distance_before:.3f} -> "
            f"{report.distance_after:.3f}, largest relative change of an output {change}"
            + (f"; {report.note}" if report.note else "")
        )
        if report.learned:
            first, last = report.learned.ends
            notes.append(
                f"{report.learned.parameters:,} numbers of the map learned in "
                f"{len(report.learned.losses)} updates from the {report.learned.start} start: loss "
                f"of the midpoint {first:.3f} -> {last:.3f} nats per token"
            )
    aligned = dict(zip([reference, *others], result.sources, strict=True))
    found = {model: aligned[model] for model in recipe.sources}
    untied = not getattr(result.config, "tie_word_embeddings", True)
    return found, {**config, **({"tie_word_embeddings": False} if untied else {})}, notes


def _learning(
    recipe: Recipe, learn: Learn, located: Mapping[str, Located], config: Any, tokenizer: Any
) -> dict[str, Any]:
    """What learned alignment takes, and a file for its state that is its own."""
    from repsim.core.files import cache_folder
    from repsim.merging.windows import learning_on, stated_languages

    folders = {model: found.folder for model, found in located.items()}
    names = learn.languages or stated_languages(recipe, folders, "learn")
    windows, learning = learning_on(learn.corpus, names, learn, tokenizer, config, recipe.seed)
    marks = [Checkpoint(folders[model], model).marks() for model in recipe.sources]
    key = hash_json([recipe.text, [[name, list(mark)] for found in marks for name, mark in found]])
    return {
        "windows": windows,
        "learning": learning,
        "cache": cache_folder() / "alignments" / f"{key[:32]}.safetensors",
    }


def _count(bar: Any) -> None:
    bar.update(1)
