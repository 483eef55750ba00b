"""`repsim predictor`: fit, validate, show and extend predictors of mergeability."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli.output import print_json, print_table, say
from repsim.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
                     help="Column for method, alignment, language, arm, control, shared_init or "
                          "fork_fraction, where it has another name; repeatable."),
        click.option("--features", help="Columns of features, comma-separated; NAME:+, NAME:- or "
                                        "NAME:0 states which way one may count."),
        click.option("--outcome", default="retention", show_default=True,
                     help="Column of what was kept, 1 = all, 0 = nothing."),
        click.option("--parents", default="parents", show_default=True,
                     help="Columns with one parent each, comma-separated, or one with all "
                          "joined by ' + '."),
        click.option("--table", type=click.Path(path_type=Path),
                     help="CSV or parquet of anybody's merges, instead of an atlas."),
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
@click.argument("atlases", nargs=-1, type=click.Path(path_type=Path), metavar="[ATLAS...]")
@_table_options
@click.option("--law", help="Law that ties features to retention; default: that of the package.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the dealing of models.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def fit(
    atlases: tuple[Path, ...], law: str | None, seed: int, out: Path, as_json: bool, **named: Any
) -> None:
    """Fit a predictor on atlases, or on a table of merges. The same input gives the same file."""
    from repsim.mergeability.predictor import DEFAULT_LAW, Predictor

    evidence, features = _evidence(atlases, **named)
    say("fit", _size(evidence))
    made = Predictor.fit(evidence, law=law or DEFAULT_LAW, features=features, seed=seed)
    made.save(out)
    if as_json:
        print_json(_summary(made))
    say("wrote", f"{out} ({made.identity})")
    say("next", f"repsim predict A B --predictor {out}")


@predictor.command(
    epilog="""\b
Examples:
  repsim predictor validate
  repsim predictor validate runs/cpu_atlas/atlas -o out/validation
  repsim predictor validate --table merges.csv --parents a,b --features cos:+,dist:-
