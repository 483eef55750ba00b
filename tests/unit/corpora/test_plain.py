"""Sentences of one language from a text file, and sentences in memory."""

from pathlib import Path

import pytest

import repsim
from repsim.core import RepsimError
from repsim.corpora import load_corpus


def test_a_text_file_is_one_sentence_a_line_and_empty_lines_divide_documents(
    tmp_path: Path,
) -> None:
    path = tmp_path / "own.txt"
    path.write_text("\nHyvää päivää.\nMitä kuuluu?\n\n\nKiitos.\n", "utf-8")
    corpus = load_corpus(path, languages="fi")
    assert corpus["fin_Latn"] == ("Hyvää päivää.", "Mitä kuuluu?", "Kiitos.")
    assert corpus.ids == ("2", "3", "6")
    assert corpus.documents == ("document 1", "document 1", "document 2")


def test_without_empty_lines_every_sentence_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_text("One.\nTwo.\n", "utf-8")
    corpus = load_corpus(path)
    assert corpus.languages == ("und",)
    assert corpus.documents == corpus.ids
    assert any("called 'und'" in note for note in corpus.notes)


def test_lists_and_mappings_are_corpora() -> None:
    assert load_corpus(["One.", "Two."], languages=["en"])["eng_Latn"] == ("One.", "Two.")
    both = load_corpus({"en": ["One.", "Two."], "de": ["Eins.", "Zwei."]})
    assert both.languages == ("eng_Latn", "deu_Latn")
    assert both["deu_Latn"][1] == "Zwei."
    gap = load_corpus({"en": ["One.", "Two."], "de": ["Eins.", None]})
    assert len(gap) == 1


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_data_frames_are_corpora(library: str) -> None:
    frames = pytest.importorskip(library)
    columns = {"id": [7, 8], "document": ["a", "a"], "en": ["One.", "Two."], "de": ["E.", None]}
    make = frames.table if library == "pyarrow" else frames.DataFrame
    corpus = load_corpus(make(columns), languages=["eng"])
    assert (corpus.ids, corpus.documents) == (("7", "8"), ("a", "a"))
    assert corpus["eng_Latn"] == ("One.", "Two.")
    assert load_corpus(make(columns)).ids == ("7",)
    array = make({"u": [1.0, 2.0, 4.0, 3.0], "v": [0.5, 0.0, 1.0, 2.0]})
    if library != "pyarrow":
        assert repsim.measure(array, array, "rsa") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "languages", "said"),
    [
        (["One."], ["en", "de"], "text of one language, 2 are asked for"),
        ({"en": ["One."], "de": []}, None, "misaligned sentences: 1 in en, 0 in de"),
        ({"en": "One."}, None, "the sentences in en are str"),
        ([], None, "there are no sentences"),
        (["One.", 2], None, "sentence 2 in und: it is int, not text"),
        ({"en": ["One."]}, ["fr"], "unknown language 'fr' in the sentences .*it has: eng_Latn"),
    ],
)
def test_what_is_no_corpus_is_refused(text: object, languages: object, said: str) -> None:
    with pytest.raises(RepsimError, match=said):
        load_corpus(text, languages=languages)  # type: ignore[arg-type]


def test_an_empty_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n\n", "utf-8")
    with pytest.raises(RepsimError, match="holds no text"):
        load_corpus(tmp_path / "none.txt")
