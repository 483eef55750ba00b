"""Rows of tokens that are weighed by counts: in a merge, in a source, and under learned maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

import repsim
from repsim.core.errors import UsageError
from repsim.corpora import load_training_text
from repsim.merging.align import align, build_model
from repsim.merging.align.learned import Learning
from repsim.merging.checkpoint import StateDict
from repsim.merging.reading import read_recipe
from repsim.merging.token_weights import weigh, weigh_tokens
from repsim.models.load import load_tokenizer
from repsim.models.zoo import zoo_folder
from repsim.testing.tiny_models import tiny_model

EMBED = "model.embed_tokens.weight"


def test_shares_add_up_and_do_not_depend_on_how_much_was_counted() -> None:
    counts = np.random.default_rng(0).integers(0, 50, size=(3, 40))
    smooth = (counts + 1) / (counts + 1).sum(1, keepdims=True)
    found = weigh(torch.tensor(counts))
    np.testing.assert_allclose(found.numpy(), smooth / smooth.sum(0), rtol=1e-12)
    assert weigh(torch.ones(2, 5) * torch.tensor([[1.0], [100.0]])).eq(0.5).all()


def test_rows_of_tokens_are_pooled_and_all_else_is_left() -> None:
    draw = torch.Generator().manual_seed(0)
    states = {
        name: {EMBED: torch.randn(6, 4, generator=draw).to(dtype), "norm.weight": torch.ones(4)}
        for name, dtype in (("a", torch.float32), ("b", torch.bfloat16), ("base", torch.float32))
    }
    shares = weigh(torch.tensor([[9, 0, 3, 0, 0, 2], [0, 9, 1, 0, 5, 2]]))
    found = weigh_tokens({n: StateDict(n, s) for n, s in states.items()}, shares, ["a", "b"])
    a, b = (states[n][EMBED].double() for n in "ab")
    expected = shares[0][:, None] * a + shares[1][:, None] * b
    torch.testing.assert_close(found["a"].read(EMBED).double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(found["b"].read(EMBED), found["a"].read(EMBED).bfloat16())
    assert torch.equal(found["a"].read(EMBED, slice(2, 5)), found["a"].read(EMBED)[2:5])
    assert torch.equal(found["base"].read(EMBED), states["base"][EMBED])
    assert torch.equal(found["a"].read("norm.weight"), torch.ones(4))


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_a_merge_of_two_languages_has_rows_of_those_that_use_them(
    method: str, tmp_path: Path
) -> None:
    models, languages = ["zoo:eng-1", "zoo:deu-1"], ["eng_Latn", "deu_Latn"]
    recipe = {"method": method, "models": models,
              "token_weights": {"corpus": "bible", "tokens": 8_000}}  # fmt: skip
    out = repsim.merge(recipe, tmp_path / "out")
    tokenizer = load_tokenizer(zoo_folder(models[0]), None)
    counts = [counts_of(tokenizer, language, 63) for language in languages]
    smooth = np.array([(c + 1) / (c + 1).sum() for c in counts])
    share = smooth / smooth.sum(0)
    a, b = (load_file(zoo_folder(m) / "model.safetensors")[EMBED].double().numpy() for m in models)
    expected = share[0][:, None] * a + share[1][:, None] * b
    merged = load_file(Path(out) / "model.safetensors")[EMBED].double().numpy()
    assert np.abs(merged - expected).max() < 2**-8 * np.abs(expected).max()  # bfloat16
    assert np.abs(merged - (a + b) / 2).max() > 0.2 * np.abs(expected).max()


def counts_of(tokenizer: Any, language: str, windows: int) -> np.ndarray:
    """Counts of tokens in the first windows of 128, cut here anew."""
    ids: list[int] = []
    for document in load_training_text("bible", [language], max_bytes=1 << 16)[language].texts():
        ids += [tokenizer.bos_token_id, *tokenizer(document, add_special_tokens=False).input_ids]
    return np.bincount(ids[: windows * 128], minlength=len(tokenizer))


def test_in_a_union_each_model_counts_what_its_own_tokenizer_cuts(tmp_path: Path) -> None:
    tokenizers, models = {}, []
    for seed, language in enumerate(("eng_Latn", "deu_Latn")):
        own = Tokenizer(BPE())
        own.pre_tokenizer = ByteLevel(add_prefix_space=False)
        trainer = BpeTrainer(vocab_size=300, special_tokens=["<s>"], show_progress=False,
                             initial_alphabet=ByteLevel.alphabet())  # fmt: skip
        text = load_training_text("bible", [language], max_bytes=30_000, seed=1)[language]
        own.train_from_iterator(list(text.texts()), trainer)
        tokenizers[language] = PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>")
        models.append(str(tmp_path / language))
        tiny_model("llama", head=True, seed=seed, vocab_size=300).save_pretrained(models[-1])
        tokenizers[language].save_pretrained(models[-1])
        stated = Path(models[-1]) / "repsim_provenance.json"
        stated.write_text(json.dumps({"languages": [language]}))
    recipe = {"method": "linear", "models": models, "tokenizer": {"strategy": "union"},
              "token_weights": {"corpus": "bible", "tokens": 4_096}}  # fmt: skip
    folder = repsim.merge(recipe, tmp_path / "out", device="cpu")
    ids = load_tokenizer(folder, None).get_vocab()
    assert len(ids) > 300
    counts = np.zeros((2, len(ids)))
    vectors = np.zeros((2, len(ids), 32))
    for place, ((language, own), model) in enumerate(zip(tokenizers.items(), models, strict=True)):
        found, weights = own.get_vocab(), load_file(Path(model) / "model.safetensors")[EMBED]
        seen = counts_of(own, language, 32)
        for token, row in ids.items():
            if token in found:
                counts[place, row] = seen[found[token]]
                vectors[place, row] = weights[found[token]].double().numpy()
    lacking = vectors == 0
    vectors[lacking] = vectors[::-1][lacking]
    smooth = (counts + 1) / (counts + 1).sum(1, keepdims=True)
    expected = ((smooth / smooth.sum(0))[:, :, None] * vectors).sum(0)
    merged = load_file(folder / "model.safetensors")[EMBED].double().numpy()
    np.testing.assert_allclose(merged, expected, atol=1e-5)
    maps = {"align": "learned", "learn": {"corpus": "bible", "tokens": 128, "context": 32},
            "repair": {"corpus": "bible", "limit": 1}}  # fmt: skip
    learned = repsim.merge(recipe | maps, tmp_path / "learned", device="cpu")
    assert load_file(learned / "model.safetensors")["lm_head.weight"].shape == (len(ids), 32)


def test_maps_are_learned_for_the_rows_that_the_merge_will_have() -> None:
    a, b = (tiny_model("llama", head=True, seed=seed) for seed in (0, 1))
    states = [dict(m.state_dict()) for m in (a, b)]
    rows = states[0][EMBED].shape[0]
    windows = torch.randint(40, (8, 17), generator=torch.Generator().manual_seed(3))
    shares = weigh(torch.stack([torch.arange(rows), torch.arange(rows).flip(0)]))
    seen: list[float] = []
    result = align(
        states[0], states[1:], a.config, method="learned", windows=windows, shares=shares,
        learning=Learning(tokens=32, start="orthogonal"), on_update=lambda *u: seen.append(u[2]),
    )  # fmt: skip
    plain = align(states[0], states[1:], a.config, method="orthogonal")
    one, two = plain.states
    mixed = {n: torch.lerp(one[n], two[n], 0.5) for n in one}
    for name in (EMBED, "lm_head.weight"):
        mixed[name] = torch.lerp(one[name], two[name], shares[1].float()[:, None])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))[:2]
    model = build_model(plain.config, mixed)
    logits = model(windows[order, :-1]).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[order, 1:].flatten())
    assert seen[0] == pytest.approx(float(expected), rel=1e-4)
    assert result.report[0].function_kept


def test_a_model_that_states_no_language_is_named(tmp_path: Path) -> None:
    tiny_model("llama", head=True).save_pretrained(tmp_path / "a")
    for path in zoo_folder("zoo:eng-1").glob("tokenizer*"):
        (tmp_path / "a" / path.name).write_bytes(path.read_bytes())
    recipe = {"method": "linear", "models": [str(tmp_path / "a")] * 2,
              "token_weights": {"corpus": "bible"}}  # fmt: skip
    with pytest.raises(UsageError, match="does not state its languages"):
        repsim.merge(recipe, tmp_path / "out")
    with pytest.raises(UsageError, match=r"did you mean 'token_weights\.tokens'"):
        read_recipe(recipe | {"token_weights": {"corpus": "bible", "token": 5}})
