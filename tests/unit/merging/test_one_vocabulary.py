"""Models whose vocabularies differ: padded rows, added tokens, and two languages' tokenizers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from repsim.core.errors import IncompatibleModelsError, UsageError
from repsim.corpora.builtin_training import bible_text
from repsim.merging import merge
from tests.unit.merging.conftest import MakeModel

TOKENS = [f"t{i}" for i in range(16)]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WIDTH = 8


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return dict(load_file(Path(folder) / "model.safetensors"))


def config_of(folder: str | Path) -> Any:
    return json.loads((Path(folder) / "config.json").read_text())


def resized(make_model: MakeModel, name: str, seed: int, rows: int) -> dict[str, torch.Tensor]:
    """Tensors of a model with so many rows, for `make_model`."""
    make_model(f".{name}", seed)
    state = weights(f".{name}")
    generator = torch.Generator().manual_seed(seed)
    for tensor in (EMBED, HEAD):
        state[tensor] = torch.randn(rows, WIDTH, generator=generator)
    return state


def card_of(folder: Path) -> str:
    """The model card without what Markdown escapes."""
    return html.unescape((folder / "README.md").read_text()).replace("\\", "")


def mergekit(**keys: Any) -> dict[str, Any]:
    listed = [{"model": m, "parameters": {"weight": 1.0}} for m in ("a", "b")]
    return {"merge_method": "linear", "models": listed, **keys}


# -- rows that stand for no token -----------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [(16, 80), (80, 16)])
def test_rows_may_be_padded_differently(make_model: MakeModel, first: int, second: int) -> None:
    """mergekit #425: one tokenizer, and models that have 64 rows more than others."""
    for seed, (name, rows) in enumerate((("a", first), ("b", second))):
        make_model(name, seed, tensors=resized(make_model, name, seed, rows), tokens=TOKENS)
    folder = merge(mergekit(), "out", device="cpu")
    a, b, found = weights("a"), weights("b"), weights(folder)
    for tensor in (EMBED, HEAD):
        assert torch.equal(found[tensor][:16], (a[tensor][:16] + b[tensor][:16]) / 2)
        assert torch.equal(found[tensor][16:], a[tensor][16:])
    assert config_of(folder)["vocab_size"] == first
    assert "64 that stand for no token" in card_of(folder)


def test_rows_of_tokens_are_no_padding(make_model: MakeModel) -> None:
    make_model("a", 0, tokens=TOKENS)
    tensors = resized(make_model, "b", 1, 12)
    make_model("b", 1, tensors=tensors, tokens=TOKENS)
    with pytest.raises(IncompatibleModelsError, match="vocabularies differ in size"):
        merge(mergekit(), "out", device="cpu")
    named = mergekit(base_model="a", tokenizer_source="base")
    with pytest.raises(IncompatibleModelsError, match="'b' has 12 rows and 'a' 16, and not only"):
        merge(named, "out", device="cpu")


def test_a_given_vocabulary_keeps_its_padding_unless_a_multiple_is_asked_for(
    make_model: MakeModel,
) -> None:
    """mergekit #425: there, rows are cut down to the tokens once a tokenizer is named."""
    make_model("a", 0, tensors=resized(make_model, "a", 0, 24), tokens=TOKENS)
    make_model("b", 1, tensors=resized(make_model, "b", 1, 24), tokens=TOKENS)
    recipe = mergekit(base_model="a", tokenizer_source="base")
    assert config_of(merge(recipe, "kept", device="cpu"))["vocab_size"] == 24
    asked = mergekit(base_model="a", tokenizer={"source": "base", "pad_to_multiple_of": 10})
    folder = merge(asked, "padded", device="cpu")
    assert config_of(folder)["vocab_size"] == 20
    found, a, b = weights(folder)[EMBED], weights("a")[EMBED], weights("b")[EMBED]
    mean = (a[:16] + b[:16]).mean(0) / 2
    assert torch.allclose(found[16:], mean.expand(4, WIDTH), atol=1e-7)
    assert "4 of 20 rows stand for no token: means of all others" in card_of(folder)


# -- added tokens ---------------------------------------------------------------------------------


