"""The long table of similarities: what every sweep writes and every plot and report reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from repsim.core.errors import UsageError, optional
from repsim.core.formatting import html_table
from repsim.core.similarity_summary import not_computed, summarise_pair
from repsim.core.table import ACCESSORS, Table

if TYPE_CHECKING:
    import xarray

#: Column -> (type, meaning). Numbers that were not computed are null, never zero.
COLUMNS: dict[str, tuple[str, str]] = {
    "model_a": ("string", "name of the first model"),
    "language_a": ("string", "language that it read"),
    "layer_a": ("int", "0 = embedding, i = after block i"),
    "model_b": ("string", "name of the second model"),
    "language_b": ("string", "language that it read"),
    "layer_b": ("int", "0 = embedding, i = after block i"),
    "point": ("string", "hook point: resid, attn, mlp ..."),
    "pairing": ("string", "'same text' or 'parallel text'"),
    "measure": ("string", "name of the measure"),
    "params": ("string", "its parameters as JSON"),
    "value": ("float", "the measure"),
    "ci_low": ("float", "lower end of the interval"),
    "ci_high": ("float", "upper end of the interval"),
    "null_mean": ("float", "mean under shuffled sentence pairs"),
    "null_q95": ("float", "its 95 % quantile (5 % for a distance)"),
    "null_method": ("string", "how the null was made: shuffles, signs, or moments of all shuffles"),
    "calibrated": ("float", "(value - q95) / (best - q95); 0 at the null, 1 on identical input"),
    "p_value": ("float", "probability under the null of a value at least as similar"),
    "p_adjusted": ("float", "the same, against the best of all layer pairs of this grid"),
    "q_value": ("float", "false discovery rate over all tested cells of this measure in the table"),
    "partial": ("float", "the measure after the covariates were regressed out of both sides"),
    "partial_ci_low": ("float", "lower end of its interval"),
    "partial_ci_high": ("float", "upper end of its interval"),
    "partial_null_q95": ("float", "95 % quantile of its null (5 % for a distance)"),
    "partial_p_value": ("float", "the same of the partial value"),
    "across_halves": ("float", "the measure where A and B read different halves of each document"),
    "ceiling": ("float", "what it could be: each side's own likeness between halves of documents"),
    "n": ("int", "sentences"),
    "seed": ("int", "seed of shuffles and subsamples"),
    "note": ("string", "warning of the measure about this cell, empty if none"),
}

#: Old name -> name of what `info["statistics"]` states.
_RENAMED = {
    "dear_measures": "expensive_measures",
    "permutations_dear": "permutations_expensive",
    "groups_dear": "groups_expensive",
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """One layer x layer matrix, a view of the table.

    Attributes:
        values: `[len(layers_a), len(layers_b)]`, NaN where the table has no row.
        layers_a, layers_b: Layer numbers of rows and columns.
        label_a, label_b: "model · language" of the two sides.
        measure, column: What the table was asked for.
    """

    values: np.ndarray
    layers_a: tuple[int, ...]
    layers_b: tuple[int, ...]
    label_a: str
    label_b: str
    measure: str
    column: str = "value"

    def _repr_html_(self) -> str:
        head = f"{self.label_a.strip(' ·')} ↓, {self.label_b.strip(' ·')} →"
        columns = [head, *map(str, self.layers_b)]
        lines = (
            [layer, *line] for layer, line in zip(self.layers_a, self.values.tolist(), strict=True)
        )
        return html_table(columns, [dict(zip(columns, line, strict=True)) for line in lines])

    def to_xarray(self) -> xarray.DataArray:
        """As an `xarray.DataArray` with the layers as coordinates (needs the extra `xarray`)."""
        made: xarray.DataArray = optional("xarray", "to_xarray", "repsim-lm[xarray]").DataArray(
            self.values,
            coords={"layer_a": list(self.layers_a), "layer_b": list(self.layers_b)},
            dims=("layer_a", "layer_b"),
            name=self.column,
            attrs={"a": self.label_a, "b": self.label_b, "measure": self.measure},
        )
        return made


class SimilarityTable(Table):
    """Similarities, one row per pair of (model, language, layer) and measure. Immutable.

    `info` holds what the rows rest on: `models` (name -> `ModelRef.to_dict()`), `corpus`
    (`ParallelCorpus.describe()`), `measures` (name -> `Measure.describe()`), `statistics`,
    `extraction`, `environment`.

    Example:
        >>> row = {"model_a": "a", "model_b": "b", "layer_a": 0, "layer_b": 0, "measure": "cka",
        ...     "value": 0.5, "language_a": "eng_Latn", "language_b": "eng_Latn",
        ...     "pairing": "same text", "point": "resid"}
        >>> table = SimilarityTable([row])
        >>> len(table), table.grid("a", "b", measure="cka").values.tolist()
        (1, [[0.5]])
    """

    SCHEMA = "repsim/similarity/2"
    STEM = "similarity"
    HINT = "a run folder is made by: repsim compare MODEL MODEL -o DIR"
    COLUMNS: ClassVar = COLUMNS
    #: Version 1 lacks columns, which read as null.
    UPGRADES: ClassVar = {"repsim/similarity/1": lambda arrow: arrow}

    @classmethod
    def load(cls, path: str | Path) -> SimilarityTable:
        """Read what `save` wrote, also under the names of version 0.1."""
        table = super().load(path)
        stated = table.info.get("statistics")
        if not stated:
            return table
        renamed = {_RENAMED.get(key, key): value for key, value in stated.items()}
        return cls(table.to_arrow(), {**table.info, "statistics": renamed})

    def __repr__(self) -> str:
        models = ", ".join(self.unique("model_a", "model_b"))
        return f"SimilarityTable({len(self)} rows; {models}; {', '.join(self.unique('measure'))})"

    def grid(
        self,
        model_a: str,
        model_b: str,
        *,
        measure: str,
        language_a: str | None = None,
        language_b: str | None = None,
        point: str = "resid",
        column: str = "value",
    ) -> Grid:
        """The layer x layer matrix of one pair of (model, language).

        Args:
            model_a: Name of the row side; a grid stored the other way round is transposed.
            model_b: Name of the column side.
            measure: Name of the measure.
            language_a: Language of the first side; may be left out if there is only one.
            language_b: Language of the second side; the first's if left out.
            point: Hook point.
            column: Column to take ("value", "partial", "calibrated", "null_q95" ...).
        """
        there = self.unique("point") or [""]  # of arrays the point is not known
        candidates = self.where(measure=measure, point=point if any(there) else "")
        first = language_a or (candidates.unique("language_a") or [""])[0]
        second = language_b or first
        chosen = candidates.where(
            model_a=model_a, model_b=model_b, language_a=first, language_b=second
        )
        ends = ("layer_a", "layer_b")
        if len(chosen) == 0:
            chosen = candidates.where(
                model_a=model_b, model_b=model_a, language_a=second, language_b=first
            )
            ends = ("layer_b", "layer_a")
        if len(chosen) == 0:
            raise UsageError(
                f"the table has no '{measure}' for {model_a}/{first} and {model_b}/{second}",
                hint=f"models: {self.unique('model_a', 'model_b')}, measures: "
                f"{self.unique('measure')}, languages: {self.unique('language_a', 'language_b')}",
            )
        rows, cols = chosen.column(ends[0]), chosen.column(ends[1])
        layers_a, i = np.unique(rows, return_inverse=True)
        layers_b, j = np.unique(cols, return_inverse=True)
        values = np.full((len(layers_a), len(layers_b)), np.nan)
        values[i, j] = chosen.column(column)
        return Grid(
            values=values,
            layers_a=tuple(layers_a.tolist()),
            layers_b=tuple(layers_b.tolist()),
            label_a=f"{model_a} · {first}",
            label_b=f"{model_b} · {second}",
            measure=measure,
            column=column,
        )

    def summary(self) -> list[dict[str, Any]]:
        """One row per pair of (model, language) and measure: the best layer pair and the middle.

        Returns:
            Dictionaries with `model_a, language_a, model_b, language_b, pairing, point, measure,
            n`, the best cell (`best, best_layer_a, best_layer_b, best_p_adjusted`), the mean over
            matched relative depths (`matched_mean`), and the middle layer's `middle, middle_ci_low,
            middle_ci_high, middle_null_q95, middle_partial`.
        """
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        keys = (
            "model_a", "language_a", "model_b", "language_b", "pairing", "point", "measure",
        )  # fmt: skip
        for row in self.rows():
            groups.setdefault(tuple(row[k] for k in keys), []).append(row)
        directions = {m: d["direction"] for m, d in self._info.get("measures", {}).items()}
        return [
            dict(zip(keys, key, strict=True))
            | summarise_pair(rows, directions.get(key[-1], "similarity"))
            for key, rows in groups.items()
        ]

    def not_computed(self) -> list[str]:
        """Why values of `summary` lack an interval or a null, in words; empty if none does."""
        stated = self._info.get("measures", {})
        labels = {name: str(of.get("label", name)) for name, of in stated.items()}
        asked = (self._info.get("statistics") or {}).get("permutations")
        return not_computed(self.summary(), labels, asked)

    # -- showing and keeping it ----------------------------------------------------------------

    def to_report(self, folder: str | Path) -> Path:
        """Write tables, figures and a single-file HTML report; return the report's path."""
        return Path(ACCESSORS["report"](self, Path(folder)))

    def _repr_html_(self) -> str:
        shown = ["model_a", "language_a", "model_b", "language_b", "measure", "middle", "best", "n"]
        return html_table(shown, self.summary())
