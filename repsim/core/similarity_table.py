"""The long table of similarities: what every sweep writes and every plot and report reads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.files import written_aside
from repsim.core.registry import Registry
from repsim.core.similarity_summary import summarise_pair

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "repsim/similarity/1"

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
    "calibrated": ("float", "(value - q95) / (best - q95); 0 at the null, 1 on identical input"),
    "p_value": ("float", "share of shuffles at least as similar"),
    "p_adjusted": ("float", "the same, against the best of all layer pairs of this grid"),
    "partial": ("float", "the measure after the covariates were regressed out of both sides"),
    "n": ("int", "sentences"),
    "seed": ("int", "seed of shuffles and subsamples"),
    "note": ("string", "warning of the measure about this cell, empty if none"),
}

PLOTS: Registry[Any] = Registry("plot", see="repsim plot --help")
PLOTS.add("layers", "repsim.plots.layers:plot_layers")
PLOTS.add("heatmap", "repsim.plots.heatmap:plot_heatmap")
PLOTS.add("languages", "repsim.plots.languages:plot_languages")
PLOTS.add("space", "repsim.plots.space:plot_space")
PLOTS.add("ladder", "repsim.plots.ladder:plot_ladder")

REPORTS: Registry[Any] = Registry("report")
REPORTS.add("folder", "repsim.reports.comparison:write_report")


def arrow_schema() -> pa.Schema:
    """The table's Arrow schema."""
    import pyarrow as pa

    types = {
        "string": pa.dictionary(pa.int32(), pa.string()),
        "int": pa.int64(),
        "float": pa.float64(),
    }
    return pa.schema([(name, types[kind]) for name, (kind, _) in COLUMNS.items()])


@dataclasses.dataclass(frozen=True)
class Grid:
    """One layer x layer matrix, a view of the table.

    Attributes:
        values: `[len(layers_a), len(layers_b)]`, NaN where the table has no row.
        layers_a, layers_b: Layer numbers of rows and columns.
        label_a, label_b: "model · language" of the two sides.
        measure: Name of the measure.
        column: Column of the table that was taken.
    """

    values: np.ndarray
    layers_a: tuple[int, ...]
    layers_b: tuple[int, ...]
    label_a: str
    label_b: str
    measure: str
    column: str = "value"


class PlotAccessor:
    """`table.plot.layers()`, `table.plot.heatmap()`, ...: the plots that are registered."""

    def __init__(self, table: SimilarityTable) -> None:
        self._table = table

    def __getattr__(self, kind: str) -> Any:
        if kind.startswith("_"):
            raise AttributeError(kind)
        draw = PLOTS[kind]

        def plot(*args: Any, **options: Any) -> Any:
            return draw(self._table, *args, **options)

        plot.__doc__ = draw.__doc__
        return plot

    def __dir__(self) -> list[str]:
        return PLOTS.names()