def add(name: str, *tokens: str) -> None:
    """Give a model added tokens at the end of its vocabulary, and rows for them."""
    path = Path(name) / "tokenizer.json"
    document = json.loads(path.read_text())
    start = len(document["model"]["vocab"])
    document["added_tokens"] = [
        {"id": start + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True} for i, t in enumerate(tokens)
    ]  # fmt: skip
    path.write_text(json.dumps(document))


def with_added(make_model: MakeModel, **added: tuple[str, ...]) -> None:
    for seed, (name, tokens) in enumerate(added.items()):
        rows = 16 + len(tokens)
        make_model(name, seed, tensors=resized(make_model, name, seed, rows), tokens=TOKENS)
        add(name, *tokens)


def test_tokens_added_to_one_parent_are_in_the_union(make_model: MakeModel) -> None:
    with_added(make_model, a=(), b=("<x>", "<y>"))
    folder = merge(mergekit(tokenizer_source="union"), "out", device="cpu")
    found, a, b = weights(folder)[EMBED], weights("a")[EMBED], weights("b")[EMBED]
    assert torch.allclose(found[:16], (a + b[:16]) / 2, atol=1e-7)
    assert torch.equal(found[16:], b[16:])  # the row of the only model that has it, in both
    document = json.loads((folder / "tokenizer.json").read_text())
    assert [(t["id"], t["content"]) for t in document["added_tokens"]] == [(16, "<x>"), (17, "<y>")]
    assert document["model"] == json.loads(Path("a/tokenizer.json").read_text())["model"]
    card = card_of(folder)
    assert "union: 2 tokens added of 'b' ('<x>', '<y>') that 'a' lacks" in card


def test_the_vocabulary_of_the_base_leaves_added_tokens_out(make_model: MakeModel) -> None:
    with_added(make_model, a=(), b=("<x>",))
    recipe = mergekit(base_model="a", tokenizer_source="base")
    folder = merge(recipe, "out", device="cpu")
    assert config_of(folder)["vocab_size"] == 16
    assert (
        "0 tokens that it lacks take rows of the other models, 1 of its own are left out"
        in card_of(folder)
    )


def test_rows_of_lacking_tokens_follow_base_then_single_then_mean(make_model: MakeModel) -> None:
    with_added(make_model, a=("<c>", "<base>"), b=("<c>",), c=("<single>",), d=())
    listed = [{"model": m, "parameters": {"weight": 1.0}} for m in "abcd"]
    recipe = {"merge_method": "linear", "models": listed, "tokenizer_source": "union"}
    folder = merge(recipe, "out", device="cpu")
    document = json.loads((folder / "tokenizer.json").read_text())
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    a, b, c = (weights(m)[EMBED] for m in "abc")
    found = weights(folder)[EMBED]
    mean = (a[16] + b[16]) / 2  # c and d lack the token, a and b have it
    assert torch.allclose(found[ids["<c>"]], (a[16] + b[16] + mean + mean) / 4, atol=1e-6)
    assert torch.allclose(found[ids["<single>"]], c[16], atol=1e-6)
    based = {**recipe, "base_model": "a"}
    found = weights(merge(based, "based", device="cpu"))[EMBED]
    assert torch.allclose(found[ids["<c>"]], (a[16] + b[16] + a[16] + a[16]) / 4, atol=1e-6)


