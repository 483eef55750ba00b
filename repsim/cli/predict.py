"""`repsim predict`: what a merge would keep, before it is made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, print_table, say, write_found
from repsim.cli.predict_trial import (
    after_refusal,
    after_trial,
    as_recipe,
    planned_trial,
    print_trial,
    trial_page,
)
from repsim.core.errors import UsageError

if TYPE_CHECKING:
    from repsim.core.forecast import MergeForecast
    from repsim.core.model_ref import ModelRef
    from repsim.mergeability.candidate import MergePredictor
    from repsim.mergeability.question import Question
    from repsim.mergeability.trial import TrialPlan

_RANKED = {
    "method": "method", "alignment": "alignment", "worst": "worst", "interval": "90 % interval",
    "p_collapse": "p(collapse)", "p_useful": "p(useful)", "gain": "gain kept, worst",
    "verdict": "verdict",
}  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  repsim predict zoo:eng-fork zoo:deu-fork
  repsim predict recipe.yml --fail-above 0.2
  repsim predict zoo:eng-1 zoo:eng-2 --rank-methods -o out/ways
  repsim predict zoo:eng-1 zoo:eng-2 --method slerp --set t=0.3 --trial
  repsim predict --matrix zoo:eng-1 zoo:deu-1 zoo:eng-fork zoo:deu-fork -o out/pool

\b
Verdicts:
  merge            collapse at most 20 % likely, better than each parent at least 50 %
  align first      not so as they are, but after the alignment that is named
  merge or align first
                   weights alone leave open whether the plain merge would do
  keep one parent  the merge survives, but one parent serves all languages as well
  do not merge     it collapses (at least 50 % likely)
  cannot say       too close to call from what was measured; or the models do not fit, or no
                   known merge is like this one: what was measured is then evidence only
"""
)
@click.argument("sources", nargs=-1, required=True, metavar="(RECIPE | MODEL MODEL...)")
@click.option("--method", help="Merge method; default: linear. See: repsim methods")
@opt.choice("--align", ["none", "permutation", "orthogonal"],
            "How the others are brought to the first before merging; default: none.")  # fmt: skip
@opt.many("--set", "values", "Parameter of the method, NAME=VALUE; repeatable.")
@click.option("--base", help="What the parents were trained from: what is kept of the gain over it "
              "is forecast too, and methods on differences need it.")  # fmt: skip
@opt.corpus("bible-heldout", "Parallel sentences.")
@opt.languages("Default: those of the models.")
@click.option("--tier", default="T2", show_default=True, help="Measure up to: T0 metadata, "
              "T1 weights, T2 activations, T3 gradients.")  # fmt: skip
@opt.count("--limit", "Sentences per language.", 200, least=20)
@opt.many("--predictor", "predictor", "Folder of a predictor, of retention or of the gain kept; "
          "repeatable; default: those that ship.")  # fmt: skip
@click.option("--text", default="bible", show_default=True,
              help="Training text in the languages, for the unigram floor.")  # fmt: skip
@opt.flag("--rank-methods", "Every known method and alignment, best first.")
@opt.flag("--matrix", "Every pair of the models named.")
@opt.count("--up-to", "With --matrix: also combinations of so many.", 2, least=2)
@opt.flag("--trial", "Also make that very merge on disk, score it on little text and remove it, "
          "even where nothing can be forecast: a measurement, no forecast.")  # fmt: skip
@opt.count("--trial-bytes", "Held-out text of --trial, from --text, bytes of each language; "
           "default 20,000.")  # fmt: skip
@opt.flag("--evidence", "Measure even what no forecast can come of.")
@click.option("--fail-above", type=click.FloatRange(0, 1), metavar="P",
              help="Exit 10 if collapse is more likely, or it cannot say.")  # fmt: skip
