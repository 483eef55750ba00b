"""Hypotheses: numbers from planted evidence, verdicts that follow from them, honest words."""

import re

import numpy as np
import pytest

from repsim.core.formatting import number, percent
from repsim.mergeability.evidence import EvidenceTable
from repsim.mergeability.hypotheses import (
    Number,
    examine_hypotheses,
    hypotheses,
)
from repsim.mergeability.hypotheses import (
    conclude as concluded,
)
from repsim.testing.evidence import planted_evidence

NUMBERS = {
    "H1": [Number(0.004, 0.0, 0.02), Number(0.6, 0.3, 0.8), Number(0.9, 0.8, 0.95),
           Number(0.97, 0.9, 0.99)],
    "H2": [Number(0.98, 0.94, 1.0), Number(0.8, 0.6, 0.9), Number(0.3, 0.2, 0.4)],
    "H3": [Number(0.003, 0.0, 0.04), Number(0.17, 0.07, 0.3), Number(-0.09, -0.33, 0.3),
           Number(0.88, 0.7, 0.97)],
    "H4": [Number(0.74, 0.5, 0.8), Number(-0.02, -0.13, 0.2), Number(-0.76, -0.84, -0.5)],
    "H5": [Number(0.7, 0.5, 0.8)] * 4 + [Number(0.6, 0.3, 0.7)] * 2,
}  # fmt: skip


def conclude(name: str, numbers: list[Number]) -> tuple[str, str]:
    entry = next(entry for entry in hypotheses() if entry["name"] == name)
    return concluded(entry, dict(zip(entry["quantities"], numbers, strict=True)))


@pytest.fixture(scope="module")
def table() -> EvidenceTable:
    """CKA follows the distance, sentence length nothing; signs follow the size of updates."""
    planted = planted_evidence(models=16)
    rng, rows = np.random.default_rng(0), len(planted_evidence(models=16))
    distance = planted["distance"]
    features = {
        "cka_middle": -distance + rng.normal(0, 0.05, rows),
        "cka_partial_middle": -distance + rng.normal(0, 0.05, rows),
        "unit_correlation_middle": -distance,
        "update_size": distance,
        "sign_agreement": -distance + rng.normal(0, 0.02, rows),
        "gap_l1_l0_middle": distance - planted["quotient"],
        "gap_l2_l0_middle": distance - planted["quotient"],
    }
    return planted.with_features(features, dict.fromkeys(features, "T2"))


def test_planted_relations_are_found(table) -> None:
    rows = examine_hypotheses(table, draws=40)
    verdicts = {row["hypothesis"]: row["verdict"] for row in rows}
    assert {"H1", "H2", "H3", "H4", "H5"} <= set(verdicts)
    value = {(row["hypothesis"], row["quantity"]): row["value"] for row in rows}
    assert value["H1", "AUROC of survival by L0 (unit-wise correlation)"] > 0.95
    assert value["H3", "rank correlation of gap and gain"] > 0.3
    assert value["H4", "rank correlation of update size and retention"] < -0.5
    assert value["H5", "ρ, calibrated CKA"] > 0.5
    assert all(
        row["ci_low"] <= row["value"] <= row["ci_high"]
        for row in rows
        if np.isfinite(row["ci_low"])
    )


def test_few_cases_are_said_to_be_few(table) -> None:
    few = table.take(np.arange(12))
    rows = examine_hypotheses(few, draws=20)
    assert {row["verdict"] for row in rows} == {"open"}
    assert all("too few to tell" in row["sentence"] for row in rows)


def test_controls_and_missing_features_are_left_out(table) -> None:
    only = table.with_columns({"control": ["self"] * len(table)})
    assert examine_hypotheses(only) == []
    assert examine_hypotheses(planted_evidence(models=6)) == []


@pytest.mark.parametrize("name", list(NUMBERS))
def test_sentences_claim_no_more_than_was_counted(name) -> None:
    _, sentence = conclude(name, NUMBERS[name])
    assert not re.search(r"-\d", sentence), "a hyphen for a minus sign"
    assert not re.search(r"\b0 ?%", sentence), "nothing, where there is little"
    assert not re.search(r"\d%", sentence)


def test_a_small_share_is_not_nothing() -> None:
    _, sentence = conclude("H1", NUMBERS["H1"])
    assert "0.4 % survive" in sentence
    _, sentence = conclude("H3", NUMBERS["H3"])
    assert "(rank correlation of gap and gain −0.09" in sentence
    assert (percent(0.0), percent(0.004), percent(1.0)) == ("0 %", "0.4 %", "100 %")
    assert (number(-0.25), number(-0.001)) == ("−0.25", "0.00")


def test_cka_must_survive_both_steps_and_provenance() -> None:
    first, *rest = NUMBERS["H5"]
    assert conclude("H5", [first, *rest])[0] == "supported"
    gone = Number(0.02, -0.1, 0.08)
    assert conclude("H5", [first, *rest[:-1], gone])[0] == "refuted"
    unsure = Number(0.2, -0.05, 0.4)
    assert conclude("H5", [first, *rest[:-1], unsure])[0] == "open"
    assert "holds neither raw CKA nor CKA that is both" in conclude("H5", [first, *rest])[1]