def test_a_recipe_chooses_rows_of_single_tokens(make_model: MakeModel) -> None:
    with_added(make_model, a=("<x>",), b=("<x>", "<y>"))
    tokens = {
        "<x>": {"source": "b", "force": True},
        "<y>": {"source": {"kind": "zero"}},
        "<z>": {"source": {"kind": "model_token", "model": "a", "token": "t3"}},
        "<n>": {"source": {"kind": "model_token", "model": "b", "token_id": 5}},
    }
    recipe = mergekit(tokenizer={"source": "union", "tokens": tokens})
    folder = merge(recipe, "out", device="cpu")
    document = json.loads((folder / "tokenizer.json").read_text())
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    found, a, b = weights(folder)[EMBED], weights("a")[EMBED], weights("b")[EMBED]
    assert torch.equal(found[ids["<x>"]], b[16])
    assert torch.equal(found[ids["<y>"]], b[17] / 2)  # a lacks it and takes zeros
    assert torch.equal(found[ids["<z>"]], a[3])
    assert torch.equal(found[ids["<n>"]], b[5])
    assert "row of '<x>': that of 'b', in all models" in card_of(folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("c", "tokenizer.tokens names 'c', which is not merged"),
        ("a", "the row of '<new>' in 'a', which has no such token"),
        ({"kind": "model_token", "model": "a", "token_id": 99}, "row 99 of 'a', which has 16"),
    ],
)
def test_a_row_that_is_not_there_is_refused(
    make_model: MakeModel, source: Any, message: str
) -> None:
    with_added(make_model, a=(), b=())
    tokenizer = {"source": "union", "tokens": {"<new>": {"source": source}}}
    with pytest.raises(UsageError, match=message):
        merge(mergekit(tokenizer=tokenizer), "out", device="cpu")


# -- two languages --------------------------------------------------------------------------------

LANGUAGES = ("eng_Latn", "deu_Latn")
VOCABULARY = 1500


