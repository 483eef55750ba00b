"""What learned alignment brings, and what the same tokens bring otherwise.

    OMP_NUM_THREADS=1 python tests/benchmarks/learned_alignment.py OUT [--until WAVE] [--train]

Merges pairs of models of five cases: one language and two seeds; two languages and one
initialisation; two languages and two; forks; twins. Each pair is averaged as it is, by permutation,
by rotation and by learned maps, and the controls spend the same tokens on all weights: of the plain
mean, of the rotated mean, of one parent, of a model from scratch. Every unit is one file and is
done once; a stopped run goes on. Waves come in the order of their importance. Models that the zoo
lacks are trained into OUT/models if asked for. `learned_alignment_report.py` draws the results.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repsim
from repsim.core.errors import RepsimError
from repsim.core.files import read_json, write_json
from repsim.corpora import load_corpus, load_training_text
from repsim.evaluation import load_evaluation_text
from repsim.evaluation.floor import count_tokens, unigram_bits
from repsim.evaluation.path import curve_rows, path_scores
from repsim.evaluation.retention import judge
from repsim.evaluation.text import EvaluationText, PreparedText
from repsim.merging.align import Learning, align, build_model, repair_state_dict
from repsim.merging.align import learned as learned_maps
from repsim.merging.align.twins import planted_twin
from repsim.merging.tensors import token_tensors
from repsim.merging.token_weights import weigh
from repsim.merging.windows import read_windows
from repsim.models.causal import CausalModel, load_causal_lm
from repsim.models.zoo import zoo_folder
from repsim.pretraining import load_config
from repsim.pretraining.config import FamilyConfig, from_mapping

Pair = tuple[str, str]
State = dict[str, torch.Tensor]
LANGUAGES = {"eng": "eng_Latn", "deu": "deu_Latn"}
#: Case -> pairs. Names with a seed up to 2 ship in the zoo; the others are trained first.
CASES: dict[str, list[Pair]] = {
    "one language, two seeds": [("eng-1", "eng-2"), ("deu-1", "deu-2"), ("eng-2", "eng-3")],
    "two languages, one initialisation": [
        ("eng-1", "deu-1"), ("eng-2", "deu-2"), ("eng-3", "deu-3"),
    ],
    "two languages, two initialisations": [
        ("eng-1", "deu-2"), ("eng-2", "deu-3"), ("eng-3", "deu-1"),
    ],
    "fork at 30 %": [("eng-f30", "deu-f30")],
    "fork at 85 %": [("eng-fork", "deu-fork")],
    "permuted twin": [("eng-1", "eng-1.permuted")],
    "rotated twin": [("eng-1", "eng-1.rotated")],
}  # fmt: skip
#: What twins of a model are moved by.
TWINS = {
    "permuted": ["residual_permutation", "mlp_units", "kv_groups"],
    "rotated": ["residual_rotation", "mlp_units", "kv_groups"],
}
CONTEXT, BATCH = 128, 2
HELD_OUT_BYTES, CURVE_BYTES = 20_000, 6_000
#: Peak rate of the controls that train all weights; a quarter of that of their pretraining.
CONTROL_RATE, SCRATCH_RATE = 1e-3, 4e-3


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to make one model of a pair.

    `start` is the mean of the pair by an alignment ("none", "permutation", "orthogonal",
    "learned"), a "parent", or "scratch"; then all weights may be trained on `tuned` tokens.
    """

    start: str
    tokens: int = 0
    tuned: int = 0
    text: str = "both"
    path: str = "midpoint"
    begin: str = "auto"
    maps: str = "all maps"
    batch: int = BATCH
    rows: str = "equal"

    @property
    def budget(self) -> int:
        """Tokens whose counts weigh the rows of tokens, where they are "counted"."""
        return max(self.tokens, self.tuned)

    @property
    def name(self) -> str:
        """How its units and rows are called, without the number of tokens."""
        plain = ("both", "midpoint", "auto", "all maps", f"{BATCH} windows", "equal")
        every = (self.text, self.path, self.begin, self.maps, f"{self.batch} windows", self.rows)
        marks = [mark for mark in every if mark not in plain]
        return self.start + ("+tuned" if self.tuned else "") + "".join(f", {m}" for m in marks)