class SimilarityTable:
    """Similarities, one row per pair of (model, language, layer) and measure. Immutable.

    Args:
        data: Arrow table with exactly the columns of `COLUMNS`.
        info: What the rows rest on: `models` (name -> `ModelRef.to_dict()`), `corpus`
            (`ParallelCorpus.describe()`), `measures` (name -> `Measure.describe()`), `statistics`,
            `extraction`, `environment`. JSON-able.

    Example:
        >>> row = dict.fromkeys(COLUMNS) | {"model_a": "a", "model_b": "b", "layer_a": 0,
        ...     "layer_b": 0, "measure": "cka", "value": 0.5, "language_a": "eng_Latn",
        ...     "language_b": "eng_Latn", "pairing": "same text", "point": "resid"}
        >>> table = SimilarityTable.from_rows([row])
        >>> len(table), table.grid("a", "b", measure="cka").values.tolist()
        (1, [[0.5]])
    """

    def __init__(self, data: pa.Table, info: Mapping[str, Any] | None = None) -> None:
        schema = arrow_schema()
        missing = [name for name in schema.names if name not in data.column_names]
        if missing:
            raise InputError(f"not a similarity table: column '{missing[0]}' is missing")
        self._data = data.select(schema.names).cast(schema)
        self._info = json.loads(json.dumps(dict(info or {})))

    # -- making one ---------------------------------------------------------------------------

    @classmethod
    def from_rows(
        cls, rows: Iterable[Mapping[str, Any]], info: Mapping[str, Any] | None = None
    ) -> SimilarityTable:
        """Build from dictionaries; NaN becomes null."""
        import pyarrow as pa

        rows = list(rows)
        columns = {name: [_plain(row.get(name)) for row in rows] for name in COLUMNS}
        schema = arrow_schema()
        arrays = []
        for field in schema:
            if pa.types.is_dictionary(field.type):
                arrays.append(pa.array(columns[field.name], pa.string()).dictionary_encode())
            else:
                arrays.append(pa.array(columns[field.name], field.type))
        return cls(pa.table(arrays, names=schema.names), info)

    @classmethod
    def concat(cls, tables: Sequence[SimilarityTable]) -> SimilarityTable:
        """Stack tables; their `info` is merged, the last one winning.

        Raises:
            UsageError: Nothing to stack.
        """
        import pyarrow as pa

        if not tables:
            raise UsageError("no tables to put together")
        info: dict[str, Any] = {}
        for table in tables:
            for key, value in table.info.items():
                if isinstance(value, dict) and isinstance(info.get(key), dict):
                    info[key] = {**info[key], **value}
                else:
                    info[key] = value
        return cls(pa.concat_tables([t._data for t in tables]).unify_dictionaries(), info)

    # -- reading it ---------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        """What the rows rest on."""
        return dict(self._info)

    def __len__(self) -> int:
        return int(self._data.num_rows)

    def __repr__(self) -> str:
        models = ", ".join(self.unique("model_a", "model_b"))
        return f"SimilarityTable({len(self)} rows; {models}; {', '.join(self.unique('measure'))})"

    def to_arrow(self) -> pa.Table:
        """The Arrow table."""
        return self._data

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order."""
        yield from self._data.to_pylist()

    def column(self, name: str) -> np.ndarray:
        """One column: float64 with NaN for nulls, int64, or object for strings."""
        if name not in COLUMNS:
            raise unknown_name("column", name, COLUMNS)
        kind = COLUMNS[name][0]
        values = self._data.column(name).to_pylist()
        if kind == "float":
            return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        if kind == "int":
            return np.array([-1 if v is None else v for v in values], dtype=np.int64)
        return np.array(["" if v is None else v for v in values], dtype=object)

    def unique(self, *columns: str) -> list[Any]:
        """Distinct values of one or more columns, in order of first appearance."""
        seen: dict[Any, None] = {}
        lists = [self._data.column(name).to_pylist() for name in columns]
        for values in zip(*lists, strict=True):
            seen.update(dict.fromkeys(value for value in values if value is not None))
        return list(seen)

    def where(self, **conditions: Any) -> SimilarityTable:
        """Rows in which each named column equals the value, or is one of a list of values."""
        import pyarrow as pa

        keep = np.ones(len(self), dtype=bool)
        for name, wanted in conditions.items():
            values = self.column(name)
            options = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
            keep &= np.isin(values, np.array(options, dtype=values.dtype))
        return SimilarityTable(self._data.filter(pa.array(keep)), self._info)

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

        Raises:
            UsageError: No such rows.
        """
        candidates = self.where(measure=measure, point=point)
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

    # -- showing and keeping it ----------------------------------------------------------------

    @property
    def plot(self) -> PlotAccessor:
        """Plots of this table: `.plot.layers()`, `.plot.heatmap()` and the other kinds."""
        return PlotAccessor(self)

    def to_report(self, folder: str | Path) -> Path:
        """Write tables, figures and a single-file HTML report; return the report's path."""
        return Path(REPORTS["folder"](self, Path(folder)))

    def save(self, path: str | Path) -> Path:
        """Write one parquet file with `info` in its metadata."""
        import pyarrow.parquet as pq

        path = Path(path)
        metadata = {"repsim": json.dumps({"schema": SCHEMA, "info": self._info})}
        with written_aside(path) as aside:
            pq.write_table(self._data.replace_schema_metadata(metadata), aside, compression="zstd")
        return path

    @classmethod
    def load(cls, path: str | Path) -> SimilarityTable:
        """Read what `save` wrote, or the table of a run folder.

        Raises:
            InputError: Missing, damaged, or another schema.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if path.is_dir():
            path = path / "similarity.parquet"
        try:
            data = pq.read_table(path)
        except FileNotFoundError:
            raise InputError(
                f"'{path}' does not exist",
                hint="a run folder is made by: repsim compare MODEL MODEL -o DIR",
            ) from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"'{path}' is not a readable parquet file: {error}") from error
        header = json.loads((data.schema.metadata or {}).get(b"repsim", b"{}"))
        if header.get("schema") != SCHEMA:
            raise InputError(f"'{path}' is not a similarity table (schema {SCHEMA})")
        return cls(data, header["info"])

    def to_csv(self, path: str | Path) -> Path:
        """Write CSV, dictionary columns as text."""
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        plain = self._data.cast(
            pa.schema(
                [
                    (f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
                    for f in self._data.schema
                ]
            )
        )
        with written_aside(path) as aside:
            pa_csv.write_csv(plain, aside)
        return Path(path)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able document: schema, info, rows."""
        return {"schema": SCHEMA, "info": self._info, "rows": list(self.rows())}

    def _repr_html_(self) -> str:
        from html import escape

        rows = self.summary()
        if not rows:
            return "<p>empty similarity table</p>"
        shown = ["model_a", "language_a", "model_b", "language_b", "measure", "middle", "best", "n"]
        head = "".join(f"<th>{name}</th>" for name in shown)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(row[name]))}</td>" for name in shown) + "</tr>"
            for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plain(value: Any) -> Any:
    """NaN and numpy scalars as what Arrow and JSON take."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