def language_text(language: str, characters: int) -> str:
    text = ""
    for document in bible_text(language).texts():
        text += document + "\n"
        if len(text) > characters:
            break
    return text


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    """Byte-level BPE of two languages."""
    found = {}
    for language in LANGUAGES:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>"], show_progress=False,
        )  # fmt: skip
        lines = language_text(language, 400_000).splitlines()
        tokenizer.train_from_iterator(lines[: len(lines) * 3 // 4], trainer)
        found[language] = tokenizer
    return found


def in_one_model(make_model: MakeModel, trained: dict[str, Tokenizer]) -> Callable[[str], str]:
    for seed, (name, language) in enumerate(zip("ab", LANGUAGES, strict=True)):
        rows = trained[language].get_vocab_size()
        make_model(name, seed, tensors=resized(make_model, name, seed, rows))
        trained[language].save(f"{name}/tokenizer.json")
    return lambda name: f"{name}/tokenizer.json"


def cut(tokenizer: Tokenizer, word: str) -> list[str]:
    return [token.value for token in tokenizer.model.tokenize(word)]


def test_the_union_of_two_languages_cuts_both_as_before(
    make_model: MakeModel, trained: dict[str, Tokenizer]
) -> None:
    """mergekit #47: there, tokens of the second model are added by name, not formed from text."""
    in_one_model(make_model, trained)
    for name, language in zip("ab", LANGUAGES, strict=True):
        Path(f"{name}/repsim_provenance.json").write_text(json.dumps({"languages": [language]}))
    with pytest.raises(IncompatibleModelsError, match="a union keeps what both form from text"):
        merge(mergekit(), "refused", device="cpu")
    folder = merge(mergekit(tokenizer_source="union"), "out", device="cpu")
    union = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = union.get_vocab()
    assert ids.items() >= trained["eng_Latn"].get_vocab().items()
    assert ids.keys() == trained["eng_Latn"].get_vocab().keys() | trained["deu_Latn"].get_vocab()
    card = card_of(folder)
    for name, language in zip("ab", LANGUAGES, strict=True):
        stated = re.search(
            rf"([\d.]+) in 100 words of built-in text in {language} .* '{name}'", card
        )
        assert stated is not None
        assert float(stated[1]) > 85
        text = language_text(language, 400_000)[-60_000:]
        words = [word for word, _ in union.pre_tokenizer.pre_tokenize_str(text)]
        pairs = {word: (cut(trained[language], word), cut(union, word)) for word in set(words)}
        kept = sum(pairs[word][0] == pairs[word][1] for word in words) / len(words)
        lengths = [sum(len(pairs[word][i]) for word in words) for i in (0, 1)]
        assert kept > 0.85, language
        assert lengths[1] < 1.03 * lengths[0], language
        assert union.decode(union.encode(text).ids) == text
        whole = [t for t in trained[language].get_vocab() if cut(trained[language], t) == [t]]
        assert all(cut(union, token) == [token] for token in whole)


def test_rows_of_the_union_are_those_of_the_tokens(
    make_model: MakeModel, trained: dict[str, Tokenizer]
) -> None:
    in_one_model(make_model, trained)
    folder = merge(mergekit(tokenizer_source="union"), "out", device="cpu")
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    own = {m: trained[lang].get_vocab() for m, lang in zip("ab", LANGUAGES, strict=True)}
    rows = {m: weights(m) for m in "ab"}
    for tensor in (EMBED, HEAD):
        found = weights(folder)[tensor]
        assert len(found) == len(ids) == config_of(folder)["vocab_size"]
        for token, number in ids.items():
            having = [rows[m][tensor][own[m][token]] for m in "ab" if token in own[m]]
            assert torch.allclose(found[number], torch.stack(having).mean(0), atol=1e-6)


def test_a_tokenizer_that_was_extended_may_be_the_one_of_the_result(
    make_model: MakeModel, trained: dict[str, Tokenizer]
) -> None:
    """mergekit #47: the base has a vocabulary that was extended, the other model the first one."""
    in_one_model(make_model, trained)
    document = json.loads(Path("b/tokenizer.json").read_text())
    kept = dict(sorted(document["model"]["vocab"].items(), key=lambda pair: pair[1])[:1000])
    document["model"]["vocab"] = kept
    document["model"]["merges"] = [m for m in document["model"]["merges"] if "".join(m) in kept]
    state = weights("b")
    tensors = {**state, EMBED: state[EMBED][:1000].clone(), HEAD: state[HEAD][:1000].clone()}
    make_model("c", tensors=tensors)
    Path("c/tokenizer.json").write_text(json.dumps(document))
    listed = [{"model": m, "parameters": {"weight": 1.0}} for m in "bc"]
    recipe = {"merge_method": "linear", "models": listed, "base_model": "b"}
    for source in ("base", "union"):
        folder = merge({**recipe, "tokenizer_source": source}, source, device="cpu")
        assert torch.allclose(weights(folder)[EMBED], state[EMBED], atol=1e-7)
    back = {**recipe, "base_model": "c", "tokenizer_source": "base"}
    with pytest.raises(IncompatibleModelsError, match="a union keeps what both form from text"):
        merge(back, "smaller", device="cpu")


def test_there_is_no_union_of_other_kinds_of_tokenizers(make_model: MakeModel) -> None:
    make_model("a", 0, tokens=TOKENS)
    make_model("b", 1)
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[f"u{i}", -1.0] for i in range(16)]}
    document = {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "model": unigram}
    Path("b/tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(IncompatibleModelsError, match="of type BPE and Unigram and differ"):
        merge(mergekit(tokenizer_source="union"), "out", device="cpu")


# -- what goes with a tokenizer -------------------------------------------------------------------


def test_ids_of_special_tokens_are_those_of_the_tokenizer(make_model: MakeModel) -> None:
    make_model("a", 0, tokens=TOKENS, config={"eos_token_id": 3})
    make_model("b", 1, tokens=[*TOKENS[1:], TOKENS[0]], config={"eos_token_id": 2})
    Path("a/generation_config.json").write_text('{"eos_token_id": 3}')
    Path("b/generation_config.json").write_text('{"eos_token_id": 2}')
    folder = merge(mergekit(tokenizer_source="b"), "out", device="cpu")
    assert config_of(folder)["eos_token_id"] == 2
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2


def test_the_chat_template_may_be_the_most_common_one_or_named(make_model: MakeModel) -> None:
    for seed, (name, template) in enumerate(
        {"a": "{{ 1 }}", "b": "{{ 2 }}", "c": "{{ 2 }}"}.items()
    ):
        (make_model(name, seed) / "chat_template.jinja").write_text(template)
    listed = [{"model": m, "parameters": {"weight": 1.0}} for m in "abc"]
    recipe = {"merge_method": "linear", "models": listed}
    folder = merge({**recipe, "chat_template": "auto"}, "auto", device="cpu")
    assert (folder / "chat_template.jinja").read_text() == "{{ 2 }}"
    folder = merge({**recipe, "chat_template": "chatml"}, "named", device="cpu")
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    assert (merge(recipe, "plain", device="cpu") / "chat_template.jinja").read_text() == "{{ 1 }}"
