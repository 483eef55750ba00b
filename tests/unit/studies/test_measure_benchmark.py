"""Comparisons of the benchmark by hand, what counts as right, answers of the shipped table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from repsim.cli.measures import measures
from repsim.core import ModelRef, UsageError
from repsim.core.errors import InputError
from repsim.measures import get_measure, list_measures
from repsim.studies.atlases import load_atlas
from repsim.studies.compare import DEFAULT_MEASURES
from repsim.studies.measure_benchmark import (
    QUESTIONS,
    MeasureScores,
    load_scores,
    plan_benchmark,
    recommend,
)
from repsim.studies.measure_benchmark.atlas import atlas_rows
from repsim.studies.measure_benchmark.comparisons import Known, comparisons, outcome
from repsim.studies.measure_benchmark.run import _require_comparable
from repsim.studies.measure_benchmark.table import TESTS
from tests.planted.measure_scores import synthetic_scores


def known(name: str, languages: str, history: str = "") -> Known:
    return Known(
        name, frozenset(languages.split("+")), frozenset((history or languages).split("+"))
    )


ENG1, ENG2, DEU1 = known("eng1", "eng"), known("eng2", "eng"), known("deu1", "deu")
FORK_E, FORK_D = known("engf", "eng", "eng+deu"), known("deuf", "deu", "eng+deu")
LEVELS = {
    ("eng1", "deu1"): (1.0, 0.0), ("engf", "deuf"): (1.0, 0.85), ("eng1", "engf"): (1.0, 0.0),
    ("eng1", "deuf"): (1.0, 0.0), ("deu1", "engf"): (1.0, 0.0), ("deu1", "deuf"): (1.0, 0.0),
}  # fmt: skip


def level(a: str, b: str) -> tuple[float, float]:
    return LEVELS.get((a, b), LEVELS.get((b, a), (0.0, 0.0)))


def test_comparisons_of_seeds_and_forks_by_hand() -> None:
    found = list(comparisons([ENG1, ENG2, DEU1, FORK_E, FORK_D], level, ["eng", "deu"]))
    told = {(c.test, c.near, c.far) for c in found}
    # On English text two English seeds must be more alike than an English and a German model.
    assert ("seeds", ("eng1", "eng2"), ("eng1", "deu1")) in told
    # The German fork was trained on English too: it is no model of another language.
    assert ("seeds", ("eng1", "eng2"), ("eng1", "deuf")) not in told
    assert {c.language for c in found if c.test == "seeds"} == {"eng"}
    # Shared initialisation over independent, and a late fork over shared initialisation.
    assert ("forks", ("deu1", "eng1"), ("deu1", "eng2")) in told
    assert ("forks", ("engf", "deuf"), ("engf", "deu1")) in told
    # A bilingual near model against a monolingual far one of the unit's own language says nothing.
    assert ("forks", ("eng1", "engf"), ("eng1", "eng2")) not in told


def test_unknown_history_is_compared_with_nothing() -> None:
    assert not list(comparisons([ENG1, ENG2, DEU1], lambda a, b: None, ["eng"]))


def test_what_is_right_follows_the_direction_and_ties_count_half() -> None:
    cka, procrustes = get_measure("cka"), get_measure("procrustes")
    assert (outcome(0.9, 0.2, cka), outcome(0.2, 0.9, cka)) == (1.0, 0.0)
    assert (outcome(0.9, 0.2, procrustes), outcome(0.2, 0.9, procrustes)) == (0.0, 1.0)
    assert outcome(0.3, 0.3 + 1e-16, cka) == outcome(np.nan, 0.3, cka) == 0.5


def test_the_atlas_gives_the_known_probability_that_a_surviving_pair_is_the_more_similar() -> None:
    """0.92 by CKA and 0.99 by unit-wise correlation: the numbers that the atlas is cited with."""
    rows = [r for r in atlas_rows(load_atlas("cpu_atlas"), "a") if r["test"] == "atlas_merging"]
    for name, expected in (("cka", 0.92), ("unit_correlation", 0.99)):
        own = [row for row in rows if row["measure"] == name]
        hits = sum(row["correct"] * row["comparisons"] for row in own)
        assert hits / sum(row["comparisons"] for row in own) == pytest.approx(expected, abs=0.01)


def test_the_plan_says_how_much_without_loading_a_model() -> None:
    plan = plan_benchmark(["zoo:eng-1", "zoo:eng-2", "zoo:deu-1"], measures=["cka"], limit=80)
    assert [(part.kind, part.language) for part in plan.parts] == [
        ("model", "eng_Latn"), ("model", "eng_Latn"), ("model", "deu_Latn"),
        ("text", "deu_Latn"), ("text", "eng_Latn"), ("atlas", ""),
    ]  # fmt: skip
    assert plan.plan()["readings"] == 3 * 7 + 2 * 3


def test_a_model_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="two models are called 'eng-1'"):
        plan_benchmark(["zoo:eng-1", "zoo:eng-1"])


# -- the shipped table ----------------------------------------------------------------------------


def test_the_shipped_table_judges_measures_that_there_are_by_every_test() -> None:
    """A measure that is added later is not in it until the benchmark is run again."""
    table = load_scores()
    known = {m.name for m in list_measures() if m.reads == "activations"}
    for test in TESTS:
        judged = set(table.where(test=test).unique("measure"))
        assert judged <= known, test
        assert len(judged) >= 40 or test.startswith("atlas"), test
    assert set(DEFAULT_MEASURES) <= set(table.where(test="noise").unique("measure"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_has_an_answer_with_its_uncertainty(question: str) -> None:
    answers = recommend(load_scores(), question)
    for answer in answers:
        best = answer.ranking.ranked[0]
        assert best.low <= best.score <= best.high
        assert best.tied
        assert answer.choice.tied
        scores = [one.score for one in answer.ranking.ranked]
        assert scores == sorted(scores, reverse=True)
        json.dumps(answer.describe(), allow_nan=False)


def test_a_tie_goes_to_the_cheap_measure_and_is_said() -> None:
    planted = {
        "slow": ("Slow", "L2", "expensive", 0.951), "quick": ("Quick", "L2", "cheap", 0.95),
        "poor": ("Poor", "", "cheap", 0.6),
    }  # fmt: skip
    (answer,) = recommend(synthetic_scores(planted=planted), "overall")
    assert [one.name for one in answer.ranking.ranked] == ["slow", "quick", "poor"]
    # The scatter is shared: the paired difference of slow and quick is never 0.
    assert [one.tied for one in answer.ranking.ranked] == [True, False, False]
    planted["quick"] = ("Quick", "L2", "cheap", 0.951)
    (answer,) = recommend(synthetic_scores(planted=planted), "overall")
    assert answer.choice.name == "quick"
    assert "1 of 2 other measures cannot be told from it" in answer.sentence()


def test_questions_and_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown question 'speed'"):
        recommend(synthetic_scores(), "speed")
    with pytest.raises(UsageError, match="holds nothing for 'merging'"):
        recommend(synthetic_scores(), "merging")
    with pytest.raises(InputError, match="no benchmark at"):
        load_scores("/nowhere")


def test_the_command_recommends_and_lists() -> None:
    run = CliRunner().invoke(measures, ["--recommend", "--for", "history"])
    assert run.exit_code == 0, run.output
    assert "cannot be told from it" in run.output
    found = CliRunner().invoke(measures, ["--recommend", "--json", "-m", "cka", "-m", "imd"])
    (document,) = json.loads(found.stdout)
    assert [one["name"] for one in document["ranking"]] == ["cka", "imd"]
    listed = CliRunner().invoke(measures, [])
    assert {"rtd_lite", "stitch_linear", "output_kl"} <= set(listed.output.split())
    dry = CliRunner().invoke(measures, ["--benchmark", "out", "--dry-run", "--json"])
    assert json.loads(dry.stdout)["plan"]["models"] == 7
    assert MeasureScores.SCHEMA == "repsim/measure-scores/1"


def test_models_of_two_depths_are_refused_with_their_depths() -> None:
    refs = [ModelRef(name="a", path="a", layers=4), ModelRef(name="b", path="b", layers=6)]
    with pytest.raises(UsageError, match="a has 4, b has 6"):
        _require_comparable(refs)
