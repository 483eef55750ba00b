"""Evidence: known merges beside the features of their parents, one row per merge and language."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from repsim.core.atlas import Atlas, join_parents, split_parents
from repsim.core.errors import InputError, unknown_name
from repsim.core.files import hash_bytes
from repsim.core.table import Table, read_header
from repsim.mergeability.candidate import ALIGNMENTS, OUTCOMES, RETENTION
from repsim.mergeability.lineage import lineage_of, origins_of, root_of

if TYPE_CHECKING:
    import pyarrow as pa

    from repsim.mergeability.candidate import Candidate

#: Before the names of features among columns: some are called as columns are (`fork_fraction`).
FEATURE = "feature:"
#: What to do about an infinite number.
NO_INFINITY = "leave it empty where it is not known, or transform the column: a rank, 1 / (1 + x)"
#: Bits per byte that training must have gained before a share of the gain is more than noise.
LEAST_GAIN = 0.02


def _upgraded(arrow: pa.Table) -> pa.Table:
    """A file of version 1, with another header, or 2, which states families there."""
    header = read_header(arrow)
    info = header.get("info") or {"tiers": header["tiers"], "lineage": header["kin"]}
    families = info.pop("families", {})
    named = [families.get(source) for source in arrow.column("source").to_pylist()]
    arrow = arrow.append_column("family", [named]) if families else arrow
    return arrow.replace_schema_metadata({"repsim": json.dumps({"info": info})})


class _Features(Mapping[str, np.ndarray]):
    """Features of a table, read when they are asked for."""

    def __init__(self, table: Table) -> None:
        named = (name for name in table.columns if name.startswith(FEATURE))
        self._columns = {name.removeprefix(FEATURE): name for name in named}
        self._table = table

    def __getitem__(self, name: str) -> np.ndarray:
        return self._table.column(self._columns[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class EvidenceTable(Table):
    """Merges, what became of them, and what was known of their parents beforehand.

    One row per merge and language. Beside the declared columns there is one per feature, called
    `feature:NAME` in files and frames; `table[NAME]` finds it where no column has that name, and
    `table.features[NAME]` always. `info` holds `tiers` (feature -> tier) and `lineage` (model ->
    the model that it was made from or is a copy of). Models of one lineage are one as far as "never
    seen in training" goes. A number that is not known is null, NaN in numpy; one that is infinite
    stays so, and a predictor is not fitted on it.

    Example:
        >>> row = {"merge": "a + b | linear", "parents": "a + b", "retention": 0.9}
        >>> table = EvidenceTable.from_rows([row], {"x": [1.0]}, {"x": "T1"})
        >>> len(table), table["x"].tolist(), table["alignment"].tolist()
        (1, [1.0], ['none'])
    """

    SCHEMA = "repsim/evidence/3"
    STEM = "evidence"
    OPEN = FEATURE
    INFINITE = True
    COLUMNS: ClassVar = {
        "merge": ("string", "name of the merge"),
        "parents": ("string", "names joined by ' + '"),
        "method": ("string", "merge method"),
        "alignment": ("string", "none, permutation or orthogonal"),
        "language": ("string", "language of the row; empty where there is one row per merge"),
        "arm": ("string", "arm of the study"),
        "control": ("string", "kind of control with a known answer; empty for none"),
        "source": ("string", "study or table that it is from"),
        "family": ("string", "architecture of the parents; empty where not stated"),
        "text": ("string", "name of the text that they were trained on; empty where not stated"),
        "shared_init": ("float", "1 if all parents descend from one set of initial weights"),
        "fork_fraction": ("float", "share of training in common"),
        "retention": ("float", "what was kept of the best parent, the outcome"),
        "advantage": ("float", "retention minus what the best single parent keeps"),
        "useful": ("float", "1 if it beats every single parent"),
        "gain_kept": ("float", "share of what the best parent gained over the base that is kept"),
        "parameters": ("string", "parameters of the method, as JSON; empty where not stated"),
    }
    UPGRADES: ClassVar = {f"repsim/evidence/{version}": _upgraded for version in (1, 2)}

    def column(self, name: str) -> np.ndarray:
        """A column, or a feature where no column is called so."""
        own = name in self.COLUMNS or name.startswith(FEATURE)
        return super().column(name if own else FEATURE + name)

    @functools.cached_property
    def features(self) -> Mapping[str, np.ndarray]:
        """Feature -> its values."""
        return _Features(self)

    @property
    def tiers(self) -> Mapping[str, str]:
        """Feature -> tier."""
        return dict(self._info.get("tiers", {}))

    @property
    def lineage(self) -> Mapping[str, str]:
        """Model -> the model that it was made from or is a copy of."""
        return dict(self._info.get("lineage", {}))

    @property
    def parents(self) -> list[tuple[str, ...]]:
        """Parents of each row."""
        return [split_parents(joined) for joined in self["parents"]]

    @property
    def roots(self) -> list[frozenset[str]]:
        """Parents of each row, models of one lineage taken as one."""
        return self._followed(self.lineage)

    @property
    def histories(self) -> list[frozenset[str]]:
        """Parents of each row, models that were forked from one run taken as one."""
        return self._followed({**self._info.get("origins", {}), **self.lineage})

    def _followed(self, lineage: Mapping[str, str]) -> list[frozenset[str]]:
        known = {
            joined: frozenset(root_of(p, lineage) for p in split_parents(joined))
            for joined in dict.fromkeys(self["parents"])
        }
        return [known[joined] for joined in self["parents"]]

    @property
    def factor(self) -> np.ndarray:
        """Method and alignment of each row, joined by "|"."""
        return np.array(self["method"] + "|" + self["alignment"], dtype=object)

    @property
    def hash(self) -> str:
        """SHA-256 of everything in the table, as `hash_json` of its columns would give it."""
        text = json.dumps(
            {"columns": "@", "features": "@", "lineage": self.lineage, "tiers": self.tiers,
             "origins": self._info.get("origins", {})},
            sort_keys=True, ensure_ascii=False,
        )  # fmt: skip
        columns = {name: self.column(name) for name in self.COLUMNS}
        for part in (columns, self.features):
            text = text.replace('"@"', _as_json(part), 1)
        return hash_bytes(text.encode())

    def with_features(self, more: Mapping[str, np.ndarray], tiers: Mapping[str, str]) -> Self:
        """The same rows with further features, or features replaced."""
        columns = {FEATURE + name: values for name, values in more.items()}
        return self.with_columns(columns, {"tiers": {**self.tiers, **tiers}})

    def require_known(self) -> None:
        """Refuse infinite numbers and unknown retention, out of which nothing can be learnt.

        Raises:
            InputError: There is one.
        """
        if np.isnan(self["retention"]).any():
            merge = self["merge"][np.flatnonzero(np.isnan(self["retention"]))[0]]
            raise InputError(f"the retention of the merge '{merge}' is not known")
        for name in self.columns:
            values = self[name]
            if values.dtype == np.float64 and np.isinf(values).any():
                merge = self["merge"][np.flatnonzero(np.isinf(values))[0]]
                what = name.removeprefix(FEATURE)
                raise InputError(f"'{what}' of the merge '{merge}' is infinite", hint=NO_INFINITY)

    def of_outcome(self, outcome: str) -> Self:
        """The table with an outcome in the place of retention, of merges of which it is known.

        Raises:
            InputError: It is known of none.
            UsageError: There is no such outcome.
        """
        if outcome == RETENTION:
            return self
        if outcome not in OUTCOMES:
            raise unknown_name("outcome", outcome, OUTCOMES)
        kept = self.take(np.isfinite(self[outcome]))
        if not len(kept):
            raise InputError(
                "of no merge is it known what was kept of the gain over the base",
                hint="a study measures it where the parents have a base",
            )
        return kept.with_columns({"retention": kept[outcome]})

    def merges(self) -> tuple[np.ndarray, np.ndarray]:
        """Group rows into merges.

        Returns:
            Number of the merge of each row, and the first row of each merge.
        """
        keys = list(zip(self["source"], self["merge"], strict=True))
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        found = np.array([numbers[key] for key in keys], dtype=np.int64)
        return found, np.unique(found, return_index=True)[1]

    @classmethod
    def from_rows(
        cls,
        rows: Sequence[Mapping[str, Any]],
        features: Mapping[str, Sequence[float] | np.ndarray],
        tiers: Mapping[str, str],
        lineage: Mapping[str, str] | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> Self:
        """Build a table from dictionaries of the columns, and features beside them.

        Args:
            rows: One dictionary per merge and language, with keys of `COLUMNS`.
            features: Values per feature, one per row.
            tiers: Feature -> tier.
            lineage: See the class.
            origins: Model -> the run that it was forked from.

        Raises:
            UsageError: A row has an unknown column.
        """
        plain = [
            {"alignment": "none"} | {n: _value(cls._kind(n), v) for n, v in row.items()
                                     if v is not None}
            for row in rows
        ]  # fmt: skip
        maps = {"tiers": tiers, "lineage": lineage or {}, "origins": origins or {}}
        table = cls(plain, {name: dict(found) for name, found in maps.items()})
        return table.with_features(
            {name: np.asarray(values, dtype=np.float64) for name, values in features.items()}, {}
        )

    @classmethod
    def from_atlas(cls, atlas: Atlas | Sequence[Atlas]) -> Self:
        """Evidence of one atlas or of several.

        Merges whose parents were not measured, and languages in which no retention is defined
        (no parent is better than the floor), are left out. Names of models and merges are preceded
        by the name of their study; models of one weight or origin are so in all atlases.

        Args:
            atlas: What studies found.

        Raises:
            InputError: No merge has both an outcome and features, or two studies have one name.
        """
        named: dict[str, Atlas] = {}
        for one in [atlas] if isinstance(atlas, Atlas) else atlas:
            study = str((one.info.get("study") or {}).get("name") or "atlas")
            if study in named:
                raise InputError(
                    f"two atlases are of studies called '{study}'",
                    hint="what names are equal would count as one model: rename one in atlas.json",
                )
            named[study] = one
        table = cls.concat([cls._of_atlas(one, study) for study, one in named.items()])
        if not len(table):
            raise InputError(
                "the atlas holds no merge with both an outcome and features of its parents",
                hint="let the study go on: repsim study run",
            )
        before = {f"{study}:": one for study, one in named.items()}
        return table.with_columns(
            {}, {"lineage": lineage_of(before), "origins": origins_of(before)}
        )

    @classmethod
    def of_candidate(cls, candidate: Candidate, tiers: Mapping[str, str]) -> Self:
        """One merge that might be made: rows without an outcome."""
        joined = join_parents(candidate.parents)
        name = f"{joined} | {candidate.method} | {candidate.alignment}"
        rows = [
            {"merge": name, "parents": joined, "method": candidate.method,
             "alignment": candidate.alignment, "language": language,
             "parameters": json.dumps({n: list(v) for n, v in candidate.parameters.items()})}
            for language in candidate.languages
        ]  # fmt: skip
        values = {
            feature: [found.get(feature, math.nan) for found in candidate.features.values()]
            for feature in tiers
        }
        return cls.from_rows(rows, values, tiers)

    @classmethod
    def _of_atlas(cls, atlas: Atlas, study: str) -> Self:
        """Evidence of one atlas."""
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
            and row["alignment"] in ALIGNMENTS  # no feature tells what learned maps do
        ]  # fmt: skip
        values = {name: np.full(len(rows), np.nan) for name in tiers}
        for number, row in enumerate(rows):
            if (row["base_bits"] or 0.0) - (row["parent_bits"] or 0.0) < LEAST_GAIN:
                row["gain_kept"] = None
            found = measured[row["parents"]]
            for feature, value in (found.get("", {}) | found.get(row["language"], {})).items():
                values[feature][number] = value
        stated = atlas.info.get("study") or {}
        family = atlas.info.get("family") or (stated.get("architecture") or {}).get("family")
        corpus = stated.get("corpus") or ""
        common = {"source": study, "family": family, "text": PurePath(corpus).name}
        kept = [
            {
                **{name: row[name] for name in cls.COLUMNS if name in row}, **common,
                "merge": f"{study}: {row['merge']}",
                "parents": join_parents([f"{study}:{p}" for p in split_parents(row["parents"])]),
            }
            for row in rows
        ]  # fmt: skip
        return cls.from_rows(kept, values, tiers)


def _value(kind: str, value: Any) -> Any:
    """A value as its column takes it; files of others have numbers as text, and text as numbers."""
    if kind == "string":
        return str(value)
    return float(value) if value != "" else None


def _as_json(columns: Mapping[str, np.ndarray]) -> str:
    """Columns as JSON with sorted keys; every distinct value is written once."""
    return "{" + ", ".join(f"{json.dumps(n)}: {_list(columns[n])}" for n in sorted(columns)) + "}"


def _list(values: np.ndarray) -> str:
    if values.dtype == object:
        distinct, place = np.unique(values, return_inverse=True)
        texts = [json.dumps(text, ensure_ascii=False) for text in distinct]
    else:  # by their bits, so that -0.0 stays apart from 0.0
        distinct, place = np.unique(values.view(np.int64), return_inverse=True)
        texts = json.dumps(distinct.view(np.float64).tolist())[1:-1].split(", ")
        texts = ["null" if text == "NaN" else text for text in texts]
    return "[" + ", ".join(map(texts.__getitem__, place.tolist())) + "]"
