"""Files in the form of the source paper's repository, with planted numbers, for tests."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np

LANGUAGES = ("eng", "nld", "spa", "fra", "rus", "zhos")
BLOCKS = 6
_UNTRAINED = 0.55
_PARENT = 0.95


def planted_checkout(folder: str | Path, *, seed: int = 0) -> Path:
    """Write a small checkout: pairs, similarities by block, scores and two recipes."""
    rng, target = np.random.default_rng(seed), Path(folder)
    for part in ("multiblimp", "02-analysis", "merging"):
        (target / part).mkdir(parents=True, exist_ok=True)
    effect = dict(zip(LANGUAGES, (0.05, 0.03, 0.06, 0.04, -0.05, 0.02), strict=True))
    outcomes: dict[str, dict[str, object]] = {}
    similar: dict[str, dict[str, object]] = {}
    weights: dict[str, dict[str, object]] = {}
    for a, b in itertools.combinations(LANGUAGES, 2):
        kept = _UNTRAINED + effect[a] + effect[b]
        merged, parents = (
            {name: None if name == "zhos" else value + rng.normal(0, 0.01) * noisy
             for name, value in ((a, level), (b, level))}
            for level, noisy in ((kept, 1), (_PARENT, 0))
        )  # fmt: skip
        cka = 0.4 + 0.02 * rng.normal() - 0.2 * ("rus" in (a, b))
        layers = [cka, cka, 0.999, 0.9992, 0.9991, cka]
        entry = {"merged": merged, "hplt": parents}
        alike = {"cka_eng": {"mean_cka": float(np.mean(layers)), "cka_per_layer": layers}}
        weight = {"weight_space": {"cosine_sim": 0.2 + 0.01 * rng.normal(), "l2_norm": 1750.0},
                  "cka": {"mean_cka": 0.5 + 0.01 * rng.normal()}}  # fmt: skip
        for first, second in ((a, b), (b, a)):
            outcomes.setdefault(first, {})[second] = entry
            similar.setdefault(first, {first: {}})[second] = alike
            weights.setdefault(first, {first: {}})[second] = weight
    for name, document in (("multiblimp/bilingual_pair_results.json", outcomes),
                           ("02-analysis/sim_results.json", similar),
                           ("02-analysis/sim_results1.json", weights)):  # fmt: skip
        (target / name).write_text(json.dumps(document))
    scored = [name for name in LANGUAGES if name != "zhos"]
    head = ["model", "checkpoint", *(f"{n}_acc" for n in scored), *(f"{n}_se" for n in scored)]
    untrained = [str(_UNTRAINED)] * len(scored) + ["0.01"] * len(scored)
    rows = [
        head,
        ["HPLT/hplt2c_eng_checkpoints", "main", "0.95"] + [""] * (2 * len(scored) - 1),
        ["models/mixed-10-checkpoints/checkpoint_0000000", "checkpoint_0000000", *untrained],
    ]
    text = "\n".join(",".join(row) for row in rows) + "\n"
    (target / "multiblimp/multiblimp_all_results.csv").write_text(text)
    models = "models:\n" + "".join(
        f"  - model: HPLT/hplt2c_{name}_checkpoints@main\n    parameters:\n      weight: 0.5\n"
        for name in ("eng", "nld")
    )
    (target / "merging/linear-engnld.yaml").write_text(models + "merge_method: linear\n")
    base = "base_model: models/mixed-10-checkpoints/checkpoint_0000000\n"
    (target / "merging/ties-2.yaml").write_text(base + models + "merge_method: ties\n")
    return target
