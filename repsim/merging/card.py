"""What lies beside merged weights: config, tokenizer, recipe, provenance and a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, RepsimError
from repsim.core.files import hash_bytes, read_json, write_json, write_text
from repsim.core.formatting import markdown_name, markdown_text
from repsim.core.provenance import shown_path, shown_text, versions
from repsim.merging.one_vocabulary import BESIDE, write_tokenizer
from repsim.merging.prepare import Prepared
from repsim.models.inspect import (
    PROVENANCE_FILE,
    hash_remembered,
    read_provenance,
    split_label,
    tokenizer_files,
)

RECIPE_FILE = "repsim_recipe.yaml"
CARD_FILE = "README.md"
#: Sections that others fill in: before the merge, and after it. The last one ends the card.
FORECAST, OUTCOME = "## Forecast", "## Outcome"
_NO_FORECAST = "None was asked for: `repsim predict` makes one."
_NOT_MEASURED = (
    "Whether the merge kept what its parents know is not known here: measure it with `repsim "
    "evaluate`."
)
#: Folders that a stated path may go up.
UP = 3
_GENERATION = "generation_config.json"
_TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.json", "merges.txt",
    "vocab.txt", "chat_template.jinja",
)  # fmt: skip
#: What a tensor's journal entry says about its merge: tensor -> {"notes": [...], "values": {...}}.
Facts = Mapping[str, Mapping[str, Any]]


def write_companions(
    folder: Path, prepared: Prepared, facts: Facts, *, name: str, forecast: str = ""
) -> None:
    """Write everything that belongs to a model folder besides the weights."""
    write_json(folder / "config.json", dict(prepared.config))
    _copy(prepared.tokenizer_folder, folder, (_GENERATION,))
    if prepared.tokenizer is None:
        _copy(prepared.tokenizer_folder, folder, _TOKENIZER)
    else:
        _copy(prepared.tokenizer_folder, folder, BESIDE)
        write_tokenizer(folder, prepared.tokenizer)
    if prepared.recipe.chat_template is not None:
        _replace_template(folder, prepared.recipe.chat_template)
    parents, used = describe_parents(prepared), versions()
    write_text(folder / RECIPE_FILE, prepared.recipe.text)
    target = folder.parent / name
    stated = [{**p, "path": _portable(str(p["path"]), prepared, target)} for p in parents]
    write_json(folder / PROVENANCE_FILE, provenance(prepared, stated, used))
    write_text(folder / CARD_FILE, model_card(name, prepared, parents, used, facts, forecast))


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _replace_template(folder: Path, template: str) -> None:
    write_text(folder / "chat_template.jinja", template)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        document = read_json(path)
        document.pop("chat_template", None)
        write_json(path, document)


def describe_parents(prepared: Prepared) -> list[dict[str, Any]]:
    """Name, path, hashes and history of each model that went into the merge, the base last."""
    parents = []
    for model in prepared.recipe.sources:
        located, checkpoint = prepared.located[model], prepared.checkpoints[model]
        history = {**read_provenance(located.folder), **located.history}
        parents.append(
            {
                "name": checkpoint.name,
                "path": model,
                "base": model == prepared.recipe.base_model,
                "weights_hash": hash_remembered(checkpoint.files),
                "tokenizer_hash": _tokenizer_hash(located.folder),
                **{k: list(v) if isinstance(v, tuple) else v for k, v in history.items()},
            }
        )
    return parents


def _portable(model: str, prepared: Prepared, target: Path) -> str:
    """A parent as provenance states it: a path from the merge's folder where near, or a name."""
    located, named = prepared.located[model], split_label(model)[1]
    if located.revision is not None:
        return named
    if Path(located.path).expanduser().exists():
        return _near(located.path, target)
    return "+".join(_near(part, target) for part in named.split("+"))  # BASE+ADAPTER


