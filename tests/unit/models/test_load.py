"""Loading gives the saved model, or says why not."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from repsim.activations import extract
from repsim.core.errors import IncompatibleModelsError, InputError, ResourceError, UsageError
from repsim.corpora import load_corpus
from repsim.models import check_model, inspect_model, load_model
from repsim.models.check import read_streams
from repsim.testing.tiny_models import tiny_config, tiny_model, tiny_tokenizer, write_tiny_model


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("network was used"))


@pytest.mark.parametrize("kind", ["llama+tied", "phi3", "gpt2", "opt", "bert", "t5"])
def test_a_saved_model_is_loaded_bit_for_bit(kind: str, tmp_path: Path) -> None:
    original = tiny_model(kind, seed=1)
    loaded = load_model(write_tiny_model(kind, tmp_path / "m", seed=1))
    state = original.state_dict()
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())


@pytest.mark.parametrize("kind", ["llama", "llama+tied", "gpt2", "gpt_neox", "opt", "bloom"])
def test_a_head_is_left_out_and_the_body_is_the_same(kind: str, tmp_path: Path) -> None:
    whole = tiny_model(kind, head=True)
    loaded = load_model(write_tiny_model(kind, tmp_path / "m", head=True))
    ids = torch.arange(4, 12).reshape(2, 4)
    _, states = read_streams(loaded.spec, loaded.model, ids, torch.ones_like(ids))
    with torch.no_grad():
        expected = whole(input_ids=ids, output_hidden_states=True).hidden_states
    assert all(torch.equal(a, b) for a, b in zip(states, expected, strict=True))


def test_of_t5_only_the_encoder_is_loaded(tmp_path: Path) -> None:
    loaded = load_model(write_tiny_model("t5", tmp_path / "m"))
    assert not [name for name, _ in loaded.model.named_parameters() if "decoder" in name]


def test_a_ref_loads_the_model_that_it_names(tmp_path: Path) -> None:
    ref = inspect_model(write_tiny_model("bert", tmp_path / "m"), label="b")
    assert load_model(ref).ref == ref


def test_loading_writes_nothing_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", head=True)
    capfd.readouterr()
    load_model(folder)
    assert capfd.readouterr() == ("", "")


def test_weights_on_a_cpu_are_float32_unless_asked_otherwise(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", dtype="bfloat16")
    assert load_model(folder).model.dtype == torch.float32
    assert load_model(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert load_model(folder, dtype=torch.float64).model.dtype == torch.float64


def test_a_tokenizer_without_padding_gets_some(tmp_path: Path) -> None:
    folder = write_tiny_model("gpt2", tmp_path / "m")
    path = folder / "tokenizer_config.json"
    document = json.loads(path.read_text())
    del document["pad_token"]
    path.write_text(json.dumps(document))
    tokenizer = load_model(folder).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    for name in ("bos_token", "eos_token", "unk_token"):
        del document[name]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="has no token to pad with"):
        load_model(folder)


def test_a_padding_token_without_an_embedding_is_replaced(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    vocabulary = load_model(folder).model.config.vocab_size
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"[extra{i}]" for i in range(20)])
    tokenizer.pad_token = "[extra19]"
    assert tokenizer.pad_token_id >= vocabulary
    tokenizer.save_pretrained(folder)
    assert load_model(folder).tokenizer.pad_token == "</s>"


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_model("gpt2", tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="tokenizer in '.*' cannot be loaded"):
        load_model(folder)


def _rewrite(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def test_missing_tensors_are_not_filled_with_random_numbers(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    _rewrite(folder, lambda state: state.pop("layers.1.mlp.up_proj.weight"))
    with pytest.raises(InputError, match=r"lack 1 tensor\(s\), first layers.1.mlp.up_proj.weight"):
        load_model(folder)


def test_a_missing_pooler_does_not_matter(tmp_path: Path) -> None:
    folder = write_tiny_model("bert", tmp_path / "m")
    _rewrite(folder, lambda state: [state.pop(k) for k in list(state) if "pooler" in k])
    assert load_model(folder).spec.name == "bert"


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")
    document = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 64}
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="contradicts its weights"):
        load_model(folder)


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has an Apple GPU")
    with pytest.raises(ResourceError, match=f"device '{device}' is not available here"):
        load_model(tmp_path, device=device)


def test_a_model_that_lies_partly_on_the_disk_gives_the_same_activations(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    folder = write_tiny_model("llama", tmp_path / "m")
    corpus = load_corpus("kolibri", languages=["eng_Latn"], limit=12)
    places = {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "norm": "cpu",
              "rotary_emb": "cpu"}  # fmt: skip
    spread = load_model(folder, device_map=places)
    assert any(p.is_meta for p in spread.model.parameters())
    found = [extract(model, corpus)[0].array("resid", 2) for model in (spread, folder)]
    assert (found[0] == found[1]).all()


def test_impossible_devices_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gpu' is not a device"):
        load_model(tmp_path, device="gpu")
    folder = write_tiny_model("gpt2", tmp_path / "m")
    for dtype in ("float8", "nn", torch.int8):
        with pytest.raises(UsageError, match="is not a type of weights"):
            load_model(folder, dtype=dtype)


def _write_unknown_family(folder: Path) -> Path:
    """GPT-J has no spec here."""
    import transformers

    config = transformers.GPTJConfig(
        n_embd=32, n_layer=3, n_head=4, rotary_dim=8, n_positions=64, vocab_size=288
    )
    write_tiny_model("gpt2", folder)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_a_family_without_spec_needs_the_generic_fallback(tmp_path: Path) -> None:
    folder = _write_unknown_family(tmp_path / "m")
    with pytest.raises(IncompatibleModelsError, match="no spec for model type 'gptj'"):
        load_model(folder)
    loaded = load_model(folder, generic=True)
    assert (loaded.ref.architecture, loaded.ref.layers) == ("generic", 3)
    ids = torch.arange(4, 12).reshape(2, 4)
    streams, states = read_streams(loaded.spec, loaded.model, ids, torch.ones_like(ids))
    assert all(torch.equal(streams["resid", i], states[i]) for i in range(3))
    with pytest.raises(UsageError, match="offers no hook point 'mlp'"):
        loaded.spec.hook_points(loaded.model, ["mlp"])


def test_the_generic_fallback_reads_the_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    import transformers

    folder = write_tiny_model("bert", tmp_path / "m")
    config = transformers.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=4, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=288,
        max_position_embeddings=64,
    )  # fmt: skip
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    checks = check_model(folder, generic=True)
    assert all(check.ok for check in checks), checks
    assert load_model(folder, generic=True).ref.layers == 2


def test_a_model_that_reports_no_hidden_states_is_refused() -> None:
    from repsim.models.arch import spec_for

    class Silent(torch.nn.Module):
        """A Llama whose output holds nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
            self.config = tiny_config("llama")

        def forward(self, **inputs: Any) -> object:
            return object()

    ids = torch.ones(1, 2, dtype=torch.long)
    with pytest.raises(IncompatibleModelsError, match="Silent reports no hidden_states"):
        read_streams(spec_for("llama"), Silent(), ids, ids)


