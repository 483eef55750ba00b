"""The report is one file that stands alone, and the tables beside it say the same."""

import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from repsim.core import SimilarityTable
from repsim.reports import write_report
from repsim.reports.comparison import summary_table
from repsim.reports.page import MAX_BYTES
from repsim.reports.tables import latex_escape, latex_table, markdown_table
from repsim.testing.tables import synthetic_table
from tests.planted.pages import Page


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
    parser = Page(page)
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


def test_figures_follow_dark_pages_and_say_their_values(
    written: tuple[Path, SimilarityTable],
) -> None:
    folder, table = written
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count('<div class="picture vector">') == page.count("<figure")
    panel = table.grid("multilingual", "<script>alert(1)</script>", measure="cka",
                       language_a="eng_Latn", language_b="eng_Latn")  # fmt: skip
    assert f"<title>layers emb and emb: {panel.values[0, 0]:.3f}</title>" in page


def test_a_value_without_interval_says_why(tmp_path: Path) -> None:
    table = synthetic_table({"a": 2, "b": 2}, languages=("swe_Latn",), measures=("cka",))
    why = "no interval: 4 documents are too few"
    rows = [row | {"ci_low": None, "ci_high": None, "note": why} for row in table.rows()]
    write_report(SimilarityTable(rows, table.info), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "CKA (debiased) has no interval (1 pair): 4 documents are too few" in page
    assert "has no null" not in page


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


#: Run in the page that frames the report: clicks, types, and notes what is there then.
LOOK = """
frame.onload = () => {
  const page = frame.contentDocument, root = page.documentElement;
  const table = page.querySelector("table.sortable");
  const rows = () => [...table.tBodies[0].rows];
  const column = () => rows().map((row) => Number(row.cells[2].title || row.cells[2].textContent));
  const all = rows().length;
  table.tHead.rows[0].cells[2].click();
  const up = column();
  table.tHead.rows[0].cells[2].click();
  const down = column();
  const box = page.querySelector(".tools input");
  box.value = "deu";
  box.dispatchEvent(new frame.contentWindow.Event("input"));
  const links = [...page.querySelectorAll("nav a")].map((link) => link.getAttribute("href"));
  out.textContent = JSON.stringify({
    width: root.scrollWidth, window: root.clientWidth, all, up, down, links: links.length,
    dangling: links.filter((link) => !page.getElementById(link.slice(1))),
    kept: rows().filter((row) => !row.hidden).map((row) => row.textContent),
    said: page.querySelector(".tools [role=status]").textContent.trim(),
    wide: [...page.querySelectorAll("body *")].filter((one) =>
      !one.closest(".scroll") && one.getBoundingClientRect().right > root.clientWidth + 1).length,
  });
};
"""


def looked_at(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What a real browser shows of a page in a window of some width."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium on this machine")
    frame = f'<iframe id="frame" width="{width}" height="900" style="border:0"></iframe>'
    script = f"<script>{LOOK}frame.srcdoc = document.getElementById('page').value;</script>"
    source = f'<textarea id="page" hidden>{html.escape(page)}</textarea><pre id="out"></pre>'
    (folder / "looked.html").write_text(f'<meta charset="utf-8">{frame}{source}{script}')
    ran = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000",
         f"--user-data-dir={folder / 'profile'}", "--dump-dom", str(folder / "looked.html")],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="out">(.+?)</pre>', ran.stdout, re.DOTALL)
    assert found, ran.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(
    written: tuple[Path, SimilarityTable], width: int, tmp_path: Path
) -> None:
    page = (written[0] / "report.html").read_text(encoding="utf-8")
    seen = looked_at(page, width, tmp_path)
    assert seen["window"] <= width
    assert seen["width"] <= seen["window"]  # nothing but tables is scrolled sideways
    assert seen["wide"] == 0
    assert seen["links"] > 5
    assert not seen["dangling"]
    assert len(seen["up"]) == seen["all"] > 5
    assert seen["up"] == sorted(seen["up"])
    assert seen["down"] == sorted(seen["up"], reverse=True)
    assert 0 < len(seen["kept"]) < seen["all"]
    assert all("deu" in text for text in seen["kept"])
    assert seen["said"] == f"{len(seen['kept'])} of {seen['all']} rows"