def waves() -> list[tuple[list[Variant], Sequence[str], int]]:
    """Variants, cases and number of pairs of each, the most important first."""
    closed = [Variant(name) for name in ("none", "permutation", "orthogonal")]
    distinct = list(CASES)[:3]
    crossed = distinct[1:]

    def tuned(start: str, *budgets: int, **more: Any) -> list[Variant]:
        return [Variant(start, tuned=tokens, **more) for tokens in budgets]

    def learned(*budgets: int, **more: Any) -> list[Variant]:
        return [Variant("learned", tokens, **more) for tokens in budgets]

    def after(tokens: int) -> list[Variant]:
        return [Variant("learned", tokens, tuned=tokens // 10)]

    odd = [*learned(30_000, path="random"), *learned(30_000, text="unrelated"),
           *tuned("scratch", 30_000)]  # fmt: skip
    one_sided = [*learned(30_000, text="first language"), *tuned("parent", 30_000)]
    parts = [v for maps in ("rotation alone", "blocks alone") for v in learned(30_000, maps=maps)]
    coarse = {"batch": 8}
    counted = {"rows": "counted"}
    untrained = [Variant(name, 100_000, rows="counted") for name in ("none", "orthogonal")]
    return [
        (untrained, distinct, 3),
        (learned(30_000, 100_000, **counted), crossed, 3),
        (tuned("none", 30_000, 100_000, **counted), crossed, 3),
        (learned(300_000, **counted), crossed, 3),
        (tuned("none", 300_000, **counted), crossed, 1),
        (learned(1_000_000, **counted), crossed, 1),
        (closed, list(CASES), 1),
        ([closed[0], closed[2]], distinct, 3),
        (learned(30_000), distinct, 3),
        (tuned("none", 30_000), distinct, 3),
        (learned(100_000), distinct, 1),
        (after(100_000), distinct, 1),
        (tuned("none", 100_000), distinct, 1),
        (tuned("orthogonal", 30_000), distinct, 1),
        (one_sided, crossed, 1),
        (learned(300_000), crossed, 1),
        (tuned("none", 300_000), crossed, 1),
        (after(300_000), crossed, 1),
        (odd, crossed, 1),
        (closed, distinct, 3),
        (learned(100_000), distinct, 3),
        (tuned("none", 100_000), distinct, 3),
        (learned(300_000), distinct, 3),
        (tuned("none", 300_000), distinct, 3),
        (after(100_000), distinct, 3),
        (tuned("orthogonal", 30_000, 100_000), distinct, 3),
        (parts, crossed, 1),
        (learned(30_000, 100_000), ["fork at 30 %", "fork at 85 %"], 1),
        (learned(1_000_000), crossed, 1),
        (tuned("none", 1_000_000), crossed, 1),
        (learned(3_000_000), crossed, 1),
        (tuned("none", 3_000_000), crossed, 1),
        ([*one_sided, *odd], crossed, 3),
        (learned(30_000, **coarse), distinct, 3),
        (tuned("none", 30_000, **coarse), distinct, 3),
        (learned(100_000, **coarse), distinct, 1),
        (learned(100_000, begin="orthogonal", **coarse), crossed, 1),
        (tuned("none", 100_000, **coarse), distinct, 1),
    ]


def family() -> FamilyConfig:
    """The zoo's family with what it lacks."""
    config = load_config("zoo").to_dict()
    runs = [
        run for run in config["runs"] if run["name"] == "mixed"
    ] + [
        {"name": f"{code[:3]}-3", "languages": [code], "init_seed": 3, "data_seed": 3}
        for code in LANGUAGES.values()
    ] + [
        {"name": f"{code[:3]}-f30", "languages": [code], "fork": {"from": "mixed", "at": 0.3}}
        for code in LANGUAGES.values()
    ]  # fmt: skip
    return from_mapping(config | {"name": "learned-alignment", "runs": runs})


class Study:
    """One folder of units."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.scored: dict[tuple[str, str], dict[str, Any]] = {}

    def folder(self, name: str) -> Path:
        """A model of the zoo, or one that was trained for this."""
        trained = self.out / "models" / name
        return trained if trained.exists() else zoo_folder(f"zoo:{name}")

    @functools.cache  # noqa: B019  (one study is one process)
    def model(self, name: str) -> CausalModel:
        """A parent, or a twin of one."""
        plain, _, twin = name.partition(".")
        loaded = load_causal_lm(self.folder(plain), device="cpu")
        if twin:
            config = copy.deepcopy(loaded.model.config)
            state, _ = planted_twin(config, _state(loaded.model), TWINS[twin])
            config.tie_word_embeddings = twin != "rotated"  # rotation unties the head
            loaded = loaded._replace(model=build_model(config, state))
        return loaded

    @functools.cached_property
    def texts(self) -> dict[str, PreparedText]:
        """What is scored: held-out text of the training corpus, less of it, another domain."""
        tokenizer, languages = self.model("eng-1").tokenizer, list(LANGUAGES.values())
        known = {
            "held out": load_evaluation_text("bible", languages, max_bytes=HELD_OUT_BYTES),
            "curve": load_evaluation_text("bible", languages, max_bytes=CURVE_BYTES),
        }
        other = load_corpus("kolibri", languages=languages)
        blocks = range(0, 120, 20)
        texts = {code: tuple("\n".join(other[code][i : i + 20]) for i in blocks)
                 for code in languages}  # fmt: skip
        ids = {code: tuple(str(i) for i in blocks) for code in languages}
        known["other domain"] = EvaluationText("bible", ids, texts, {})
        training = load_training_text("bible", languages)
        counts = {code: count_tokens(tokenizer, t.texts()) for code, t in training.items()}
        found = {}
        for name, text in known.items():
            ready = text.prepare(tokenizer, CONTEXT, floors=False)
            floors = {code: unigram_bits(counts[code], ready.held_out[code]) for code in languages}
            found[name] = dataclasses.replace(ready, floors=floors)
        return found

    def score(self, model: torch.nn.Module, where: str, languages: Sequence[str]) -> dict[str, Any]:
        """Bits of some languages of one of the texts."""
        text = self.texts[where]
        held_out = {code: text.held_out[code] for code in languages}
        return dataclasses.replace(text, held_out=held_out).score(model)

    def kept(
        self, model: torch.nn.Module, pair: Pair, where: str = "held out"
    ) -> dict[str, list[float | None]]:
        """Retention of each language with its interval over documents."""
        languages, text = languages_of(pair), self.texts[where]
        for name in pair:
            if (name, where) not in self.scored:
                every = list(LANGUAGES.values())
                self.scored[name, where] = self.score(self.model(name).model, where, every)
        parents = {name: self.scored[name, where] for name in pair}
        found = judge(
            self.score(model, where, languages), parents, text.floors, text.text.documents
        )
        return {
            code: _finite(kept.estimate.value, kept.estimate.low, kept.estimate.high)
            for code, kept in found.retention.items()
        }

    def windows(self, pair: Pair, tokens: int, which: str) -> torch.Tensor:
        """Windows to learn on: languages in turn, of the same chapters unless "unrelated"."""
        languages = languages_of(pair)[: 1 if which == "first language" else None]
        folder = self.folder(pair[0])
        config = self.model(pair[0]).model.config
        limit = -(-tokens // CONTEXT // len(languages))
        texts = [
            read_windows(
                "bible", [code], limit, folder, config, CONTEXT + 1,
                seed=number if which == "unrelated" else 0,
            )[code]
            for number, code in enumerate(languages)
        ]  # fmt: skip
        return torch.tensor([row for rows in zip(*texts, strict=False) for row in rows])

    def shares(self, pair: Pair, how: Variant) -> torch.Tensor | None:
        """Share of each model in each row of tokens, by counts in the text that it may read."""
        if how.rows == "equal":
            return None
        languages, config = [LANGUAGES[name[:3]] for name in pair], self.model(pair[0]).model.config
        limit = max(1, how.budget // CONTEXT // len(set(languages)))
        folder = self.folder(pair[0])
        texts = read_windows("bible", languages_of(pair), limit, folder, config, CONTEXT, seed=0)
        rows = {
            code: torch.bincount(torch.tensor(windows).flatten(), minlength=config.vocab_size)
            for code, windows in texts.items()
        }
        return weigh(torch.stack([rows[code] for code in languages]))

    def ends(self, pair: Pair, how: Variant) -> tuple[Any, State, State, dict[str, Any]]:
        """Both models in one system of coordinates, and what alignment says of itself."""
        a, b = (self.model(name).model for name in pair)
        if how.start == "none":
            return b.config, _state(a), _state(b), {}
        more: dict[str, Any] = {}
        if how.start == "learned":
            more = {
                "windows": self.windows(pair, how.tokens, how.text),
                "learning": Learning(
                    tokens=how.tokens,
                    batch=how.batch,
                    path=how.path,
                    start=how.begin,  # type: ignore[arg-type]
                ),
                "cache": self.out / "states" / f"{key_of(pair, how)}.safetensors",
                "shares": self.shares(pair, how),
            }
        with only(how.maps):
            found = align(_state(a), [_state(b)], a.config, method=how.start, **more)  # type: ignore[arg-type]
        report = found.report[0]
        about: dict[str, Any] = {
            "output_change": report.output_change, "distance_before": report.distance_before,
            "distance_after": report.distance_after, "moved": report.moved,
        }  # fmt: skip
        if report.learned:
            about |= {"losses": list(report.learned.losses), "start": report.learned.start,
                      "parameters": report.learned.parameters}  # fmt: skip
        return found.config, found.states[0], found.states[1], about

    def mean(self, pair: Pair, how: Variant) -> tuple[Path, dict[str, Any]]:
        """The mean of a pair as a folder, with its readings, once."""
        same = {} if how.start == "learned" else {"batch": BATCH}
        if how.rows == "counted" and how.start != "learned":
            same["tokens"] = how.budget
        folder = self.out / "means" / key_of(pair, dataclasses.replace(how, tuned=0, **same))
        if not (folder / "readings.json").exists():
            began = time.process_time()
            config, a, b, about = self.ends(pair, how)
            about["aligning_seconds"] = time.process_time() - began
            middle = midway(a, b, self.shares(pair, how))
            model = build_model(config, middle)
            model.save_pretrained(folder)
            for path in self.folder(pair[0]).glob("tokenizer*"):
                shutil.copy(path, folder)
            if how.tokens != 30_000 and how.rows == "equal":
                about |= self.curve(build_model(config, middle), a, b, pair)
            if how.start == "learned":
                ids = self.windows(pair, 8_000, "both")[:, :-1]
                mended = build_model(config, repair_state_dict(middle, [a, b], config, ids).state)
                about["repaired"] = self.kept(mended, pair)
            write_json(folder / "readings.json", about)
        return folder, read_json(folder / "readings.json")

    def curve(self, model: torch.nn.Module, a: State, b: State, pair: Pair) -> dict[str, Any]:
        """Bits per byte at 11 points of the path, and the barrier of each language."""
        points = np.linspace(0.0, 1.0, 11)
        held_out = {code: self.texts["curve"].held_out[code] for code in languages_of(pair)}
        text = dataclasses.replace(self.texts["curve"], held_out=held_out)
        rows = curve_rows(path_scores(model, a, b, text, points), points, text.text.documents)
        found: dict[str, Any] = {"barrier": {}, "curve": {}}
        for row in rows:
            if row["metric"] == "barrier":
                found["barrier"][row["language"]] = row["value"]
            else:
                found["curve"].setdefault(row["language"], []).append(row["value"])
        return found

    def begin(self, pair: Pair, how: Variant) -> tuple[Path, dict[str, Any]]:
        """What a variant stands on before all weights are trained."""
        if how.start == "parent":
            return self.folder(pair[0]), {}
        if how.start == "scratch":
            folder = self.out / "means" / f"scratch.{pair[0]}"
            if not folder.exists():
                torch.manual_seed(0)
                config = self.model(pair[0]).model.config
                type(self.model(pair[0]).model)(config).save_pretrained(folder)
                for path in self.folder(pair[0]).glob("tokenizer*"):
                    shutil.copy(path, folder)
            return folder, {}
        return self.mean(pair, how)

    def make(self, pair: Pair, how: Variant) -> dict[str, Any]:
        """One model of a pair by one variant, scored."""
        folder, about = self.begin(pair, how)
        if how.tuned:
            began = time.process_time()
            start, languages = folder, languages_of(pair)
            codes = "-".join(code[:3] for code in languages)
            folder = self.out / "tuned" / f"{start.name}.on-{codes}.{how.tuned}.{how.batch}"
            rate = SCRATCH_RATE if how.start == "scratch" else CONTROL_RATE
            repsim.finetune(
                str(start), folder, languages=languages, tokens=how.tuned, batch=how.batch,
                context=CONTEXT, learning_rate=rate, evaluation_bytes=2_000, dtype="float32",
                device="cpu",
            )  # fmt: skip
            about["tuning_seconds"] = time.process_time() - began
        model = load_causal_lm(folder, device="cpu").model
        return {
            "pair": list(pair), "variant": how.name, "tokens": how.tokens + how.tuned,
            "tuned": how.tuned, "retention": self.kept(model, pair),
            "other_domain": self.kept(model, pair, "other domain"), **about,
        }  # fmt: skip

    def unit(self, key: str, make: Callable[[], dict[str, Any]]) -> None:
        """Do one unit, unless it is done."""
        path = self.out / "units" / f"{key}.json"
        if not path.exists():
            began = time.process_time()
            found = make()
            seconds = time.process_time() - began
            write_json(path, {"key": key, **found, "cpu_seconds": seconds})
            kept = {
                code: value[0] and round(value[0], 3) for code, value in found["retention"].items()
            }
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {seconds:6.1f} s  {key}  {kept}\n")


@contextlib.contextmanager
def only(maps: str) -> Iterator[None]:
    """Learn the rotation of the stream alone, or all maps but that."""
    every = learned_maps.CONTINUOUS
    if maps == "rotation alone":
        learned_maps.CONTINUOUS = ("rotation",)
    elif maps == "blocks alone":
        learned_maps.CONTINUOUS = tuple(group for group in every if group != "rotation")
    try:
        yield
    finally:
        learned_maps.CONTINUOUS = every


def midway(a: State, b: State, shares: torch.Tensor | None) -> State:
    """The mean of two; rows of tokens by the shares of the models, where there are any."""
    by = {} if shares is None else dict.fromkeys(token_tensors(a), shares[1].float()[:, None])
    return {name: torch.lerp(a[name], b[name], by.get(name, torch.tensor(0.5))) for name in a}


def _finite(*values: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _state(model: torch.nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def languages_of(pair: Pair) -> list[str]:
    """Languages of a pair, each once."""
    return list(dict.fromkeys(LANGUAGES[name[:3]] for name in pair))


def key_of(pair: Pair, how: Variant) -> str:
    """Name of the files of a unit."""
    name = how.name.replace(", ", ".").replace(" ", "-")
    return f"{'+'.join(pair)}.{name}.{how.tokens}.{how.tuned}".replace("+", "_")


def units(until: int | None) -> Iterator[tuple[str, Pair, Variant]]:
    """Every unit, pairs in turn within a wave."""
    for variants, cases, most in waves()[:until]:
        for number in range(most):
            for how in variants:
                for case in cases:
                    if number < len(CASES[case]):
                        yield case, CASES[case][number], how


def run(out: Path, until: int | None) -> None:
    """All units of the first waves."""
    torch.set_num_threads(1)
    study = Study(out)
    for case, pair, how in units(until):
        try:
            study.unit(
                key_of(pair, how), lambda c=case, p=pair, h=how: {"case": c, **study.make(p, h)}
            )
        except RepsimError as error:
            sys.stderr.write(f"left out: {key_of(pair, how)}: {error.what}\n")


def main() -> None:
    """Run the units."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", type=int, help="number of waves; default: all")
    parser.add_argument("--train", action="store_true", help="first train what the zoo lacks")
    options = parser.parse_args()
    if options.train:
        repsim.pretrain(family(), options.out / "models", device="cpu")
    run(options.out, options.until)


if __name__ == "__main__":
    main()
