"""Unit `control`: a model made from a trained one, so that what its merge keeps is known."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from repsim.models.causal import CausalModel
    from repsim.studies.engine.workspace import Workspace

#: Spaces from which a twin draws, by kind of control.
SPACES = {
    "permuted": ("residual_permutation", "mlp_units", "kv_groups", "query_heads"),
    "rotated": ("residual_rotation", "mlp_units", "kv_groups", "query_heads"),
}


def control_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Make a control model and keep it."""
    from repsim.models.causal import load_causal_lm

    folder = workspace.fetch(f"models/{spec['source']}")
    source = load_causal_lm(folder)
    kind, seed = spec["kind"], int(spec["seed"])
    config: Any = copy.deepcopy(source.model.config)
    if kind in SPACES:
        from repsim.merging.align.twins import planted_twin

        state, _ = planted_twin(config, source.model.state_dict(), SPACES[kind], seed=seed)
        config.tie_word_embeddings = config.tie_word_embeddings and kind == "permuted"
    elif kind == "noise":
        other = load_causal_lm(workspace.fetch(f"models/{spec['distance_to']}"))
        state = _noisy(source, other, seed)
    elif kind == "untrained":
        from repsim.pretraining.build import build_model

        state = dict(build_model(config, seed).state_dict())
    else:
        raise UsageError(f"unknown kind of control '{kind}'")
    target = workspace.folder(f"models/{spec['model']}")
    provenance = _written(target, folder, config, state, spec, source)
    workspace.publish(target, f"models/{spec['model']}")
    return {"model": spec["model"], "arm": "G", "provenance": provenance}


def _noisy(source: CausalModel, other: CausalModel, seed: int) -> dict[str, torch.Tensor]:
    """Weights plus Gaussian noise, tensor by tensor as long as the way to another model."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    theirs, noisy = other.model.state_dict(), {}
    drawn: dict[int, torch.Tensor] = {}
    for name, tensor in source.model.state_dict().items():
        if tensor.data_ptr() in drawn:  # a tied head stays tied
            noisy[name] = drawn[tensor.data_ptr()]
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        length = (theirs[name] - tensor).norm() / noise.norm()
        noisy[name] = drawn[tensor.data_ptr()] = tensor + noise * length
    return noisy


def _written(
    target: Any, source_folder: Any, config: Any, state: Mapping[str, torch.Tensor],
    spec: Mapping[str, Any], source: CausalModel,
) -> dict[str, Any]:  # fmt: skip
    """Write the model as a Hugging Face folder beside the provenance of its source."""
    import shutil

    from repsim.core.files import hash_files, read_json, write_json
    from repsim.merging.align import build_model
    from repsim.models.inspect import PROVENANCE_FILE

    model: Any = build_model(config, state)
    model.save_pretrained(target)
    for file in source_folder.iterdir():
        if file.name.startswith(("tokenizer", "special_tokens")):
            shutil.copyfile(file, target / file.name)
    known = read_json(source_folder / PROVENANCE_FILE)
    for about_files in ("files", "metrics", "sha256"):
        known.pop(about_files, None)
    untrained = spec["kind"] == "untrained"
    provenance = {
        **known,
        "name": spec["model"].rpartition("/")[2],
        "run": spec["model"].rpartition("/")[2],
        "role": "other",
        "control": spec["kind"],
        "made_from": spec["source"],
        "weights_hash": hash_files(sorted(target.glob("*.safetensors"))),
        "bits_per_byte": {},
    }
    if untrained:
        provenance |= {"tokens": 0, "own_tokens": 0, "step": 0, "history": []}
    write_json(target / PROVENANCE_FILE, provenance)
    return provenance