"""
)
@click.argument(
    "sources", nargs=-1, type=click.Path(path_type=Path), metavar="[PREDICTOR|ATLAS...]"
)
@_table_options
@click.option("--law", help="Law to validate; default: that of the predictor or the package.")
@click.option("--split", "splits", multiple=True, help="Split; repeatable; default: all.")
@click.option("--draws", type=click.IntRange(20), default=200, show_default=True,
              help="Draws of models for intervals.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of dealing and draws.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for tables and report.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def validate(
    sources: tuple[Path, ...], law: str | None, splits: tuple[str, ...], draws: int, seed: int,
    out: Path | None, as_json: bool, **named: Any,
) -> None:  # fmt: skip
    """Tell how good forecasts are for models never seen.

    Without an argument: of the predictor that ships with the package. Every split holds out models:
    no model, nor a twin of one, is ever both in training and in test.
    """
    from repsim.mergeability.predictor import DEFAULT_LAW
    from repsim.mergeability.validation import validate as run

    evidence, features, known_law, share = _to_validate(sources, named)
    say("plan", _size(evidence))
    report = run(
        evidence, law=law or known_law or DEFAULT_LAW, features=features, splits=splits,
        draws=draws, seed=seed, cost_share=share, say=lambda text: say("split", text),
    )  # fmt: skip
    if as_json:
        print_json({"info": dict(report.info), "metrics": list(report.metrics.rows()),
                    "goals": list(report.goals.rows())})  # fmt: skip
    else:
        _print_report(report)
    if out:
        report.save(out)
        say("wrote", f"{out} (validation.json and tables)")


@predictor.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(folder: Path | None, as_json: bool) -> None:
    """Tell what a predictor knows: merges, features, laws, borders. Default: the shipped one."""
    from repsim.mergeability.predictor import Predictor, shipped_predictor

    found = Predictor.load(folder) if folder else shipped_predictor()
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
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path),
                metavar="ATLAS|TABLE...")  # fmt: skip
@click.option("--to", "folder", type=click.Path(path_type=Path),
              help="Predictor to extend; default: the shipped one.")  # fmt: skip
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def add(sources: tuple[Path, ...], folder: Path | None, out: Path, as_json: bool) -> None:
    """Add merges of your own to what a predictor knows, and fit it again.

    A source is the atlas of a study, or a CSV or parquet with columns parents (joined by ' + '),
    method, retention, and features by their names.
    """
    from repsim.mergeability.evidence import EvidenceTable
    from repsim.mergeability.evidence_files import read_evidence
    from repsim.mergeability.predictor import Predictor, shipped_predictor

    found = Predictor.load(folder) if folder else shipped_predictor()
    evidence = found.evidence
    for source in sources:
        if source.is_dir():
            more = EvidenceTable.from_atlas(_atlases([source])[0])
        else:
            more = read_evidence(source)
        shared = set(more.features) & set(evidence.features)
        if not shared:
            raise InputError(
                f"'{source}' has no feature in common with what the predictor knows",
                hint="see: repsim predictor show",
            )
        say("add", f"{_size(more)} from {source}")
        evidence = evidence.joined(more)
    settings = found.settings
    made = Predictor.fit(
        evidence, law=settings["law"], features=settings["features"], blocks=settings["blocks"],
        seed=settings["seed"],
    )  # fmt: skip
    made.save(out)
    if as_json:
        print_json(_summary(made))
    say("wrote", f"{out} ({made.identity})")


def _evidence(
    atlases: Sequence[Path], *, table: Path | None, parents: str, outcome: str,
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
    renamed = {}
    for text in columns:
        name, equals, column = text.partition("=")
        if not equals:
            raise UsageError(f"--columns needs NAME=COLUMN, got '{text}'")
        renamed[name] = column
    named = [name.partition(":")[0] for name in wanted]
    found = read_evidence(
        table, parents=parents.split(","), outcome=outcome, features=named, columns=renamed
    )
    return found, wanted


def _to_validate(
    sources: Sequence[Path], named: dict[str, Any]
) -> tuple[EvidenceTable, list[str], str | None, float | None]:
    """Evidence, features, law and share of cost, from a predictor, atlases or a table."""
    from repsim.mergeability.goals import cost_share
    from repsim.mergeability.predictor import PREDICTOR_FILE, Predictor, shipped_predictor

    stored = not sources and not named["table"]
    if len(sources) == 1 and (sources[0] / PREDICTOR_FILE).exists():
        stored = True
    if not stored:
        evidence, features = _evidence(sources, **named)
        share = cost_share(_atlases(sources)) if sources else None
        return evidence, features, None, share
    found = Predictor.load(sources[0]) if sources else shipped_predictor()
    return found.evidence, list(found.settings["features"]), found.settings["law"], None


def _atlases(folders: Sequence[Path]) -> list[Any]:
    from repsim.core.atlas import Atlas

    return [Atlas.load(folder) for folder in folders]


def _size(evidence: EvidenceTable) -> str:
    merges, groups = len(evidence.merges()[1]), len(set(evidence["parents"]))
    models = len({name for row in evidence.parents for name in row})
    return f"{merges} merges of {models} models in {groups} groups, {len(evidence)} rows"


def _summary(found: Predictor) -> dict[str, Any]:
    methods = [m if a == "none" else f"{m} ({a})" for m, a in found.combinations()]
    return {
        "identity": found.identity,
        "law": found.settings["law"],
        "evidence": _size(found.evidence),
        "methods": methods,
        "languages": sorted({str(x) for x in found.evidence["language"] if x}),
        "sources": sorted({str(x) for x in found.evidence["source"] if x}),
        "sets": [
            {
                "tiers": name,
                "features": [use.name for use in part.uses],
                "reach": part.domain.reach,
                "groups": part.rows.groups,
            }
            for name, part in found.parts.items()
        ],
    }


def _print_report(report: ValidationReport) -> None:
    """Skill of the predictor per split and stratum, the strongest baselines, goals, theory."""
    wide: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in report.metrics.where(role="predictor").rows():
        key = (row["split"], row["stratum"], row["predictor"])
        wide.setdefault(key, {"split": key[0], "stratum": key[1], "features": key[2]})
        wide[key][row["metric"]] = row["value"]
    shown = ("spearman", "mae", "auroc", "brier", "ece", "coverage", "width", "refused")
    columns = {"split": "split", "stratum": "stratum", "features": "features"}
    print_table(list(wide.values()), columns | {name: name for name in shown})
    click.echo()
    rows = [
        {"goal": row["goal"], "wanted": row["wanted"], "found": row["found"],
         "reached": bool(row["reached"])}
        for row in report.goals.rows()
    ]  # fmt: skip
    print_table(rows)
    for sentence in dict.fromkeys(
        f"{row['hypothesis']} ({row['verdict']}): {row['sentence']}"
        for row in report.hypotheses.rows()
    ):
        click.echo(sentence)
