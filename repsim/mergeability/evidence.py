"""Evidence: known merges beside the features of their parents, one row per merge and language."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from repsim.core.atlas import Atlas, join_parents, split_parents
from repsim.core.errors import InputError, UsageError
from repsim.core.files import hash_json
from repsim.mergeability.lineage import lineage_of_atlas, root_of

if TYPE_CHECKING:
    import pyarrow as pa

    from repsim.mergeability.candidate import Candidate

#: Columns beside features: name -> kind. `retention` is the outcome.
COLUMNS = {
    "merge": "string", "parents": "string", "method": "string", "alignment": "string",
    "language": "string", "arm": "string", "control": "string", "source": "string",
    "shared_init": "float", "fork_fraction": "float", "retention": "float", "advantage": "float",
    "useful": "float",
}  # fmt: skip
SCHEMA = "repsim/evidence/1"
#: Before the names of features in files.
FEATURE = "feature:"


@dataclasses.dataclass(frozen=True)
class EvidenceTable:
    """Merges, what became of them, and what was known of their parents beforehand.

    Attributes:
        columns: Name of a column of `COLUMNS` -> its values. Numbers are NaN where not known.
        features: Name of a feature -> its values, NaN where not defined.
        tiers: Feature -> tier.
        lineage: Model -> the model that it was made from or is a copy of, if there is one.
            Models of one lineage are one as far as "never seen in training" goes.
    """

    columns: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    tiers: Mapping[str, str]
    lineage: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["merge"])

    def __getitem__(self, name: str) -> np.ndarray:
        """A column, or a feature."""
        if name in self.columns:
            return self.columns[name]
        if name in self.features:
            return self.features[name]
        raise KeyError(name)

    @property
    def parents(self) -> list[tuple[str, ...]]:
        """Parents of each row."""
        return [split_parents(joined) for joined in self.columns["parents"]]

    @property
    def roots(self) -> list[frozenset[str]]:
        """Parents of each row, models of one lineage taken as one."""
        known: dict[str, frozenset[str]] = {}
        for joined in self.columns["parents"]:
            if joined not in known:
                known[joined] = frozenset(root_of(p, self.lineage) for p in split_parents(joined))
        return [known[joined] for joined in self.columns["parents"]]

    @property
    def factor(self) -> np.ndarray:
        """Method and alignment of each row, joined by "|"."""
        pairs = zip(self.columns["method"], self.columns["alignment"], strict=True)
        return np.array([f"{method}|{alignment}" for method, alignment in pairs], dtype=object)

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the table."""
        return hash_json(
            {
                "columns": {n: _listed(v) for n, v in self.columns.items()},
                "features": {n: _listed(v) for n, v in self.features.items()},
                "tiers": dict(self.tiers),
                "kin": dict(self.lineage),
            }
        )

    def take(self, rows: np.ndarray) -> EvidenceTable:
        """Some rows, by numbers or by a mask."""
        return dataclasses.replace(
            self,
            columns={name: values[rows] for name, values in self.columns.items()},
            features={name: values[rows] for name, values in self.features.items()},
        )

    def with_features(
        self, more: Mapping[str, np.ndarray], tiers: Mapping[str, str]
    ) -> EvidenceTable:
        """The same rows with further features, or features replaced."""
        return dataclasses.replace(
            self, features={**self.features, **more}, tiers={**self.tiers, **tiers}
        )

    def joined(self, other: EvidenceTable) -> EvidenceTable:
        """These rows and those of another table; what only one of them has is NaN in the other."""
        columns = {
            name: np.concatenate([self.columns[name], other.columns[name]]) for name in COLUMNS
        }
        names = dict.fromkeys([*self.features, *other.features])
        features = {
            name: np.concatenate([
                part.features.get(name, np.full(len(part), np.nan)) for part in (self, other)
            ])
            for name in names
        }  # fmt: skip
        return EvidenceTable(
            columns, features, {**other.tiers, **self.tiers}, {**other.lineage, **self.lineage}
        )

    def merges(self) -> tuple[np.ndarray, np.ndarray]:
        """Group rows into merges.

        Returns:
            Number of the merge of each row, and the first row of each merge.
        """
        keys: dict[tuple[str, str], int] = {}
        number = np.empty(len(self), dtype=np.int64)
        first: list[int] = []
        pairs = zip(self.columns["source"], self.columns["merge"], strict=True)
        for row, key in enumerate(pairs):
            if key not in keys:
                keys[key] = len(keys)
                first.append(row)
            number[row] = keys[key]
        return number, np.array(first, dtype=np.int64)

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, Any]],
        features: Mapping[str, Sequence[float] | np.ndarray],
        tiers: Mapping[str, str],
        lineage: Mapping[str, str] | None = None,
    ) -> Self:
        """Build a table from dictionaries of the columns, and features beside them.

        Args:
            rows: One dictionary per merge and language, with keys of `COLUMNS`.
            features: Values per feature, one per row.
            tiers: Feature -> tier.
            lineage: See the class.

        Raises:
            UsageError: A row has an unknown column.

        Example:
            >>> row = {"merge": "a + b | linear", "parents": "a + b", "retention": 0.9}
            >>> table = EvidenceTable.from_rows([row], {"x": [1.0]}, {"x": "T1"})
            >>> len(table), table["x"].tolist(), table["alignment"].tolist()
            (1, [1.0], ['none'])
        """
        unknown = {name for row in rows for name in row} - set(COLUMNS)
        if unknown:
            raise UsageError(f"evidence has no column '{min(unknown)}'")
        columns = {}
        for name, kind in COLUMNS.items():
            values = [row.get(name) for row in rows]
            if kind == "float":
                columns[name] = np.array([_number(v) for v in values], dtype=np.float64)
            else:
                empty = "none" if name == "alignment" else ""
                columns[name] = np.array([empty if v is None else str(v) for v in values], object)
        arrays = {name: np.asarray(v, dtype=np.float64) for name, v in features.items()}
        return cls(columns, arrays, dict(tiers), dict(lineage or {}))

    @classmethod
    def from_atlas(cls, atlas: Atlas | Sequence[Atlas]) -> EvidenceTable:
        """Evidence of one atlas or of several.

        Merges whose parents were not measured, and languages in which no retention is defined
        (no parent is better than the floor), are left out. Of several atlases, names of models are
        preceded by the name of their study.

        Args:
            atlas: What studies found.

        Raises:
            InputError: No merge has both an outcome and features.
        """
        atlases = [atlas] if isinstance(atlas, Atlas) else list(atlas)
        tables = [_of_atlas(one, prefix=len(atlases) > 1) for one in atlases]
        table = tables[0]
        for other in tables[1:]:
            table = table.joined(other)
        if not len(table):
            raise InputError(
                "the atlas holds no merge with both an outcome and features of its parents",
                hint="let the study go on: repsim study run",
            )
        return table

    @classmethod
    def of_candidate(cls, candidate: Candidate, tiers: Mapping[str, str]) -> EvidenceTable:
        """One merge that might be made: rows without an outcome."""
        joined = join_parents(candidate.parents)
        name = f"{joined} | {candidate.method} | {candidate.alignment}"
        rows = [
            {"merge": name, "parents": joined, "method": candidate.method,
             "alignment": candidate.alignment, "language": language}
            for language in candidate.languages
        ]  # fmt: skip
        values = {
            feature: [found.get(feature, math.nan) for found in candidate.features.values()]
            for feature in tiers
        }
        return cls.from_rows(rows, values, tiers)

    def to_arrow(self) -> pa.Table:
        """The table for parquet; what is no column stands in the metadata."""
        import pyarrow as pa

        types = {"string": pa.string(), "float": pa.float64()}
        data = {name: pa.array(list(self.columns[name]), types[k]) for name, k in COLUMNS.items()}
        # Some features are called as columns are (fork_fraction).
        data |= {FEATURE + name: pa.array(values) for name, values in self.features.items()}
        header = {"schema": SCHEMA, "tiers": dict(self.tiers), "kin": dict(self.lineage),
                  "features": list(self.features)}  # fmt: skip
        return pa.table(data).replace_schema_metadata({"repsim": json.dumps(header)})

    def save(self, path: str | Path) -> Path:
        """Write a parquet file."""
        import pyarrow.parquet as pq

        from repsim.core.files import written_aside

        with written_aside(path) as aside:
            pq.write_table(self.to_arrow(), aside, compression="zstd")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> EvidenceTable:
        """Read what `save` wrote; for tables of others, see `read_evidence`.

        Raises:
            InputError: Missing, damaged, or another kind of table.
        """
        data = read_arrow(path)
        header = json.loads((data.schema.metadata or {}).get(b"repsim", b"{}"))
        if header.get("schema") != SCHEMA:
            raise InputError(
                f"'{path}' is not a table of evidence (schema {SCHEMA})",
                hint="name its columns: repsim predictor validate --table T --parents a,b ...",
            )
        rows = data.select(list(COLUMNS)).to_pylist()
        features = {name: data[FEATURE + name].to_numpy() for name in header["features"]}
        return cls.from_rows(rows, features, header["tiers"], header["kin"])


