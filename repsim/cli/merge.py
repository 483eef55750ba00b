"""`repsim merge`: from a recipe, or from model names, to a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, say, size
from repsim.core.errors import RepsimError, UsageError
from repsim.core.files import write_json
from repsim.core.forecast import FORECAST_FILE

if TYPE_CHECKING:
    from repsim.core.forecast import MergeForecast
    from repsim.merging.prepare import Prepared
    from repsim.merging.recipe import Recipe
    from repsim.merging.steps import Step

#: Bytes of weights in all parents up to which a forecast is made without being asked for.
SMALL = 64 << 20


@click.command(
    epilog="""\b
Examples:
  repsim merge recipe.yml out/merged
  repsim merge runs/en runs/de out/merged --method slerp --set t=0.4
  repsim merge runs/en runs/de out/learned --align learned --text bible -l eng_Latn -l deu_Latn
  repsim merge zoo:eng-1 zoo:deu-2 out/both --align learned --text bible --token-weights bible
  repsim merge zoo:eng-1 zoo:deu-2 out/more --token-weights bible --then-finetune 30000
  repsim merge runs/en runs/de out/ties --method ties --base runs/mixed --set density=0.3
"""
)
@click.argument("sources", nargs=-1, required=True, metavar="(RECIPE | MODEL...) OUT")
@click.option("--method", help="Merge method for MODELS; default: linear. See: repsim methods")
@click.option("--base", help="Model that differences are taken to.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Parameter; repeatable.")
@opt.choice("--align", ["none", "permutation", "orthogonal", "learned"],
            "Bring all models into the coordinates of the first before merging.")  # fmt: skip
@click.option("--text", help="Text for --align learned: 'bible', a folder, hub:NAME.")
@opt.languages("Language of that text.")
@opt.count("--tokens", "Tokens to learn on; default 300,000.")
@click.option("--then-finetune", type=click.IntRange(1), metavar="TOKENS",
              help="Train all weights of a copy of the merge, OUT-finetuned, on the text of --text "
              "or --token-weights.")  # fmt: skip
@click.option("--token-weights", metavar="TEXT",
              help="Weigh rows of embedding and head by how often each model's text has the token: "
              "'bible', a folder, hub:NAME.")  # fmt: skip
@click.option("--learning-rate", type=float, help="Peak of --then-finetune; default: 5e-5.")
@opt.choice("--out-dtype", ["float32", "float16", "bfloat16", "float64"],
            "Type of the merged weights; default: that of the first model.")  # fmt: skip
@click.option("--seed", type=int, help="Seed of methods that draw; default: 0.")
@opt.device
@click.option("--forecast/--no-forecast", default=None,
              help="Write into the model card the forecast of repsim predict. Default: of small "
              "models, from metadata and weights.")  # fmt: skip
@opt.flag("--any-base", "Merge even if the base is of another origin than the models.")
@click.option("--keep", type=opt.PATH,
              help="New folder for what a file of several merges makes in between.")  # fmt: skip
@opt.flag("--force", "Replace an earlier merge in OUT.")
@opt.planned
def merge(
    sources: tuple[str, ...], device: str | None, forecast: bool | None, any_base: bool,
    keep: Path | None, force: bool, dry_run: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Merge models into the folder OUT, by a RECIPE file or with the options given here.

    Recipes of mergekit are read as they are. A file of several merges (mergekit-multi) that name
    each other is made one after another; OUT is the one without a name, or that no other names. A
    merge that was interrupted goes on when the same command is run again. A base that shares no
    origin with the models, as a sample of the weights tells it, ends the command with exit code 4.

    \b
    Keys of a recipe:
      method, models, base_model, parameters   what is merged, and how
      dtype, out_dtype                         precision of the sums; type of the stored weights
      align: none | permutation | orthogonal   into the coordinates of the first model
      align: learned, learn: {corpus: NAME, languages: [...], tokens: N}
                                               by maps that are trained on text; no weight changes
      token_weights: {corpus: NAME, languages: {MODEL: [...]}, tokens: N}
                                               rows of embedding and head are means weighed by how
                                               often each model's text has the token
      then_finetune: {tokens: N, corpus: NAME, languages: [...], learning_rate: R}
                                               train all weights of a copy, OUT-finetuned; its
                                               text is that of learn if it names none
      repair: {corpus: NAME, languages: [...], limit: N}
                                               give units the deviations of the parents on N
                                               windows of training text per language
      tokenizer: {strategy: same | map | union, model, tokens, pad_to_multiple_of}
                                               refuse other tokens, match rows by token, or give
                                               the result the tokens of all
      chat_template: auto | NAME | TEMPLATE    that of most models, a known one, or this one
      seed                                     of methods that draw
    """
    from repsim.merging.steps import parents_of, read_steps
    from repsim.pretraining.finetuned_merge import merge as run
    from repsim.pretraining.finetuned_merge import outcome

    if len(sources) < 2:
        raise UsageError("name a recipe or models, and then the folder of the result")
    if _is_model(sources[-1]):
        raise UsageError(
            f"the folder of the result is missing: '{sources[-1]}' is a model",
            hint=f"repsim merge {' '.join(sources)} out/merged",
        )
    out = Path(sources[-1])
    steps = read_steps(sources[0]) if len(sources) == 2 and not _given(options) else []
    recipe = steps[-1].recipe(Path()) if steps else _recipe(sources[:-1], options)
    if steps and forecast:
        raise UsageError(
            "a forecast is made of one merge, and the recipe holds several",
            hint="keep those in between (--keep DIR), and ask repsim predict of the last one",
        )
    if dry_run:
        _print_plan(steps, recipe, any_base=any_base, as_json=as_json)
        return
    notes: list[str] = []

    def note(label: str, text: str) -> None:
        notes.append(text)
        say(label, text)

    made: list[MergeForecast] = []
    folder = run(
        sources[0] if steps else recipe, out, device=device, force=force, any_base=any_base,
        keep=keep, say=note,
        forecast=None if steps else lambda: _forecast_text(recipe, forecast, made),
    )  # fmt: skip
    if made and not made[0].refusal:
        write_json(folder / FORECAST_FILE, made[0].to_dict())
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    tuned = {"finetuned": outcome(recipe, folder)} if recipe.then_finetune else {}
    if as_json:
        print_json({"out": str(folder), "method": recipe.method, "bytes": written,
                    "notes": notes, **tuned})  # fmt: skip
    say("wrote", f"{folder} ({size(written)} by {recipe.method}), README.md, repsim_recipe.yaml")
    models = parents_of(steps) if steps else recipe.models
    say("next", f"repsim evaluate {folder} {' '.join(models)}")


