"""From a recipe to models that can be merged: found, checked, in one vocabulary, aligned."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import unknown_name
from repsim.core.files import hash_json
from repsim.core.provenance import DISTRIBUTION, version_of
from repsim.merging.aligning import align_models
from repsim.merging.ancestry import check_lineage
from repsim.merging.base import MergeMethod
from repsim.merging.chat_templates import AUTO, most_common_template
from repsim.merging.check import Finding, check_models, read_chat_template, refuse_errors
from repsim.merging.checkpoint import TYPES, Checkpoint, TensorSource, Transformed
from repsim.merging.in_memory import needs_statistics
from repsim.merging.methods import find_method
from repsim.merging.one_vocabulary import load_result_tokenizer, one_vocabulary
from repsim.merging.plan import TensorPlan, plan_tensors, result_layers
from repsim.merging.recipe import Recipe
from repsim.merging.tensors import merged_names, token_tensors
from repsim.merging.token_rows import Reindexed
from repsim.merging.token_weights import describe_shares, token_shares, weigh_tokens
from repsim.models.formats import folder_headers
from repsim.models.headers import TensorHeader
from repsim.models.inspect import Located, check_config, config_document, locate

if TYPE_CHECKING:
    import torch

    from repsim.merging.base import Gram
    from repsim.merging.repairing import Calibration

#: Seen on every pair of two languages in figures/learned_alignment.
REPAIR_AFTER_LEARNING = (
    "repair after learned maps lowered what was kept on every pair of two languages measured so "
    "far: evaluate a merge without it too"
)
Transform = Callable[[str, "torch.Tensor"], "torch.Tensor"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A recipe whose models are found and fit each other."""

    recipe: Recipe
    method: MergeMethod
    located: Mapping[str, Located]
    checkpoints: Mapping[str, Checkpoint]
    sources: Mapping[str, TensorSource]
    plans: Sequence[TensorPlan]
    config: Mapping[str, Any]
    statistics: Mapping[int, Mapping[str, Gram | torch.Tensor]]
    calibration: Calibration | None
    findings: Sequence[Finding]
    notes: Sequence[str]
    tokenizer: Mapping[str, Any] | None
    key: str

    @property
    def donor(self) -> Path:
        """Folder that config and other files are copied from."""
        return self.located[self.recipe.donor].folder

    @property
    def tokenizer_folder(self) -> Path:
        """Folder that the tokenizer is copied from."""
        return self.located[self.recipe.tokenizer_owner].folder