def read_arrow(path: str | Path) -> pa.Table:
    """Read a CSV or parquet file."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(f"'{path}' is neither .csv nor .parquet")
    try:
        return pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error


def _of_atlas(atlas: Atlas, *, prefix: bool) -> EvidenceTable:
    study = str((atlas.info.get("study") or {}).get("name") or "atlas")
    before = f"{study}:" if prefix else ""
    measured: dict[str, dict[str, dict[str, float]]] = {}
    tiers: dict[str, str] = {}
    for row in atlas.features.rows():
        tiers.setdefault(row["feature"], row["tier"])
        if row["value"] is not None:
            by_language = measured.setdefault(row["parents"], {})
            by_language.setdefault(row["language"] or "", {})[row["feature"]] = row["value"]
    rows = [
        row for row in atlas.merges.rows()
        if row["retention"] is not None and row["parents"] in measured
    ]  # fmt: skip
    values = {name: np.full(len(rows), np.nan) for name in tiers}
    for number, row in enumerate(rows):
        found = measured[row["parents"]]
        for feature, value in (found.get("", {}) | found.get(row["language"], {})).items():
            values[feature][number] = value
    kept = [
        {**{name: row[name] for name in COLUMNS if name in row}, "source": study,
         "parents": join_parents([before + p for p in split_parents(row["parents"])])}
        for row in rows
    ]  # fmt: skip
    lineage = {before + a: before + b for a, b in lineage_of_atlas(atlas).items()}
    return EvidenceTable.from_rows(kept, values, tiers, lineage)


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)


def _listed(values: np.ndarray) -> list[Any]:
    return [None if isinstance(v, float) and math.isnan(v) else v for v in values.tolist()]
