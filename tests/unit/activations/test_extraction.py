import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from repsim.activations import ExtractionSettings, extract, extraction, extraction_key, reader
from repsim.core import InputError, ModelRef, ParallelCorpus, ResourceError, UsageError
from repsim.models.load import load_model
from repsim.testing.tiny_models import write_tiny_model

RESID = [("resid", layer) for layer in range(3)]


def one(model, corpus, cache, **options):
    return extract(model, corpus, ["eng_Latn"], cache=cache, **options)[0]


def count_passes(loaded) -> list[int]:
    """Batch sizes of the forward passes from here on."""
    passes: list[int] = []
    loaded.spec.body(loaded.model).register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return passes


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert", "t5"])
def test_rows_are_means_of_the_plain_hidden_states(tiny, corpus_of, tmp_path, kind):
    loaded, corpus = tiny(kind), corpus_of(12)
    acts = one(loaded, corpus, tmp_path)
    body = loaded.spec.body(loaded.model)
    for i, sentence in enumerate(corpus["eng_Latn"]):
        ids = loaded.tokenizer(sentence, return_tensors="pt").input_ids
        with torch.inference_mode():
            hidden = body(input_ids=ids, output_hidden_states=True).hidden_states[1][0]
        closing = -1 if kind in ("bert", "t5") else None
        expected = hidden[1:closing].mean(0).numpy()
        np.testing.assert_allclose(acts.array("resid", 1)[i], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "roberta", "t5", "opt", "bloom"])
def test_batch_size_and_padding_side_do_not_matter(fresh, corpus_of, tmp_path, kind):
    loaded, corpus = fresh(kind), corpus_of(40)
    alone = one(loaded, corpus, tmp_path / "a", batch_size=1)
    for side, batch_size in (("left", 7), ("right", "auto")):
        loaded.tokenizer.padding_side = side
        other = one(loaded, corpus, tmp_path / side, batch_size=batch_size)
        assert other.info["cached"] is False
        for point, layer in RESID:
            np.testing.assert_allclose(
                other.array(point, layer), alone.array(point, layer), atol=1e-5
            )


def test_chunks_and_order_do_not_matter(tiny, corpus_of, tmp_path, monkeypatch):
    corpus = corpus_of(30)
    whole = one(tiny("llama"), corpus, tmp_path / "a")
    monkeypatch.setattr(extraction, "CHUNK_SENTENCES", 7)
    split = one(tiny("llama"), corpus, tmp_path / "b")
    back = one(tiny("llama"), corpus.select(rows=range(29, -1, -1)), tmp_path / "c")
    assert split.info["chunks"] == 5
    assert back.ids == whole.ids[::-1]
    for point, layer in RESID:
        np.testing.assert_allclose(split.array(point, layer), whole.array(point, layer), atol=1e-5)
        np.testing.assert_allclose(
            back.array(point, layer)[::-1], whole.array(point, layer), atol=1e-5
        )


def test_one_result_per_language_with_ids_documents_and_covariates(tiny, corpus_of, tmp_path):
    corpus = corpus_of(9)
    results = extract(tiny("llama"), corpus, cache=tmp_path, points=("resid", "attn"))
    assert [acts.language for acts in results] == ["eng_Latn", "eng_Upper"]
    for acts in results:
        assert acts.ids == corpus.ids
        assert acts.documents == corpus.documents
        assert acts.layers == {"resid": (0, 1, 2), "attn": (1, 2)}
        assert acts.corpus_hash == corpus.language_hash(acts.language)
        lengths = [len(sentence) for sentence in corpus[acts.language]]
        assert acts.covariates["length"].tolist() == lengths
        words = tiny("llama").tokenizer(list(corpus[acts.language]), add_special_tokens=False)
        assert acts.covariates["tokens"].tolist() == [len(ids) for ids in words.input_ids]
        assert acts.array("attn", 2).shape == (9, 32)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_was_extracted_is_not_computed_again(fresh, corpus_of, tmp_path):
    loaded, corpus = fresh("llama"), corpus_of(20)
    passes = count_passes(loaded)
    first = one(loaded, corpus, tmp_path)
    done = len(passes)
    again = one(loaded, corpus, tmp_path, batch_size=3)
    assert done > 0
    assert len(passes) == done
    assert again.info["cached"] is True
    assert np.array_equal(again.array(), first.array())