@opt.seed("Of sentences and shuffles.")
@opt.device
@opt.memory_options
@opt.out("Folder for page and figure.")
@opt.planned
def predict(sources: tuple[str, ...], **options: Any) -> None:
    """Forecast what a merge of MODELS would keep of each language, without making it.

    The models are named, or a RECIPE (mergekit's are read too). 1 means that the merge keeps what
    the best parent of a language knows, 0 that it is no better than counting tokens.
    """
    from repsim.mergeability.features.tiers import up_to
    from repsim.mergeability.forecast import choose_predictors
    from repsim.mergeability.trial import run_trial

    options["tiers"] = up_to(options["tier"])
    asked = _question(sources, options)
    refs = _look_up(asked)
    predictors = choose_predictors(options["predictor"], gain=asked.base is not None)
    _plan(asked, options, [one.identity for one in predictors.values()])
    trial = planned_trial(sources, options) if options["trial"] else None
    if options["dry_run"]:
        _print_plan(refs, options, trial)
        return
    if trial:
        trial.check()
    forecasts = _forecasts(asked, options, list(predictors.values()))
    failed = _gate(forecasts, options["fail_above"])
    if not options["as_json"]:
        if options["matrix"] or options["rank_methods"]:
            _print_many(forecasts, with_parents=options["matrix"])
        else:
            _print_one(forecasts[0])
    tried = run_trial(trial, say=say) if trial else None
    document = _document(asked, options, forecasts)
    if trial and tried:
        document["trial"] = {"plan": trial.to_dict(), **tried.to_json()}
    if options["as_json"]:
        gate = {"gate": {"limit": options["fail_above"], "passed": not failed}}
        print_json(document | (gate if options["fail_above"] is not None else {}))
    elif trial and tried:
        print_trial(trial, tried)
    if options["rank_methods"]:
        _tell_left_out(asked, predictors)
    if options["out"]:
        more = trial_page(trial, tried) if trial and tried else ""
        _write(forecasts, options["out"], matrix=options["matrix"], document=document, more=more)
        if tried:
            write_found(tried, options["out"])
    say("next", after_trial(sources, options, tried) if tried
        else _next_command(sources, asked, options, forecasts))  # fmt: skip
    if failed:
        say("gate", f"failed: {failed}")
        raise click.exceptions.Exit(10)


def _question(sources: tuple[str, ...], options: dict[str, Any]) -> Question:
    """What is asked, checked before anything is measured."""
    from repsim.mergeability.question import Question, read_question

    if options["matrix"] and options["rank_methods"]:
        raise UsageError("--matrix and --rank-methods do not go together")
    if options["up_to"] > 2 and not options["matrix"]:
        raise UsageError("--up-to needs --matrix")
    several = options["matrix"] or options["rank_methods"]
    if several and (options["trial"] or options["values"]):
        raise UsageError("--trial and --set are of one merge; leave out --matrix, --rank-methods")
    if options["trial_bytes"] and not options["trial"]:
        raise UsageError("--trial-bytes goes with --trial")
    if len(sources) > 1:
        if options["values"]:
            return read_question(as_recipe(sources, options))
        if options["rank_methods"] and (options["method"] or options["align"]):
            raise UsageError("--rank-methods takes every method; leave out --method and --align")
        return Question(
            sources, options["method"] or "linear", options["align"] or "none", options["base"]
        )
    if Path(sources[0]).suffix not in (".yml", ".yaml", ".json"):
        raise UsageError(
            f"'{sources[0]}' alone is no merge", hint="name two models, or a recipe.yml"
        )
    for name in ("method", "align", "base", "values"):
        if options[name] not in (None, ()):
            raise UsageError(
                f"--{name.replace('values', 'set')} does not go with a recipe file",
                hint="write it into the recipe",
            )
    return read_question(sources[0])


def _plan(asked: Question, options: dict[str, Any], predictors: Sequence[str]) -> None:
    """Say what will be done, before it begins."""
    what = f"{len(asked.models)} models"
    if options["matrix"]:
        from repsim.mergeability.matrix import combinations_of

        count = len(combinations_of(asked.models, options["up_to"]))
        what += f", {count} combination{'s' if count > 1 else ''}"
    way = "every known method" if options["rank_methods"] else asked.method
    if asked.alignment != "none":
        way += f", {asked.alignment} alignment"
    named = ", ".join(one.removeprefix("predictor ") for one in predictors)
    say("plan", f"{what} · {way} · tiers {' '.join(options['tiers'])} · predictor {named}")
    for note in asked.notes:
        say("note", note)


