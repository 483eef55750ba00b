"""`repsim predictor`: fit, validate, show and extend predictors of mergeability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, print_table, say
from repsim.cli.predictor_table import renamed, validate_table
from repsim.core.errors import InputError, UsageError
from repsim.core.pool import available_cores
from repsim.mergeability.candidate import GAIN, OUTCOMES, RETENTION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from repsim.mergeability.costs import Cost
    from repsim.mergeability.evidence import EvidenceTable
    from repsim.mergeability.predictor import Predictor
    from repsim.mergeability.validation_tables import ValidationReport


@click.group()
def predictor() -> None:
    """Fit predictors of mergeability on known merges; validate, show and extend them."""


def _table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name the columns of somebody else's table."""
    for option in (
        click.option("--columns", multiple=True, metavar="NAME=COLUMN",
                     help="Column for method, language or source (fit: alignment, arm, control, "
                          "shared_init, fork_fraction, family, text) of another name; repeatable."),
        click.option("--features", help="Columns of features, comma-separated; NAME:+, NAME:- or "
                                        "NAME:0 states which way one may count."),
        click.option("--outcome", help="Column of what was kept, 1 = all, 0 = nothing; validate "
                                       "takes one per parent too. Default: retention. Fit and "
                                       "validate: gain_kept, also of an atlas."),
        click.option("--parents", help="Columns with one parent each, comma-separated, or one with "
                                       "all joined by ' + '. Default: parents."),
        click.option("--table", type=opt.PATH,
                     help="CSV (.xz, .gz) or parquet of anybody's merges, not an atlas."),
    ):  # fmt: skip
        command = option(command)
    return command


@predictor.command(
    epilog="""\b
Examples:
  repsim predictor fit runs/cpu_atlas/atlas -o out/predictor
  repsim predictor fit --table merges.csv --parents a,b --features cos:+,dist:- -o out/p
"""
)
@click.argument("atlases", nargs=-1, type=opt.PATH, metavar="[ATLAS...]")
@_table_options
@click.option("--regressor", help="Ties features to retention; default: that of the package.")
@opt.seed("Of the dealing of models.")
@opt.out("Folder.", required=True)
@opt.planned
def fit(
    atlases: tuple[Path, ...], regressor: str | None, seed: int, out: Path, dry_run: bool,
    as_json: bool, **named: Any,
) -> None:  # fmt: skip
    """Fit a predictor on atlases, or on a table of merges. The same input gives the same file."""
    import numpy as np

    from repsim.mergeability.predictor import Predictor
    from repsim.mergeability.regressors import CHOSEN

    outcome = GAIN if named["outcome"] == GAIN else RETENTION
    if atlases:
        _check_outcome(named["outcome"])
    evidence, features = _evidence(atlases, **named)
    if named["table"] and outcome == GAIN:
        evidence = evidence.with_columns({GAIN: evidence["retention"]})
    say("fit", f"{outcome.replace('_', ' ')} of {_size(evidence)}")
    if outcome == GAIN:
        say("fit", f"the gain kept is known in {np.isfinite(evidence[GAIN]).sum():,} of the rows")
    if dry_run:
        if as_json:
            print_json({"plan": _size(evidence), "outcome": outcome})
        return
    made = Predictor(regressor or CHOSEN, features=features, seed=seed, outcome=outcome)
    made.fit(evidence)
    made.save(out)
    if as_json:
        print_json(_summary(made))
    say("wrote", f"{out}: {made.identity}")
    base = " --base BASE" if outcome == GAIN else ""
    say("next", f"repsim predict A B{base} --predictor {out}")


@predictor.command(
    epilog="""\b
Examples:
  repsim predictor validate
  repsim predictor validate runs/cpu_atlas/atlas -o out/validation
  repsim predictor validate runs/mine/atlas --by shipped
  repsim predictor validate --table merges.csv --parents a,b --outcome score_a,score_b
"""
)
@click.argument("sources", nargs=-1, type=opt.PATH, metavar="[PREDICTOR|ATLAS...]")
@_table_options
@click.option("--floor", help="With --table: score of an untrained model, a number or columns.")
@click.option("--ceiling", help="With --table: score of the parents; with both ends the outcome is "
                                "the share kept.")  # fmt: skip
