import numpy as np
import pytest

from repsim.core import Activations, ModelRef, SimilarityTable
from repsim.core.activations import ArraysInMemory
from repsim.reports.comparison_findings import findings
from repsim.studies.first_token import diagnoses, diagnosis, first_token


def read(seed: int, first: float) -> Activations:
    """Tokens of 40 sentences of 5 tokens; the first one is `first` times as long."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    position = np.arange(200) % 5
    length = np.repeat(np.random.default_rng(99).uniform(0.5, 2, size=40), 5)
    rows[position == 0] = first * np.sqrt(6) * length[position == 0, None] * np.eye(6)[0]
    return Activations(
        model=ModelRef(f"m{seed}", ""),
        language="eng_Latn",
        ids=tuple(f"s{i // 5}#{i % 5}" for i in range(200)),
        layers={"resid": (0,)},
        pooling="tokens",
        corpus_hash="",
        source=ArraysInMemory({("resid", 0): rows}),
        covariates={"position": position.astype(np.float64)},
    )


def test_a_long_first_token_makes_strangers_alike_and_is_said() -> None:
    means = {f"m{seed}": {0: first_token(read(seed, 50.0), "resid", 0)} for seed in (0, 1)}
    (cell,) = diagnosis(means)
    assert abs(cell["without"]) < 0.2
    assert cell["with_first"] > 0.95
    assert 30 < cell["ratio_a"] < 80
    row = {"model_a": "m0", "model_b": "m1", "layer_a": 0, "layer_b": 0, "measure": "cka",
           "value": cell["without"], "pairing": "same text", "n": 40}  # fmt: skip
    said = [f.text for f in findings(SimilarityTable([row], {"first_token": [cell]}))]
    assert any("the first token decides the similarity" in text for text in said)


def test_an_ordinary_first_token_is_not_mentioned() -> None:
    x = first_token(read(0, 1.0), "resid", 0)
    rows = read(0, 1.0).array("resid", 0).reshape(40, 5, 6)
    np.testing.assert_allclose(
        x["without"][x["names"].index("s3")], rows[3, 1:].mean(axis=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        x["with_first"][x["names"].index("s3")], rows[3].mean(axis=0), rtol=1e-6
    )
    assert x["ratio"] == pytest.approx(1.3, abs=0.4)


def test_parallel_text_of_each_model_is_diagnosed_beside_pairs_of_models() -> None:
    means = {f"m{model}": {language: {0: first_token(read(2 * model + i, 50.0), "resid", 0)}
                           for i, language in enumerate(("eng_Latn", "deu_Latn"))}
             for model in (0, 1)}  # fmt: skip
    pairs = [(cell["model_a"], cell["model_b"]) for cell in diagnoses(means)]
    assert pairs == [
        ("m0", "m1"),
        ("m0 on eng_Latn", "m0 on deu_Latn"),
        ("m1 on eng_Latn", "m1 on deu_Latn"),
    ]
    assert all(c["with_first"] > 0.95 and abs(c["without"]) < 0.2 for c in diagnoses(means))
    alone = {"m0": {"eng_Latn": means["m0"]["eng_Latn"]}}
    assert diagnoses(alone) == []