def test_the_generic_fallback_refuses_a_model_without_blocks(tmp_path: Path) -> None:
    from repsim.models.arch.generic import GENERIC

    model = torch.nn.Linear(2, 2)
    model.config = tiny_config("llama")
    with pytest.raises(IncompatibleModelsError, match="Linear holds no list of equal blocks"):
        GENERIC.hook_points(model, ["resid"])


def test_a_bloom_that_hides_its_projections_offers_the_residual_stream_only() -> None:
    from repsim.models.arch import spec_for

    model = tiny_model("bloom", slow_but_exact=True, pretraining_tp=2)
    assert len(spec_for("bloom").hook_points(model, ["resid"])) == 3
    with pytest.raises(IncompatibleModelsError, match="hides its projections"):
        spec_for("bloom").hook_points(model, ["resid", "mlp"])


def test_an_unknown_hook_point_is_answered_with_the_nearest(tmp_path: Path) -> None:
    from repsim.models.arch import spec_for

    with pytest.raises(UsageError, match="unknown hook point 'residual'.*'resid'"):
        spec_for("gpt2").hook_points(tiny_model("gpt2"), ["residual"])


def test_a_sound_model_passes_all_checks(tmp_path: Path) -> None:
    checks = check_model(write_tiny_model("gemma2", tmp_path / "m"))
    assert all(check.ok for check in checks), checks
    assert "equal to hidden_states in all 3 layers" in checks[-1].message


def test_the_generic_check_says_what_it_does_not_know(tmp_path: Path) -> None:
    checks = check_model(_write_unknown_family(tmp_path / "m"), generic=True)
    assert all(check.ok for check in checks), checks
    assert "what follows the last one is not known" in checks[-1].message


def test_nan_weights_fail_the_check_by_name(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m")

    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["layers.0.mlp.up_proj.weight"][0, 0] = float("nan")

    _rewrite(folder, spoil)
    failed = {check.check: check.message for check in check_model(folder) if not check.ok}
    assert failed["weights"] == "NaN or infinity in 1 tensor(s), first layers.0.mlp.up_proj.weight"
    assert "holds NaN or infinity" in failed["resid"]


def test_a_vocabulary_smaller_than_the_tokenizer_fails_the_check(tmp_path: Path) -> None:
    folder = write_tiny_model("llama", tmp_path / "m", vocab_size=40)
    failed = {check.check: check.message for check in check_model(folder) if not check.ok}
    assert "outside the vocabulary of 40" in failed["tokenizer"]
    assert "not tried" in failed["resid"]


def test_a_model_that_cannot_be_loaded_fails_the_first_check(tmp_path: Path) -> None:
    (check,) = check_model(str(tmp_path))
    assert (check.check, check.ok) == ("load", False)
    assert "has no config.json" in check.message