@opt.choice("--reduce", ["mean", "min"],
            "With --table: how several columns of outcomes become one.", "mean")  # fmt: skip
@click.option("--protocol", is_flag=True,
              help="With --table: add the protocol of Mergeability-Bench, a linear model for "
                   "each method that maximises the correlation.")  # fmt: skip
@click.option("--csv", type=opt.PATH, help="With --table: file for the scores.")
@click.option("--regressor", help="To validate; default: that of the predictor or the package, "
                                  "with --table chosen in each fold.")  # fmt: skip
@click.option("--by", help="Forecast the merges of new atlases by this predictor (a folder, or "
                          "'shipped') as it is, fitted on nothing of them.")  # fmt: skip
@opt.many("--split", "splits", "Split; repeatable; default: all.")
@opt.count("--draws", "Draws of models for intervals.", 200, least=20)
@opt.seed("Of dealing and draws.")
@opt.count("--workers", "Processes; default: one per core.")
@opt.out("Folder for report.html, figures and tables.")
@opt.planned
def validate(
    sources: tuple[Path, ...], regressor: str | None, splits: tuple[str, ...], draws: int,
    seed: int, workers: int | None, out: Path | None, as_json: bool, floor: str | None,
    ceiling: str | None, reduce: str, protocol: bool, csv: Path | None, dry_run: bool,
    by: str | None, **named: Any,
) -> None:  # fmt: skip
    """Tell how good forecasts are for models never seen.

    Without an argument: of the predictor that ships with the package. Every split holds out models:
    no model, nor a twin of one, is ever both in training and in test. All splits of the shipped
    atlas take about ten minutes of one core, shared among all cores.

    With --table: on merges that anybody made. Features keep to themselves whatever they are called;
    scores are told within folds (Pearson and Spearman) and pooled, by method, beside what who the
    parents are tells alone.
    """
    cores = workers or available_cores()
    if named["table"]:
        if dry_run:
            raise UsageError("--dry-run is of atlases and predictors", hint="leave out --table")
        if sources:
            raise UsageError("name atlases, or a table with --table", hint="and not both")
        validate_table(
            named.pop("table"), **named, floor=floor, ceiling=ceiling, reduce=reduce,
            protocol=protocol, regressor=regressor, splits=splits, draws=draws, seed=seed,
            workers=cores, out=out, csv=csv, as_json=as_json,
        )  # fmt: skip
        return
    from repsim.mergeability.regressors import CHOSEN
    from repsim.mergeability.validation import validate as run

    if by and (named["features"] or regressor or not sources):
        raise UsageError(
            "--by forecasts atlases by a predictor as it is", hint="name atlases, and no features"
        )
    evidence, features, known, outcome, costs = _to_validate(sources, named)
    stored = _loaded(None if by == "shipped" else Path(by), outcome) if by else None
    size = _size(evidence.of_outcome(outcome)) + (
        f", by {stored.identity} as it is" if stored else ""
    )
    say("plan", f"{outcome.replace('_', ' ')} of {size}")
    if dry_run:
        if as_json:
            print_json({"plan": size, "outcome": outcome})
        return
    if not costs and outcome == RETENTION:
        say("note", "what measuring costs is not in the evidence, so that this goal is left open")
    report = run(
        evidence, outcome=outcome, regressor=regressor or known or CHOSEN, features=features,
        splits=splits, draws=draws, seed=seed, costs=costs, workers=cores, stored=stored,
        say=lambda text: say("split", text),
    )  # fmt: skip
    page = _write_report(report, evidence, out) if out else None
    if as_json:
        document = report.to_json()
        del document["forecasts"]  # thousands of rows: in forecasts.parquet
        print_json({**document, "report": str(page) if page else None})
    else:
        _print_report(report)
    if page:
        say("wrote", f"{out}: report.html and .md, forecasts.parquet, tables, figures")
        say("next", f"open {page}")
    else:
        say("next", "add -o DIR to keep the report with its tables and figures")


