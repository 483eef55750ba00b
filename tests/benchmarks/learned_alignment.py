"""What learned alignment brings, and what the same tokens bring otherwise.

    OMP_NUM_THREADS=1 python tests/benchmarks/learned_alignment.py OUT [--most 300000] [--report]

Trains what the zoo lacks (a third seed, early forks), then merges pairs of five cases: one language
and two seeds; two languages and one initialisation; two languages and two; forks at 30 and 60 %.
Each pair is averaged as it is, by permutation, by rotation and by learned maps, and the controls
spend the same tokens on all weights: of the plain mean, of the rotated mean, of one parent. Every
unit is one file and is done once; a stopped run goes on. `--report` writes the table and figure
from the units that are there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import repsim
from repsim.core.files import read_json, write_json, write_text
from repsim.core.provenance import versions
from repsim.evaluation import load_evaluation_text
from repsim.evaluation.retention import judge
from repsim.models.causal import load_causal_lm
from repsim.models.zoo import zoo_folder
from repsim.pretraining import load_config
from repsim.pretraining.config import FamilyConfig, from_mapping

FIGURES = Path(__file__).resolve().parents[2] / "figures" / "learned_alignment"
BUDGETS = (30_000, 100_000, 300_000, 1_000_000, 3_000_000)
#: Case -> pairs. Names with a seed up to 2 ship in the zoo; the others are trained first.
CASES: dict[str, list[tuple[str, str]]] = {
    "one language, two seeds": [("eng-1", "eng-2"), ("deu-1", "deu-2"), ("eng-2", "eng-3")],
    "two languages, one initialisation": [
        ("eng-1", "deu-1"), ("eng-2", "deu-2"), ("eng-3", "deu-3"),
    ],
    "two languages, two initialisations": [
        ("eng-1", "deu-2"), ("eng-2", "deu-3"), ("eng-3", "deu-1"),
    ],
    "fork at 30 %": [("eng-f30", "deu-f30")],
    "fork at 60 %": [("eng-f60", "deu-f60")],
}  # fmt: skip
HELD_OUT_BYTES = 20_000
#: Peak rate of the controls that train weights; a quarter of that of their pretraining.
CONTROL_RATE = 1e-3


def family() -> FamilyConfig:
    """The zoo's family with what it lacks."""
    config = load_config("zoo").to_dict()
    runs = [
        run for run in config["runs"] if run["name"] == "mixed"
    ] + [
        {"name": f"{code[:3]}-3", "languages": [code], "init_seed": 3, "data_seed": 3}
        for code in ("eng_Latn", "deu_Latn")
    ] + [
        {"name": f"{code[:3]}-f{share}", "languages": [code],
         "fork": {"from": "mixed", "at": share / 100}}
        for share in (30, 60)
        for code in ("eng_Latn", "deu_Latn")
    ]  # fmt: skip
    return from_mapping(config | {"name": "learned-alignment", "runs": runs})


class Study:
    """One folder of units."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def model(self, name: str) -> Path:
        """A model of the zoo, or one that was trained for this."""
        trained = self.out / "models" / name
        return trained if trained.exists() else zoo_folder(f"zoo:{name}")

    def unit(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do one unit, unless it is done."""
        path = self.out / "units" / f"{key}.json"
        if not path.exists():
            began = time.process_time()
            found = make()
            write_json(path, {"key": key, **found, "cpu_seconds": time.process_time() - began})
        done: dict[str, Any] = read_json(path)
        return done

    def merged(self, pair: tuple[str, str], align: str, tokens: int, languages: list[str]) -> Path:
        """The mean of a pair, whose models were aligned in some way."""
        folder = self.out / "merges" / f"{'+'.join(pair)}.{align}.{tokens}"
        if not (folder / "model.safetensors").exists():
            recipe: dict[str, Any] = {
                "method": "linear",
                "models": [str(self.model(name)) for name in pair],
                "align": align,
            }
            if align == "learned":
                recipe["learn"] = {"corpus": "bible", "languages": languages, "tokens": tokens}
            repsim.merge(recipe, folder)
        return folder

    def tuned(self, start: Path, tokens: int, languages: list[str]) -> Path:
        """A model after training of all its weights on so many tokens."""
        folder = self.out / "tuned" / f"{start.name}.{tokens}"
        repsim.finetune(
            str(start), folder, languages=languages, tokens=tokens, batch=8, context=128,
            learning_rate=CONTROL_RATE, evaluation_bytes=2_000, dtype="float32", device="cpu",
        )  # fmt: skip
        return folder

    def score(
        self, folder: Path, pair: tuple[str, str], languages: list[str]
    ) -> dict[str, float | None]:
        """Retention of each language against the pair."""
        text = load_evaluation_text("bible", languages, max_bytes=HELD_OUT_BYTES)
        merge, *parents = (
            load_causal_lm(model) for model in (folder, *(self.model(name) for name in pair))
        )
        ready = text.prepare(merge.tokenizer, 128)
        known = {p.ref.name: ready.score(p.model) for p in parents}
        found = judge(ready.score(merge.model), known, ready.floors, text.documents)
        return {code: kept.estimate.value for code, kept in found.retention.items()}


