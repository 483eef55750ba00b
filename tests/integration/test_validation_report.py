"""The report of a validation is one file that stands alone, and says what its document says."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError
from repsim.core.files import read_json, write_json
from repsim.mergeability.validation_tables import (
    ControlTable,
    GoalTable,
    HypothesisTable,
    LiftTable,
    MetricTable,
    OutOfFoldTable,
    ValidationReport,
)
from repsim.reports.page import MAX_BYTES, unbroken
from repsim.reports.validation import write_validation_report
from repsim.reports.validation_findings import headline, validation_findings
from repsim.reports.validation_rows import (
    Validation,
    candidate_rows,
    collapse_rows,
    control_rows,
    forecast_rows,
    interval_rows,
    lift_rows,
)
from repsim.reports.validation_tables import validation_tables
from tests.planted.pages import Page

MAIN, OTHER = "leave-models-out", "leave-arm-out"
OWN = "T0+T1"
Rows = list[dict[str, Any]]


def findings(found: Validation) -> list[str]:
    return [s.text for s in validation_findings(found) if s.kind == "result"]


def warnings(found: Validation) -> list[str]:
    return [s.text for s in validation_findings(found) if s.kind == "warning"]


def metrics() -> Rows:
    """Skill that falls from the main split to the other, two tiers, a regressor, two baselines."""
    values = {"spearman": 0.95, "mae": 0.1, "auroc": 0.98, "brier": 0.05, "ece": 0.03,
              "coverage": 0.91, "width": 0.5, "refused": 0.1, "coverage_answered": 0.92,
              "mae_answered": 0.08, "width_answered": 0.45}  # fmt: skip
    rivals = {
        OWN: ("predictor", 0.0), "T0": ("predictor", 0.1), "ridge": ("regressor", 0.02),
        "weight_cosine": ("baseline", 0.2), "mean of outcomes": ("baseline", 0.5),
    }  # fmt: skip
    rows = []
    for place, split in enumerate((MAIN, OTHER)):
        for stratum in ("all", "shared-init"):
            for name, (role, behind) in rivals.items():
                for metric, value in values.items():
                    if role != "predictor" and metric not in ("spearman", "mae", "auroc"):
                        continue
                    sign = 1 if metric in ("mae", "mae_answered", "refused") else -1
                    found = value + sign * (behind + 0.2 * place)
                    rows.append({
                        "split": split, "stratum": stratum, "predictor": name, "role": role,
                        "metric": metric, "value": found, "ci_low": found - 0.02,
                        "ci_high": found + 0.02, "rows": 40, "merges": 20,
                    })  # fmt: skip
    return rows


def lifts() -> Rows:
    return [
        {"split": split, "stratum": stratum, "predictor": OWN, "baseline": name, "metric": metric,
         "lift": lift, "ci_low": lift - 0.1, "ci_high": lift + 0.1}
        for split in (MAIN, OTHER) for stratum in ("all", "shared-init")
        for name, lift in (("weight_cosine", 0.2), ("mean of outcomes", 0.05))
        for metric in ("spearman", "mae", "auroc")
    ]  # fmt: skip


def forecasts() -> Rows:
    """Merges of two languages; the second language is predicted 0.1 lower."""
    rows = []
    for split in (MAIN, OTHER):
        for i in range(20):
            for place, language in enumerate(("eng_Latn", "deu_Latn")):
                kept = 1.0 - i / 10
                rows.append({
                    "split": split, "predictor": OWN, "fold": "0", "parents": f"a{i} + b{i}",
                    "merge": "rotated | linear" if i == 19 else f"merge {i}",
                    "method": "linear", "alignment": "none", "language": language, "arm": "A",
                    "control": "rotated" if i == 19 else "", "shared_init": i % 2,
                    "fork_fraction": 0.1, "predicted": kept - 0.1 * place, "low": kept - 0.3,
                    "high": kept + 0.2 - 0.1 * place, "observed": kept,
                    "refusal": "too far" if i == 0 else "", "worst": kept - 0.1,
                    "observed_worst": kept, "p_collapse": 0.9 if i > 5 else 0.1 + 0.1 * place,
                    "collapsed": int(kept < 0.5), "p_useful": 0.2, "useful": 0,
                })  # fmt: skip
    return rows


def controls() -> Rows:
    row = {"split": MAIN, "control": "rotated", "merge": "rotated | linear", "method": "linear",
           "alignment": "none", "answer": "collapses", "came": "collapses",
           "predicted_outcome": "collapses", "p_collapse": 0.9, "predicted": -1.0, "observed": -0.9,
           "right": 1}  # fmt: skip
    odd = {"alignment": "permutation", "merge": "rotated | linear | permutation", "came": "lives",
           "observed": 0.8, "right": 0}  # fmt: skip
    return [row, row | odd, row | {"method": "ties", "right": None, "predicted_outcome": "refused"}]


def hypotheses() -> Rows:
    row = {"hypothesis": "H1", "claim": "Similarity is needed.", "quantity": "share", "value": 0.4,
           "ci_low": 0.3, "ci_high": 0.5, "n": 20, "verdict": "refuted",
           "sentence": "Of <b>all</b> 40 % live."}  # fmt: skip
    few = {"hypothesis": "H2", "quantity": "cases", "value": 3.0, "verdict": "open",
           "sentence": "3 cases are too few to tell."}  # fmt: skip
    return [row, row | {"quantity": "AUROC", "value": 0.9}, row | few]


def goals() -> Rows:
    goal = {"goal": "rank correlation", "wanted": "0.9 or more", "found": 0.95, "ci_low": 0.93,
            "ci_high": 0.97, "reached": "yes"}  # fmt: skip
    cost = {"goal": "cost", "wanted": "under 0.05", "found": 0.2, "ci_low": None, "ci_high": None,
            "reached": "no"}  # fmt: skip
    lead = {"goal": f"lower error than every baseline, {MAIN}", "wanted": "above 0", "found": 0.05,
            "ci_low": -0.05, "ci_high": 0.15, "reached": "lead not certain"}  # fmt: skip
    return [goal, goal | lead, goal | cost | {"features": OWN}, goal | cost | {"features": "T0"}]


@pytest.fixture(scope="module")
def report() -> ValidationReport:
    info = {
        "regressor": "additive", "predictor": OWN, "sets": {"T0": ["T0"], OWN: ["T0", "T1"]},
        "features": ["weight_cosine", "cka_middle"],
        "splits": {MAIN: "models never seen?", OTHER: "another kind?", "gone": "nothing?"},
        "folds": {MAIN: 4, OTHER: 2}, "skipped": {MAIN: [], OTHER: ["A: too few groups"]},
        "rows": 40, "merges": 20, "groups": 20, "models": 12, "blocks": 4, "draws": 20, "seed": 0,
        "cost_share": 0.2,
    }  # fmt: skip
    return ValidationReport(
        MetricTable(metrics()), LiftTable(lifts()), OutOfFoldTable(forecasts()),
        ControlTable(controls()), HypothesisTable(hypotheses()), GoalTable(goals()), info,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(report: ValidationReport) -> Validation:
    return Validation(report)


@pytest.fixture(scope="module")
def written(report: ValidationReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    assert write_validation_report(report, folder) == folder / "report.html"
    return folder


def test_the_page_stands_alone_and_says_what_was_found(written: Path, found: Validation) -> None:
    source = (written / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    assert sum(address.startswith("data:image/") for address in page.sources) == 10
    assert all(address.startswith(("data:image/", "#")) for address in page.sources)
    assert len(source.encode()) < MAX_BYTES
    assert "<b>all</b>" not in source
    for text in (headline(found), *findings(found), *warnings(found)):
        assert unbroken(text) in page.text
    assert "H1. Similarity is needed. Of <b>all</b> 40 % live." in " ".join(page.text.split())


def blocks(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [block for section in document["blocks"] for block in section["blocks"]]


def test_every_figure_and_table_lies_beside_it(written: Path, report: ValidationReport) -> None:
    stems = {path.stem for path in (written / "figures").glob("*.png")}
    assert stems == {path.stem for path in (written / "figures").glob("*.svg")}
    assert stems == {
        "forecasts", "reliability", "intervals", "lift-error", "lift-rank", "lift-collapse",
        "lift-splits", "candidates", "controls", "hypotheses",
    }  # fmt: skip
    for name, table in report.tables.items():
        with (written / "tables" / f"all-{name}.csv").open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(table)
    with (written / "tables" / "skill.csv").open(encoding="utf-8") as file:
        skill = list(csv.DictReader(file))
    assert [float(row["mae"]) for row in skill] == pytest.approx([0.1, 0.1, 0.3, 0.3])
    document = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert document["lead"].endswith("1 of 3 goals reached, 1 lead not certain, 1 missed")
    assert (written / "tables" / "goals.tex").exists()
    for name, count in {"goals": 3, "smaller_sets": 1}.items():
        (block,) = (b for b in blocks(document) if b.get("name") == name)
        assert len(block["rows"]) == count


def test_what_was_stored_gives_the_same_page(written: Path, report: ValidationReport,
                                             tmp_path: Path) -> None:  # fmt: skip
    report.save(tmp_path)
    again = write_validation_report(ValidationReport.load(tmp_path), tmp_path / "again")
    assert again.read_bytes() == (written / "report.html").read_bytes()


def test_findings_state_the_numbers_of_the_document(found: Validation) -> None:
    said = " ".join(findings(found))
    for words in (
        "rank correlation of retention 0.95 [0.93, 0.97], mean absolute error 0.10 [0.08, 0.12]",
        "Inside shared initial weights",
        f"{MAIN}: 1 of 2 (nearest mean of outcomes, 0.050 [−0.050, 0.150])",
        "T0+T1 0.100 (0.95), T0 0.200 (0.85)",
        "ridge 0.120; the regressor that is used, additive: 0.100",
        f"Hardest split: {OTHER} (another kind?), mean absolute error 0.30",
        f"{MAIN} 10 % (mean absolute error 0.080 without them, 0.100 with them)",
        "Merges of controls: 1 of 3 predicted right, 1 refused, 1 wrong",
        "1 of them came out otherwise than theory says",
    ):
        assert words in said


def test_what_limits_the_results_is_said(found: Validation) -> None:
    said = warnings(found)
    assert "Goal not reached: cost: 0.20, wanted under 0.05." in said
    assert any(text.endswith(f"reaches 0: {MAIN} 0.050 [−0.050, 0.150].") for text in said)
    assert (
        f"{OTHER}: the 90 % intervals hold only 71 % of outcomes and 30 % would be refused." in said
    )
    assert not [text for text in said if text.startswith(MAIN)]
    assert f"{OTHER}: 1 fold had too little to learn from (A: too few groups)." in said
    assert "Nothing could be tested in gone." in said
    assert any("made of 12 models, which is few" in text for text in said)


def test_rows_are_those_of_the_document(found: Validation) -> None:
    rows = forecast_rows(found)
    assert len(rows) == len(forecasts())
    assert sum(row["refused"] for row in rows) == 4
    groups = list(dict.fromkeys((row["split"], row["stratum"]) for row in rows))
    assert groups == [
        (split, f"{origin} initial weights") for split in (MAIN, OTHER)
        for origin in ("other", "shared")
    ]  # fmt: skip
    merges = collapse_rows(found)
    assert len(merges) == 40
    assert {row["p_collapse"] for row in merges} == {0.2, 0.9}
    assert {row["split"] for row in lift_rows(found, "mae", over="strata")} == {
        "all merges", "shared initial weights"
    }  # fmt: skip
    assert {row["split"] for row in lift_rows(found, "mae", over="splits")} == {MAIN, OTHER}
    assert [row["stratum"] for row in interval_rows(found)][:3] == [
        "all merges", "not refused", "shared initial weights"
    ]  # fmt: skip
    assert [row["candidate"] for row in candidate_rows(found) if row["chosen"]] == [OWN]


def test_controls_have_the_interval_of_their_worst_language(found: Validation) -> None:
    first, second = control_rows(found)
    assert first["control"] == "rotated"
    assert first["high"] == pytest.approx(1.0 - 1.9 + 0.2 - 0.1)
    assert (second["control"], second["low"]) == ("rotated, aligned by permutation", None)


def test_what_cannot_be_drawn_is_said(report: ValidationReport, tmp_path: Path) -> None:
    bare = dataclasses.replace(report, controls=ControlTable(), hypotheses=HypothesisTable())
    page = write_validation_report(bare, tmp_path).read_text(encoding="utf-8")
    assert "Figures that these data do not allow" in page
    assert "there are no controls to draw" in page
    assert "The evidence lacks the features that the hypotheses are about." in page


def test_labels_of_the_caller_are_used(report: ValidationReport) -> None:
    labels = {"weight_cosine": "cosine of the weights"}
    tables = {t.name: t for t in validation_tables(Validation(report, labels))}
    assert "cosine of the weights" in [row["name"] for row in tables["rivals"].rows]


def test_another_document_is_refused(report: ValidationReport, tmp_path: Path) -> None:
    report.save(tmp_path)
    document = read_json(tmp_path / "validation.json")
    write_json(tmp_path / "validation.json", document | {"schema": "else"})
    with pytest.raises(InputError, match="no validation of the kind"):
        ValidationReport.load(tmp_path)
    del document["lifts"]
    write_json(tmp_path / "validation.json", document)
    with pytest.raises(InputError, match="lacks its 'lifts'"):
        ValidationReport.load(tmp_path)


def test_a_file_of_the_version_before_is_read(report: ValidationReport, tmp_path: Path) -> None:
    report.save(tmp_path)
    document = read_json(tmp_path / "validation.json") | {"schema": "repsim/validation/2"}
    for row in document["goals"]:
        row["reached"] = int(row["reached"] != "no")
    write_json(tmp_path / "validation.json", document)
    assert ValidationReport.load(tmp_path).to_json() == report.to_json()