def prepare(
    recipe: Recipe, *, transforms: Mapping[str, Transform] | None = None, any_base: bool = False
) -> Prepared:  # fmt: skip
    """Find, check, re-index and align the models of a recipe, and plan every tensor."""
    method = find_method(recipe.method)
    models = recipe.sources
    located = {model: locate(model) for model in dict.fromkeys((*models, recipe.tokenizer_owner))}
    names = _labels(located)
    checkpoints = {model: Checkpoint(located[model].folder, names[model]) for model in models}
    donor_first = sorted(models, key=lambda model: model != recipe.donor)
    findings = _check(recipe, [str(located[model].folder) for model in donor_first])
    owner = recipe.tokenizer_owner
    vocabulary = one_vocabulary(recipe, checkpoints, located[owner].folder, names[owner])
    sources = vocabulary.sources
    moved = any(isinstance(source, Reindexed) for source in sources.values())
    if not transforms and not moved:
        folders = {model: found.folder for model, found in located.items()}
        findings += _check_lineage(recipe, method, folders, any_base=any_base)
    configs = {model: config_document(located[model].folder) for model in models}
    config = configs[recipe.donor]
    notes = [*recipe.notes, *(f.sentence for f in findings if f.level == "warning")]
    notes += vocabulary.notes
    config = {**config, **_vocabulary_size(config, sources[models[0]].headers)}
    if recipe.tokenizer_owner != recipe.donor:
        config |= _token_ids(located[owner].folder, config)
    recipe = _with_template(recipe, [located[model].folder for model in models])
    merged = {model: merged_names(configs[model], sources[model].headers) for model in models}
    tokenizer = functools.cache(
        lambda: load_result_tokenizer(located[owner].folder, vocabulary.document)
    )
    shares = token_shares(recipe, located, sources)
    if recipe.align != "none":
        sources, config, said = align_models(
            recipe, located, sources, config, tokenizer, shares
        )  # fmt: skip
        merged = {model: merged_names(config, source.headers) for model, source in sources.items()}
        notes += said
    if shares is not None:
        sources = weigh_tokens(sources, shares, recipe.models)
        notes.append(describe_shares(recipe, shares))
    for model, change in (transforms or {}).items():
        if model not in sources:
            raise unknown_name("model of a transform", model, sources)
        sources[model] = Transformed(sources[model], change)
    statistics = _statistics(recipe, method)
    plans = _stored_as_donor(plan_tensors(recipe, method, sources, merged), recipe, checkpoints)
    config = _result_config(config, configs, recipe, merged, plans)
    calibration = None
    if recipe.repair is not None:
        from repsim.merging.repairing import calibrate

        folders = {model: found.folder for model, found in located.items()}
        calibration = calibrate(recipe, recipe.repair, folders, tokenizer, plans)
        notes.append(calibration.describe([names[model] for model in recipe.models]))
        if recipe.align == "learned":
            notes.append(REPAIR_AFTER_LEARNING)
    if tuned := recipe.then_finetune:
        notes.append(
            f"a copy, beside this merge as -finetuned, is trained with all weights on "
            f"{tuned.tokens:,} tokens of '{tuned.corpus}': "
            f"{100 * recipe.share_of_training:.0f} % of all tokens that maps and weights train on"
        )
    return Prepared(
        recipe, method, located, checkpoints, sources, plans, config, statistics, calibration,
        findings, notes, vocabulary.document,
        key="" if transforms else _key(
            recipe, checkpoints, plans, config, calibration, vocabulary.key
        ),
    )  # fmt: skip


def check_recipe(recipe: Recipe) -> None:
    """Refuse of a recipe's values what a merge would refuse, from headers alone."""
    sources = {model: Checkpoint(locate(model).folder) for model in recipe.sources}
    names = {
        model: merged_names(config_document(source.folder), source.headers)
        for model, source in sources.items()
    }
    plan_tensors(recipe, find_method(recipe.method), sources, names)


def _labels(located: Mapping[str, Located]) -> dict[str, str]:
    """Short names of models; the names in the recipe where short ones are not unique."""
    names = {model: found.name for model, found in located.items()}
    unique = len(set(names.values())) == len(names)
    return names if unique else {model: model for model in names}


def _check(recipe: Recipe, folders: Sequence[str]) -> list[Finding]:
    if len(folders) < 2:
        alone = Path(folders[0])
        check_config(alone.name, alone, folder_headers(alone))
        return []
    findings = check_models(
        folders, tokenizer=recipe.tokenizer, stacked=recipe.stacked, aligned=recipe.align != "none"
    )
    refuse_errors(findings)
    return findings


def _check_lineage(
    recipe: Recipe, method: MergeMethod, folders: Mapping[str, Path], *, any_base: bool
) -> list[Finding]:
    """Findings on the base and on what the models share, told from a sample of their weights."""
    base = recipe.base_model if method.needs_base or method.takes_base else None
    parents = [folders[model] for model in recipe.models if model != base]
    if recipe.stacked or len(parents) + (base is not None) < 2:
        return []
    found = check_lineage(
        parents, folders[base] if base else None, aligned=recipe.align != "none"
    )  # fmt: skip
    if any_base:
        found = [dataclasses.replace(f, level="warning") if f.level == "error" else f
                 for f in found]  # fmt: skip
    way_on = "; --any-base (any_base=True) merges all the same"
    refuse_errors([dataclasses.replace(f, hint=f.hint + way_on) for f in found])
    return found


