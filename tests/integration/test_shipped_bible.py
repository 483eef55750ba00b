"""The corpus that ships: whole, split alike everywhere, and clean of what it holds out."""

import pytest

from repsim.core import InputError, UsageError
from repsim.corpora import builtin_training, load_corpus, unseen_rows
from repsim.corpora.builtin_training import EDITIONS, WHOLE, bible_text, builtin_parallel
from repsim.corpora.training_text import load_training_text

LANGUAGES = tuple(EDITIONS)
SCRIPTS = {
    "Latn": ("A", "\u024f"),
    "Cyrl": ("\u0400", "\u04ff"),
    "Arab": ("\u0600", "\u06ff"),
    "Hebr": ("\u0590", "\u05ff"),
}


@pytest.fixture(scope="module")
def train():
    return {name: list(bible_text(name)) for name in LANGUAGES}


@pytest.fixture(scope="module")
def held():
    return {name: list(bible_text(name, "heldout")) for name in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_there_in_its_own_script(train, language):
    text = "".join(document.text for document in train[language])
    low, high = SCRIPTS[language[-4:]]
    letters = [c for c in text if c.isalpha()]
    assert 2.5e6 < len(text.encode()) < 6e6
    assert sum(low <= c <= high for c in letters) / len(letters) > 0.999
    # The joiner of Persian is the only mark that does not print.
    assert {c for c in text if not c.isprintable()} <= {"\n", "\u200c"}
    assert not [c for c in text if c.isdigit()]
    assert not set(text) & set("*`<")


def test_there_are_ten_languages_in_four_scripts_in_less_than_ten_megabytes():
    assert len(LANGUAGES) == 10
    assert {name[-4:] for name in LANGUAGES} == set(SCRIPTS)
    size = sum(path.stat().st_size for path in builtin_training.FOLDER.iterdir())
    assert size < 10e6


def test_the_same_chapters_are_held_out_in_every_language(train, held):
    for name in LANGUAGES:
        inside, outside = {d.id for d in train[name]}, {d.id for d in held[name]}
        assert not inside & outside
        assert outside <= {d.id for d in held["eng_Latn"]}
        assert len(inside | outside) == (929 if name == "hbo_Hebr" else 1189)
        assert len(inside) + len(outside) == len(train[name]) + len(held[name])
    assert len(held["eng_Latn"]) == 55


def test_no_held_out_verse_stands_in_the_training_text_of_its_language(held):
    texts = load_training_text("bible", LANGUAGES)
    for name in LANGUAGES:
        verses = [line for document in held[name] for line in document.text.split("\n")]
        assert len(verses) > 900
        assert unseen_rows({name: verses}, texts) == list(range(len(verses)))


def test_the_parallel_corpus_is_the_held_out_text_verse_by_verse(held):
    corpus = builtin_parallel("bible")
    assert corpus.languages == WHOLE
    assert len(corpus) == 1355
    assert len(set(corpus.documents)) == 55
    for name in WHOLE:
        lines = [line for document in held[name] for line in document.text.split("\n")]
        assert list(corpus[name]) == lines


def test_load_corpus_knows_the_same_verses():
    loaded = load_corpus("bible-heldout", languages=["deu_Latn", "rus_Cyrl"])
    corpus = builtin_parallel("bible", ["deu_Latn", "rus_Cyrl"])
    assert loaded.ids == corpus.ids
    assert loaded.documents == corpus.documents
    assert dict(loaded.sentences) == dict(corpus.sentences)


def test_hebrew_is_aligned_where_its_verses_are_counted_alike():
    corpus = builtin_parallel("bible", ["eng_Latn", "hbo_Hebr"])
    assert len(corpus) == 886
    row = corpus.ids.index("ISA.6.3")
    assert corpus["eng_Latn"][row].startswith("One cried to another, and said, Holy, holy, holy")
    assert "קדוש קדוש קדוש" in corpus["hbo_Hebr"][row]
    # Counted to the next chapter in Hebrew editions, and brought to the others' place.
    jonah = corpus.ids.index("JON.1.17")
    assert "fish" in corpus["eng_Latn"][jonah]
    assert "דג" in corpus["hbo_Hebr"][jonah]


def test_disjoint_training_shares_no_chapter():
    texts = load_training_text("bible", ["eng_Latn", "deu_Latn"], content="disjoint")
    first, second = ({d.id for d in text} for text in texts.values())
    assert not first & second
    assert len(first) == len(second) == 1134 // 2


def test_every_text_names_its_edition_and_why_it_is_free():
    notice = (builtin_training.FOLDER.parent / "NOTICE-bible.md").read_text(encoding="utf-8")
    for name in LANGUAGES:
        text = bible_text(name)
        assert EDITIONS[name].title in text.source
        assert text.licence.startswith("public domain: ")
        assert f"| {name} |" in notice


def test_what_is_not_there_is_refused():
    with pytest.raises(
        UsageError, match="unknown language 'vie_Latn' in the built-in training corpus"
    ):
        bible_text("vie_Latn")
    with pytest.raises(
        UsageError, match="unknown language 'vie_Latn' in the built-in training corpus"
    ):
        builtin_parallel("bible", ["vie_Latn"])
    with pytest.raises(UsageError, match="unknown built-in training corpus 'quran'"):
        builtin_parallel("quran")
    with pytest.raises(InputError, match="holds no sentences"):
        builtin_parallel("bible", [])


def test_a_data_file_whose_lines_are_not_its_verses_is_refused(tmp_path, monkeypatch):
    import lzma

    path = tmp_path / "eng_Latn.heldout.jsonl.xz"
    path.write_bytes(lzma.compress(b'{"id": "GEN.1", "text": "a\\nb", "verses": [1]}'))
    monkeypatch.setattr(builtin_training, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"GEN\.1 has not one line per verse"):
        builtin_parallel("bible", ["eng_Latn"])
