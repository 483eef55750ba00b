"""The report of a study: one file that stands alone, and verdicts that follow the numbers."""

import csv
import dataclasses
import importlib
import json
import re

import pytest

from repsim.core.atlas import MergeTable, ModelTable
from repsim.core.errors import UsageError
from repsim.reports.page import MAX_BYTES
from repsim.studies.findings import study_findings
from repsim.studies.report import FIGURES, write_study_report
from repsim.studies.report_tables import study_tables
from tests.planted.atlases import changed, planted_atlas
from tests.planted.pages import Page


def claims(atlas):
    return [s for s in study_findings(atlas) if s.claim]


def said(atlas, kind):
    return " ".join(s.text for s in study_findings(atlas) if s.kind == kind and not s.claim)


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    """Intervals are tested elsewhere; here they need not be narrow."""
    room = importlib.import_module("repsim.stats.bootstrap")

    def weights(parents):
        drawn = room.model_weights(room.members_of(parents), draws=40)
        return drawn[drawn.sum(axis=1) > 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_weights", weights)
        yield


@pytest.fixture(scope="module")
def atlas():
    made = planted_atlas()
    study = made.info["study"] | {"name": "<script>alert(1)</script>"}
    return dataclasses.replace(made, info=made.info | {"study": study})


@pytest.fixture(scope="module")
def folder(atlas, tmp_path_factory):
    target = tmp_path_factory.mktemp("study")
    assert write_study_report(atlas, target) == target / "report.html"
    return target


def test_the_page_is_well_formed_small_and_refers_to_nothing_outside(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    parser = Page(page)
    pictures = [source for source in parser.sources if source.startswith("data:image/")]
    assert len(pictures) == len(FIGURES)
    assert all(source.startswith("#") for source in set(parser.sources) - set(pictures))
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    assert len(page.encode()) < MAX_BYTES


def test_names_from_outside_are_escaped(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_figure_is_there_as_png_and_svg(folder):
    for suffix in ("png", "svg"):
        assert {path.stem for path in (folder / "figures").glob(f"*.{suffix}")} == set(FIGURES)


def test_tables_say_the_same_in_every_format(folder, atlas):
    for table in study_tables(atlas):
        stem = folder / "tables" / table.name
        with stem.with_suffix(".csv").open(encoding="utf-8") as file:
            read = list(csv.DictReader(file))
        assert len(read) == len(table.rows)
        assert len(stem.with_suffix(".md").read_text().splitlines()) == len(table.rows) + 2
        latex = stem.with_suffix(".tex").read_text()
        assert latex.count(r"\\") == len(table.rows) + 1
    with (folder / "tables" / "outcomes.csv").open(encoding="utf-8") as file:
        first = next(csv.DictReader(file))
    assert float(first["median"]) == -2.0
    assert first["setting"] == "independent initial weights"


def test_page_markdown_and_json_hold_the_same_claims(folder, atlas):
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    stated = document["blocks"][0]["blocks"][1]["entries"]
    assert [claim["text"] for claim in stated] == [c.text for c in claims(atlas)]
    assert all(claim["text"] in markdown for claim in stated)
    assert all(text in markdown for text in document["blocks"][1]["blocks"][0]["items"])


def test_a_figure_that_cannot_be_drawn_is_named_and_the_rest_is_there(tmp_path):
    write_study_report(planted_atlas(features=False), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    figures = next(block for block in document["blocks"] if block["title"] == "Figures")
    assert len(figures["blocks"][-1]["blocks"][0]["items"]) == 3
    assert "The invariance ladder" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "figures" / "plane.png").exists()


def test_an_atlas_without_outcomes_has_no_report(tmp_path):
    empty = dataclasses.replace(planted_atlas(), merges=MergeTable([]))
    with pytest.raises(UsageError, match="holds no merge"):
        write_study_report(empty, tmp_path)


def test_what_was_not_measured_is_open():
    assert [claim.verdict for claim in claims(planted_atlas(features=False))][3] == "open"
    alone = changed(planted_atlas(), lambda row: row if row["arm"] == "A" else None)
    assert claims(alone)[2].verdict == "open"


def test_one_merge_that_lives_makes_the_collapse_partly_reproduced(atlas):
    first = next(row["merge"] for row in atlas.merges.rows())
    lives = changed(atlas, lambda row: row | {"worst_retention": 0.8} if row["merge"] == first
                    else row)  # fmt: skip
    found = claims(lives)[1]
    assert found.verdict == "partly"
    assert "87 of 88 merges" in found.text
    assert "The best keeps 0.80" in found.text


def test_if_all_merges_live_nothing_of_collapse_is_reproduced(atlas):
    found = claims(changed(atlas, lambda row: row | {"worst_retention": 0.9}))
    assert [claim.verdict for claim in found[1:]] == ["not reproduced", "not reproduced", "open"]


def test_a_stronger_mixed_model_overturns_the_first_claim(atlas):
    rows = [row | {"bits_per_byte": 1.0, "ci_low": 0.9, "ci_high": 1.1}
            if row["role"] == "mixed" else row for row in atlas.models.rows()]  # fmt: skip
    found = claims(dataclasses.replace(atlas, models=ModelTable(rows)))[0]
    assert found.verdict == "not reproduced"
    assert "in 0 of 4 languages" in found.text


def test_similarity_that_tells_nothing_is_not_a_prerequisite(atlas):
    turned = {row["parents"] for row in atlas.merges.rows() if row["worst_retention"] >= 0.5}
    flipped = changed(atlas, lambda row: row | {
        "worst_retention": -1.0 if row["parents"] in turned else 0.8})  # fmt: skip
    found = claims(flipped)[3]
    assert found.verdict == "not reproduced"


def test_models_that_read_unequal_amounts_are_not_said_to_be_equal(atlas):
    assert "Both read as many tokens" in claims(atlas)[0].text
    rows = [row | {"tokens": 100_000} if row["model"] == "main/eng-s2" else row
            for row in atlas.models.rows()]  # fmt: skip
    text = claims(dataclasses.replace(atlas, models=ModelTable(rows)))[0].text
    assert "read 100,000 and 400,000 tokens, the mixed one 400,000 in 4 languages" in text


def test_findings_state_their_numbers(atlas):
    text = said(atlas, "result")
    assert "plain mean of two forks 17 % (6 pairs" in text
    assert "independent initial weights 0 of 12" in text
    assert "k = 2 −1.00, k = 3 −1.25" in text
    assert "Of 23 controls with known answers 23 came out as expected." in text
    assert "{" not in text
    assert "nan" not in text


def test_limits_follow_the_atlas(atlas):
    text = said(atlas, "warning")
    assert "1.3M parameters" in text
    assert "9 of 10 units" in text
    assert "less than 0.2 bits" not in text
    first = next(row["merge"] for row in atlas.merges.rows())
    weak = changed(
        atlas,
        lambda row: (
            row | {"parent_bits": row["unigram_floor"] - 0.1, "worst_retention": None}
            if row["merge"] == first
            else row
        ),
    )
    text = said(weak, "warning")
    assert "1 of 340 merges rest on a best parent" in text
    assert "1 of 340 merges have no retention" in text


def test_the_test_of_sufficiency_is_missed_where_it_was_not_measured(atlas):
    assert "alike in everything but coordinates" not in claims(atlas)[3].text
    less = changed(atlas, lambda row: row if row["arm"] != "B" else None)
    text = claims(less)[3].text
    assert "Pairs of one language from two initial weights" in text
    assert "tells these pairs apart" in text
