"""Readers of the files of github.com/Sethjsa/multimerge, the repository of the source paper."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from repsim.core.errors import InputError
from repsim.core.pair_table import SIDES, BlockTable, PairTable
from repsim.core.table import Table
from repsim.core.table_files import read_table_file

SOURCE = "github.com/Sethjsa/multimerge"
PAIRS = "multiblimp/bilingual_pair_results.json"
SIMILARITY = "02-analysis/sim_results.json"
#: Holds the weights, and similarity in-language once more.
WEIGHTS = "02-analysis/sim_results1.json"
RESULTS = "multiblimp/multiblimp_all_results.csv"
RECIPES = "merging"
#: The row of `RESULTS` with the model before its first step.
UNTRAINED = ("mixed-10-checkpoints/checkpoint_0000000", "checkpoint_0000000")
#: Key of a similarity in their files -> text that it was measured on.
TEXTS = {"cka_eng": "english", "cka_inlang": "in_language", "cka_num": "numerals",
         "cka": "in_language"}  # fmt: skip


class AccuracyTable(Table):
    """MultiBLiMP accuracy of a checkpoint in a language."""

    SCHEMA = "repsim/multiblimp/1"
    STEM = "multiblimp"
    COLUMNS: ClassVar = {
        "model": ("string", "model or merge"),
        "checkpoint": ("string", "checkpoint"),
        "language": ("string", "language"),
        "accuracy": ("float", "share of minimal pairs"),
        "se": ("float", "its standard error, over minimal pairs"),
    }


class RecipeTable(Table):
    """One row per model that a mergekit recipe takes."""

    SCHEMA = "repsim/multimerge-recipes/1"
    STEM = "recipes"
    COLUMNS: ClassVar = {
        "recipe": ("string", "name of the file"),
        "method": ("string", "merge method"),
        "base": ("string", "base model; empty for none"),
        "model": ("string", "a model that is merged"),
        "weight": ("float", "its weight"),
    }


@dataclasses.dataclass(frozen=True)
class Multimerge:
    """The published numbers."""

    pairs: PairTable
    blocks: BlockTable
    accuracy: AccuracyTable
    recipes: RecipeTable
    source: str = SOURCE


def read_multimerge(path: str | Path) -> Multimerge:
    """Read a checkout of the repository, or the pairs as one CSV file."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint=f"git clone https://{SOURCE}")
    if path.is_file():
        empty = (BlockTable(), AccuracyTable(), RecipeTable())
        return Multimerge(_pairs_of_csv(path), *empty)
    outcomes = _json(path / PAIRS)
    accuracy = read_accuracy(path / RESULTS)
    files = [_json(path / name) for name in (SIMILARITY, WEIGHTS) if (path / name).exists()]
    pairs = PairTable(_pair_rows(outcomes, files, _floors(accuracy, path / RESULTS)))
    return Multimerge(pairs, BlockTable(_block_rows(files)), accuracy, read_recipes(path / RECIPES))


def read_accuracy(path: str | Path) -> AccuracyTable:
    """MultiBLiMP scores: one row per model, checkpoint and language of their wide table."""
    data = read_table_file(path)
    names = [n.removesuffix("_acc") for n in data.column_names if n.endswith("_acc")]
    if not names or not {"model", "checkpoint"} <= set(data.column_names):
        raise InputError(
            f"'{path}' is no table of MultiBLiMP scores: model, checkpoint and LANGUAGE_acc are "
            "its columns"
        )
    return AccuracyTable([
        {"model": row["model"], "checkpoint": row["checkpoint"], "language": name,
         "accuracy": row[f"{name}_acc"], "se": row.get(f"{name}_se")}
        for row in data.to_pylist() for name in names if row[f"{name}_acc"] is not None
    ])  # fmt: skip


