"""Gram matrices and Fisher information equal what they are by definition."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from einops import einsum, rearrange
from torch import nn

from repsim.core.errors import InputError, UsageError
from repsim.merging.base import Gram, TensorContext
from repsim.merging.methods.data_aware import regmean
from repsim.merging.statistics import collect_fisher, collect_gram, load_statistics, save_statistics
from repsim.testing.tiny_models import tiny_model


def ids(seed: int, rows: int = 3, tokens: int = 6) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(4, 100, (rows, tokens), generator=rng)


def padded(seed: int) -> list[dict[str, torch.Tensor]]:
    """A padded batch; the second text has three tokens."""
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 3:] = 0
    return [{"input_ids": ids(seed, 2), "attention_mask": mask}]


# -- Gram matrices -------------------------------------------------------------------------------


def seen_by(model: nn.Module, layer: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What enters a layer, `[batch, token, width]`."""
    found = []
    handle = model.get_submodule(layer).register_forward_pre_hook(
        lambda _, args: found.append(args[0].detach())
    )
    model(**batch)
    handle.remove()
    return found[0]


def test_a_gram_matrix_is_the_mean_over_tokens_of_the_outer_product_of_inputs() -> None:
    model = tiny_model("llama", head=True)
    batches = [{"input_ids": ids(0)}, {"input_ids": ids(1, rows=1, tokens=9)}]
    grams = collect_gram(model, batches)
    for layer in ("model.layers.1.mlp.down_proj", "model.layers.0.self_attn.q_proj", "lm_head"):
        rows = [rearrange(seen_by(model, layer, b), "b t d -> (b t) d") for b in batches]
        x = torch.cat(rows).double()
        assert torch.allclose(grams[f"{layer}.weight"].matrix, x.T @ x / 27, rtol=1e-9)
        assert grams[f"{layer}.weight"].input_axis == 1


def test_every_linear_layer_has_one_and_layers_with_one_input_share_it() -> None:
    model = tiny_model("llama", head=True)
    grams = collect_gram(model, [{"input_ids": ids(2)}])
    linear = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert set(grams) == linear
    at = "model.layers.0"
    for group in (
        [f"{at}.self_attn.{x}_proj.weight" for x in "qkv"],
        [f"{at}.mlp.{x}_proj.weight" for x in ("gate", "up")],
    ):
        assert len({id(grams[name].matrix) for name in group}) == 1
    assert len({id(g.matrix) for g in grams.values()}) == 2 * 4 + 1


def test_padding_is_left_out() -> None:
    model = tiny_model("llama", head=True)
    (batch,) = padded(3)
    grams = collect_gram(model, [batch])
    alone = [{"input_ids": batch["input_ids"][:1]}, {"input_ids": batch["input_ids"][1:, :3]}]
    for name, gram in collect_gram(model, alone).items():
        assert torch.allclose(gram.matrix, grams[name].matrix, rtol=1e-4, atol=1e-7), name


def test_layers_that_run_on_flattened_tokens_leave_padding_out_too() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.pooler, self.odd = (nn.Linear(2, 2) for _ in range(3))
            self.use_odd = False

        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor) -> None:
            self.flat(rearrange(x, "b t d -> (b t) d"))
            self.pooler(x[:, 0])
            if self.use_odd:
                self.odd(x[0])

    model, mask = Flat(), torch.tensor([[1, 1, 0], [1, 0, 0]])
    x = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))
    grams = collect_gram(model, [{"x": x, "attention_mask": mask}])
    real = x[mask.bool()].double()
    assert torch.allclose(grams["flat.weight"].matrix, real.T @ real / 3)
    first = x[:, 0].double()
    assert torch.allclose(grams["pooler.weight"].matrix, first.T @ first / 2)
    assert "odd.weight" not in grams
    model.use_odd = True
    with pytest.raises(InputError, match="layer 'odd' sees 3 rows of a padded batch of 6 tokens"):
        collect_gram(model, [{"x": x, "attention_mask": mask}])


