"""`repsim study`: plan, run, look at, collect and report a controlled study."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, print_table, say
from repsim.core.progress import duration

if TYPE_CHECKING:
    from repsim.core.atlas import Atlas
    from repsim.studies.engine import Outcome, StudyFolder
    from repsim.studies.plan import StudyPlan

EXECUTOR_NAMES = ("inprocess", "processes", "ray", "slurm")


@click.group(
    epilog="""\b
Examples:
  repsim study plan tiny                              (an example that ships with repsim)
  repsim study run tiny -o out/tiny --executor processes --workers 2
  repsim study status out/tiny
  repsim study report out/tiny
  repsim study report cpu_atlas -o out/cpu_atlas      (the atlas that ships with repsim)
"""
)
def study() -> None:
    """Carry out a controlled study: train, merge, measure and evaluate as a YAML file says.

    Everything that is done is kept, unit by unit: a run that was interrupted goes on with the same
    command. The result is an atlas: tables of models, merges, features and costs.
    """


@study.command()
@click.argument("study_file", metavar="STUDY")
@opt.out("Count what is done there.")
@opt.count("--workers", "Units at a time, for the estimated time.", 1)
@opt.as_json
def plan(study_file: str, out: Path | None, workers: int, as_json: bool) -> None:
    """Print the units of work of STUDY, what of them is done, and the time they take."""
    from repsim.studies.plan import plan_study

    _show_plan(plan_study(study_file), out, workers, as_json)


@study.command()
@click.argument("study_file", metavar="STUDY")
@opt.out("Folder of the study.")
@opt.choice("--executor", EXECUTOR_NAMES, "Who does the work.", "inprocess")
@opt.count("--workers", "Units at a time; default: all cores.")
@opt.many("--only", "only", "Kind or pattern of names, with all that it needs.")
@click.option("--max-seconds", type=click.FloatRange(min=1), help="Stop cleanly after so long.")
@click.option("--store", help="Where results go, if not into the folder (s3://bucket/study).")
@click.option("--device", help="cpu, cuda; where models are trained; default: a GPU if there is.")
@opt.count("--processes", "Processes that train one model together (torchrun).", 1)
@click.option("--gpus", type=click.FloatRange(min=0), metavar="N",
              help="GPUs that a unit asks of Ray or Slurm, parts of one allowed; default: 1 with "
                   "--device cuda, else none.")  # fmt: skip
@opt.planned
def run(
    study_file: str, out: Path | None, executor: str, workers: int | None, only: tuple[str, ...],
    max_seconds: float | None, store: str | None, device: str | None, processes: int,
    gpus: float | None, dry_run: bool, as_json: bool,
) -> int:  # fmt: skip
    """Carry out STUDY: a YAML file, or the name of a shipped example.

    What is done is not done again; what failed is tried again. Exit code 1 if units failed.
    """
    from repsim.studies.engine import StudyFolder
    from repsim.studies.plan import plan_study

    planned = plan_study(study_file, device=device, processes=processes, gpus=gpus)
    if dry_run:
        _show_plan(planned, out, workers or 1, as_json)
        return 0
    say("plan", _facts_line(_facts(planned)))
    if out is None:
        raise click.UsageError("Missing option '-o' / '--out'.")
    folder = StudyFolder.open(
        out, config=planned.config.to_dict(), key=planned.config.hash, units=planned.units,
        store=store,
    )  # fmt: skip
    if folder.added:
        say("note", f"'{out}' held another study; units that both have are not done again")
    outcome = _carry_out(planned, folder, (executor, workers), only, max_seconds)
    atlas = None
    if importlib.util.find_spec("pyarrow"):
        atlas = _collected(planned, folder)
    else:
        say("note", "no tables are written where pyarrow is not installed; what is done is kept: "
            f"run 'repsim study collect {out}' where it is")  # fmt: skip
    _conclude(folder, outcome, atlas, as_json)
    return 1 if outcome.failed else 0


@study.command()
@click.argument("folder", metavar="DIR", type=opt.PATH)
@opt.as_json
def status(folder: Path, as_json: bool) -> None:
    """Tell how far the study in DIR is: done, running, failed with logs, left."""
    from repsim.studies.engine import StudyFolder

    opened = StudyFolder.load(folder)
    found = opened.status()
    if as_json:
        print_json({
            "status": opened.manifest["status"], "kinds": list(found.kinds),
            "running": list(found.running), "failed": list(found.failed),
        })  # fmt: skip
        return
    print_table(found.kinds)
    for unit in found.running:
        say("runs", f"{unit['unit']} for {duration(unit['seconds'])}")
    for unit in found.failed:
        say("failed", f"{unit['unit']}: {unit['error']} (log: {unit['log']})")
    if found.left and not found.running:
        say("next", f"go on with: repsim study run STUDY -o {folder}")


@study.command()
@click.argument("folder", metavar="DIR", type=opt.PATH)
@opt.out("Default: DIR/atlas.")
@opt.as_json
def collect(folder: Path, out: Path | None, as_json: bool) -> None:
    """Put what is done of the study in DIR into an atlas: parquet tables and atlas.json."""
    from repsim.studies.engine import StudyFolder

    opened = StudyFolder.load(folder)
    atlas = _collected(_planned_again(opened), opened, out)
    facts = _atlas_facts(atlas)
    print_either(as_json, {"atlas": str(out or folder / "atlas"), **facts}, [facts])


@study.command()
@click.argument("source", metavar="DIR|ATLAS|multimerge:PATH", type=opt.PATH)
@opt.out("Default: DIR/report.")
@opt.as_json
def report(source: Path, out: Path | None, as_json: bool) -> None:
    """Render a study: figures, and which findings of the source paper are reproduced.

    DIR is the folder of a study or of an atlas; ATLAS the name of one that ships with repsim;
    multimerge:PATH a checkout of the source paper's repository (github.com/Sethjsa/multimerge), or
    its pairs as CSV.
    """
    from repsim.studies.multimerge.report import write_multimerge_report
    from repsim.studies.report import write_study_report

    kind, colon, published = str(source).partition(":")
    if out is None and not source.is_dir():
        raise click.UsageError(f"'{source}' is no folder to write into: say where with -o DIR.")
    facts: dict[str, Any] = {}
    if colon and kind == "multimerge":
        path = write_multimerge_report(published, out or Path())
    else:
        atlas = _atlas_of(source)
        path, facts = write_study_report(atlas, out or source / "report"), _atlas_facts(atlas)
    if as_json:
        print_json({"report": str(path), **facts})
    say("wrote", str(path))


def _atlas_of(source: Path) -> Atlas:
    """What is done of a study, or an atlas that is complete in itself."""
    from repsim.studies.atlases import load_atlas
    from repsim.studies.engine import StudyFolder

    if source.is_dir() and not (source / "atlas.json").exists():
        opened = StudyFolder.load(source)
        return _collected(_planned_again(opened), opened)
    return load_atlas(source)


def _planned_again(folder: StudyFolder) -> StudyPlan:
    """The plan of the study that was last run in a folder."""
    from repsim.studies.plan import plan_study
    from repsim.studies.study_file import study_from_mapping

    return plan_study(study_from_mapping(folder.manifest["config"]))


def _facts(planned: StudyPlan) -> dict[str, Any]:
    return {
        "study": planned.config.name,
        "models": len(planned.models),
        "controls": len(planned.controls),
        "groups": len(planned.groups),
        "merges": planned.merges,
        "seconds": round(sum(unit.seconds for unit in planned.units)),
    }


def _facts_line(facts: dict[str, Any]) -> str:
    return (
        f"{facts['study']}: {facts['models']} models, {facts['controls']} controls · "
        f"{facts['groups']} groups of parents · {facts['merges']} merges · about "
        f"{duration(facts['seconds'])} on one core"
    )


def _show_plan(planned: StudyPlan, out: Path | None, workers: int, as_json: bool) -> None:
    rows, facts = _plan_rows(planned, out, workers), _facts(planned)
    say("plan", _facts_line(facts))
    units = [
        {"name": u.name, "kind": u.kind, "needs": list(u.needs), "seconds": u.seconds}
        for u in planned.units
    ]
    print_either(as_json, {**facts, "kinds": rows, "units": units}, rows)


def _plan_rows(planned: StudyPlan, out: Path | None, workers: int) -> list[dict[str, Any]]:
    """One row per kind of unit, with what is done in a folder, and their sum."""
    from repsim.studies.engine import StudyFolder, unit_keys

    there: set[str] = set()
    if out is not None and (out / "manifest.json").exists():
        there = StudyFolder.load(out).store.keys("parts")
    keys = unit_keys(planned.units)
    done = {name for name, key in keys.items() if key in there}
    rows = []
    for row in planned.describe():
        ours = [unit for unit in planned.units if unit.kind == row["kind"]]
        left = sum(unit.seconds for unit in ours if unit.name not in done)
        counted = {"done": sum(unit.name in done for unit in ours)}
        rows.append({**row, **counted, **_times(row["seconds"], left, workers)})
    total: dict[str, Any] = {"kind": "all"}
    for key in ("units", "seconds", "done"):
        total[key] = sum(row[key] for row in rows)
    left = sum(unit.seconds for unit in planned.units if unit.name not in done)
    return [*rows, {**total, **_times(total["seconds"], left, workers)}]


def _times(seconds: float, left: float, workers: int) -> dict[str, str]:
    return {
        "one core": duration(seconds),
        f"left, {workers} worker{'s' if workers > 1 else ''}": duration(left / workers),
    }


def _carry_out(
    planned: StudyPlan, folder: StudyFolder, who: tuple[str, int | None],
    only: tuple[str, ...], max_seconds: float | None,
) -> Outcome:  # fmt: skip
    """Run the graph with a live view; the manifest says how it ended, whatever happens."""
    from repsim.studies.engine import make_executor, run_graph
    from repsim.studies.engine.progress import live_view

    status = "failed"
    try:
        executor = make_executor(who[0], workers=who[1], store=folder.store.url)
        with live_view(say, executor.workers) as listen:
            outcome = run_graph(
                planned.units, folder.store, executor, listen,
                workspace=folder.path, only=only, max_seconds=max_seconds,
            )  # fmt: skip
        status = _ending(outcome, len(planned.units))
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        folder.note(status)
    return outcome


def _ending(outcome: Outcome, units: int) -> str:
    if outcome.failed:
        return "units failed"
    return "complete" if len(outcome.done) == units else "not complete"


def _collected(planned: StudyPlan, folder: StudyFolder, out: Path | None = None) -> Atlas:
    from repsim.studies.collect import collect as tables
    from repsim.studies.engine import unit_keys

    keys, store = unit_keys(planned.units), folder.store
    atlas = tables(planned, store.results(keys), store.seconds(keys))
    say("wrote", str(atlas.save(out or folder.path / "atlas")))
    return atlas


def _atlas_facts(atlas: Atlas) -> dict[str, Any]:
    counts = {
        "models": len(atlas.models.unique("model")),
        "merges": len(atlas.merges.unique("merge")),
    }
    return counts | {key: atlas.info.get(key) for key in ("units", "units_done")}


def _conclude(folder: StudyFolder, outcome: Outcome, atlas: Atlas | None, as_json: bool) -> None:
    counts = {
        "done": len(outcome.done), "failed": len(outcome.failed),
        "skipped": len(outcome.skipped), "left": len(outcome.left),
    }  # fmt: skip
    if as_json:
        failed = [
            {"unit": name, "error": why,
             "log": folder.store.path("logs", outcome.keys[name], "log")}
            for name, why in outcome.failed.items()
        ]  # fmt: skip
        print_json({"out": str(folder.path), **counts, "failed_units": failed,
                    "atlas": _atlas_facts(atlas) if atlas else None})  # fmt: skip
    say("study", " · ".join(f"{number} {what}" for what, number in counts.items()))
    if atlas:
        facts = _atlas_facts(atlas)
        say("atlas", f"{facts['merges']} merges of {facts['models']} models")
    if outcome.complete:
        say("next", f"repsim study report {folder.path}")
    else:
        say("next", "the same command again goes on; failed units are tried again")