def _look_up(asked: Question) -> list[ModelRef]:
    """Find every model before the predictor, which takes seconds to load."""
    from repsim.models import inspect_model

    named = [*asked.models, *([asked.base] if asked.base else [])]
    return [inspect_model(name, generic=True) for name in named]


def _print_plan(refs: Sequence[ModelRef], options: dict[str, Any], trial: TrialPlan | None) -> None:
    """The models, and what would be measured of them."""
    rows = [
        {"model": ref.name, "family": ref.architecture, "parameters": ref.parameters,
         "languages": list(ref.languages)}
        for ref in refs
    ]  # fmt: skip
    plan: dict[str, Any] = {"models": rows, "tiers": list(options["tiers"])}
    plan |= {"trial": trial.to_dict()} if trial else {}
    print_either(options["as_json"], {"plan": plan}, rows)


def _forecasts(
    asked: Question, options: dict[str, Any], predictors: Sequence[MergePredictor]
) -> Sequence[MergeForecast]:
    """Measure, and ask the predictors."""
    from repsim.mergeability import predict_matrix, predict_merge, rank_methods
    from repsim.mergeability.remembered import remember

    how: dict[str, Any] = {
        "base": asked.base, "predictor": predictors, "say": say, "tokenizer": asked.tokenizer,
        "insist": options["evidence"],
    }  # fmt: skip
    how |= {
        name: options[name]
        for name in ("corpus", "languages", "tiers", "limit", "text", "seed", "device")
    }
    how["loading"] = {name: options[name] for name in ("dtype", "device_map")}
    if options["dtype"] in ("bfloat16", "float16"):
        say("note", f"measured in {options['dtype']}; known merges were measured in float32")
    if options["matrix"]:
        most = options["up_to"]
        return predict_matrix(asked.models, asked.method, asked.alignment, most=most, **how)
    if options["rank_methods"]:
        return rank_methods(asked.models, **how)
    found = predict_merge(
        asked.models, asked.method, asked.alignment, parameters=asked.parameters, **how
    )
    if "T2" in found.tiers:  # what rests on less, a merge measures itself
        remember(asked, found)
    return [found]


def _document(
    asked: Question, options: dict[str, Any], forecasts: Sequence[MergeForecast]
) -> dict[str, Any]:
    """The JSON document: one forecast, or a list of them."""
    notes = {"recipe_notes": list(asked.notes)} if asked.notes else {}
    if options["matrix"] or options["rank_methods"]:
        return {"forecasts": [found.to_dict() for found in forecasts], **notes}
    return {"forecast": forecasts[0].to_dict(), **notes}


def _tell_left_out(asked: Question, predictors: Mapping[str, MergePredictor]) -> None:
    """Say which methods are not in the ranking, and why."""
    from repsim.mergeability.forecast import left_out

    known = left_out(len(asked.models), predictors, has_base=asked.base is not None)
    for why, names in known.items():
        say("note", f"not ranked ({why}): {names}")


def _next_command(
    sources: tuple[str, ...], asked: Question, options: dict[str, Any],
    forecasts: Sequence[MergeForecast],
) -> str:  # fmt: skip
    """What to type next."""
    from repsim.mergeability.forecast import best_first
    from repsim.mergeability.words import next_command

    best = min(forecasts, key=best_first)
    if options["matrix"]:
        from repsim.mergeability.matrix import combinations_of

        groups = combinations_of(asked.models, options["up_to"])
        return f"repsim predict {' '.join(map(str, groups[forecasts.index(best)]))}"
    if best.refusal and not options["rank_methods"]:
        return after_refusal(sources, asked.models, options)
    if best.verdict in ("do not merge", "keep one parent") and options["rank_methods"]:
        return f"repsim compare {' '.join(asked.models)} -o DIR"
    if len(sources) == 1 and best.verdict == "merge":  # a recipe says more than options can
        return f"repsim merge {shlex.quote(sources[0])} OUT"
    return next_command(best, asked.models, asked.base)