def test_gpt2_stores_its_weights_the_other_way_round_and_its_grams_say_so() -> None:
    a, b = tiny_model("gpt2", head=True, seed=0), tiny_model("gpt2", head=True, seed=1)
    grams = [collect_gram(m, [{"input_ids": ids(4)}]) for m in (a, b)]
    name = "transformer.h.1.attn.c_proj.weight"
    assert {g.input_axis for n, g in grams[0].items() if "c_" in n} == {0}
    assert "lm_head.weight" not in grams[0], "it is tied to the embedding"
    weights = [dict(m.named_parameters())[name].detach() for m in (a, b)]
    context = TensorContext(statistics=[g[name] for g in grams])
    merged = regmean(weights, context=context, reduction=1.0, ridge=0.0).double()
    g = [each[name].matrix for each in grams]
    expected = torch.linalg.solve(
        g[0] + g[1], g[0] @ weights[0].double() + g[1] @ weights[1].double()
    )
    assert torch.allclose(merged, expected, rtol=1e-4, atol=1e-5)


def test_the_model_is_given_back_as_it_was() -> None:
    model = tiny_model("llama", head=True).train()
    model.model.norm.eval()
    model.lm_head.weight.requires_grad_(False)
    for collect in (collect_gram, collect_fisher):
        collect(model, [{"input_ids": ids(6)}])
        assert model.training
        assert not model.model.norm.training
        assert not model.lm_head.weight.requires_grad
        assert model.model.norm.weight.requires_grad
        assert not any(m._forward_pre_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("collect", [collect_gram, collect_fisher])
def test_no_batch_is_refused(collect) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="no batch was given to collect"):
        collect(tiny_model("llama", head=True), [])


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(InputError, match="Embedding has no linear layer"):
        collect_gram(nn.Embedding(3, 2), [{"input": torch.zeros(1, dtype=torch.long)}])


# -- Fisher information --------------------------------------------------------------------------


class Softmax(nn.Module):
    """A linear softmax model of fixed inputs, whose Fisher information has a closed form."""

    def __init__(self, classes: int = 5, width: int = 4, inputs: int = 16) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.register_buffer("inputs", torch.randn(inputs, width, generator=rng))
        self.head = nn.Linear(width, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(classes, width, generator=rng))
            self.head.bias.copy_(torch.randn(classes, generator=rng))

    def forward(self, index: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.inputs[index]))

    def closed_form(self) -> torch.Tensor:
        """E_x sum_y p_y (d log p_y / d W_ki)^2 = E_x p_k (1 - p_k) x_i^2."""
        x = self.inputs.double()
        p = (x @ self.head.weight.double().T + self.head.bias.double()).softmax(-1).detach()
        return einsum(p * (1 - p), x.square(), "x k, x i -> k i") / len(x)


def all_inputs(per_batch: int) -> list[dict[str, torch.Tensor]]:
    """Each of the 16 inputs once, as texts of one token."""
    return [{"index": part.reshape(-1, 1)} for part in torch.arange(16).split(per_batch)]


def test_exact_fisher_of_a_linear_softmax_model_is_the_closed_form() -> None:
    model = Softmax()
    found = collect_fisher(model, all_inputs(16), labels="exact")
    assert torch.allclose(found["head.weight"].double(), model.closed_form(), rtol=1e-5)
    long = [{"index": torch.arange(16).reshape(2, 8)}]
    again = collect_fisher(model, long, labels="exact")
    assert torch.allclose(again["head.weight"], found["head.weight"], rtol=1e-5)


def test_exact_fisher_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collect_fisher(Softmax(), all_inputs(16), labels="exact")["head.weight"]
    monkeypatch.setattr("repsim.merging.statistics.HELD", 50)
    pieces = collect_fisher(Softmax(), all_inputs(16), labels="exact")["head.weight"]
    assert torch.allclose(pieces, whole, rtol=1e-6)


@pytest.mark.parametrize("tokens", [1, 8])
def test_sampled_fisher_is_unbiased_also_for_texts_of_several_tokens(tokens: int) -> None:
    model, runs = Softmax(), 30
    texts = [{"index": torch.arange(16).reshape(-1, tokens)}]
    truth = model.closed_form().numpy()
    found = np.stack(
        [
            collect_fisher(model, texts, samples=10, seed=s)["head.weight"].double().numpy()
            for s in range(runs)
        ]
    )
    z = (found.mean(0) - truth) / (found.std(0, ddof=1) / np.sqrt(runs))
    assert np.abs(z).max() < 4.5
    assert np.corrcoef(found.mean(0).ravel(), truth.ravel())[0, 1] > 0.97