def read_recipes(folder: str | Path) -> RecipeTable:
    """The mergekit recipes of a folder; those without models are left out."""
    import yaml

    rows = []
    for file in sorted(Path(folder).glob("*.yaml")):
        try:
            recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise InputError(f"'{file}' is no YAML: {error}") from error
        for entry in (recipe or {}).get("models", ()):
            weight = (entry.get("parameters") or {}).get("weight")
            rows.append({
                "recipe": file.stem, "method": recipe.get("merge_method"),
                "base": Path(recipe["base_model"]).name if recipe.get("base_model") else None,
                "model": entry["model"], "weight": weight,
            })  # fmt: skip
    return RecipeTable(rows)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{path}' is not there: the folder is no checkout of {SOURCE}",
                         hint=f"git clone https://{SOURCE}") from None  # fmt: skip
    except ValueError as error:
        raise InputError(f"'{path}' is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"'{path}' holds no table of pairs by language")
    return found


def _floors(accuracy: AccuracyTable, path: Path) -> dict[str, float]:
    """Language -> score of the model before its first step."""
    tail, checkpoint = UNTRAINED
    rows = [row for row in accuracy.where(checkpoint=checkpoint).rows()
            if str(row["model"]).endswith(tail)]  # fmt: skip
    if not rows:
        raise InputError(f"'{path}' has no scores of an untrained model ({tail})",
                         hint="without a floor, retention is not defined")  # fmt: skip
    return {row["language"]: row["accuracy"] for row in rows}


def _pair_rows(
    outcomes: Mapping[str, Any], files: list[dict[str, Any]], floors: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    for a, b, entry in _once(outcomes):
        try:
            row: dict[str, Any] = {"a": a, "b": b}
            for side, name in zip(SIDES, (a, b), strict=True):
                row[f"merged_{side}"] = entry["merged"][name]
                row[f"parent_{side}"] = entry["hplt"][name]
                row[f"floor_{side}"] = floors.get(name)
        except (KeyError, TypeError):
            raise InputError(f"the entry {a}, {b} of '{PAIRS}' lacks its scores") from None
        for similar in files:
            found = similar.get(a, {}).get(b, {})
            for key, text in TEXTS.items():
                if key in found:
                    row.setdefault(f"cka_{text}", found[key].get("mean_cka"))
            for mine, theirs in (("weight_cosine", "cosine_sim"), ("weight_l2", "l2_norm")):
                if theirs in found.get("weight_space", {}):
                    row.setdefault(mine, found["weight_space"][theirs])
        yield row


def _once(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each unordered pair of a symmetric table once, by first appearance."""
    seen: set[frozenset[str]] = set()
    for a, row in table.items():
        for b, entry in row.items():
            key = frozenset((a, b))
            if a != b and key not in seen:
                seen.add(key)
                yield a, b, entry


def _block_rows(files: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    taken: set[tuple[frozenset[str], str]] = set()
    for similar in files:
        for a, b, entry in _once(similar):
            for key, text in TEXTS.items():
                values = (entry.get(key) or {}).get("cka_per_layer")
                if values and (frozenset((a, b)), text) not in taken:
                    taken.add((frozenset((a, b)), text))
                    for block, value in enumerate(values, start=1):
                        yield {"a": a, "b": b, "text": text, "block": block, "cka": value}


def _pairs_of_csv(path: Path) -> PairTable:
    """The pairs as one CSV file."""
    data = read_table_file(path)
    columns = {
        f"{mine}_{side}": f"multiblimp_{theirs}_{side}"
        for mine, theirs in (("merged", "merged"), ("parent", "parent"), ("floor", "untrained"))
        for side in SIDES
    }
    plain = ("weight_cosine", "weight_l2", "cka_english", "cka_in_language")
    needed = ("a", "b", *columns.values())
    missing = [name for name in needed if name not in data.column_names]
    if missing:
        raise InputError(f"'{path}' lacks the column '{missing[0]}'",
                         hint="see repsim.studies.multimerge.files.read_multimerge")  # fmt: skip
    return PairTable([
        {"a": row["a"], "b": row["b"], **{mine: row[theirs] for mine, theirs in columns.items()},
         **{name: row.get(name) for name in plain}}
        for row in data.to_pylist()
    ])  # fmt: skip