def variants(most: int) -> Iterator[tuple[str, int]]:
    """Every way to make one model of a pair, cheap ones first."""
    yield from (("none", 0), ("permutation", 0), ("orthogonal", 0))
    for tokens in (budget for budget in BUDGETS if budget <= most):
        for name in ("learned", "none+tuned", "orthogonal+tuned", "parent+tuned", "learned+tuned"):
            yield name, tokens


def make(study: Study, pair: tuple[str, str], name: str, tokens: int) -> dict[str, Any]:
    """One model of a pair by one variant, scored."""
    codes = {"eng": "eng_Latn", "deu": "deu_Latn"}
    languages = list(dict.fromkeys(codes[model[:3]] for model in pair))
    start, _, then = name.partition("+")
    if start == "parent":
        folder = study.model(pair[0])
    else:
        # Maps first, and then a tenth of the budget on all weights.
        learned = tokens - tokens // 10 if then else tokens
        folder = study.merged(pair, start, learned if start == "learned" else 0, languages)
    if then:
        spent = tokens // 10 if start == "learned" else tokens
        folder = study.tuned(folder, spent, languages)
    return {
        "pair": list(pair), "variant": name, "tokens": tokens,
        "retention": study.score(folder, pair, languages),
    }  # fmt: skip


def run(out: Path, most: int) -> None:
    """All units, pair by pair."""
    study = Study(out)
    repsim.pretrain(family(), out / "models", device="cpu")
    for name, tokens in variants(most):
        for case, pairs in CASES.items():
            for pair in pairs:
                study.unit(
                    f"{'+'.join(pair)}.{name}.{tokens}",
                    lambda c=case, p=pair, n=name, t=tokens: {"case": c, **make(study, p, n, t)},
                )


def report(out: Path) -> None:
    """Table of what is there: worst language of each merge, median and range over pairs."""
    units = [read_json(path) for path in sorted((out / "units").glob("*.json"))]
    known: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for unit in units:
        worst = min(v for v in unit["retention"].values() if v is not None)
        known.setdefault((unit["case"], unit["variant"], unit["tokens"]), []).append(
            (worst, unit["cpu_seconds"])
        )
    lines = [
        "# Learned alignment and its controls", "",
        "Retention of the worse language (1: as its parent, 0: no better than unigrams), median "
        "(least to most) over the pairs of a case. Models of 1.3 million parameters, one text.",
        "",
        "| case | variant | tokens | pairs | retention of the worse language | CPU s |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (case, variant, tokens), found in sorted(known.items(), key=_order):
        kept, cost = ([pair[i] for pair in found] for i in (0, 1))
        middle, low, high = statistics.median(kept), min(kept), max(kept)
        lines.append(
            f"| {case} | {variant} | {tokens:,} | {len(found)} | {middle:.2f} ({low:.2f} to "
            f"{high:.2f}) | {statistics.median(cost):.0f} |"
        )
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines += ["", f"{dt.date.today()}, {platform.machine()}, one thread; {about}.", "",
              "`python tests/benchmarks/learned_alignment.py OUT --report`"]  # fmt: skip
    write_text(FIGURES / "README.md", "\n".join(lines) + "\n")


def _order(item: tuple[tuple[str, str, int], Any]) -> tuple[int, int, str]:
    (case, variant, tokens), _ = item
    return list(CASES).index(case), tokens, variant


def main() -> None:
    """Run the units, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--most", type=int, default=300_000, help="largest budget of tokens")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if options.report:
        report(options.out)
    else:
        run(options.out, options.most)


if __name__ == "__main__":
    main()