def test_the_square_of_a_batch_gradient_would_be_something_else() -> None:
    model = Softmax()
    log_p = model(torch.arange(16).reshape(-1, 1)).logits.log_softmax(-1)
    rng = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(log_p[:, 0].exp(), 1, generator=rng)
    score = log_p[:, 0].gather(-1, drawn).mean()
    wrong = torch.autograd.grad(score, model.head.weight)[0].square().double()
    truth = model.closed_form()
    assert not 0.5 < float(wrong.sum() / truth.sum()) < 2


def test_how_texts_are_cut_into_batches_does_not_matter() -> None:
    one, other = (
        collect_fisher(Softmax(), all_inputs(n), samples=2, seed=3)["head.weight"] for n in (1, 7)
    )
    assert torch.equal(one, other)
    moved = collect_fisher(Softmax(), all_inputs(1), samples=2, seed=4)["head.weight"]
    assert not torch.equal(one, moved)


def test_fisher_of_a_language_model_covers_every_parameter_and_agrees_with_the_exact() -> None:
    model = tiny_model("llama", head=True)
    exact = collect_fisher(model, padded(7), labels="exact")
    sampled = collect_fisher(model, padded(7), samples=60)
    assert set(exact) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert exact[name].shape == parameter.shape
        assert exact[name].dtype == torch.float32
        assert bool((exact[name] >= 0).all())
        ratio = float(sampled[name].sum() / exact[name].sum())
        assert 0.7 < ratio < 1.4, f"{name}: {ratio}"


def test_fisher_leaves_padding_out_and_unused_tokens_at_zero() -> None:
    model = tiny_model("llama", head=True)
    (batch,) = padded(8)
    found = collect_fisher(model, [batch], seed=1)
    alone = [{"input_ids": batch["input_ids"][:1]}, {"input_ids": batch["input_ids"][1:, :3]}]
    again = collect_fisher(model, alone, seed=1)
    for name in found:
        assert torch.allclose(found[name], again[name], rtol=1e-3, atol=1e-9), name
    rows = found["model.embed_tokens.weight"].sum(1)
    real = batch["input_ids"][batch["attention_mask"].bool()].unique()
    assert bool((rows[real] > 0).all())
    unused = torch.ones(len(rows), dtype=torch.bool)
    unused[real] = False
    assert not rows[unused].any()


def test_options_that_do_not_exist_are_refused() -> None:
    model = Softmax()
    with pytest.raises(UsageError, match="labels 'true' do not exist .*sampled, exact"):
        collect_fisher(model, all_inputs(4), labels="true")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="samples must be at least 1, got 0"):
        collect_fisher(model, all_inputs(4), samples=0)
    with pytest.raises(InputError, match="LlamaModel gives no logits.*AutoModelForCausalLM"):
        collect_fisher(tiny_model("llama", head=True).model, [{"input_ids": ids(9)}])


# -- files ---------------------------------------------------------------------------------------


def test_statistics_survive_a_file_and_shared_matrices_are_written_once(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2"):
        grams = collect_gram(tiny_model(kind, head=True), [{"input_ids": ids(10)}])
        path = save_statistics(tmp_path / f"{kind}.safetensors", grams)
        back = load_statistics(path)
        assert set(back) == set(grams)
        for name, gram in grams.items():
            loaded = back[name]
            assert isinstance(loaded, Gram)
            assert loaded.input_axis == gram.input_axis
            assert torch.equal(loaded.matrix, gram.matrix)
        apart = {id(g.matrix): g.matrix.numel() * 8 for g in grams.values()}
        assert path.stat().st_size < sum(apart.values()) + 8192
    fisher = collect_fisher(Softmax(), all_inputs(16))
    back = load_statistics(save_statistics(tmp_path / "fisher.safetensors", fisher))
    assert all(torch.equal(back[name], fisher[name]) for name in fisher)  # type: ignore[arg-type]
    assert not list(tmp_path.glob(".*"))


def test_files_that_hold_no_statistics_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(UsageError, match="there are no statistics to save"):
        save_statistics(tmp_path / "none.safetensors", {})
    with pytest.raises(InputError, match="missing.safetensors' cannot be read"):
        load_statistics(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(InputError, match="text.safetensors' cannot be read"):
        load_statistics(tmp_path / "text.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="weights.safetensors' holds no statistics"):
        load_statistics(tmp_path / "weights.safetensors")
