"""`repsim pretrain`: train one model or a family from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, print_table, say, with_bits_per_byte
from repsim.core.progress import duration


@click.command(
    epilog="""\b
Examples:
  repsim pretrain two_languages -o runs/two           (an example that ships with repsim)
  repsim pretrain my_family.yaml -o runs/mine --only eng --dry-run
  torchrun --nproc-per-node 8 -m repsim.pretraining my_family.yaml -o runs/mine
"""
)
@click.argument("config")
@opt.out("Folder of the family.")
@opt.many("--only", "only", "Train this run (and what it is forked from).")
@opt.device
@opt.flag("--fresh", "Train anew what is there.")
@opt.network
@opt.planned
def pretrain(
    config: str, out: Path | None, only: tuple[str, ...], device: str | None, fresh: bool,
    allow_network: bool, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train the models that CONFIG describes: a YAML file, or the name of a shipped example.

    A run that was stopped goes on where it was, to the bit; a run that is done is not done again.
    Each model is a Hugging Face folder that transformers loads as it is.
    """
    from repsim.pretraining import load_config, log_to_stderr, plan
    from repsim.pretraining import pretrain as train
    from repsim.pretraining.costs import validation_seconds
    from repsim.pretraining.family import select
    from repsim.pretraining.parent import open_parent

    family = load_config(config)
    if family.init_from:
        open_parent(family.init_from, allow_network=allow_network)
    runs = select(plan(family), list(only) or None)
    scoring = validation_seconds(family, runs)
    cost = sum(run.cpu_seconds + scoring[run.name] for run in runs)
    say("plan", f"{len(runs)} models · about {duration(cost)} on one CPU core, of which "
        f"{duration(sum(scoring.values()))} to score held-out text")  # fmt: skip
    rows = [
        {
            "run": run.name,
            "languages": list(run.languages),
            "steps": f"{run.first_step}-{run.last_step}",
            "tokens": f"{run.tokens:,}",
            "parameters": f"{run.parameters / 1e6:.2f}M",
            "one core": duration(run.cpu_seconds + scoring[run.name]),
        }
        for run in runs
    ]
    if dry_run:
        shown = [row | {"languages": _listed(row["languages"])} for row in rows]
        print_either(as_json, {"runs": rows}, shown)
        return
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    log_to_stderr()
    refs = train(
        family, out, only=list(only) or None, device=device, resume=not fresh,
        allow_network=allow_network,
    )  # fmt: skip
    curves = _draw_curves(out)
    if as_json:
        print_json({"models": [ref.to_dict() for ref in refs], "curves": curves})
    else:
        _print_models(refs)
    say("wrote", f"{len(refs)} models, curves in {', '.join(curves)}")
    names = " ".join(str(ref.path) for ref in refs[:3])
    say("next", f"repsim compare {names} {_corpus_for(refs)} -o out/{family.name}")


def _corpus_for(refs: list) -> str:
    """The parallel corpus that ships with repsim and holds all languages of the models."""
    from repsim.corpora.builtin_training import WHOLE

    languages = {language for ref in refs for language in ref.languages}
    return f"--corpus {'bible-heldout' if languages <= set(WHOLE) else 'YOUR_PARALLEL_TEXT'}"


def _listed(languages: Sequence[str]) -> str:
    """The languages of a run as a cell holds them."""
    more = f" and {len(languages) - 4} more" if len(languages) > 4 else ""
    return ", ".join(languages[:4]) + more


def _draw_curves(out: Path) -> list[str]:
    """Loss and bits per byte of all runs of the family, as PNG and SVG."""
    from repsim.plots import FIGURES, save_figure

    return [
        str(path)
        for path in save_figure(FIGURES["training"]([out]), out / "curves", ("png", "svg"))
    ]


def _print_models(refs: list) -> None:
    """Bits per byte of each model on each language, as its folder states them."""
    from repsim.pretraining import read_provenance

    documents = [read_provenance(Path(ref.path)) for ref in refs]
    rows = [{"model": ref.path, "role": ref.role} for ref in refs]
    found = [document["bits_per_byte"] for document in documents]
    print_table(with_bits_per_byte(rows, found, documents[0]["unigram_floor"]))
