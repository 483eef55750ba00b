"""No figure cuts a text off or covers one with another; too many panels are refused."""

import pytest

from repsim.core.errors import UsageError
from repsim.measures import dissimilarities
from repsim.plots import FIGURES
from repsim.testing.tables import synthetic_table
from tests.planted.evaluation_tables import barrier_table, diagnosis_table, retention_table
from tests.planted.figures import check_figure
from tests.planted.measure_scores import synthetic_scores
from tests.unit.plots.test_checkpoints import STEPS
from tests.unit.plots.test_measure_ranking import TESTS
from tests.unit.plots.test_rdm import read_by

LONG_NAME = "organisation/a-very-long-model-name-instruct-v0.3-step-143000"
DEEP = {LONG_NAME: 24, "another-long-name": 24}
UNLIKE = {LONG_NAME: 24, "another-name-of-3": 3}
SHALLOW = {LONG_NAME: 3, "another-model": 3}
TWELVE = tuple(f"{c}{c}{c}_Latn" for c in "abcdefghijkl")
ENGLISH = ("eng_Latn",)
ANGLE = ("procrustes",)
#: Figure -> tables of models and measures, and options.
SIMILARITIES = {
    "heatmap": [
        ({}, {}),
        ({"languages": ("eng_Latn", "deu_Latn")}, {"size": "single"}),
        ({"models": DEEP, "languages": ENGLISH, "offset": -0.6}, {"size": "single"}),
        ({"models": {"a": 3, "b": 3}, "measures": ANGLE}, {"size": "medium"}),
        ({"models": {"en": 6, "fi": 6, "mixed": 6}, "languages": ("eng_Latn", "fin_Latn")}, {}),
    ],
    "layers": [
        ({}, {}),
        ({"models": UNLIKE, "languages": ENGLISH}, {"size": "single"}),
        ({"models": UNLIKE}, {"size": "single", "pairing": "parallel text"}),
        (
            {"models": {"a": 3, "b": 3}, "offset": -0.6, "measures": ANGLE},
            {"average": True, "size": "medium"},
        ),
        ({"intervals": False, "nulls": False, "partial": False}, {"size": "single"}),
    ],
    "languages": [
        ({}, {}),
        ({"languages": TWELVE}, {}),
        ({"models": SHALLOW, "languages": TWELVE[:2]}, {"size": "single"}),
        ({"measures": ANGLE}, {"size": "medium"}),
        ({"models": {"m": 3}, "offset": -0.6}, {"size": "single"}),
    ],
    "space": [
        ({}, {"size": "medium"}),
        ({"cross_language": True}, {"size": "single"}),
        ({"models": {f"model-with-a-long-name-{i}": 2 for i in range(12)}, "languages": ENGLISH},
         {}),
        ({"measures": ANGLE}, {}),
    ],
    "ladder": [
        ({"measures": None}, {}),
        ({"measures": None, "models": SHALLOW}, {"size": "single"}),
        ({"measures": None, "models": {"a": 2, "b": 2, "c": 2}, "languages": ENGLISH}, {}),
        ({"measures": None, "offset": -0.4, "languages": ENGLISH}, {"size": "medium"}),
        ({"measures": None, "nulls": False, "intervals": False}, {"at": "mean"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in SIMILARITIES.items() for case in cases]
)
def test_figures_of_similarities_fit(name, case, monkeypatch):
    monkeypatch.setattr("repsim.plots.space.N_INIT", 2)
    stated = {"measures": ("cka",)} | case[0]
    made = {key: own for key, own in stated.items() if own is not None}
    check_figure(FIGURES[name](synthetic_table(**made), **case[1]))


@pytest.fixture(scope="module")
def tables():
    heights = {"none": 1.2, "permutation": 0.3, "orthogonal": 0.02}
    return {
        "barrier": barrier_table(("eng_Latn", "deu_Latn", "fra_Latn"), heights),
        "retention": retention_table(),
        "diagnosis": diagnosis_table(30, ("a-rather-long-name", "another-name")),
        "rdm": dissimilarities(read_by("a", 0) + read_by("b", 1), point=""),
        "measure_ranking": synthetic_scores(TESTS),
        "checkpoints": synthetic_table(
            dict.fromkeys(STEPS, 4), languages=("eng_Latn", "deu_Latn"),
            measures=("cka", "procrustes"),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("options", [{"size": "wide"}, {"size": "single"}, {"theme": "dark"}])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("barrier", {}),
        ("retention", {}),
        ("diagnosis", {}),
        ("rdm", {}),
        ("rdm", {"models": ["a"]}),
        ("measure_ranking", {}),
        ("checkpoints", {"steps": STEPS}),
        (
            "checkpoints",
            {"steps": STEPS, "measure": "procrustes", "languages": ["eng_Latn"]},
        ),
    ],
)
def test_figures_of_other_tables_fit(name, more, options, tables):
    slack = 2.0 if name == "measure_ranking" else 1.0
    check_figure(FIGURES[name](tables[name], **more, **options), slack=slack)


@pytest.mark.parametrize(
    ("name", "models", "languages", "options", "words"),
    [
        ("layers", 1, 9, {"average": False}, "36 panels, more than 30.*average=True"),
        ("heatmap", 2, 31, {"pairing": "same text"}, "31 panels, more than 30"),
        ("space", 13, 3, {"by": "model-language"}, "13 panels, more than 12"),
    ],
)
def test_too_many_panels_are_refused(name, models, languages, options, words):
    table = synthetic_table(
        {f"m{i:02}": 1 for i in range(models)},
        languages=tuple(f"l{i:02}_Latn" for i in range(languages)), measures=("cka",),
    )  # fmt: skip
    with pytest.raises(UsageError, match=words):
        FIGURES[name].info(table, **options)