def _near(model: str, target: Path) -> str:
    path = Path(model).expanduser()
    if not path.exists():
        return model
    near = os.path.relpath(path.resolve(), target.resolve())
    return near if near.count("..") <= UP else shown_path(model)


def _tokenizer_hash(folder: Path) -> str:
    try:
        return hash_remembered(tokenizer_files(folder))
    except RepsimError:
        return ""


def provenance(
    prepared: Prepared, parents: Sequence[Mapping[str, Any]], used: Mapping[str, str]
) -> dict[str, Any]:
    """The history of the result: fields of `ModelRef`, and what it was made of."""
    spoken = [language for parent in parents for language in parent.get("languages", ())]
    return {
        "role": "merged",
        "languages": list(dict.fromkeys(spoken)),
        "method": prepared.recipe.method,
        "align": prepared.recipe.align,
        "learn": prepared.recipe.learn.model_dump() if prepared.recipe.learn else None,
        "repair": prepared.calibration.identity if prepared.calibration else None,
        **{
            key: stated.model_dump() if stated else None
            for key in ("token_weights", "then_finetune")
            for stated in (getattr(prepared.recipe, key),)
        },
        "seed": prepared.recipe.seed,
        "recipe_hash": hash_bytes(prepared.recipe.text.encode()),
        "parents": [dict(parent) for parent in parents],
        "notes": list(prepared.notes),
        "versions": dict(used),
    }


def model_card(
    name: str,
    prepared: Prepared,
    parents: Sequence[Mapping[str, Any]],
    used: Mapping[str, str],
    facts: Facts,
    forecast: str = "",
) -> str:
    """The README of a merged model."""
    import yaml

    recipe, method = prepared.recipe, prepared.method
    front = yaml.safe_dump(_front_matter(prepared, parents), sort_keys=False, allow_unicode=True)
    listed = "\n".join(map(_parent_row, parents))
    said = [*prepared.notes, *summarise_notes(facts), *summarise_values(facts)]
    notes = "\n".join(f"- {markdown_text(shown_text(note))}" for note in said) or "None."
    text = shown_text(recipe.text)
    fence = "`" * max(3, _longest_run(text) + 1)
    libraries = ", ".join(f"{library} {version}" for library, version in used.items())
    return (
        f"---\n{front}---\n\n# {markdown_name(name)}\n\n"
        f"A merge of {len(recipe.models)} language models by **{method.label}**, made with "
        "repsim.\n\n"
        f"{method.definition}\n\nReference: {method.reference}.\n\n"
        f"## Parents\n\n| model | languages | SHA-256 of the weights |\n|---|---|---|\n{listed}\n\n"
        f"The config is that of {_name_of(prepared, recipe.donor)}; {_tokenizer(prepared)}.\n\n"
        f"## Recipe\n\n{fence}yaml\n{text.rstrip()}\n{fence}\n\n"
        f"Again: `repsim merge {RECIPE_FILE} OUT`, from the folder that its paths are relative to. "
        f"Computed in {recipe.dtype} and rounded once; seed {recipe.seed}.\n\n"
        f"## Notes\n\n{notes}\n\nVersions: {libraries}.\n\n"
        f"{FORECAST}\n\n{_below(forecast) or _NO_FORECAST}\n\n"
        f"{OUTCOME}\n\n{_NOT_MEASURED}\n"
    )


def has_card(folder: str | Path) -> bool:
    """Whether a folder holds the model card of a merge, with room for its outcome."""
    path = Path(folder) / CARD_FILE
    return path.is_file() and f"\n{OUTCOME}\n" in path.read_text(encoding="utf-8")


def write_outcome(folder: str | Path, outcome: str) -> None:
    """Put what a merge turned out to keep into its model card, in the place of what was there."""
    path = Path(folder) / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, heading, _ = text.rpartition(f"\n{OUTCOME}\n")
    if not heading:
        raise InputError(
            f"'{path}' is not the model card of a merge: it has no section '{OUTCOME}'",
            hint="outcomes are entered where `repsim merge` wrote a card",
        )
    write_text(path, f"{before}{heading}\n{_below(outcome)}\n")