CHANGES = {
    "points": {"points": ("mlp",)},
    "layers": {"layers": (1,)},
    "pooling": {"pooling": "last"},
    "first token": {"skip_first": False},
    "length": {"max_length": 9},
    "prefix": {"prefix": "query: "},
    "dtype": {"dtype": "bfloat16"},
    "precision": {"precision": "bfloat16"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_setting_has_a_result_of_its_own(tiny, corpus_of, tmp_path, change):
    one(tiny("llama"), corpus_of(3), tmp_path)
    assert not one(tiny("llama"), corpus_of(3), tmp_path, **CHANGES[change]).info["cached"]


def test_another_model_tokenizer_config_or_text_is_another_result(fresh, corpus_of, tmp_path):
    loaded = fresh("llama")
    one(loaded, corpus_of(3), tmp_path)
    renamed = dataclasses.replace(loaded, ref=dataclasses.replace(loaded.ref, name="twin"))
    twin = one(renamed, corpus_of(3), tmp_path)
    assert twin.info["cached"]
    assert twin.model.name == "twin"
    assert not one(loaded, corpus_of(4), tmp_path).info["cached"]
    assert not one(fresh("llama", seed=1), corpus_of(3), tmp_path).info["cached"]
    assert not one(fresh("llama", rms_norm_eps=1e-3), corpus_of(3), tmp_path).info["cached"]
    loaded.tokenizer.add_tokens(["winter"])
    assert not one(loaded, corpus_of(3), tmp_path).info["cached"]


def test_what_the_tokenizer_was_last_used_for_does_not_matter(fresh, corpus_of, tmp_path):
    loaded, corpus = fresh("gpt2"), corpus_of(20)
    one(loaded, corpus, tmp_path)
    assert one(loaded, corpus, tmp_path, max_length=5).info["truncated"] > 10
    loaded.tokenizer(["a", "the winter"], padding=True)
    assert one(loaded, corpus, tmp_path).info["cached"]


def test_an_interrupted_extraction_goes_on(fresh, corpus_of, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK_SENTENCES", 8)
    loaded, corpus = fresh("llama"), corpus_of(32)
    expected = one(loaded, corpus, tmp_path / "whole", batch_size=8)
    passes = count_passes(loaded)

    def stop(*args):
        if len(passes) == 3:
            raise KeyboardInterrupt

    handle = loaded.model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        one(loaded, corpus, tmp_path / "cut", batch_size=8)
    handle.remove()
    assert sum(passes) == 24
    acts = one(loaded, corpus, tmp_path / "cut", batch_size=8)
    # Two chunks were done; the third was lost, the fourth not begun.
    assert sum(passes) == 24 + 16
    assert (acts.info["chunks"], acts.info["chunks_computed"]) == (4, 2)
    assert np.array_equal(acts.array("resid", 2), expected.array("resid", 2))
    assert acts.source.path.read_bytes() == expected.source.path.read_bytes()
    assert len(list((tmp_path / "cut").iterdir())) == 1


def test_layers_can_be_chosen_and_counted_from_the_end(tiny, corpus_of, tmp_path):
    whole = one(tiny("gpt2"), corpus_of(4), tmp_path)
    some = one(tiny("gpt2"), corpus_of(4), tmp_path, layers=(0, -1))
    assert some.layers == {"resid": (0, 3)}
    assert np.array_equal(some.array("resid", 3), whole.array("resid", 3))
    with pytest.raises(UsageError, match=r"there is no layer 9 .*layers: 0 to 3"):
        one(tiny("gpt2"), corpus_of(4), tmp_path, layers=(9,))
    with pytest.raises(UsageError, match=r"hook point 'mlp' has none of the layers \[0\]"):
        one(tiny("gpt2"), corpus_of(4), tmp_path, points=("resid", "mlp"), layers=(0,))


def test_pooled_tokens_are_rows_named_by_sentence_and_position(tiny, corpus_of, tmp_path):
    corpus = corpus_of(11)
    tokens = one(tiny("llama"), corpus, tmp_path, pooling="tokens")
    mean = one(tiny("llama"), corpus, tmp_path)
    last = one(tiny("llama"), corpus, tmp_path, pooling="last")
    sentence = np.array([name.split("#")[0] for name in tokens.ids])
    assert len(tokens) == mean.covariates["tokens"].sum() == tokens.info["rows"]
    assert tokens.array().shape == (len(tokens), 32)
    assert tokens.documents[-1] == corpus.documents[-1]
    assert len(tokens.covariates["length"]) == len(tokens)
    for i, name in enumerate(corpus.ids):
        rows = tokens.array()[sentence == name]
        np.testing.assert_allclose(rows.mean(0), mean.array()[i], atol=1e-5)
        np.testing.assert_allclose(rows[-1], last.array()[i], atol=1e-6)
        positions = tokens.covariates["position"][sentence == name]
        assert positions.tolist() == list(range(1, len(rows) + 1))


def test_cut_and_short_are_counted(tiny, corpus_of, tmp_path):
    acts = one(tiny("gpt2"), corpus_of(20), tmp_path, max_length=12)
    long = [
        name
        for name, text in zip(acts.ids, corpus_of(20)["eng_Latn"], strict=True)
        if len(tiny("gpt2").tokenizer(text).input_ids) > 12
    ]
    assert 0 < acts.info["truncated"] == len(long) < 20
    assert acts.info["truncated_ids"] == long
    assert acts.covariates["tokens"].max() == 12
    assert acts.info["short"] == 0
    assert acts.info["policy"]["max_length"] == 12


def test_a_sentence_of_one_token_is_kept_and_counted(tiny, tmp_path):
    corpus = ParallelCorpus("short", ("x", "y"), {"eng_Latn": ("a", "ab")})
    acts = one(tiny("gpt2"), corpus, tmp_path)
    assert (acts.info["short"], acts.info["short_ids"]) == (1, ["x"])
    assert acts.array().shape == (2, 32)


def test_a_length_beyond_the_model_is_refused(tiny, corpus_of, tmp_path):
    with pytest.raises(UsageError, match="max_length is 500, but the model takes at most 128"):
        one(tiny("gpt2"), corpus_of(2), tmp_path, max_length=500)
    with pytest.raises(UsageError, match="max_length is 1; at least 2"):
        one(tiny("gpt2"), corpus_of(2), tmp_path, max_length=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_named_and_nothing_is_kept(fresh, corpus_of, tmp_path, value, monkeypatch):
    monkeypatch.setattr(extraction, "CHUNK_SENTENCES", 4)
    loaded, corpus = fresh("llama", name="broken"), corpus_of(12)
    (token,) = set(loaded.tokenizer("7").input_ids) - {loaded.tokenizer.bos_token_id}
    with torch.no_grad():
        loaded.model.embed_tokens.weight[token] = value
    bad = next(s for s, t in zip(corpus.ids, corpus["eng_Latn"], strict=True) if "7" in t)
    what = (
        f"model 'broken' gives NaN or infinity on eng_Latn: hook point 'resid', layer 0, .*'{bad}'"
    )
    with pytest.raises(InputError, match=what):
        one(loaded, corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_halves_the_file_and_keeps_three_digits(tiny, corpus_of, tmp_path):
    full = one(tiny("llama"), corpus_of(64), tmp_path)
    half = one(tiny("llama"), corpus_of(64), tmp_path, dtype="bfloat16")
    assert half.array().dtype == np.float32
    np.testing.assert_allclose(half.array(), full.array(), rtol=2**-8)
    assert half.source.path.stat().st_size < 0.6 * full.source.path.stat().st_size


def test_autocast_is_near_the_plain_computation_but_not_it(tiny, corpus_of, tmp_path):
    plain = one(tiny("llama"), corpus_of(6), tmp_path)
    cast = one(tiny("llama"), corpus_of(6), tmp_path, precision="bfloat16")
    assert cast.info["precision"] == "bfloat16 autocast"
    assert not np.array_equal(cast.array(), plain.array())
    error = np.linalg.norm(cast.array() - plain.array()) / np.linalg.norm(plain.array())
    assert error < 0.02


def test_the_header_says_what_the_file_rests_on(tiny, corpus_of, tmp_path):
    corpus = corpus_of(5)
    acts = one(tiny("bert"), corpus, tmp_path, pooling="position-weighted")
    with safe_open(acts.source.path, framework="np") as handle:
        header = handle.metadata()
        assert sorted(handle.keys()) == [
            "labels",
            "resid.00",
            "resid.01",
            "resid.02",
            "rows",
            "tokens",
        ]
        assert handle.get_tensor("resid.01").shape == (5, 32)
    assert header["schema"] == "repsim/activations/2"
    assert header["corpus_hash"] == corpus.language_hash("eng_Latn")
    assert (header["language"], header["pooling"]) == ("eng_Latn", "position-weighted")
    assert (header["dtype"], header["n"]) == ("float32", "5")
    assert len(header["weights_hash"]) == len(header["tokenizer_hash"]) == 64
    assert json.loads(header["token_policy"])["skip_first"] is True
    assert json.loads(header["info"])["hooks"]["resid.00"] == "encoder.layer.0 input"


def test_two_runs_write_the_same_bytes(tiny, corpus_of, tmp_path):
    first = one(tiny("llama"), corpus_of(10), tmp_path / "a")
    second = one(tiny("llama"), corpus_of(10), tmp_path / "b")
    assert first.source.path.name == second.source.path.name
    assert first.source.path.read_bytes() == second.source.path.read_bytes()


def test_a_model_is_taken_by_name_and_left_where_it_is(tiny, corpus_of, tmp_path):
    folder = write_tiny_model("gpt2", tmp_path / "tiny")
    named = one(folder, corpus_of(4), tmp_path / "cache", device="cpu")
    assert named.model.name == "tiny"
    assert len(named.model.weights_hash) == 64
    held = one(tiny("gpt2"), corpus_of(4), tmp_path / "cache2")
    np.testing.assert_allclose(named.array(), held.array(), atol=1e-6)
    with pytest.raises(UsageError, match="model 'tiny' is on cpu, not on meta"):
        one(tiny("gpt2"), corpus_of(4), tmp_path, device="meta")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"dtype": "float16"}, "cannot be stored as float16: residual streams exceed"),
        ({"dtype": "int8"}, "cannot be stored as 'int8'"),
        ({"points": ()}, "no hook point was asked for"),
        ({"points": ("residual",)}, "unknown hook point 'residual'"),
        ({"layers": ()}, "an empty list of layers"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": "all"}, "batch_size is 'all'"),
        ({"precision": "float8"}, "precision is 'float8'"),
    ],
)
def test_options_that_are_not_possible_are_refused(tiny, corpus_of, tmp_path, options, text):
    with pytest.raises(UsageError, match=text):
        one(tiny("llama"), corpus_of(2), tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_language_that_is_not_there_is_refused(tiny, corpus_of, tmp_path):
    with pytest.raises(UsageError, match="unknown language in corpus 'made' 'eng_Lat'"):
        extract(tiny("llama"), corpus_of(2), ["eng_Lat"], cache=tmp_path)


def out_of_memory_above(loaded, sentences: int, error: Exception) -> None:
    def refuse(module, args, kwargs):
        if len(kwargs["input_ids"]) > sentences:
            raise error

    loaded.model.register_forward_pre_hook(refuse, with_kwargs=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_batches_shrink_when_memory_runs_out(fresh, tiny, corpus_of, tmp_path, error):
    loaded, corpus = fresh("llama"), corpus_of(40)
    out_of_memory_above(loaded, 5, error)
    passes = count_passes(loaded)
    acts = one(loaded, corpus, tmp_path / "a")
    expected = one(tiny("llama"), corpus, tmp_path / "b")
    np.testing.assert_allclose(acts.array(), expected.array(), atol=1e-5)
    fitting = [size for size in passes if size <= 5]
    assert sum(fitting) == 40
    assert len(passes) - len(fitting) <= 4


def test_one_sentence_that_does_not_fit_is_named(fresh, corpus_of, tmp_path):
    loaded, corpus = fresh("llama"), corpus_of(6)
    out_of_memory_above(loaded, 0, torch.OutOfMemoryError("CUDA out of memory"))
    longest = max(zip(corpus["eng_Latn"], corpus.ids, strict=True), key=lambda pair: len(pair[0]))
    with pytest.raises(ResourceError, match=f"memory of cpu does not suffice .*'{longest[1]}'"):
        one(loaded, corpus, tmp_path)


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(fresh, corpus_of, tmp_path):
    loaded = fresh("llama")
    out_of_memory_above(loaded, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        one(loaded, corpus_of(2), tmp_path)


def test_a_block_that_is_not_called_is_named(fresh, corpus_of, tmp_path):
    loaded = fresh("gpt2")
    loaded.model.h[2].forward = None
    loaded.model.config.num_hidden_layers = 2

    def two_blocks(**inputs):
        return loaded.model.h[1](loaded.model.h[0](loaded.model.wte(inputs["input_ids"])))

    loaded.model.forward = two_blocks
    with pytest.raises(reader.IncompatibleModelsError, match="'h.2' of tiny was not called"):
        one(loaded, corpus_of(2), tmp_path)


def test_batches_on_a_cpu_stay_within_the_token_budget(fresh, corpus_of, tmp_path, monkeypatch):
    monkeypatch.setitem(reader.AUTO_TOKENS, "cpu", 200)
    loaded, sizes = fresh("llama"), []
    loaded.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    one(loaded, corpus_of(40), tmp_path)
    assert len(sizes) > 5
    assert max(sizes) <= 200


def test_a_run_that_was_overtaken_takes_the_other_result(tiny, corpus_of, tmp_path, monkeypatch):
    corpus = corpus_of(5)
    assemble = extraction.assemble

    def overtaken(target, folder, *rest):
        assemble(target, folder, *rest)
        extraction.shutil.rmtree(folder)
        assemble(target, folder, *rest)

    monkeypatch.setattr(extraction, "assemble", overtaken)
    assert len(one(tiny("llama"), corpus, tmp_path).array()) == 5


def test_a_vanished_part_is_an_error(tiny, corpus_of, tmp_path, monkeypatch):
    write_part = extraction.write_part
    monkeypatch.setattr(extraction, "write_part", lambda *args: write_part(*args).unlink())
    with pytest.raises(InputError, match=r"part-000000.safetensors' is missing"):
        one(tiny("llama"), corpus_of(5), tmp_path)


def test_a_damaged_file_is_extracted_anew_and_that_is_said(tiny, corpus_of, tmp_path, caplog):
    corpus, model = corpus_of(6), tiny("llama")
    first = one(model, corpus, tmp_path)
    whole, path = first.source.path.read_bytes(), first.source.path
    path.write_bytes(whole[:-64] + bytes(64))
    again = one(model, corpus, tmp_path)
    assert not again.info["cached"]
    assert path.read_bytes() == whole
    assert "is damaged: the checksum of 'resid.02' is wrong; it is made anew" in caplog.text
    assert one(model, corpus, tmp_path).info["cached"]


def test_a_damaged_part_is_made_anew(tiny, corpus_of, tmp_path, monkeypatch, caplog):
    corpus, model = corpus_of(300), tiny("llama")
    with monkeypatch.context() as broken:
        broken.setattr("repsim.activations.extraction.assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            one(model, corpus, tmp_path)
    parts = sorted(tmp_path.glob(".*.parts/part-*"))
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-4] + b"\xff" * 4)
    resumed = one(model, corpus, tmp_path)
    assert resumed.info["chunks_computed"] == 1
    assert "is made anew" in caplog.text
    assert (
        resumed.source.path.read_bytes()
        == one(model, corpus, tmp_path / "b").source.path.read_bytes()
    )


def stop(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["step", "data", "one value", "numpy", "buffer swap"])
def test_weights_that_change_in_place_are_never_answered_by_the_cache(
    how, corpus_of, tmp_path, monkeypatch
):
    corpus = corpus_of(4)
    loaded = load_model(write_tiny_model("llama", tmp_path / "m"))
    before = one(loaded, corpus, tmp_path / "cache")
    assert one(tmp_path / "m", corpus, tmp_path / "cache").info["cached"]
    weight = loaded.model.layers[0].mlp.down_proj.weight
    if how == "step":
        loaded.model.requires_grad_(True)
        loaded.model(torch.tensor([[4, 5, 6]])).last_hidden_state.square().sum().backward()
        torch.optim.SGD(loaded.model.parameters(), lr=1e-2).step()
    elif how == "data":
        weight.data.mul_(2)
    elif how == "one value":
        weight.data[3, 5] += 1
    elif how == "numpy":
        weight.detach().numpy()[1, 1] = 9
    else:
        loaded.model.layers[0].mlp.down_proj.weight = torch.nn.Parameter(weight * 2)
    after = one(loaded, corpus, tmp_path / "cache")
    assert not after.info["cached"]
    assert np.abs(after.array("resid", 1) - before.array("resid", 1)).max() > 1e-6
    assert after.info["weights"] != before.info["weights"]
    if how in ("step", "buffer swap"):
        assert after.model.weights_hash != before.model.weights_hash


def test_a_file_that_was_made_for_something_else_is_not_taken(tiny, corpus_of, tmp_path, caplog):
    corpus, models = corpus_of(6), (tiny("llama"), tiny("qwen2"))
    first, second = (one(model, corpus, tmp_path) for model in models)
    paths = [acts.source.path for acts in (first, second)]
    whole = [path.read_bytes() for path in paths]
    paths[0].write_bytes(whole[1])
    again = one(models[0], corpus, tmp_path)
    assert not again.info["cached"]
    assert paths[0].read_bytes() == whole[0]
    assert "another model, language or text" in caplog.text


def test_the_key_depends_on_sentences_and_not_on_other_languages(corpus_of):
    corpus, settings = corpus_of(4), ExtractionSettings()
    ref = ModelRef("m", "m", weights_hash="w", tokenizer_hash="t")
    key = extraction_key(ref, corpus, "eng_Latn", settings)
    assert extraction_key(ref, corpus.select(["eng_Latn"]), "eng_Latn", settings) == key
    assert extraction_key(ref, corpus.select(rows=[0, 1, 2]), "eng_Latn", settings) != key
    assert extraction_key(ref, corpus, "eng_Upper", settings) != key
