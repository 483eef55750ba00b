"""`repsim extract-lora`: what a model learned, as an adapter of its base."""

from __future__ import annotations

import dataclasses

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, say


@click.command(
    epilog="""\b
Examples:
  repsim extract-lora runs/tuned out/adapter --base runs/base --rank 16
  repsim extract-lora runs/tuned out/adapter --base runs/base --energy 0.9 --rank 128
"""
)
@click.argument("model")
@click.argument("out", type=click.Path())
@click.option("--base", required=True, help="Model that MODEL was fine-tuned from.")
@opt.count("--rank", "Largest rank of a layer.")
@click.option("--energy", type=click.FloatRange(0, 1, min_open=True), help="Keep this share of "
              "each layer's squared norm, by the least rank that does.")  # fmt: skip
@click.option("--rest/--no-rest", default=True, help="Store whole what is no linear layer and "
              "differs; else it is left as in the base.")  # fmt: skip
@click.option("--device", default="cpu", help="cpu (default), cuda, cuda:1.")
@opt.planned
def extract_lora(
    model: str, out: str, base: str, rank: int | None, energy: float | None, rest: bool,
    device: str, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write what MODEL moved from its base as a LoRA adapter in the folder OUT.

    Each linear layer's change is approximated by a matrix of low rank. How much of it is missing is
    measured and stated. `peft` loads the adapter, and so do all verbs, as BASE+OUT.
    """
    from repsim.merging.execute import choose_device
    from repsim.merging.lora import extract_lora as run
    from repsim.models import inspect_model

    if dry_run:
        refs = [inspect_model(name, generic=True) for name in (model, base)]
        rows = [{"model": ref.name, "family": ref.architecture, "parameters": ref.parameters,
                 "layers": ref.layers, "width": ref.width} for ref in refs]  # fmt: skip
        print_either(as_json, {"plan": {"models": rows}}, rows)
        return
    found = run(
        model, base, out, rank=rank, energy=energy, save_rest=rest, device=choose_device(device)
    )
    if as_json:
        document = {**dataclasses.asdict(found), "folder": str(found.folder)}
        print_json(document | {"energy": found.energy})
    ranks = [module.rank for module in found.modules]
    say("layers", f"{len(ranks)} of rank {min(ranks)} to {max(ranks)}, {len(found.saved)} tensors "
        f"stored whole, {len(found.left)} left as in the base")  # fmt: skip
    say("kept", f"{found.energy:.4f} of the squared norm of the change; error {found.error:.4f}")
    say("wrote", str(found.folder))
    say("next", f"repsim evaluate {base}+{found.folder} {model}")