def _below(text: str) -> str:
    """Markdown whose headings fit below one of the second level."""
    lines = text.strip().splitlines()
    top = min((len(line) - len(line.lstrip("#")) for line in lines if line[:1] == "#"), default=3)
    deeper = "#" * max(0, 3 - top)
    return "\n".join(deeper + line if line[:1] == "#" else line for line in lines)


def _parent_row(parent: Mapping[str, Any]) -> str:
    name = markdown_name(str(parent["name"])) + (" (base)" if parent["base"] else "")
    languages = markdown_name(", ".join(map(str, parent.get("languages", ())))) or "–"
    return f"| {name} | {languages} | `{parent['weights_hash']}` |"


def _name_of(prepared: Prepared, model: str) -> str:
    known = prepared.checkpoints if model in prepared.checkpoints else prepared.located
    return markdown_name(known[model].name)


def _tokenizer(prepared: Prepared) -> str:
    """Where the tokenizer comes from, and what goes with it."""
    recipe = prepared.recipe
    owner = _name_of(prepared, recipe.tokenizer_owner)
    made = "the tokenizer was made from that" if prepared.tokenizer else "the tokenizer is that"
    template = "" if recipe.chat_template is None else ". The chat template is the recipe's"
    return f"{made} of {owner}, whose generation settings go with it{template}"


def _longest_run(text: str) -> int:
    """Longest run of backticks, so that a fence can be longer."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    return longest


def _front_matter(prepared: Prepared, parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata as hubs know it. Nothing is invented: a licence is stated only if all agree."""
    spoken = [str(code)[:3] for parent in parents for code in parent.get("languages", ())]
    document: dict[str, Any] = {"library_name": "transformers"}
    hub = [p["path"] for p in parents if prepared.located[p["path"]].revision is not None]
    if hub:
        document["base_model"] = hub
    document["base_model_relation"] = "merge"
    if spoken:
        document["language"] = list(dict.fromkeys(spoken))
    licences = {stated_licence(prepared.located[str(p["path"])].folder) for p in parents}
    if len(licences) == 1 and None not in licences:
        document["license"] = licences.pop()
    if prepared.config.get("architectures"):
        decoder = any("CausalLM" in str(a) for a in prepared.config["architectures"])
        if decoder:
            document["pipeline_tag"] = "text-generation"
    document["tags"] = ["merge", "repsim", f"repsim-{prepared.recipe.method}"]
    return document


def stated_licence(folder: Path) -> str | None:
    """The licence that a model's own card states."""
    import yaml

    path = folder / "README.md"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    parts = text.split("---", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        front = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    stated = front.get("license") if isinstance(front, dict) else None
    return stated if isinstance(stated, str) else None


def summarise_notes(facts: Facts) -> list[str]:
    """What methods noted, with the number of tensors and the first of them."""
    found: dict[str, list[str]] = {}
    for tensor in sorted(facts):
        for note in facts[tensor].get("notes", ()):
            found.setdefault(note, []).append(tensor)
    return [
        f"{note}: {len(tensors)} tensor{'s' if len(tensors) > 1 else ''} "
        f"({', '.join(tensors[:3])}{', ...' if len(tensors) > 3 else ''})"
        for note, tensors in found.items()
    ]


def summarise_values(facts: Facts) -> list[str]:
    """Range over tensors of the numbers that methods reported."""
    found: dict[str, list[tuple[float, str]]] = {}
    for tensor in sorted(facts):
        for name, value in facts[tensor].get("values", {}).items():
            found.setdefault(name, []).append((float(value), tensor))
    lines = []
    for name, pairs in found.items():
        low, high = min(pairs), max(pairs)
        lines.append(
            f"{name}: from {low[0]:.3g} ({low[1]}) to {high[0]:.3g} ({high[1]}) over "
            f"{len(pairs)} tensors"
        )
    return lines
