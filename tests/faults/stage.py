"""What the campaign plays with: tiny models and texts, and the long verbs with their results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.faults.forked import Ended, run
from tests.planted.configurations import study

#: Names of files under the working folder that verbs read.
INPUTS = (
    "a",
    "b",
    "c",
    "pairs.tsv",
    "pairs.jsonl",
    "merges.csv",
    "corpus",
    "family.yaml",
    "recipe.yml",
    "study.yaml",
)
LANGUAGES = ("eng_Latn", "deu_Latn")
RECIPE = """\
method: ties
models: [a, b]
base_model: c
parameters: {density: 0.6}
"""


def family(source: str) -> dict[str, Any]:
    """A run of 24 steps and a fork of it, with states and checkpoints on the way."""
    return {
        "name": "small",
        "corpus": {"source": source, "languages": list(LANGUAGES)},
        "tokenizer": {"vocab_size": 300},
        "architecture": {"hidden": 16, "layers": 1, "heads": 2, "context": 32},
        "training": {"steps": 24, "batch": 4, "learning_rate": 3e-3},
        "saving": {"state_every": 5, "log_every": 2, "validate_every": 8, "validation_bytes": 400},
        "runs": [
            {"name": "mixed", "mix": {"eng_Latn": 0.5, "deu_Latn": 0.5}, "init_seed": 1},
            {"name": "fork", "languages": ["deu_Latn"], "fork": {"from": "mixed", "at": 0.5}},
        ],
    }


def write_inputs(folder: Path) -> None:
    """Models of one family, parallel text, training text, a recipe, a family, a study."""
    from repsim.testing.tiny_models import write_provenance, write_tiny_model

    folder.mkdir(parents=True)
    write_tiny_model("llama", folder / "c", head=True, hidden_size=16, intermediate_size=24,
                     num_attention_heads=2)  # fmt: skip
    for seed, name in enumerate("abc"):
        if name != "c":  # trained a little from the base
            shutil.copytree(folder / "c", folder / name)
            _move_weights(folder / name / "model.safetensors", seed)
        write_provenance(folder / name, role="monolingual", languages=[LANGUAGES[seed % 2]])
    words = {lang: _words(i) for i, lang in enumerate(LANGUAGES)}
    rng = np.random.default_rng(0)
    rows = ["\t".join(LANGUAGES)]
    rows += ["\t".join(_text(words[lang], rng, 8) for lang in LANGUAGES) for _ in range(40)]
    (folder / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    sentences = [dict(zip(LANGUAGES, row.split("\t"), strict=True)) for row in rows[1:]]
    lines = [json.dumps(sentence, ensure_ascii=False) for sentence in sentences]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "merges.csv").write_text(_merges(rng), encoding="utf-8")
    (folder / "corpus").mkdir()
    for lang in LANGUAGES:
        for split, count in (("train", 50), ("heldout", 5)):
            text = "\n\n".join(_text(words[lang], rng, 60) for _ in range(count))
            path = folder / "corpus" / f"{lang}.{split}.txt"
            path.write_text(text + "\n", encoding="utf-8")
    (folder / "family.yaml").write_text(json.dumps(family("corpus")), encoding="utf-8")
    (folder / "recipe.yml").write_text(RECIPE, encoding="utf-8")
    (folder / "study.yaml").write_text(
        study(
            name="small", corpus="corpus", max_bytes=None, finished=1.0,
            training={"tokens": 600, "batch": 4, "learning_rate": 8e-3},
            evaluation={"max_bytes": 1000},
        ),
        encoding="utf-8",
    )  # fmt: skip


def _move_weights(path: Path, seed: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    moved = {
        name: weight + 0.02 * torch.randn(weight.shape, generator=generator)
        for name, weight in load_file(path).items()
    }
    save_file(moved, path, metadata={"format": "pt"})


def _merges(rng: np.random.Generator) -> str:
    """A table of merges whose retention follows its features."""
    names = [f"m{i}" for i in range(8)]
    lines = ["a,b,method,cos,dist,retention"]
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            cos = float(rng.uniform(0, 1))
            kept = cos - 0.2 + 0.1 * rng.standard_normal()
            lines.append(f"{first},{second},linear,{cos:.4f},{1 - cos:.4f},{kept:.4f}")
    return "\n".join(lines) + "\n"


def _words(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    letters = np.array(list("aeioubcd" if seed == 0 else "äöüßklmn"))
    return ["".join(rng.choice(letters, size=rng.integers(2, 6))) for _ in range(40)]


def _text(words: list[str], rng: np.random.Generator, count: int) -> str:
    weights = 1.0 / np.arange(1, len(words) + 1)
    return " ".join(rng.choice(words, size=count, p=weights / weights.sum()))


@dataclasses.dataclass(frozen=True)
class Verb:
    """A long verb: how it is called, what of its folder is the result, what starts it anew."""

    name: str
    arguments: tuple[str, ...]
    outcome: Callable[[Path], dict[str, str]]
    anew: str | None
    kept: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _table(path: Path) -> str:
    """A table without what is written beside its rows, and without seconds."""
    table = pq.read_table(path)
    table = table.select([name for name in table.column_names if name != "seconds"])
    return _sha(json.dumps(table.to_pydict(), sort_keys=True).encode())


def _files(out: Path, *patterns: str) -> dict[str, str]:
    found = {}
    for pattern in patterns:
        for path in sorted(out.glob(pattern)):
            if path.is_file():
                name = str(path.relative_to(out))
                table = path.suffix == ".parquet"
                found[name] = _table(path) if table else _sha(path.read_bytes())
    return found


def _compared(out: Path) -> dict[str, str]:
    report = {"report": str((out / "report.html").is_file())}
    return _files(out, "similarity.parquet", "scores/*.parquet") | report


def _merged(out: Path) -> dict[str, str]:
    return _files(out, "*.safetensors", "*.json", "*.yaml", "README.md")


def _trained(out: Path) -> dict[str, str]:
    per_run = ("model.safetensors", "*.json", "metrics.jsonl", "checkpoints/*/*.safetensors",
               "checkpoints/*/*.json")  # fmt: skip
    return _files(out, *(f"{run}/{name}" for run in ("mixed", "fork") for name in per_run))


def _studied(out: Path) -> dict[str, str]:
    return _files(out, "parts/*.json", "atlas/*.parquet")


_COMPARE = ("compare", "a", "b", "--corpus", "pairs.tsv", "-m", "cka", "-m", "mutual_knn",
            "--permutations", "4", "-o", "out")  # fmt: skip
#: Every change of a merge goes to the journal at once, else a kill never meets one.
_AT_ONCE = {"repsim.merging.output:SYNC_BYTES": 0}
VERBS = {
    verb.name: verb
    for verb in (
        Verb("compare", _COMPARE, _compared, "--force", ("scores/*.parquet",)),
        Verb("merge", ("merge", "recipe.yml", "out", "--no-forecast"), _merged, "--force",
             settings=_AT_ONCE),
        Verb("pretrain", ("pretrain", "family.yaml", "-o", "out"), _trained, "--fresh"),
        Verb("study", ("study", "run", "study.yaml", "-o", "out"), _studied, None,
             ("parts/*.json",)),
        Verb("study, processes",
             ("study", "run", "study.yaml", "-o", "out", "--executor", "processes", "--workers",
              "2"), _studied, None, ("parts/*.json",)),
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Clean:
    """An undisturbed run: its folder, its cache, what it gave, what it cost."""

    folder: Path
    cache: Path
    outcome: dict[str, str]
    ended: Ended


class Stage:
    """The inputs, and one clean run of each verb, made when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inputs = root / "inputs"
        write_inputs(self.inputs)
        self._clean: dict[str, Clean] = {}
        self._number = 0

    def place(self, *, copy: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """A new working folder with all inputs (links, or copies of those named), and a cache."""
        self._number += 1
        folder = self.root / f"case-{self._number}" / "work"
        folder.mkdir(parents=True)
        for name in INPUTS:
            source = self.inputs / name
            if name not in copy:
                (folder / name).symlink_to(source)
            elif source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copyfile(source, folder / name)
        return folder, folder.parent / "cache"

    def clean(self, name: str) -> Clean:
        """The undisturbed run of a verb."""
        if name not in self._clean:
            verb = VERBS[name]
            folder, cache = self.place()
            ended = run(verb.arguments, folder, cache=cache, settings=verb.settings)
            if ended.code != 0:
                raise RuntimeError(f"the clean run of {name} fails:\n{ended.said}")
            outcome = verb.outcome(folder / "out")
            self._clean[name] = Clean(folder, cache, outcome, ended)
        return self._clean[name]

    def again(self, name: str) -> tuple[Path, Path]:
        """A copy of what the clean run left: folder and cache."""
        clean = self.clean(name)
        folder, cache = self.place()
        shutil.copytree(clean.folder / "out", folder / "out", symlinks=True)
        if clean.cache.exists():
            shutil.copytree(clean.cache, cache)
        return folder, cache

    def drop(self, folder: Path) -> None:
        """Remove a case."""
        shutil.rmtree(folder.parent, ignore_errors=True)


def difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What differs between two results; empty if nothing does."""
    names = sorted(expected.keys() | found.keys())
    changed = [name for name in names if expected.get(name) != found.get(name)]
    return ", ".join(changed[:4]) + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")
