"""`repsim finetune`: train an existing model on some text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, say
from repsim.core.progress import duration


@click.command(
    epilog="""\b
Examples:
  repsim finetune HuggingFaceTB/SmolLM2-135M --corpus texts/ -l fra_Latn -o out/fra --allow-network
  repsim finetune zoo:eng-1 -l deu_Latn --also eng_Latn --tokens 20000 -o out/deu
  repsim finetune zoo:eng-1 -l deu_Latn --lora --rank 4 -o out/deu-lora
"""
)
@click.argument("model")
@opt.out("Folder of the new model.")
@opt.corpus("bible", "'bible', a folder, file or pattern, hub:NAME.")
@opt.languages("Language to train on.")
@opt.many("--also", "also", "Score the held-out text of this language too.")
@opt.count("--tokens", "Tokens to train on.", 20_000)
@click.option("--learning-rate", type=float, help="Peak; default 5e-5, 2e-4 with --lora.")
@opt.count("--batch", "Windows per update; default 4.")
@opt.count("--context", "Tokens of a window; default 256.", least=2)
@opt.flag("--lora", "Train an adapter (peft) in place of the weights.")
@opt.count("--rank", "Rank of the adapter; default 8.")
@click.option("--alpha", type=float, help="Its scale times the rank; default 16.")
@opt.many("--target", "targets", "Modules; default every linear layer.")
@opt.seed("Of data order and adapter.")
@opt.count("--evaluation-bytes", "Held-out text per language that is scored; 0 for all.", 20_000,
           least=0)  # fmt: skip
@opt.choice("--dtype", ["float32", "bfloat16"], "Default: the parent's.")
@opt.device
@opt.network
@opt.planned
def finetune(
    model: str, out: Path | None, lora: bool, rank: int | None, alpha: float | None,
    targets: tuple[str, ...], device: str | None, dry_run: bool, as_json: bool, **settings: Any,
) -> None:  # fmt: skip
    """Train MODEL on text of some languages and write the new model to a folder.

    MODEL is a Hugging Face folder, zoo:NAME or a hub id (org/name@revision); any causal language
    model will do, and its tokenizer is kept. What is stopped goes on with the same command.
    """
    from repsim.pretraining import before_and_after, log_to_stderr, plan_finetuning, run_finetuning
    from repsim.pretraining.costs import validation_seconds

    if out is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--out'.")
    out = out or Path("finetuned")
    given = {"rank": rank, "alpha": alpha, "targets": list(targets) or None}
    if not lora and any(value is not None for value in given.values()):
        raise click.UsageError("--rank, --alpha and --target go with --lora.")
    adapter = {key: value for key, value in given.items() if value is not None} if lora else None
    asked = plan_finetuning(model, out, lora=adapter, **settings)
    run = asked.run
    scoring = validation_seconds(asked.config, [run])[run.name]
    seconds = run.cpu_seconds + scoring
    about = {
        "model": model,
        "languages": list(run.languages),
        "steps": run.steps,
        "tokens": run.tokens,
        "parameters": run.parameters,
        "learning_rate": run.training.learning_rate,
        "gigabytes": round(run.parameters * (6 if lora else 16) / 1e9, 2),
        "seconds_on_one_core": round(seconds),
        "of_which_scoring": round(scoring),
    }
    what = "an adapter on" if lora else "all of"
    say("plan", f"{run.steps} steps of {run.training.batch} x {run.context} tokens, {what} "
        f"{run.parameters / 1e6:.1f}M parameters · learning rate {run.training.learning_rate:g} · "
        f"about {about['gigabytes']:g} GB, {duration(seconds)} on one CPU core, of which "
        f"{duration(scoring)} to score held-out text")  # fmt: skip
    if dry_run:
        if as_json:
            print_json(about)
        return
    log_to_stderr()
    ref = run_finetuning(asked, device=device)
    scores = before_and_after(out)
    rows = [{"language": code, **values} for code, values in scores.items()]
    document = {"plan": about, "model": ref.to_dict(), "bits_per_byte": scores}
    print_either(as_json, document, rows)
    say("wrote", f"{out}" + (f", the adapter alone in {out / 'adapter'}" if lora else ""))
    say("next", f"repsim lineage {model} {out}")