def _is_model(name: str) -> bool:
    """Whether a name is that of a model that was there before, not of an earlier merge."""
    there = Path(name)
    is_merge = (there / "repsim_recipe.yaml").exists()
    return name.startswith("zoo:") or ((there / "config.json").exists() and not is_merge)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value not in (None, ())}


def _recipe(sources: tuple[str, ...], options: dict[str, Any]) -> Recipe:
    """A recipe from a file, or from models and options."""
    from repsim.merging.reading import read_recipe

    given = _given(options)
    if len(sources) == 1 and not Path(sources[0]).is_dir():
        if given:
            option = "--" + next(iter(given)).replace("values", "set").replace("_", "-")
            raise UsageError(
                f"{option} does not go with a recipe file", hint="write it into the recipe"
            )
        return read_recipe(sources[0])
    document: dict[str, Any] = {"method": given.pop("method", "linear"), "models": list(sources)}
    if base := given.pop("base", None):
        document["base_model"] = base
    if values := given.pop("values", ()):
        document["parameters"] = dict(opt.parameter(text) for text in values)
    if weights := given.pop("token_weights", None):
        document["token_weights"] = {"corpus": weights}
    tuning = {"tokens": given.pop("then_finetune", None), "learning_rate": given.pop(
        "learning_rate", None)}  # fmt: skip
    if tuning["tokens"]:
        document["then_finetune"] = {k: v for k, v in tuning.items() if v is not None}
    elif tuning["learning_rate"]:
        raise UsageError("--learning-rate goes with --then-finetune")
    learn = {key: given.pop(key, None) for key in ("text", "languages", "tokens")}
    if given.get("align") == "learned":
        named = {"corpus": learn["text"], **learn}
        document["learn"] = {k: v for k, v in named.items() if v is not None and k != "text"}
    elif any(learn.values()):
        raise UsageError("--text, --language and --tokens go with --align learned")
    return read_recipe(document | given)


