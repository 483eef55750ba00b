"""Merges that go on with training: a copy, OUT-finetuned, of which all weights are trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repsim.core.files import write_text
from repsim.merging.recipe import Recipe
from repsim.merging.to_disk import copy_of
from repsim.merging.to_disk import merge as merge_alone
from repsim.models.inspect import read_provenance
from repsim.pretraining.finetuning import before_and_after, finetune

_HEADING = "## Merge"


@functools.wraps(merge_alone)
def merge(recipe: Recipe | str | Path | Mapping[str, Any], out: str | Path, **how: Any) -> Path:
    """The merge alone, and a trained copy of it where the recipe asks for one."""
    say, device = how.get("say"), how.get("device")
    return merge_alone(recipe, out, then=lambda r, folder: _train(r, folder, device, say), **how)


def _train(
    recipe: Recipe, folder: Path, device: str | None, say: Callable[[str, str], None] | None
) -> None:
    """Train a copy of a merge, and state the share of training in its card."""
    asked, out = recipe.then_finetune, copy_of(folder)
    assert asked
    languages = asked.languages or tuple(read_provenance(folder).get("languages", ()))
    finetune(
        str(folder), out, languages=languages, corpus=asked.corpus, tokens=asked.tokens,
        learning_rate=asked.learning_rate, seed=recipe.seed, device=device,
    )  # fmt: skip
    found = outcome(recipe, folder)
    change = ", ".join(
        f"{code} {bits['before']:.3f} -> {bits['after']:.3f}"
        for code, bits in found["bits_per_byte"].items()
    )
    text = f"bits per byte {change}; {100 * found['share_of_tokens']:.0f} % of all tokens"
    card = out / "README.md"
    before = card.read_text(encoding="utf-8").partition(f"{_HEADING}\n")[0].rstrip()
    write_text(card, f"{before}\n\n{_HEADING}\n\nA copy of the merge `{folder.name}` ("
                     f"{recipe.method}, align {recipe.align}), trained: {text} that maps and "
                     "weights were trained on.\n")  # fmt: skip
    if say:
        say("finetuned", f"{out}: {text}")


def outcome(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Folder, tokens, share of all tokens that were trained on, and bits of a trained copy."""
    assert recipe.then_finetune
    out, tokens = copy_of(folder), recipe.then_finetune.tokens
    return {
        "out": str(out),
        "tokens": tokens,
        "share_of_tokens": recipe.share_of_training,
        "bits_per_byte": before_and_after(out),
    }
