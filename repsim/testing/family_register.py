"""Verify every family on tiny models and write what was found: `python -m ...family_register`."""

from __future__ import annotations

import functools
from typing import Any

from repsim.core.files import write_json
from repsim.merging.align import Learning, align
from repsim.merging.align.twins import planted_twin
from repsim.models.arch import spec_for
from repsim.models.arch.register import REGISTER
from repsim.testing.arch_checks import check_arch
from repsim.testing.symmetry_checks import check_symmetries
from repsim.testing.tiny_models import KINDS, tiny_model


@functools.cache
def register_model(kind: str, *, head: bool) -> Any:
    """The tiny model of a kind that is verified; made once."""
    return tiny_model(kind, head=head)


def verified_kind(kind: str) -> dict[str, Any]:
    """Run the contracts of hook points, symmetries and alignment on one kind of model; its row."""
    model_type, _, variant = kind.partition("+")
    spec, model = spec_for(model_type), register_model(kind, head=False)
    check_arch(spec, model)
    config, classes = model.config, [type(model).__name__]
    why_not, why_fixed = spec.why_unalignable(config), spec.why_unrotatable(config)
    if spec.decoder:
        whole = register_model(kind, head=True)
        classes.append(type(whole).__name__)
    if why_not is None:
        subject = whole if spec.decoder else model
        check_symmetries(subject.config, subject.state_dict(), seed=3)
        twin_is_found(subject)
    if why_fixed is None:
        alignment_is_learned(whole, kind)
    return {
        "family": spec.name,
        "model_type": model_type,
        "variant": variant,
        "classes": classes,
        "points": list(spec.points),
        "reads": spec.reads,
        "additive": spec.additive(config),
        "permutation": "yes" if why_not is None else f"no: {why_not}",
        "rotation": "yes" if why_fixed is None else f"no: {why_fixed}",
        # Maps are learned on top of a rotation.
        "learned": "yes" if why_fixed is None else "no: its stream cannot be rotated",
        "symmetries": sorted({s.name for s in spec.spaces(config).spaces}) if not why_not else [],
    }


def twin_is_found(model: Any) -> None:
    """A twin with all orders changed is found exactly, by its weights."""
    config, state = model.config, dict(model.state_dict())
    spaces = spec_for(config.model_type).spaces(config).spaces
    orders = {space.name for space in spaces if space.group.endswith("permutation")}
    twin, _ = planted_twin(config, state, orders, seed=1)
    found = align(state, [twin], config, check=False).report[0]
    assert found.distance_before > 0.1
    assert found.distance_after <= 1e-6, f"a twin stays {found.distance_after:.1e} away"


def alignment_is_learned(model: Any, kind: str) -> None:
    """Some updates of learned alignment to a stranger keep the function of the stranger."""
    import torch

    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(4, model.config.vocab_size, (2, 9), generator=generator)
    stranger = tiny_model(kind, seed=1, head=True)
    found = align(
        dict(model.state_dict()), [dict(stranger.state_dict())], model.config, method="learned",
        windows=windows, learning=Learning(tokens=32, batch=2), max_iterations=1,
    ).report[0]  # fmt: skip
    assert found.function_kept, f"learned maps change outputs by {found.output_change}"
    assert found.learned is not None
    assert found.learned.parameters > 0


def write_register() -> None:
    """Verify every kind and write the register."""
    import torch
    import transformers

    rows = [verified_kind(kind) for kind in KINDS]
    versions = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0],
    }
    write_json(REGISTER, {"versions": versions, "families": rows})


if __name__ == "__main__":
    write_register()
