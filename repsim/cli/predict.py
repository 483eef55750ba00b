"""`repsim predict`: what a merge would keep, before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli.output import print_json, print_table, say
from repsim.core.errors import UsageError

if TYPE_CHECKING:
    from repsim.core.forecast import MergeForecast

#: Tiers from cheap to dear.
TIERS = ("T0", "T1", "T2", "T3")
_RANKED = {
    "method": "method", "alignment": "alignment", "worst": "worst", "interval": "90 % interval",
    "p_collapse": "p(collapse)", "p_useful": "p(useful)", "verdict": "verdict",
}  # fmt: skip


@click.command(
    epilog="""\b
Examples:
  repsim predict zoo:eng-fork zoo:deu-fork
  repsim predict recipe.yml --fail-above 0.2
  repsim predict zoo:eng-1 zoo:eng-2 --rank-methods -o out/ways
  repsim predict --matrix zoo:eng-1 zoo:deu-1 zoo:eng-fork zoo:deu-fork -o out/pool

\b
Verdicts:
  merge         collapse at most 20 % likely, better than each parent at least 50 %
  align first   as they are they may collapse; after the alignment that is named they may not
  do not merge  everything else that can be foretold
  cannot say    the models do not fit, or no known merge is like this one; what was
                measured is shown, as evidence and not as a forecast
