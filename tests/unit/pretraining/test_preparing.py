"""From text of several kinds to token shards: sources, tokenizers, copies, many languages."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repsim.core.errors import InputError, UsageError
from repsim.corpora.shards import TokenShards
from repsim.corpora.tokenizers import save_tokenizer, train_tokenizer
from repsim.pretraining.config import FamilyConfig, from_mapping
from repsim.pretraining.data import FamilyData, TrainingData
from repsim.pretraining.distributed import world
from repsim.pretraining.planning import plan
from repsim.pretraining.preparing import prepare

Make = Callable[..., FamilyConfig]
LETTERS = {"eng_Latn": "aeioubcd", "deu_Latn": "äöüßklmn"}


def prose(rng: np.random.Generator, n: int = 60, letters: str = "aeioubcd") -> str:
    return " ".join("".join(rng.choice(list(letters), rng.integers(2, 7))) for _ in range(n))


def write_lines(path: Path, texts: list[str], prefix: str = "d") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": f"{prefix}{k}", "text": text} for k, text in enumerate(texts))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(config: FamilyConfig, out: Path, **more: Any) -> FamilyData:
    with world("cpu") as here:
        return prepare(config, out, here, **more)


def entries(data: FamilyData) -> dict[str, Any]:
    found: dict[str, Any] = data.parts["shared"].shards.manifest["shards"]
    return found


def texts_of(data: FamilyData, stream: str, split: str) -> list[str]:
    part = data.parts["shared"]
    pieces = np.split(part.shards.tokens(stream, split), part.shards.documents(stream, split)[1:])
    return [part.tokenizer.decode(piece[1:]) for piece in pieces]  # type: ignore[union-attr]


def test_repeated_lines_are_told_and_kept_out_of_training(
    family: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    pages = [prose(rng) for _ in range(90)]
    write_lines(tmp_path / "text" / "eng_Latn.jsonl", [pages[k % 90] for k in range(900)])
    corpus = {"source": str(tmp_path / "text"), "languages": ["eng_Latn"]}
    with caplog.at_level(logging.WARNING, "repsim"):
        data = prepared(family(corpus=corpus), tmp_path / "out")
    train, held = (texts_of(data, "eng_Latn", split) for split in ("train", "heldout"))
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(pages)
    assert "eng_Latn: of 900 documents 810 are left out as copies, 0 as near copies" in caplog.text
    assert entries(data)["eng_Latn.train"]["dropped"]["copies"] == 810


def test_several_sources_are_mixed_by_weight_and_share_what_is_held_out(
    family: Make, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    pages = [prose(rng) for _ in range(100)]
    write_lines(tmp_path / "a" / "eng_Latn.train.jsonl", pages[:60])
    write_lines(tmp_path / "a" / "eng_Latn.heldout.jsonl", pages[60:70])
    write_lines(tmp_path / "b.jsonl", [*pages[60:65], *pages[70:]], "b")
    for split in ("train", "heldout"):
        german = [prose(rng, 60, LETTERS["deu_Latn"]) for _ in range(20)]
        write_lines(tmp_path / "a" / f"deu_Latn.{split}.jsonl", german)
    sources = [{"source": str(tmp_path / "a"), "weight": 3},
               {"source": str(tmp_path / "b.jsonl"), "languages": ["eng_Latn"]}]  # fmt: skip
    corpus = {"source": sources, "languages": ["eng_Latn", "deu_Latn"]}
    runs = [{"name": "both", "mix": {"eng_Latn": 4, "deu_Latn": 1}, "init_seed": 1}]
    config = family(corpus=corpus, runs=runs, training={"steps": 50, "batch": 10})
    data = prepared(config, tmp_path / "out")
    assert sorted(entries(data)) == ["deu_Latn.heldout", "deu_Latn.train", "eng_Latn+1.train",
                                     "eng_Latn+2.train", "eng_Latn.heldout"]  # fmt: skip
    held = texts_of(data, "eng_Latn", "heldout")
    first, second = (texts_of(data, f"eng_Latn+{k}", "train") for k in (1, 2))
    assert not set(held) & {*first, *second}
    assert set(held) >= set(pages[60:70])
    assert entries(data)["eng_Latn+2.train"]["dropped"]["copies"] == 5
    part = data.parts["shared"]
    names, _ = part.reading(plan(config)[0]).samples(np.arange(2560))
    assert [(names == s).sum() for s in ("eng_Latn+1", "eng_Latn+2", "deu_Latn")] == [
        1536,
        512,
        512,
    ]
    assert set(part.floors) == {"eng_Latn", "deu_Latn"}
    assert part.lengths["eng_Latn"] == sum(part.windows.lengths[f"eng_Latn+{k}"] for k in (1, 2))
    with pytest.raises(UsageError, match="'data_order' 1 goes with one source"):
        family(corpus=corpus, runs=runs, data_order=1)
    with pytest.raises(UsageError, match="no source of 'corpus.source' is for deu_Latn"):
        family(corpus=corpus | {"source": sources[1:]}, runs=runs)


@pytest.mark.parametrize("kind", ["unigram", "path", "foreign"])
def test_a_tokenizer_may_be_unigram_or_one_that_exists(
    family: Make, tmp_path: Path, kind: str
) -> None:
    text = {"x": ["the cat and the dog are friends of the bird"] * 9}
    folder = tmp_path / "tokenizer"
    asked: dict[str, Any] = {"path": str(folder)}
    if kind == "unigram":
        asked = {"algorithm": "unigram", "vocab_size": 300}
    elif kind == "path":
        save_tokenizer(train_tokenizer(text, vocab_size=280), folder)
    else:
        from transformers import PreTrainedTokenizerFast

        backend = train_tokenizer(text, vocab_size=280).backend
        PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>"
        ).save_pretrained(folder)
    config = family(tokenizer=asked)
    first = prepared(config, tmp_path / "one").parts["shared"]
    again = prepared(config, tmp_path / "two").parts["shared"]
    # Unigram training is not exact: the library sums in the order of a hash table.
    assert (first.hash == again.hash) or kind == "unigram"
    assert first.tokenizer.vocab_size == 384
    assert plan(config)[0].parameters > 0
    first.save_tokenizer(tmp_path / "model")
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    if kind == "unigram":
        assert len(set(texts_of_one(first))) == 60
    with pytest.raises(UsageError, match="holds training data of another corpus or tokenizer"):
        prepared(family(tokenizer={"kind": "bytes"}), tmp_path / "one")
    with pytest.raises(UsageError, match="say nothing beside it"):
        family(tokenizer={"path": "x", "vocab_size": 300})
    with pytest.raises(InputError, match="tokenizer 'x' is not a folder"):
        plan(family(tokenizer={"path": "x"}))


def texts_of_one(part: TrainingData) -> list[str]:
    tokens, starts = part.shards.tokens("eng_Latn"), part.shards.documents("eng_Latn")
    return [part.tokenizer.decode(p[1:]) for p in np.split(tokens, starts[1:])]  # type: ignore[union-attr]


def test_a_data_set_is_streamed_once_up_to_what_is_asked_for(
    family: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    rng, opened, taken = np.random.default_rng(2), [], []
    rows = [{"id": f"w{k}", "text": prose(rng)} for k in range(2000)]

    def streamed(name: str, config: str, **settings: Any) -> Any:
        opened.append(
            (name, config, settings["split"], settings["streaming"], settings["revision"])
        )
        for row in rows:
            taken.append(row["id"])
            yield row

    monkeypatch.setattr(datasets, "load_dataset", streamed)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train"])
    corpus = {"source": "hub:owner/web@v2", "languages": ["eng_Latn"], "max_bytes": 60_000}
    with pytest.raises(UsageError, match="fetching data sets is not allowed .*--allow-network"):
        prepared(family(corpus=corpus), tmp_path / "refused")
    data = prepared(family(corpus=corpus), tmp_path / "out", allow_network=True)
    assert opened == [("owner/web", "eng_Latn", "train", True, "v2")] * len(opened)
    sizes = [entries(data)[f"eng_Latn.{split}"]["bytes"] for split in ("train", "heldout")]
    assert 55_000 < sizes[0] <= 60_000
    assert 0 < sizes[1] < 10_000
    assert len(set(taken)) < 300  # of 2000: no more of the stream than that
    with pytest.raises(UsageError, match="is streamed: how much of it"):
        prepared(family(corpus=corpus | {"max_bytes": None}), tmp_path / "all", allow_network=True)


def test_three_hundred_languages_are_planned() -> None:
    languages = [f"l{k:02d}_Latn" for k in range(300)]
    runs = [{"name": "all", "languages": languages, "temperature": 0.7, "init_seed": 1}]
    runs += [{"name": name, "languages": [name], "fork": {"from": "all", "at": 0.9}}
             for name in languages]  # fmt: skip
    config = from_mapping(
        {"name": "many", "corpus": {"source": "text", "languages": languages},
         "architecture": {"size": "1m"}, "training": {"tokens": 10_000_000}, "runs": runs}
    )  # fmt: skip
    plans = plan(config)
    assert len(plans) == 301
    lengths = {name: 10 + k * k for k, name in enumerate(languages)}
    assert sum(plans[0].ratios(lengths).values()) == pytest.approx(1)


def test_shards_are_those_of_the_text_whatever_the_batches(family: Make, tmp_path: Path) -> None:
    data = prepared(family(), tmp_path / "out").parts["shared"]
    counts = data.shards.token_counts("eng_Latn")
    assert np.array_equal(
        counts, np.bincount(np.asarray(data.shards.tokens("eng_Latn")), minlength=len(counts))
    )
    assert isinstance(data.shards, TokenShards)