def _write_report(report: ValidationReport, evidence: EvidenceTable, out: Path) -> Path:
    """Tables, and the page that renders them; columns of others keep the names that they have."""
    from repsim.core.provenance import environment
    from repsim.mergeability.features import FEATURES
    from repsim.mergeability.reasons import label_of
    from repsim.reports.validation import write_validation_report

    say("draw", "figures and report")
    report.save(out)
    names = dict.fromkeys([*FEATURES.names(), *evidence.features])
    labels = {name: label_of(name) for name in names}
    return write_validation_report(report, out, labels=labels, environment=environment())


@predictor.command()
@click.argument("folder", required=False, type=opt.PATH)
@opt.as_json
def show(folder: Path | None, as_json: bool) -> None:
    """Tell what a predictor knows: merges, features, regressor, domain. Default: the shipped."""
    found = _loaded(folder)
    summary = _summary(found)
    if as_json:
        print_json(summary)
        return
    print_table([{"what": key, "value": value} for key, value in summary.items() if key != "sets"])
    click.echo()
    print_table(summary["sets"])


@predictor.command(
    epilog="""\b
Examples:
  repsim predictor add runs/my_study/atlas -o out/mine
  repsim predictor add my_merges.csv --to out/mine -o out/mine2
"""
)
@click.argument("sources", nargs=-1, required=True, type=opt.PATH,
                metavar="ATLAS|TABLE...")  # fmt: skip
@click.option("--to", "folder", type=opt.PATH,
              help="Predictor to extend; default: the shipped one.")  # fmt: skip
@opt.out("Folder.", required=True)
@opt.as_json
def add(sources: tuple[Path, ...], folder: Path | None, out: Path, as_json: bool) -> None:
    """Add merges of your own to what a predictor knows, and fit it again.

    A source is the atlas of a study, or a CSV or parquet with columns parents (joined by ' + '),
    method, retention, and features by their names.
    """
    from sklearn.base import clone

    from repsim.mergeability.evidence import EvidenceTable
    from repsim.mergeability.evidence_files import read_evidence

    found = _loaded(folder)
    evidence = found.evidence_
    for source in sources:
        if source.is_dir():
            more = EvidenceTable.from_atlas(_atlases([source]))
        else:
            more = read_evidence(source)
        shared = set(more.features) & set(evidence.features)
        if not shared:
            raise InputError(
                f"'{source}' has no feature in common with what the predictor knows",
                hint="see: repsim predictor show",
            )
        if again := (set(more["source"]) & set(evidence["source"])) - {""}:
            raise InputError(f"merges of '{again.pop()}' are among those that are known already")
        say("add", f"{_size(more)} from {source}")
        evidence = EvidenceTable.concat([evidence, more])
    made = clone(found).fit(evidence)
    made.save(out)
    if as_json:
        print_json(_summary(made))
    say("wrote", f"{out}: {made.identity}")


def _loaded(folder: Path | None, outcome: str | None = None) -> Predictor:
    """The predictor in a folder, or the shipped one; it has to be of an outcome that is named."""
    from repsim.mergeability.predictor import Predictor, shipped_predictor

    found = Predictor.load(folder) if folder else shipped_predictor(outcome or RETENTION)
    if outcome not in (None, found.outcome):
        raise UsageError(f"{found.identity} is of {found.outcome}, not of {outcome}")
    return found


def _check_outcome(outcome: str | None) -> None:
    """Refuse an outcome that no atlas has."""
    if outcome not in (None, *OUTCOMES):
        raise UsageError(
            f"of an atlas the outcome is {' or '.join(OUTCOMES)}, not '{outcome}'",
            hint="--outcome COLUMN goes with --table",
        )


def _evidence(
    atlases: Sequence[Path], *, table: Path | None, parents: str | None, outcome: str | None,
    features: str | None, columns: Sequence[str],
) -> tuple[EvidenceTable, list[str]]:  # fmt: skip
    """Evidence from atlases or from a table, and the features that were named."""
    from repsim.mergeability.evidence import EvidenceTable
    from repsim.mergeability.evidence_files import read_evidence

    if bool(atlases) == bool(table):
        raise UsageError("name atlases, or a table with --table", hint="and not both")
    wanted = [name.strip() for name in features.split(",")] if features else []
    if atlases:
        return EvidenceTable.from_atlas(_atlases(atlases)), wanted
    assert table is not None
    named = [name.partition(":")[0] for name in wanted]
    found = read_evidence(
        table,
        parents=(parents or "parents").split(","),
        outcome=outcome or "retention",
        features=named,
        columns=renamed(columns),
    )
    # Beside features of others, those that are called as ours are not ours: all are used.
    foreign = "table" in found.tiers.values()
    return found, wanted or (list(found.features) if foreign else [])


