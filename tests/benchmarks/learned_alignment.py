"""What learned alignment brings, and what the same tokens bring otherwise.

    OMP_NUM_THREADS=1 python tests/benchmarks/learned_alignment.py OUT [--only PATTERN] [--list]
        [--study FOLDER ...] [--train]

Merges pairs of models of five cases: one language and two seeds; two languages and one
initialisation; two languages and two; forks; twins. Each pair is averaged as it is, by permutation,
by rotation and by learned maps, and the controls spend the same tokens on all weights: of the plain
mean, of the rotated mean, of one parent, of a model from scratch. With `--study` the pairs are
those of finished models of studies. Every unit is one file and is done once; a stopped run goes on,
also within a unit. `--only` names units by pattern, `--list` writes their names and does nothing.
Models that the zoo lacks are trained into OUT/models if asked for. `learned_alignment_report.py`
draws the results.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import fnmatch
import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learned_alignment_cases import (
    BATCH,
    TWINS,
    Home,
    Pair,
    Variant,
    family,
    key_of,
    study_home,
    units,
    zoo_home,
)

import repsim
from repsim.core.errors import RepsimError
from repsim.core.files import read_json, write_json
from repsim.corpora import load_corpus
from repsim.evaluation import load_evaluation_text
from repsim.evaluation.path import curve_rows, path_scores
from repsim.evaluation.retention import judge
from repsim.evaluation.text import EvaluationText, PreparedText
from repsim.merging.align import Learning, align, build_model, repair_state_dict
from repsim.merging.align import learned as learned_maps
from repsim.merging.align.twins import planted_twin
from repsim.merging.recipe import TokenWeights
from repsim.merging.tensors import token_tensors
from repsim.merging.token_weights import count_rows, weigh
from repsim.merging.windows import read_windows
from repsim.models.causal import CausalModel, load_causal_lm

State = dict[str, torch.Tensor]
CONTEXT = 128
HELD_OUT_BYTES, CURVE_BYTES = 20_000, 6_000
#: Peak rate of the controls that train all weights; a quarter of that of their pretraining.
CONTROL_RATE, SCRATCH_RATE = 1e-3, 4e-3


class Study:
    """One folder of units."""

    def __init__(self, out: Path, studies: Mapping[str, Home] = {}) -> None:
        self.out = out
        self.homes = {"": zoo_home(out / "models"), **studies}
        self.read: dict[str, dict[str, PreparedText]] = {}
        self.scored: dict[tuple[str, str], dict[str, Any]] = {}

    def home(self, name: str) -> Home:
        """That of a model."""
        return self.homes[name.rpartition(":")[0]]

    def language(self, name: str) -> str:
        """That of a model's text."""
        return self.home(name).languages[name.rpartition(":")[2][:3]]

    def languages(self, pair: Pair) -> list[str]:
        """Languages of a pair, each once."""
        return list(dict.fromkeys(map(self.language, pair)))

    def folder(self, name: str) -> Path:
        """Where a model lies."""
        return self.home(name).find(name)

    @functools.cache  # noqa: B019  (one study is one process)
    def model(self, name: str) -> CausalModel:
        """A parent, or a twin of one."""
        plain, _, twin = name.rpartition(".")
        if twin not in TWINS:
            return load_causal_lm(self.folder(name), device="cpu")
        loaded = load_causal_lm(self.folder(plain), device="cpu")
        config = copy.deepcopy(loaded.model.config)
        state, _ = planted_twin(config, _state(loaded.model), TWINS[twin])
        config.tie_word_embeddings = twin != "rotated"  # rotation unties the head
        return loaded._replace(model=build_model(config, state))

    def text(self, name: str, where: str) -> PreparedText:
        """Held-out text of a model's corpus, less of it ("curve"), or another domain."""
        home = name.rpartition(":")[0]
        if home not in self.read:
            self.read[home] = _texts(self.homes[home], self.model(name).tokenizer)
        return self.read[home][where]

    def score(self, model: torch.nn.Module, pair: Pair, where: str) -> dict[str, Any]:
        """Bits of a pair's languages of one of the texts, as far as it has them."""
        text = self.text(pair[0], where)
        held_out = {c: text.held_out[c] for c in self.languages(pair) if c in text.held_out}
        return dataclasses.replace(text, held_out=held_out).score(model)

    def kept(
        self, model: torch.nn.Module, pair: Pair, where: str = "held out"
    ) -> dict[str, list[float | None]]:
        """Retention of each language with its interval over documents."""
        text, parents = self.text(pair[0], where), {}
        for name in pair:
            known = self.scored.setdefault((name, where), {})
            if not set(self.languages(pair)) <= set(known):
                known |= self.score(self.model(name).model, pair, where)
            parents[name] = known
        own = self.score(model, pair, where)
        if not own:
            return {}
        found = judge(own, parents, text.floors, text.text.documents)
        return {
            code: _finite(kept.estimate.value, kept.estimate.low, kept.estimate.high)
            for code, kept in found.retention.items()
        }

    def windows(self, pair: Pair, tokens: int, which: str) -> torch.Tensor:
        """Windows to learn on: languages in turn, of the same chapters unless "unrelated"."""
        languages = self.languages(pair)[: 1 if which == "first language" else None]
        corpus, tokenizer = self.home(pair[0]).corpus, self.model(pair[0]).tokenizer
        limit = -(-tokens // CONTEXT // len(languages))
        texts = [
            read_windows(
                corpus, [code], limit, tokenizer, CONTEXT + 1,
                seed=number if which == "unrelated" else 0,
            )[code]
            for number, code in enumerate(languages)
        ]  # fmt: skip
        return torch.tensor([row for rows in zip(*texts, strict=False) for row in rows])

    def shares(self, pair: Pair, how: Variant) -> torch.Tensor | None:
        """Share of each model in each row of tokens, by counts in the text that it may read."""
        if how.rows == "equal":
            return None
        model, tokenizer, _ = self.model(pair[0])
        tokens = max(1, how.budget // CONTEXT // len(self.languages(pair))) * CONTEXT
        weights = TokenWeights(corpus=self.home(pair[0]).corpus, tokens=tokens)
        rows = model.config.vocab_size
        counts = [count_rows(weights, [self.language(n)], tokenizer, rows, 0) for n in pair]
        return weigh(torch.stack(counts))

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
        text = self.text(pair[0], "curve")
        held_out = {code: text.held_out[code] for code in self.languages(pair)}
        text = dataclasses.replace(text, held_out=held_out)
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
            start, languages = folder, self.languages(pair)
            codes = "-".join(code[:3] for code in languages)
            folder = self.out / "tuned" / f"{start.name}.on-{codes}.{how.tuned}.{how.batch}"
            rate = SCRATCH_RATE if how.start == "scratch" else CONTROL_RATE
            repsim.finetune(
                str(start), folder, languages=languages, corpus=self.home(pair[0]).corpus,
                tokens=how.tuned, batch=how.batch, context=CONTEXT, learning_rate=rate,
                evaluation_bytes=2_000, dtype="float32", device="cpu",
            )  # fmt: skip
            about["tuning_seconds"] = time.process_time() - began
        model = load_causal_lm(folder, device="cpu").model
        return {
            "pair": list(pair), "variant": how.name, "tokens": how.tokens + how.tuned,
            "tuned": how.tuned, "retention": self.kept(model, pair),
            "other_domain": self.kept(model, pair, "other domain"), **about,
        }  # fmt: skip

    def file(self, key: str) -> Path:
        """Where a unit is written."""
        return self.out / "units" / f"{key}.json"

    def unit(self, key: str, make: Callable[[], dict[str, Any]]) -> None:
        """Do one unit, unless it is done."""
        path = self.file(key)
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


def _texts(home: Home, tokenizer: Any) -> dict[str, PreparedText]:
    languages = list(home.languages.values())
    other = load_corpus("kolibri")
    known = [code for code in languages if code in other.languages]
    blocks = range(0, 120, 20)
    texts = {code: tuple("\n".join(other[code][i : i + 20]) for i in blocks) for code in known}
    ids = {code: tuple(str(i) for i in blocks) for code in known}
    found = {
        "held out": load_evaluation_text(home.corpus, languages, max_bytes=HELD_OUT_BYTES),
        "curve": load_evaluation_text(home.corpus, languages, max_bytes=CURVE_BYTES),
        "other domain": EvaluationText(home.corpus, ids, texts, {}),
    }
    return {where: text.prepare(tokenizer, CONTEXT) for where, text in found.items()}


def main() -> None:
    """Run the units."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", help="pattern of units; default: all")
    parser.add_argument("--list", action="store_true", help="name the units and what is done")
    parser.add_argument("--study", type=Path, action="append", default=[], help="a study's folder")
    parser.add_argument("--train", action="store_true", help="first train what the zoo lacks")
    options = parser.parse_args()
    if options.train:
        repsim.pretrain(family(), options.out / "models", device="cpu")
    torch.set_num_threads(1)
    known = {folder.name: study_home(folder) for folder in options.study}
    study = Study(options.out, {name: home for name, (home, _) in known.items()})
    for case, pair, how in units([cases for _, cases in known.values()]):
        key = key_of(pair, how)
        if options.only and not any(fnmatch.fnmatch(key, pattern) for pattern in options.only):
            continue
        if options.list:
            state = "done" if study.file(key).exists() else "todo"
            sys.stdout.write(f"{state} {key} [{case}]\n")
            continue
        try:
            study.unit(key, lambda c=case, p=pair, h=how: {"case": c, **study.make(p, h)})
        except RepsimError as error:
            sys.stderr.write(f"left out: {key}: {error.what}\n")


if __name__ == "__main__":
    main()