def _print_one(forecast: MergeForecast) -> None:
    """The table on stdout; verdict, reasons and costs on stderr."""
    from repsim.core.formatting import number
    from repsim.mergeability.words import (
        NOT_A_FORECAST,
        cost_text,
        forecast_heads,
        forecast_rows,
        gain_text,
    )

    if rows := forecast_rows(forecast):
        print_table(rows, forecast_heads(forecast))
    say("verdict", forecast.advice)
    if forecast.gain:
        say("gain", gain_text(forecast.gain))
    label = NOT_A_FORECAST if forecast.refusal else "reason"
    for reason in forecast.reasons_for:
        say(label, reason.text)
    for reason in forecast.reasons_against:
        say("but", reason.text)
    near = {"": forecast.nearest, "the gain in ": forecast.gain.nearest if forecast.gain else ()}
    for what, merges in near.items():
        for known in merges:
            merge = known.merge.replace(" | none", "").replace(" | ", ", ")
            say("known", f"{merge}: kept {number(known.kept)} of {what}{known.language}")
    for note in forecast.notes:
        say("note", note)
    say("cost", cost_text(forecast))


def _print_many(forecasts: Sequence[MergeForecast], *, with_parents: bool) -> None:
    """A ranking on stdout; refusals on stderr."""
    from repsim.mergeability.forecast import best_first
    from repsim.mergeability.words import cost_text, summary_row

    rows = [summary_row(found) for found in sorted(forecasts, key=best_first)]
    heads = {"parents": "parents", **_RANKED} if with_parents else dict(_RANKED)
    if not any(found.gain for found in forecasts):
        del heads["gain"]
    print_table(rows, heads)
    refused: dict[str, list[str]] = {}
    for found in forecasts:
        if found.refusal:
            what = " + ".join(found.models) if with_parents else found.way
            refused.setdefault(found.refusal, []).append(what)
    for why, names in refused.items():
        say("refused", f"{', '.join(dict.fromkeys(names))}: {why}")
    if not with_parents and forecasts:
        say("cost", cost_text(forecasts[0]))


def _gate(forecasts: Sequence[MergeForecast], limit: float | None) -> str:
    """Why the gate is not passed; empty if it is, or there is none."""
    if limit is None:
        return ""
    for found in forecasts:
        name = f"{' + '.join(found.models)} ({found.way}, {found.alignment})"
        if found.p_collapse is None:
            return f"there is no forecast of {name}, which counts as a failure"
        if found.p_collapse > limit:
            return f"{name} collapses with probability {found.p_collapse:.2f}, above {limit:g}"
    return ""


def _write(
    forecasts: Sequence[MergeForecast], out: Path, *, matrix: bool, document: dict[str, Any],
    more: str = "",
) -> None:  # fmt: skip
    """JSON, Markdown, tables and figure, as far as there is something to draw."""
    from repsim.core.files import write_json, write_text
    from repsim.mergeability.matrix import ForecastTable
    from repsim.mergeability.words import markdown

    out.mkdir(parents=True, exist_ok=True)
    written = [write_json(out / "forecast.json", document)]
    figures = _draw(forecasts, out, matrix=matrix)
    page = markdown(forecasts, figure=figures[0].name if figures else "")
    written += [write_text(out / "forecast.md", page + more), *figures]
    if len(forecasts) > 1:
        written += ForecastTable.of(forecasts).export(out)
    say("wrote", f"{out}: {', '.join(path.name for path in written)}")


def _draw(forecasts: Sequence[MergeForecast], out: Path, *, matrix: bool) -> list[Path]:
    from repsim.plots import FIGURES, save_figure

    if all(found.refusal for found in forecasts):
        say("skip", "the figure: everything was refused")
        return []
    figure = FIGURES["forecast_matrix" if matrix else "forecast"](forecasts)
    return save_figure(figure, out / "forecast")