def _to_validate(
    sources: Sequence[Path], named: dict[str, Any]
) -> tuple[EvidenceTable, list[str], str | None, str, list[Cost]]:
    """Evidence, features, regressor, outcome and costs, from a predictor, atlases or a table."""
    from repsim.mergeability.costs import costs_of
    from repsim.mergeability.predictor import PREDICTOR_FILE

    _check_outcome(named["outcome"])
    outcome = named["outcome"] or RETENTION
    stored = not sources and not named["table"]
    if len(sources) == 1 and (sources[0] / PREDICTOR_FILE).exists():
        stored = True
    if not stored:
        evidence, features = _evidence(sources, **named)
        return evidence, features, None, outcome, costs_of(_atlases(sources)) if sources else []
    found = _loaded(sources[0] if sources else None, named["outcome"])
    costs = costs_of(_atlases_behind(found.evidence_))
    return found.evidence_, list(found.features), found.regressor, found.outcome, costs


def _atlases_behind(evidence: EvidenceTable) -> list[Any]:
    """Shipped atlases that evidence is made of; none if some of it comes from elsewhere."""
    from repsim.studies.atlases import load_atlas, shipped_atlases

    names = dict.fromkeys(map(str, evidence["source"]))
    return [load_atlas(name) for name in names] if set(names) <= set(shipped_atlases()) else []


def _atlases(names: Sequence[Path]) -> list[Any]:
    """Atlases by their folders, or by the names of those that ship."""
    from repsim.studies.atlases import load_atlas

    return [load_atlas(name) for name in names]


def _size(evidence: EvidenceTable) -> str:
    merges, groups = len(evidence.merges()[1]), len(set(evidence["parents"]))
    models = len({name for row in evidence.parents for name in row})
    return f"{merges} merges of {models} models in {groups} groups, {len(evidence)} rows"


def _summary(found: Predictor) -> dict[str, Any]:
    methods = [m if a == "none" else f"{m} ({a})" for m, a in found.combinations()]
    return {
        "identity": found.identity,
        "regressor": found.regressor,
        "evidence": _size(found.evidence_),
        "methods": methods,
        "languages": sorted(set(found.evidence_["language"]) - {""}),
        "sources": sorted(set(found.evidence_["source"]) - {""}),
        "families": list(found.stated("family")),
        "texts": list(found.stated("text")),
        "sets": [
            {
                "tiers": name,
                "features": [use.name for use in part.uses],
                "reach": part.domain.reach,
                "groups": part.rows.groups,
            }
            for name, part in found.parts_.items()
        ],
    }


def _print_report(report: ValidationReport) -> None:
    """Skill of the predictor per split and stratum, the strongest baselines, goals, theory."""
    wide: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in report.metrics.where(role=["predictor", "oracle"]).rows():
        key = (row["split"], row["stratum"], row["predictor"])
        wide.setdefault(key, {"split": key[0], "stratum": key[1], "features": key[2]})
        wide[key][row["metric"]] = row["value"]
    shown = ("spearman", "mae", "auroc", "brier", "ece", "coverage", "width", "refused")
    columns = {"split": "split", "stratum": "stratum", "features": "features"}
    print_table(list(wide.values()), columns | {name: name for name in shown})
    click.echo()
    rows = [
        {"goal": row["goal"], "wanted": row["wanted"], "found": row["found"],
         "reached": row["reached"]}
        for row in report.goals.rows()
    ]  # fmt: skip
    print_table(rows)
    for row in report.goals.rows():
        if row["why"] and row["reached"] != "yes":
            click.echo(f"{row['goal']}: {row['why']}.")
    for sentence in dict.fromkeys(
        f"{row['hypothesis']} ({row['verdict']}): {row['sentence']}"
        for row in report.hypotheses.rows()
    ):
        click.echo(sentence)
