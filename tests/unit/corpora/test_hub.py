"""Hugging Face data sets, from folders and from the cache; nothing here touches the network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from repsim.core import InputError, ResourceError, UsageError
from repsim.corpora import load_corpus

datasets = pytest.importorskip("datasets")

LANGUAGES = ("eng_Latn", "deu_Latn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test, so that none sees what is on the machine."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def with_configs(folder: Path, names: Sequence[str] = LANGUAGES) -> Path:
    """A data set of one configuration per name and the splits dev and devtest."""
    card = ["---", "license: cc-by-sa-4.0", "configs:"]
    for name in names:
        card += [f"- config_name: {name}", "  data_files:"]
        for split, ids in (("dev", (3, 1, 2)), ("devtest", (1, 2))):
            rows = [
                {"id": i, "text": f"{split} {i} {name}", "url": f"w/{i // 2}"}
                for i in (ids if name == "eng_Latn" else sorted(ids))
            ]
            write_jsonl(folder / split / f"{name}.jsonl", rows)
            card += [f"  - split: {split}", f"    path: {split}/{name}.jsonl"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
    return folder


def test_one_configuration_per_language_is_joined_by_id(tmp_path: Path) -> None:
    folder = with_configs(tmp_path / "flores_plus")
    corpus = load_corpus(f"hub:{folder}", languages=["de", "en"], split="dev")
    assert corpus.name == "flores_plus"
    assert corpus.languages == ("deu_Latn", "eng_Latn")
    assert corpus.ids == ("dev:1", "dev:2", "dev:3")
    assert corpus["eng_Latn"] == tuple(f"dev {i} eng_Latn" for i in (1, 2, 3))
    assert corpus.documents == ("w/0", "w/1", "w/1")
    both = load_corpus(f"hub:{folder}")
    assert len(both) == 5
    assert both.notes == ("all splits together (dev 3, devtest 2)",)


def test_one_chosen_configuration_is_read_alone(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "opus" / "de-en" / "train.jsonl",
        [
            {"translation": {"de": "Ja.", "en": "Yes."}},
            {"translation": {"de": "Nein.", "en": "No."}},
        ],
    )
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: {name}/*.jsonl\n" for name in ("de-en-x", "en-es-x")
    )
    write_jsonl(tmp_path / "opus" / "en-es-x" / "train.jsonl", [{"translation": {"en": "a"}}])
    (tmp_path / "opus" / "de-en").rename(tmp_path / "opus" / "de-en-x")
    (tmp_path / "opus" / "README.md").write_text(card + "---\n", encoding="utf-8")
    corpus = load_corpus(f"hub:{tmp_path / 'opus'}#de-en-x")
    assert corpus["deu_Latn"] == ("Ja.", "Nein.")
    assert corpus.ids == ("train:1", "train:2")
    assert f"{tmp_path / 'opus'}#de-en-x; licence: not stated" in corpus.source
    with pytest.raises(
        UsageError, match=r"has 2 configurations and none is chosen .*de-en-x, en-es"
    ):
        load_corpus(f"hub:{tmp_path / 'opus'}")
    with pytest.raises(InputError, match=r"opus#fr' cannot be read: .*'fr' not found"):
        load_corpus(f"hub:{tmp_path / 'opus'}#fr")


def saved(folder: Path, columns: Mapping[str, Any], split: str | None = None) -> Path:
    table = datasets.Dataset.from_dict(columns)
    (datasets.DatasetDict({split: table}) if split else table).save_to_disk(str(folder))
    return folder


def test_a_saved_data_set_with_translations_is_recognised(tmp_path: Path) -> None:
    pairs = [{"en": "Yes.", "de": "Ja."}, {"en": "No.", "de": "Nein."}, {"en": "One.", "de": None}]
    folder = saved(tmp_path / "pairs", {"id": ["a", "b", "c"], "translation": pairs}, "test")
    corpus = load_corpus(folder)
    assert corpus.ids == ("test:a", "test:b")
    assert dict(corpus.sentences) == {"eng_Latn": ("Yes.", "No."), "deu_Latn": ("Ja.", "Nein.")}
    assert "deu_Latn lacks 1" in corpus.notes[0]
    with pytest.raises(UsageError, match=r"unknown split of '.*pairs' 'tset' .*mean 'test'"):
        load_corpus(folder, split="tset")


def test_one_column_per_language_is_read(tmp_path: Path) -> None:
    columns = {
        "en": ["Yes.", "No."],
        "de": ["Ja.", "Nein."],
        "score": [0.5, 0.7],
        "url": ["w", "w"],
    }
    corpus = load_corpus(saved(tmp_path / "wide", columns), languages=["de"])
    assert dict(corpus.sentences) == {"deu_Latn": ("Ja.", "Nein.")}
    assert (corpus.ids, corpus.documents) == (("1", "2"), ("w", "w"))


def test_rows_of_all_languages_below_each_other_are_read(tmp_path: Path) -> None:
    columns = {
        "id": [0, 1, 1, 0],
        "iso_639_3": ["eng", "eng", "deu", "deu"],
        "iso_15924": ["Latn"] * 4,
        "text": ["No.", "Yes.", "Ja.", "Nein."],
    }
    corpus = load_corpus(saved(tmp_path / "long", columns))
    assert dict(corpus.sentences) == {"eng_Latn": ("No.", "Yes."), "deu_Latn": ("Nein.", "Ja.")}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [1, 2], "source": ["a", "b"]}, "in no shape that is known .*has label, source"),
        ({"en": ["a", "\x07"]}, r"row 2, en, column 1: control character U\+0007"),
        (
            {"en": ["a", "b"], "id": [1, 1]},
            "row 2: id '1' is used twice in eng_Latn, first at .*row 1",
        ),
        ({"en": [1, 2]}, "row 1: en is int, not text"),
    ],
)
def test_a_malformed_data_set_is_named(
    tmp_path: Path, columns: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_corpus(saved(tmp_path / "bad", columns))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    folder = with_configs(tmp_path / "set")
    before = load_corpus(f"hub:{folder}", split="dev")
    write_jsonl(folder / "dev" / "deu_Latn.jsonl", [{"id": 1, "text": "neu", "url": "w"}])
    assert len(before) == 3
    assert load_corpus(f"hub:{folder}", split="dev")["deu_Latn"] == ("neu",)


def test_languages_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    folder = with_configs(tmp_path / "set")
    for split in ("dev", "devtest"):
        write_jsonl(folder / split / "deu_Latn.jsonl", [{"text": "eins"}])
        write_jsonl(folder / split / "eng_Latn.jsonl", [{"text": "one"}, {"text": "two"}])
    with pytest.raises(
        InputError, match="misaligned: 2 sentences in eng_Latn .* and 1 in deu_Latn"
    ):
        load_corpus(f"hub:{folder}", split="dev")
    for split in ("dev", "devtest"):
        write_jsonl(folder / split / "deu_Latn.jsonl", [{"label": "eins"}])
    with pytest.raises(InputError, match="deu_Latn: no column of text .*has label"):
        load_corpus(f"hub:{folder}", split="dev")


def test_an_error_of_the_library_is_passed_on_with_its_cause(tmp_path: Path) -> None:
    folder = with_configs(tmp_path / "set")
    write_jsonl(folder / "devtest" / "deu_Latn.jsonl", [{"other": 1}])
    with pytest.raises(
        InputError, match=r"(?s)#deu_Latn' cannot be read: .*column names don't match"
    ):
        load_corpus(f"hub:{folder}")


def test_a_language_without_a_split_is_named(tmp_path: Path) -> None:
    folder = with_configs(tmp_path / "set")
    card = (folder / "README.md").read_text(encoding="utf-8")
    cut = card.replace("  - split: devtest\n    path: devtest/deu_Latn.jsonl\n", "")
    (folder / "README.md").write_text(cut, encoding="utf-8")
    with pytest.raises(InputError, match="deu_Latn has no split 'devtest'"):
        load_corpus(f"hub:{folder}")


def test_what_is_in_the_cache_is_read_without_network(tmp_path: Path, own_cache: Path) -> None:
    folder = with_configs(tmp_path / "some_set")
    fresh = load_corpus(f"hub:{folder}")
    for name in LANGUAGES:
        datasets.load_dataset(str(folder), name)
    # Lay the cache out as it is after a download from the hub: OWNER___NAME/CONFIG/VERSION/COMMIT.
    shutil.copytree(own_cache / "some_set", own_cache / "owner___some_set")
    corpus = load_corpus("hub:owner/some_set")
    assert dict(corpus.sentences) == {
        label: fresh.sentences[label] for label in ("deu_Latn", "eng_Latn")
    }
    assert corpus.ids == fresh.ids
    pinned = load_corpus("hub:owner/some_set@main", split="dev")
    assert pinned.notes == ("read from the cache: whether it is main was not checked",)


def test_nothing_is_fetched_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    seen: list[tuple[bool, bool]] = []

    def no_network(*_: object, **__: object) -> None:
        seen.append((datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    monkeypatch.setattr(datasets, "get_dataset_config_names", no_network)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(
        ResourceError, match=r"'owner/none' is not on this machine, and nothing may b"
    ):
        load_corpus("hub:owner/none", languages=["en"])
    with pytest.raises(ResourceError, match="'owner/none@main' cannot be fetched: no route"):
        load_corpus("hub:owner/none@main", languages=["en"], allow_network=True)
    assert seen == [(True, True), (before, before)]
    assert datasets.config.HF_HUB_OFFLINE is before


def test_the_real_library_refuses_when_offline() -> None:
    with pytest.raises(ResourceError, match=r"not on this machine.*allow_network=True"):
        load_corpus("hub:owner/none")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ResourceError, match=r"needs the package 'datasets'.*repsim-lm\[hub\]"):
        load_corpus("hub:owner/none")


def test_an_address_that_names_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'#de-en' names no data set .*hub:OWNER/NAME"):
        load_corpus("hub:#de-en")