"""
)
@click.argument("sources", nargs=-1, required=True, metavar="(RECIPE | MODEL MODEL...)")
@click.option("--method", help="Merge method; default: linear. See: repsim methods")
@click.option(
    "--align",
    type=click.Choice(["none", "permutation", "orthogonal"]),
    help="How the others are brought to the first before merging; default: none.",
)
@click.option("--base", help="Base of methods on differences.")
@click.option("--corpus", default="bible-heldout", show_default=True, help="Parallel sentences.")
@click.option("-l", "--language", "languages", multiple=True, help="Default: those of the models.")
@click.option(
    "--tier",
    type=click.Choice(TIERS),
    default="T2",
    show_default=True,
    help="Measure up to: T0 metadata, T1 weights, T2 activations, T3 gradients.",
)
@click.option("--limit", type=click.IntRange(min=20), default=200, show_default=True,
              help="Sentences per language.")  # fmt: skip
@click.option("--predictor", help="Folder of a predictor; default: the one that ships.")
@click.option("--rank-methods", is_flag=True, help="Every known method and alignment, best first.")
@click.option("--matrix", is_flag=True, help="Every pair of the models named.")
@click.option("--up-to", type=click.IntRange(min=2), default=2, show_default=True,
              help="With --matrix: also combinations of so many.")  # fmt: skip
@click.option("--oracle", is_flag=True, help="Also try the plain average on a few sentences.")
@click.option("--evidence", is_flag=True, help="Measure even what no forecast can come of.")
@click.option("--fail-above", type=click.FloatRange(0, 1), metavar="P",
              help="Exit 10 if collapse is more likely, or it cannot say.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of sentences and shuffles.")
@click.option("--device", help="cpu, cuda, cuda:1; default: a GPU if there is one.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for page and figure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def predict(sources: tuple[str, ...], **options: Any) -> None:
    """Forecast what a merge of MODELS would keep of each language, without making it.

    The models are named, or a RECIPE (mergekit's are read too). 1 means that the merge keeps what
    the best parent of a language knows, 0 that it is no better than counting tokens.
    """
    from repsim.mergeability.forecast import choose_predictor

    asked = _Asked(sources, options)
    predictor = choose_predictor(options["predictor"])
    asked.plan(predictor.identity)
    forecasts = asked.forecasts(predictor)
    failed = _gate(forecasts, options["fail_above"])
    if options["as_json"]:
        gate = {"gate": {"limit": options["fail_above"], "passed": not failed}}
        print_json(asked.document(forecasts) | (gate if options["fail_above"] is not None else {}))
    elif asked.many:
        _print_many(forecasts, with_parents=options["matrix"])
    else:
        _print_one(forecasts[0])
    if options["rank_methods"]:
        asked.tell_left_out(predictor)
    if options["out"]:
        _write(forecasts, options["out"], matrix=options["matrix"], document=asked.document)
    say("next", asked.next_command(forecasts))
    if failed:
        say("gate", f"failed: {failed}")
        raise click.exceptions.Exit(10)


class _Asked:
    """What the command line asks, read and checked before anything is measured."""

    def __init__(self, sources: tuple[str, ...], options: dict[str, Any]) -> None:
        self.options = options
        self.notes: tuple[str, ...] = ()
        if options["matrix"] and options["rank_methods"]:
            raise UsageError("--matrix and --rank-methods do not go together")
        if options["up_to"] > 2 and not options["matrix"]:
            raise UsageError("--up-to needs --matrix")
        self.models, self.base = sources, options["base"]
        self.method, self.alignment = options["method"] or "linear", options["align"] or "none"
        self.tokenizer = "same"
        if len(sources) == 1:
            if Path(sources[0]).suffix not in (".yml", ".yaml", ".json"):
                raise UsageError(
                    f"'{sources[0]}' alone is no merge", hint="name two models, or a recipe.yml"
                )
            self._read_recipe(sources[0])
        if options["rank_methods"] and (options["method"] or options["align"]):
            raise UsageError("--rank-methods takes every method; leave out --method and --align")

    def _read_recipe(self, path: str) -> None:
        from repsim.mergeability.question import read_question

        for name in ("method", "align", "base"):
            if self.options[name] is not None:
                raise UsageError(
                    f"--{name} does not go with a recipe file", hint="write it into the recipe"
                )
        asked = read_question(path)
        self.models, self.base, self.notes = asked.models, asked.base, asked.notes
        self.method, self.alignment = asked.method, asked.alignment
        self.tokenizer = asked.tokenizer

    @property
    def many(self) -> bool:
        """Whether a table of forecasts is asked for."""
        return bool(self.options["matrix"] or self.options["rank_methods"])

    def plan(self, predictor: str) -> None:
        """Say what will be done, before it begins."""
        what = f"{len(self.models)} models"
        if self.options["matrix"]:
            from repsim.mergeability.matrix import combinations_of

            count = len(combinations_of(self.models, self.options["up_to"]))
            what += f", {count} combination{'s' if count > 1 else ''}"
        way = "every known method" if self.options["rank_methods"] else self.method
        if self.alignment != "none":
            way += f", {self.alignment} alignment"
        tiers = " ".join(self._tiers())
        say("plan", f"{what} · {way} · tiers {tiers} · predictor {predictor}")
        for note in self.notes:
            say("note", note)

    def _tiers(self) -> tuple[str, ...]:
        return TIERS[: TIERS.index(self.options["tier"]) + 1]

    def forecasts(self, predictor: Any) -> tuple[MergeForecast, ...]:
        """Measure, and ask the predictor."""
        common = {
            "base": self.base, "predictor": predictor, "say": say,
            "corpus": self.options["corpus"], "languages": tuple(self.options["languages"]),
            "tiers": self._tiers(), "limit": self.options["limit"],
            "seed": self.options["seed"], "device": self.options["device"],
            "tokenizer": self.tokenizer, "oracle": self.options["oracle"],
            "insist": self.options["evidence"],
        }  # fmt: skip
        if self.options["matrix"]:
            from repsim.mergeability.matrix import predict_matrix

            return predict_matrix(
                self.models, self.method, self.alignment, most=self.options["up_to"], **common
            )
        if self.options["rank_methods"]:
            from repsim.mergeability.ranking import rank_methods

            return rank_methods(self.models, **common)
        from repsim.mergeability.forecast import predict_merge

        return (predict_merge(self.models, self.method, self.alignment, **common),)

    def document(self, forecasts: Sequence[MergeForecast]) -> dict[str, Any]:
        """The JSON document: one forecast, or a list of them."""
        notes = {"recipe_notes": list(self.notes)} if self.notes else {}
        if self.many:
            return {"forecasts": [found.to_dict() for found in forecasts], **notes}
        return {"forecast": forecasts[0].to_dict(), **notes}

    def tell_left_out(self, predictor: Any) -> None:
        """Say which methods are not in the ranking, and why."""
        from repsim.mergeability.ranking import left_out

        known = left_out(len(self.models), predictor, has_base=self.base is not None)
        for why, names in known.items():
            say("note", f"not ranked ({why}): {names}")

    def next_command(self, forecasts: Sequence[MergeForecast]) -> str:
        """What to type next."""
        from repsim.mergeability.ranking import best_first
        from repsim.mergeability.words import next_command

        best = min(forecasts, key=best_first)
        if self.options["matrix"]:
            from repsim.mergeability.matrix import combinations_of

            groups = combinations_of(self.models, self.options["up_to"])
            return f"repsim predict {' '.join(map(str, groups[forecasts.index(best)]))}"
        if best.verdict == "do not merge" and self.options["rank_methods"]:
            return f"repsim compare {' '.join(self.models)} -o DIR"
        return next_command(best, self.models, self.base)


def _print_one(forecast: MergeForecast) -> None:
    """The table on stdout; verdict, reasons and costs on stderr."""
    from repsim.core.formatting import number
    from repsim.mergeability.words import (
        NOT_A_FORECAST,
        TRIAL,
        cost_text,
        retention_rows,
        trial_rows,
    )

    if forecast.retention:
        heads = {"language": "language", "retention": "retention", "interval": "90 % interval"}
        print_table(retention_rows(forecast), heads)
    say("verdict", forecast.advice)
    label = NOT_A_FORECAST if forecast.refusal else "reason"
    for reason in forecast.reasons:
        say(label, reason.text)
    for known in forecast.nearest:
        say("known", f"{known.merge}, {known.language}: kept {number(known.retention)}")
    if tried := trial_rows(forecast):
        say("trial", TRIAL)
        for row in tried:
            say("trial", f"{row['what']}: {number(row['value'])}")
    for note in forecast.notes:
        say("note", note)
    say("cost", cost_text(forecast))


def _print_many(forecasts: Sequence[MergeForecast], *, with_parents: bool) -> None:
    """A ranking on stdout; refusals on stderr."""
    from repsim.mergeability.ranking import best_first
    from repsim.mergeability.words import cost_text, summary_row

    rows = [summary_row(found) for found in sorted(forecasts, key=best_first)]
    heads = {"parents": "parents", **_RANKED} if with_parents else _RANKED
    print_table(rows, heads)
    refused: dict[str, list[str]] = {}
    for found in forecasts:
        if found.refusal:
            what = " + ".join(found.models) if with_parents else found.method
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
        name = f"{' + '.join(found.models)} ({found.method}, {found.alignment})"
        if found.p_collapse is None:
            return f"{name} cannot be foretold, which counts as a failure"
        if found.p_collapse > limit:
            return f"{name} collapses with probability {found.p_collapse:.2f}, above {limit:g}"
    return ""


def _write(forecasts: Sequence[MergeForecast], out: Path, *, matrix: bool, document: Any) -> None:
    """JSON, Markdown, tables and figure, as far as there is something to draw."""
    from repsim.core.files import write_json, write_text
    from repsim.mergeability.matrix import ForecastTable
    from repsim.mergeability.words import markdown

    out.mkdir(parents=True, exist_ok=True)
    written = [write_json(out / "forecast.json", document(forecasts))]
    figures = _draw(forecasts, out, matrix=matrix)
    page = markdown(forecasts, figure=figures[0].name if figures else "")
    written += [write_text(out / "forecast.md", page), *figures]
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
