"""The table that an evaluation writes."""

from __future__ import annotations

from typing import Any, ClassVar

from repsim.core.formatting import markdown_lines, number
from repsim.core.table import Table

#: What stands in the column `language` where a number is about all of them.
ALL = "all"


class EvaluationTable(Table):
    """One row per model, language and metric.

    Metrics of one language: `bits_per_byte`, `unigram_floor` (of the model's tokenizer) and, of a
    merge, `retention` and, where its base is known, `gain_kept`. Metrics of all languages of a
    merge: `worst_retention`, `collapse_0.25`, `collapse_0.5`, `collapse_0.75` (1 if the worst
    retention is below), `kept`, `advantage` and `useful` (1 if the advantage is positive); see
    `repsim.evaluation.retention`.

    Example:
        >>> table = EvaluationTable([{"model": "a", "language": "eng_Latn",
        ...                           "metric": "bits_per_byte", "value": 1.5}])
        >>> table.value("a", "eng_Latn", "bits_per_byte")
        1.5
    """

    SCHEMA = "repsim/evaluation/1"
    STEM = "evaluation"
    COLUMNS: ClassVar = {
        "model": ("string", "name of the model"),
        "role": ("string", "monolingual, mixed, merged or other"),
        "language": ("string", "language, or 'all'"),
        "metric": ("string", "what was measured"),
        "value": ("float", "the number; null where it is not defined"),
        "ci_low": ("float", "lower end of the interval over documents"),
        "ci_high": ("float", "upper end"),
        "reference": ("string", "the parent (or language) that it is held against"),
        "n_documents": ("int", "documents"),
        "n_bytes": ("int", "UTF-8 bytes of them"),
        "note": ("string", "what a reader must know, empty if nothing"),
    }

    def value(self, model: str, language: str, metric: str) -> float | None:
        """One number, None if it is not there or not defined."""
        for row in self.where(model=model, language=language, metric=metric).head(1).rows():
            found: float | None = row["value"]
            return found
        return None

    def summary(self) -> list[dict[str, Any]]:
        """One dictionary per model: bits per byte and retention by language, then the verdicts.

        Keys are `model`, `role`, `bits_per_byte LANG`, `retention LANG`, `gain_kept LANG` and the
        metrics over all languages; numbers that are not there are None.
        """
        languages = [name for name in self.unique("language") if name != ALL]
        merged = self.where(metric="worst_retention").unique("model")
        gained = self.where(metric="gain_kept").unique("model")
        found = []
        for model in self.unique("model"):
            line: dict[str, Any] = {
                "model": model, "role": self.where(model=model).unique("role")[0]
            }  # fmt: skip
            by_language = ["bits_per_byte"] + ["retention"] * bool(merged)
            by_language += ["gain_kept"] * bool(gained)
            for metric in by_language:
                for language in languages:
                    line[f"{metric} {language}"] = self.value(model, language, metric)
            if merged:
                for metric in ("worst_retention", "collapse_0.5", "advantage", "useful"):
                    line[metric] = self.value(model, ALL, metric)
            found.append(line)
        return found

    def outcome(self, model: str) -> str:
        """What a merge turned out to keep, in Markdown; empty for what is no merge.

        Example:
            >>> rows = [("eng_Latn", "retention", 0.8), ("all", "worst_retention", 0.8),
            ...         ("all", "collapse_0.5", 0.0), ("all", "useful", 0.0)]
            >>> table = EvaluationTable([{"model": "m", "language": a, "metric": b, "value": c}
            ...                          for a, b, c in rows])
            >>> table.outcome("m").splitlines()[0][:44]
            'It survives: its worst language keeps 0.80. '
        """
        worst = self.value(model, ALL, "worst_retention")
        if worst is None:
            return ""
        useful = self.value(model, ALL, "useful")
        fate = "It collapsed" if self.value(model, ALL, "collapse_0.5") else "It survives"
        beats = "It beats" if useful else "It does not beat"
        lines = [
            f"{fate}: its worst language keeps {worst:.2f}. {beats} keeping one parent for all.",
            "",
        ]
        heads = ["language", "bits per byte", "unigrams", "best parent", "retention",
                 "95 % interval"]  # fmt: skip
        cells = []
        for row in self.where(model=model, metric="retention").rows():
            language = row["language"]
            numbers = [self.value(model, language, name)
                       for name in ("bits_per_byte", "unigram_floor")]  # fmt: skip
            ends = [_cell(row[end]) for end in ("ci_low", "ci_high")]
            between = "–" if "–" in ends else " to ".join(ends)
            cells.append([language, *map(_cell, numbers), row["reference"] or "–",
                          _cell(row["value"]), between])  # fmt: skip
        return "\n".join([*lines, *markdown_lines(heads, cells)])


def _cell(value: float | None) -> str:
    return "–" if value is None else number(value, 3)
