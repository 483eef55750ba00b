"""Words, cells and escapes of pages."""

import pytest

from repsim.reports import page, tables
from repsim.reports.blocks import TableBlock, declared
from repsim.reports.validation_rows import spoken, with_interval


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        (page.unbroken, "92 % of outcomes", "92\xa0% of outcomes"),
        (page.sentence, "debiased as in the source", "Debiased as in the source."),
        (page.sentence, "tr(KL) over its norm.", "tr(KL) over its norm."),
        (tables.cell, -0.12345, "−0.123"),
        (tables.cell, None, "–"),
        (tables.cell, 3, "3"),
        (tables.cell, float("inf"), "never"),
        (tables.cell, "leave-models-out", "leave-models-out"),
        (tables.exact, -0.12345, "-0.12345"),
        (tables.exact, 3, ""),
        (tables.exact, None, ""),
        (tables.latex_escape, "a_b & 5 %", "a\\_b \\& 5 \\%"),
        (spoken, "hidden_cka_middle", "hidden CKA, middle"),
        (spoken, "provenance bit", "provenance bit"),
        (spoken, "mutual_knn_late", "mutual k-NN, late"),
    ],
)
def test_people_read(form, value, words):
    assert form(value) == words


def test_flags_intervals_and_tables():
    assert tables.cell(1, "yes or no") == "yes"
    assert with_interval(0.9, {"ci_low": 0.85, "ci_high": 0.94}) == "0.90 [0.85, 0.94]"
    table = declared({"a": ("float", "A")}, [{"a": -0.5}])
    assert table.declared("a").meaning == "A"
    assert tables.markdown_table(TableBlock("t", "T", table)) == "| A |\n| --- |\n| −0.500 |\n"