def _vocabulary_size(
    config: Mapping[str, Any], headers: Mapping[str, TensorHeader]
) -> dict[str, int]:
    """Rows of the embedding, where the config states them."""
    rows = {headers[tensor].shape[0] for tensor in token_tensors(headers)}
    return {"vocab_size": rows.pop()} if "vocab_size" in config and len(rows) == 1 else {}


def _token_ids(owner: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of special tokens as the owner of the tokenizer numbers them."""
    if not (owner / "config.json").is_file():
        return {}
    theirs = config_document(owner)
    return {k: v for k, v in theirs.items() if k.endswith("_token_id") and k in config}


def _with_template(recipe: Recipe, folders: Sequence[Path]) -> Recipe:
    """The recipe with the chat template that most of the models have, if that is asked for."""
    if recipe.chat_template != AUTO:
        return recipe
    found = most_common_template([read_chat_template(folder) for folder in folders])
    return dataclasses.replace(recipe, chat_template=found)


def _statistics(
    recipe: Recipe, method: MergeMethod
) -> dict[int, Mapping[str, Gram | torch.Tensor]]:
    if not method.needs:
        return {}
    from repsim.merging.statistics import load_statistics

    files = {s.model: s.statistics for part in recipe.slices for s in part.sources}
    if not all(files.values()):
        raise needs_statistics(method)
    return {n: load_statistics(str(files[m])) for n, m in enumerate(recipe.sources) if m in files}


def _stored_as_donor(
    plans: Sequence[TensorPlan], recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> list[TensorPlan]:
    """Aligned tensors are float32 in between; they are stored as they were found."""
    if recipe.align == "none" or recipe.out_dtype:
        return list(plans)
    headers = checkpoints[recipe.donor].headers
    common = next((h.dtype for h in headers.values() if h.dtype in TYPES), "F32")
    return [
        plan
        if plan.copied
        else dataclasses.replace(
            plan,
            header=dataclasses.replace(
                plan.header, dtype=headers[plan.name].dtype if plan.name in headers else common
            ),
        )
        for plan in plans
    ]


_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def _result_config(
    config: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]], recipe: Recipe,
    names: Mapping[str, Sequence[str]], plans: Sequence[TensorPlan],
) -> dict[str, Any]:  # fmt: skip
    """The donor's config with the result's own number of layers and type of weights."""
    found = dict(config)
    if recipe.stacked:
        origin = result_layers(recipe, names)
        for key in _LAYER_KEYS:
            if key in found:
                found[key] = len(origin)
        if all(isinstance(configs[model].get("layer_types"), list) for model, _ in origin):
            found["layer_types"] = [configs[model]["layer_types"][layer] for model, layer in origin]
    types = {plan.header.dtype for plan in plans if not plan.copied}
    if len(types) == 1:
        for key in ("dtype", "torch_dtype"):
            if key in found:
                found[key] = TYPES[next(iter(types))][0]
    return found


def _key(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], plans: Sequence[TensorPlan],
    config: Mapping[str, Any], calibration: Calibration | None, vocabulary: str,
) -> str:  # fmt: skip
    """Hash of models, recipe, plan, tokenizers, calibration text and versions."""
    settings = [recipe.method, recipe.align, recipe.tokenizer, recipe.dtype, recipe.seed]
    return hash_json(
        {
            "recipe": settings,
            "text": recipe.text,
            "files": {model: c.marks() for model, c in checkpoints.items()},
            "tensors": [plan.describe() for plan in plans],
            "config": dict(config),
            "tokenizers": vocabulary,
            "repair": calibration and calibration.identity,
            "versions": [version_of(DISTRIBUTION), version_of("torch")],
        }
    )
