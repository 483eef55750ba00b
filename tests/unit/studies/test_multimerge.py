"""The source paper's files: read as they are, refused where damaged, and what is said of them."""

import json

import numpy as np
import pytest

from repsim.core.errors import InputError
from repsim.studies.multimerge.files import PAIRS, RESULTS, SIMILARITY, read_multimerge
from repsim.studies.multimerge.findings import multimerge_findings
from repsim.studies.multimerge.report import write_multimerge_report
from repsim.testing.pairs import BLOCKS, LANGUAGES, planted_checkout
from tests.planted.atlases import planted_atlas
from tests.planted.commands import exit_code

COUNT = len(LANGUAGES) * (len(LANGUAGES) - 1) // 2


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    return planted_checkout(tmp_path_factory.mktemp("multimerge"))


@pytest.fixture(scope="module")
def study(checkout):
    return read_multimerge(checkout)


def _csv(study, path):
    names = {"merged": "merged", "parent": "parent", "floor": "untrained"}
    sides = [(m, s) for m in names for s in "ab"]
    head = ["a", "b", *(f"multiblimp_{names[m]}_{s}" for m, s in sides), "weight_cosine",
            "cka_english"]  # fmt: skip
    lines = [",".join(head)]
    for row in study.pairs.rows():
        values = [row[f"{m}_{s}"] for m, s in sides] + [row["weight_cosine"], row["cka_english"]]
        cells = [row["a"], row["b"], *("" if v is None else repr(v) for v in values)]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_pair_is_read_once(study) -> None:
    assert len(study.pairs) == COUNT
    assert len({frozenset(pair) for pair in study.pairs.pairs}) == COUNT
    assert len(study.blocks) == COUNT * BLOCKS
    assert study.recipes.unique("method") == ["linear", "ties"]
    assert study.recipes.unique("base") == ["checkpoint_0000000"]
    assert set(study.accuracy.unique("language")) == set(LANGUAGES) - {"zhos"}


def test_retention_is_the_share_between_the_untrained_model_and_the_parent(study) -> None:
    row = next(study.pairs.rows())
    kept = (row["merged_a"] - row["floor_a"]) / (row["parent_a"] - row["floor_a"])
    assert study.pairs.retention("a")[0] == pytest.approx(kept)
    chinese = np.array(["zhos" in pair for pair in study.pairs.pairs])
    assert np.isnan(study.pairs.both[chinese]).any(axis=1).all()
    assert np.isfinite(study.pairs.worst).all()


def test_the_pairs_as_csv_say_the_same(study, tmp_path) -> None:
    again = read_multimerge(_csv(study, tmp_path / "pairs.csv"))
    assert again.pairs.worst == pytest.approx(study.pairs.worst)
    assert again.pairs.loss == pytest.approx(study.pairs.loss)
    assert not len(again.blocks)


def test_what_is_said_follows_from_the_numbers(study) -> None:
    said = {s.name: s for s in multimerge_findings(study, planted_atlas())}
    assert said["collapse"].verdict == "reproduced"
    assert said["prerequisite"].verdict == "open"
    assert "none of 15 survives" in said["prerequisite"].text
    assert "chosen after looking" in said["leverage"].text
    assert "3 of 6 blocks (3 to 5" in said["first token"].text
    assert "1, ties 1" in said["recipes"].text
    assert "5 pairs were scored in one language only" in said["one sided"].text
    # Losses were planted as effects of languages.
    assert "R2 = 0.9" in said["language effects"].text


def test_without_blocks_and_an_atlas_less_is_said(study, tmp_path) -> None:
    bare = read_multimerge(_csv(study, tmp_path / "pairs.csv"))
    names = {s.name for s in multimerge_findings(bare)}
    assert not names & {"first token", "beside ours", "recipes"}
    assert {"collapse", "similarity and loss", "leverage"} <= names


def test_the_report_is_written(checkout, tmp_path, capsys) -> None:
    assert (
        exit_code("study", "report", f"multimerge:{checkout}", "-o", tmp_path / "out", "--json")
        == 0
    )
    page = tmp_path / "out" / "report.html"
    assert json.loads(capsys.readouterr().out)["report"] == str(page)
    assert (tmp_path / "out" / "figures" / "pairs.png").exists()
    assert "chosen after looking" in page.read_text(encoding="utf-8")
    assert (tmp_path / "out" / "tables" / "similarity.csv").exists()


@pytest.mark.parametrize(
    ("broken", "text", "said"),
    [
        (PAIRS, None, "is not there"),
        (PAIRS, "{", "is no JSON"),
        (PAIRS, '{"eng": {"nld": {}}}', "lacks its scores"),
        (SIMILARITY, "[]", "no table of pairs"),
        (RESULTS, "model,checkpoint,eng_acc\nx,main,0.9\n", "no scores of an untrained model"),
        (RESULTS, "a,b\n1,2\n", "no table of MultiBLiMP"),
        ("merging/ties-2.yaml", "models: [", "no YAML"),
    ],
)
def test_damaged_checkouts_are_refused(tmp_path, broken, text, said) -> None:
    folder = planted_checkout(tmp_path / "checkout")
    (folder / broken).unlink() if text is None else (folder / broken).write_text(text)
    with pytest.raises(InputError, match=said):
        read_multimerge(folder)


def test_other_csv_files_and_missing_folders_are_refused(tmp_path) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\neng,nld\n")
    with pytest.raises(InputError, match="lacks the column 'multiblimp_merged_a'"):
        read_multimerge(tmp_path / "pairs.csv")
    with pytest.raises(InputError, match="does not exist"):
        write_multimerge_report(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
