"""The zoo merged by every method, naive and aligned: `figures/zoo_merges.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/zoo_merges.py

Four pairs, from most to least shared history: late forks of one trunk; the same initial weights;
other initial weights; one language with two seeds. Methods on differences take the mixed model as
base.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.errors import UsageError
from repsim.core.files import write_text
from repsim.core.progress import track
from repsim.core.provenance import versions

if TYPE_CHECKING:
    import torch

    from repsim.evaluation import BitsPerByte, MergeOutcome, PreparedText
    from repsim.models.causal import CausalModel

PAIRS = [
    ("zoo:eng-fork", "zoo:deu-fork"),
    ("zoo:eng-1", "zoo:deu-1"),
    ("zoo:eng-1", "zoo:deu-2"),
    ("zoo:eng-1", "zoo:eng-2"),
]
OUT = Path(__file__).resolve().parents[2] / "figures"

Alignment = Literal["none", "permutation", "orthogonal"]
State = Mapping[str, "torch.Tensor"]

#: Methods that stack layers instead of merging them say nothing about two whole models.
LEFT_OUT = frozenset({"passthrough"})
#: Windows of training text from which data-aware methods take their statistics.
STATISTICS_WINDOWS = 64


@dataclasses.dataclass(frozen=True)
class SurveyRow:
    """One merge and what it kept."""

    pair: tuple[str, str]
    method: str
    alignment: str
    base: str
    retention: dict[str, float]
    bits_per_byte: dict[str, float]
    collapsed: bool | None
    useful: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The row as a JSON-able dictionary; undefined retention is None."""
        kept = {lang: None if math.isnan(v) else v for lang, v in self.retention.items()}
        return dataclasses.asdict(self) | {"pair": list(self.pair), "retention": kept}


def survey_merges(
    pairs: Sequence[tuple[str, str]],
    *,
    methods: Sequence[str] | None = None,
    alignments: Sequence[Alignment] = ("none", "permutation", "orthogonal"),
    base: str | None = None,
    corpus: str = "bible",
    languages: Sequence[str] = ("eng_Latn", "deu_Latn"),
    context: int = 128,
    max_bytes: int | None = 60_000,
    seed: int = 0,
) -> list[SurveyRow]:
    """Merge each pair by each method under each alignment, and score the results."""
    from repsim.evaluation import load_evaluation_text
    from repsim.models.causal import load_causal_lm

    if not pairs:
        raise UsageError("no pairs of models to merge")
    names = dict.fromkeys([name for pair in pairs for name in pair] + ([base] if base else []))
    models = {name: load_causal_lm(name) for name in names}
    if len({model.ref.tokenizer_hash for model in models.values()}) > 1:
        raise UsageError("the models have different tokenizers", hint="see: repsim check A B")
    tokenizer = next(iter(models.values())).tokenizer
    text = load_evaluation_text(corpus, list(languages), max_bytes=max_bytes)
    ready = text.prepare(tokenizer, context)
    scores = {name: ready.score(model.model) for name, model in models.items()}
    rows: list[SurveyRow] = []
    for pair in pairs:
        work = list(_merges(pair, models, methods, alignments, base))
        statistics = _Statistics(models, pair, corpus, context, seed)
        rows += [
            _one(job, models, scores, ready, statistics, seed)
            for job in track(work, f"{pair[0]} + {pair[1]}")
        ]
    return rows


@dataclasses.dataclass(frozen=True)
class _Job:
    """One merge to be made: states in common coordinates."""

    pair: tuple[str, str]
    method: str
    alignment: str
    states: tuple[State, ...]
    config: Any
    base: str = ""
    base_state: State | None = None


def _merges(
    pair: tuple[str, str],
    models: Mapping[str, CausalModel],
    methods: Sequence[str] | None,
    alignments: Sequence[Alignment],
    base: str | None,
) -> Iterator[_Job]:
    """All merges of one pair; each alignment is made once."""
    from repsim.merging import METHODS, list_methods
    from repsim.merging.align import align

    list_methods()  # registers them
    first, second = (models[name].model for name in pair)
    chosen = methods or [name for name in METHODS.names() if name not in LEFT_OUT]
    for alignment in alignments:
        states: Sequence[State] = (first.state_dict(), second.state_dict())
        config = first.config
        if alignment != "none":
            aligned = align(states[0], [states[1]], config, method=alignment)
            states, config = aligned.states, aligned.config
        for name in chosen:
            method = METHODS[name]
            rotated = alignment == "orthogonal"
            if method.needs and alignment != "none":
                continue  # statistics were taken in the parent's own coordinates
            if method.needs_base:
                if base is None or rotated:
                    continue
                state = models[base].model.state_dict()
                yield _Job(pair, name, alignment, tuple(states), config, base, state)
            else:
                yield _Job(pair, name, alignment, tuple(states), config)


