"""`repsim pretrain`: train one model or a family from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from repsim.cli.output import print_json, print_table, say
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
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder of the family.")
@click.option("--only", multiple=True, help="Train this run (and what it is forked from).")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("--fresh", is_flag=True, help="Train anew what is there.")
@click.option("--allow-network", is_flag=True, help="Fetch a model or text that is not here.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the models as one JSON document.")
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
        if as_json:
            print_json({"runs": rows})
        else:
            print_table([row | {"languages": _listed(row["languages"])} for row in rows])
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
    languages = sorted({lang for d in documents for lang in d["bits_per_byte"]})
    rows = [
        {
            "model": ref.path,
            "role": ref.role,
            **{f"bits/byte {lang}": d["bits_per_byte"].get(lang) for lang in languages},
        }
        for ref, d in zip(refs, documents, strict=True)
    ]
    floor = dict.fromkeys(rows[0]) | {"model": "(unigram floor)"}
    floors = documents[0]["unigram_floor"]
    rows.append(floor | {f"bits/byte {lang}": floors.get(lang) for lang in languages})
    print_table(rows)
