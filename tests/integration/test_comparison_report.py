"""The report is one file that stands alone, and the tables beside it say the same."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from repsim.core import SimilarityTable
from repsim.reports import write_report
from repsim.reports.comparison import summary_table
from repsim.reports.page import MAX_BYTES
from repsim.reports.tables import latex_escape, latex_table, markdown_table
from repsim.testing.tables import synthetic_table

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order; collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag == "img":
            assert dict(attrs).get("alt"), "a picture without a text alternative"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SimilarityTable]:
    table = synthetic_table({"multilingual": 4, "<script>alert(1)</script>": 3},
                            languages=("eng_Latn", "deu_Latn", "fra_Latn"),
                            measures=("unit_correlation", "cka"))  # fmt: skip
    folder = tmp_path_factory.mktemp("report")
    write_report(table, folder)
    return folder, table


def test_the_page_is_well_formed_and_refers_to_nothing_outside(
    written: tuple[Path, SimilarityTable],
) -> None:
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.sources
    assert all(source.startswith(("data:image/", "#")) for source in parser.sources)
    assert len(page.encode()) < MAX_BYTES


def test_names_from_outside_are_escaped(written: tuple[Path, SimilarityTable]) -> None:
    assert "<script>alert" not in (written[0] / "report.md").read_text(encoding="utf-8")
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_figure_is_there_as_png_and_svg(written: tuple[Path, SimilarityTable]) -> None:
    figures = written[0] / "figures"
    stems = {path.stem for path in figures.glob("*.png")}
    assert {"ladder", "heatmap-cka", "languages-cka", "layers-cka-same-text"} <= stems
    assert stems == {path.stem for path in figures.glob("*.svg")}


def test_the_summary_says_the_same_in_every_format(written: tuple[Path, SimilarityTable]) -> None:
    folder, table = written
    rows = summary_table(table).rows
    with (folder / "tables" / "summary.csv").open(encoding="utf-8") as handle:
        read = list(csv.DictReader(handle))
    assert [float(row["best"]) for row in read] == [row["best"] for row in rows]
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    numbers = next(block for block in document["blocks"] if block["title"] == "Numbers")
    shown = next(block for block in numbers["blocks"] if block.get("name") == "summary")
    assert [row["best"] for row in shown["rows"]] == [row["best"] for row in rows]
    assert f"{rows[0]['best']:.3f}" in (folder / "tables" / "summary.md").read_text()
    assert f"{rows[0]['best']:.3f}" in (folder / "tables" / "summary.tex").read_text()
    assert len(SimilarityTable.load(folder)) == len(table)


def test_two_reports_of_one_table_are_the_same_bytes(tmp_path: Path) -> None:
    table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn",), measures=("cka",))
    pages = [write_report(table, tmp_path / name).read_bytes() for name in ("x", "y")]
    assert pages[0] == pages[1]


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn",), measures=("cka",))
    page = write_report(table, tmp_path).read_text(encoding="utf-8")
    assert "Figures that these data do not allow" in page


def test_latex_prints_what_is_meant() -> None:
    assert latex_escape("a_b & 5 % \\ ↔") == r"a\_b \& 5 \% \textbackslash{} $\leftrightarrow$"
    table = synthetic_table({"a_1": 2, "b": 2}, languages=("eng_Latn",))
    text = latex_table(summary_table(table))
    assert r"a\_1 $\leftrightarrow$ b" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_markdown_has_one_cell_per_column() -> None:
    table = summary_table(synthetic_table({"a|b": 2, "c": 2}, languages=("eng_Latn",)))
    lines = markdown_table(table).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
