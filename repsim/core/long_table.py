"""Small long tables: one row per number, kept as parquet, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from repsim.core.errors import InputError, unknown_name
from repsim.core.files import write_json, written_aside

if TYPE_CHECKING:
    import pyarrow as pa


class LongTable:
    """Rows with fixed columns, and what they rest on. Immutable; subclasses name the columns.

    Args:
        rows: Dictionaries; a column that is missing, and NaN, become null.
        info: What the rows rest on (JSON-able).

    Raises:
        UsageError: A row has a column that the table does not know.

    Example:
        >>> class Heights(LongTable):
        ...     SCHEMA, STEM = "demo/heights/1", "heights"
        ...     COLUMNS = {"who": ("string", "name"), "height": ("float", "metres")}
        >>> table = Heights([{"who": "a", "height": 1.8}, {"who": "b"}])
        >>> len(table), table.where(who="a").column("height").tolist()
        (2, [1.8])
    """

    #: Name and version of the kind of table.
    SCHEMA: ClassVar[str]
    #: Name of its files.
    STEM: ClassVar[str]
    #: Column -> (string, int or float; meaning).
    COLUMNS: ClassVar[dict[str, tuple[str, str]]]

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], info: Mapping[str, Any] | None = None
    ) -> None:
        self._rows: list[dict[str, Any]] = []
        for row in rows:
            for name in row:
                self._check(name)
            self._rows.append({name: _plain(row.get(name)) for name in self.COLUMNS})
        self._info = json.loads(json.dumps(dict(info or {})))

    def _check(self, name: str) -> None:
        if name not in self.COLUMNS:
            raise unknown_name(f"column of a table of {self.STEM}", name, self.COLUMNS)

    @property
    def info(self) -> dict[str, Any]:
        """What the rows rest on."""
        return dict(self._info)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order."""
        return (dict(row) for row in self._rows)

    def column(self, name: str) -> np.ndarray:
        """One column: float64 with NaN for nulls, int64 with -1, or object with empty strings.

        Raises:
            UsageError: No such column.
        """
        self._check(name)
        kind = self.COLUMNS[name][0]
        empty: dict[str, Any] = {"float": np.nan, "int": -1, "string": ""}
        values = [empty[kind] if row[name] is None else row[name] for row in self._rows]
        dtypes = {"float": np.float64, "int": np.int64, "string": object}
        return np.array(values, dtype=dtypes[kind])

    def unique(self, name: str) -> list[Any]:
        """Distinct values of a column, in order of first appearance; nulls left out."""
        self._check(name)
        return list(dict.fromkeys(row[name] for row in self._rows if row[name] is not None))

    def where(self, **conditions: Any) -> Self:
        """Rows in which each named column equals the value, or is one of a list of values."""
        for name in conditions:
            self._check(name)
        wanted = {
            name: set(value) if isinstance(value, list | tuple | set) else {value}
            for name, value in conditions.items()
        }
        kept = [row for row in self._rows if all(row[k] in v for k, v in wanted.items())]
        return type(self)(kept, self._info)

    def to_arrow(self) -> pa.Table:
        """The Arrow table."""
        import pyarrow as pa

        types = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}
        schema = pa.schema([(name, types[kind]) for name, (kind, _) in self.COLUMNS.items()])
        return pa.Table.from_pylist(self._rows, schema=schema)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able document: schema, info, rows."""
        return {"schema": self.SCHEMA, "info": self._info, "rows": list(self.rows())}

    def save(
        self, folder: str | Path, *, formats: Sequence[str] = ("parquet", "csv", "json")
    ) -> list[Path]:
        """Write parquet (with `info` in its metadata), CSV and JSON into a folder.

        Args:
            folder: Where to.
            formats: Which of the three; JSON alone needs no Arrow.

        Returns:
            The paths.
        """
        target = Path(folder)
        paths = [target / f"{self.STEM}.{suffix}" for suffix in formats]
        for path, suffix in zip(paths, formats, strict=True):
            if suffix == "json":
                write_json(path, self.to_json())
            else:
                self._write_arrow(path, suffix)
        return paths

    def _write_arrow(self, path: Path, suffix: str) -> None:
        import pyarrow.csv as pa_csv
        import pyarrow.parquet as pq

        data = self.to_arrow()
        metadata = {"repsim": json.dumps({"schema": self.SCHEMA, "info": self._info})}
        with written_aside(path) as aside:
            if suffix == "parquet":
                pq.write_table(data.replace_schema_metadata(metadata), aside, compression="zstd")
            else:
                pa_csv.write_csv(data, aside)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: The parquet file, or its folder.

        Raises:
            InputError: Missing, damaged, or another kind of table.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        if path.is_dir():
            path = path / f"{cls.STEM}.parquet"
        try:
            data = pq.read_table(path)
        except FileNotFoundError:
            raise InputError(f"'{path}' does not exist") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"'{path}' is not a readable parquet file: {error}") from error
        header = json.loads((data.schema.metadata or {}).get(b"repsim", b"{}"))
        if header.get("schema") != cls.SCHEMA:
            raise InputError(f"'{path}' is not a table of {cls.STEM} (schema {cls.SCHEMA})")
        return cls(data.to_pylist(), header["info"])


def _plain(value: Any) -> Any:
    """NaN and numpy scalars as what Arrow and JSON take."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