class _Statistics:
    """Statistics of the parents on training text of their own languages, collected when needed."""

    def __init__(
        self, models: Mapping[str, CausalModel], pair: tuple[str, str], corpus: str, context: int,
        seed: int,
    ) -> None:  # fmt: skip
        self._models = [models[name] for name in pair]
        self._corpus, self._context, self._seed = corpus, context, seed
        self._known: dict[str, list[Any]] = {}

    def __call__(self, needs: str) -> list[Any] | None:
        if not needs:
            return None
        if needs not in self._known:
            from repsim.merging.statistics import collect_fisher, collect_gram

            self._known[needs] = [
                collect_gram(model.model, self._batches(model))
                if needs == "gram"
                else collect_fisher(model.model, self._batches(model), seed=self._seed)
                for model in self._models
            ]
        return self._known[needs]

    def _batches(self, model: CausalModel) -> list[dict[str, torch.Tensor]]:
        import torch

        from repsim.corpora import load_training_text

        texts = load_training_text(self._corpus, list(model.ref.languages), max_bytes=200_000)
        each = STATISTICS_WINDOWS // len(texts)
        windows = []
        for text in texts.values():
            ids = model.tokenizer("\n".join(text.texts()), add_special_tokens=False)["input_ids"]
            rows = torch.tensor(ids[: each * self._context]).reshape(-1, self._context)
            windows.append(rows)
        return [{"input_ids": batch} for batch in torch.cat(windows).split(8)]


def _one(
    job: _Job,
    models: Mapping[str, CausalModel],
    scores: Mapping[str, Mapping[str, BitsPerByte]],
    ready: PreparedText,
    statistics: _Statistics,
    seed: int,
) -> SurveyRow:
    """Merge, score, judge."""
    from repsim.evaluation import judge
    from repsim.merging import METHODS, merge_state_dicts
    from repsim.merging.align import build_model

    merged = merge_state_dicts(
        job.states,
        job.method,
        base=job.base_state,
        config=job.config,
        statistics=statistics(METHODS[job.method].needs),
        seed=seed,
    )
    own = ready.score(build_model(job.config, merged))
    outcome: MergeOutcome = judge(
        own, {name: scores[name] for name in job.pair}, ready.floors, ready.text.documents
    )
    return SurveyRow(
        pair=job.pair,
        method=job.method,
        alignment=job.alignment,
        base=job.base,
        retention={lang: kept.estimate.value for lang, kept in outcome.retention.items()},
        bits_per_byte={lang: float(score) for lang, score in own.items()},
        collapsed=outcome.collapsed(),
        useful=outcome.useful,
    )


def survey_table(rows: Sequence[SurveyRow]) -> str:
    """The rows as a Markdown table, pair by pair."""
    languages = list(dict.fromkeys(language for row in rows for language in row.retention))
    heads = ["parents", "method", "alignment", *(f"retention {lang}" for lang in languages)]
    lines = ["| " + " | ".join([*heads, "outcome", "useful"]) + " |"]
    lines.append("|" + "---|" * (len(heads) + 2))
    useful = {True: "yes", False: "no", None: "–"}
    for row in rows:
        shares = [row.retention[lang] for lang in languages]
        kept = ["–" if math.isnan(share) else f"{share:.2f}" for share in shares]
        fate = {True: "collapses", False: "lives", None: "–"}[row.collapsed]
        cells = [" + ".join(row.pair), row.method, row.alignment, *kept, fate, useful[row.useful]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    rows = survey_merges(PAIRS, base="zoo:mixed")
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    head = (
        "# Where merges of the zoo live and where they collapse\n\n"
        "Retention of a language: (floor - merge) / (floor - better parent) in bits per byte on "
        "60 kB of held-out text; 1 = nothing lost, 0 = no better than unigrams. A merge collapses "
        "if its worst language keeps less than half; it is useful if it beats keeping any one "
        "parent for both languages. Methods on differences take `zoo:mixed` as base.\n\n"
        f"{dt.date.today().isoformat()}, one thread of a {platform.machine()} CPU; "
        f"{libraries}. Made by `OMP_NUM_THREADS=1 python tests/benchmarks/zoo_merges.py`.\n\n"
    )
    write_text(OUT / "zoo_merges.md", head + survey_table(rows) + "\n")


if __name__ == "__main__":
    main()