def _forecast_text(recipe: Recipe, wanted: bool | None, made: list[MergeForecast]) -> str:
    """The forecast of a merge for its card; a failure is written there, and the merge goes on."""
    if wanted is False or (wanted is None and not _is_small(recipe)):
        return ""
    try:
        found, basis, notes = _forecast(recipe, look_further=bool(wanted))
    except RepsimError as error:
        say("forecast", f"none: {error.what}")
        return f"None could be made: {error.what}."
    except Exception as error:  # noqa: BLE001  (told, and written down; the merge goes on)
        say("forecast", f"failed: {type(error).__name__}: {error}")
        return f"None could be made, because of an error: `{type(error).__name__}: {error}`."
    from repsim.mergeability.words import markdown

    made.append(found)
    page = markdown([found]).partition("\n")[2].strip()  # the card has a heading of its own
    return "\n\n".join([page, f"Made before the merge, {basis}.", *notes])


def _is_small(recipe: Recipe) -> bool:
    from repsim.models.headers import weight_files
    from repsim.models.inspect import locate

    files = [file for model in recipe.models for file in weight_files(locate(model).folder)]
    return sum(file.stat().st_size for file in files) <= SMALL


def _forecast(recipe: Recipe, *, look_further: bool) -> tuple[MergeForecast, str, tuple[str, ...]]:
    """A forecast, that of `repsim predict` if there is one, its basis, and what it leaves out."""
    import yaml

    from repsim.mergeability.candidate import RETENTION
    from repsim.mergeability.forecast import choose_predictors, predict_merge
    from repsim.mergeability.question import read_question
    from repsim.mergeability.remembered import recall
    from repsim.mergeability.words import gain_text

    asked = read_question(yaml.safe_load(recipe.text))
    known = recall(asked, choose_predictors()[RETENTION].identity)
    if known is not None:
        basis, hint = f"by repsim predict, from tiers {' '.join(known.tiers)}", ""
    else:
        tiers = ("T0", "T1", "T2") if look_further else ("T0", "T1")
        known = predict_merge(
            asked.models, asked.method, asked.alignment, base=asked.base, tiers=tiers,
            tokenizer=asked.tokenizer, parameters=asked.parameters,
        )  # fmt: skip
        whole = "from configs, weights and activations"
        basis = whole if look_further else "from configs and weights alone"
        hint = "" if look_further else "; run repsim predict for more"
    say("forecast", f"{known.advice} ({basis}{hint})")
    if known.gain:
        say("forecast", gain_text(known.gain))
    return known, basis, asked.notes


def _print_plan(steps: Sequence[Step], recipe: Recipe, *, any_base: bool, as_json: bool) -> None:
    """What a merge would do; of a file of several, all of them."""
    from repsim.merging.prepare import prepare

    if steps:
        plans = []
        for step in steps:
            own = step.recipe(Path())
            row = {"merge": step.name or "OUT", "method": own.method, "of": ", ".join(own.sources)}
            if not step.uses:
                row["bytes"] = _plan(prepare(own, any_base=any_base))["bytes"]
            plans.append(row)
        print_either(as_json, {"plans": plans}, plans)
        return
    # What is learned changes no shape: a plan does without.
    quick = dataclasses.replace(recipe, align="orthogonal", learn=None, then_finetune=None)
    plan = _plan(prepare(quick if recipe.learn else recipe, any_base=any_base))
    plan["align"] = recipe.align
    if recipe.then_finetune:
        plan["then_finetune"] = recipe.then_finetune.tokens
    rows = [{"what": key, "value": value} for key, value in plan.items()]
    print_either(as_json, {"plan": plan}, rows)


def _plan(prepared: Prepared) -> dict[str, Any]:
    """Figures of one merge."""
    from repsim.merging.output import lay_out

    layout = lay_out({plan.name: plan.header for plan in prepared.plans})
    return {
        "method": prepared.method.name,
        "models": list(prepared.recipe.models),
        "base": prepared.recipe.base_model,
        "align": prepared.recipe.align,
        "repair": prepared.recipe.repair.corpus if prepared.recipe.repair else None,
        "tensors": len(prepared.plans),
        "bytes": layout.total,
        "files": len(layout.heads),
        "notes": list(prepared.notes),
    }
