"""One kind of table: Arrow columns that are declared with their type and meaning."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np

from repsim.core.arrow_columns import as_array, as_list, encoded, is_one_of
from repsim.core.aside import written_aside
from repsim.core.errors import InputError, UsageError, unknown_name
from repsim.core.files import write_json
from repsim.core.formatting import html_table
from repsim.core.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Format = Literal["parquet", "csv", "json"]

#: What higher packages do with a table ("plot", "report"): they declare it as an entry point, so
#: that nothing here names them.
ACCESSORS: Registry[Callable[..., Any]] = Registry(
    "accessor of tables", entry_point_group="repsim.table_accessors"
)


class Column(NamedTuple):
    """A declared column: its kind, meaning with unit, heading, and form of its cells."""

    kind: str
    meaning: str
    heading: str = ""
    form: str = ""


class Table:
    """Rows with declared columns, and what they rest on. Immutable; a subclass is a schema.

    A subclass names its `SCHEMA` ("kind/version"), the `STEM` of its files and its `COLUMNS`.
    Numbers that were not computed are null, never zero. A stored table that lacks a column reads as
    null there; one of the version before is read through `UPGRADES`.

    Args:
        data: Dictionaries, or anything that speaks the Arrow protocol (pyarrow, pandas, polars).
            Columns that are missing, and NaN, become null; infinity too where it is not kept.
        info: What the rows rest on (JSON-able); by default what a pandas frame holds in `attrs`.

    Raises:
        UsageError: A column that the schema does not know.

    Example:
        >>> class Heights(Table):
        ...     SCHEMA, STEM = "demo/heights/1", "heights"
        ...     COLUMNS = {"who": ("string", "name"), "height": ("float", "metres")}
        >>> table = Heights([{"who": "a", "height": 1.8}, {"who": "b"}])
        >>> len(table), table.where(who="a")["height"].tolist(), table.unique("who")
        (2, [1.8], ['a', 'b'])
    """

    #: Kind of table and its version.
    SCHEMA: ClassVar[str]
    #: Name of its files.
    STEM: ClassVar[str]
    #: Column -> kind, meaning and, where pages show it, heading and form; see `Column`.
    COLUMNS: ClassVar[Mapping[str, tuple[str, ...]]]
    #: Further columns whose names begin with this are numbers that rows may add.
    OPEN: ClassVar[str | None] = None
    #: Whether an infinite number is kept; otherwise it becomes null.
    INFINITE: ClassVar[bool] = False
    #: Schema of an earlier version -> what turns its Arrow table, metadata included, into today's.
    UPGRADES: ClassVar[Mapping[str, Callable[[pa.Table], pa.Table]]] = {}
    #: How to make such a table; shown where one is missing.
    HINT: ClassVar[str | None] = None

    def __init__(
        self, data: Iterable[Mapping[str, Any]] | Any = (), info: Mapping[str, Any] | None = None
    ) -> None:
        import pyarrow as pa

        if hasattr(data, "__arrow_c_stream__"):
            if info is None:
                info = getattr(data, "attrs", None)
            if hasattr(data, "iloc"):
                data = pa.Table.from_pandas(data, preserve_index=False)
            arrow = data if isinstance(data, pa.Table) else pa.table(data)
            self._check(arrow.column_names)
            self._data = self._shaped(arrow)
        else:
            self._data = self._from_rows(list(data))
        self._info: dict[str, Any] = json.loads(json.dumps(dict(info or {})))
        self._arrays: dict[str, np.ndarray] = {}

    # -- making one ---------------------------------------------------------------------------

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        info: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build from whole columns of one length; the others become null."""
        import pyarrow as pa

        arrays = {
            name: pa.array(values, from_pandas=True) if isinstance(values, np.ndarray)
            else pa.array([_plain(value, cls.INFINITE) for value in values])
            for name, values in columns.items()
        }  # fmt: skip
        return cls(pa.table(arrays), info)

    @classmethod
    def concat(cls, tables: Sequence[Self]) -> Self:
        """Stack tables, at least one; their `info` is merged, the last one winning."""
        import pyarrow as pa

        if not tables:
            raise UsageError("no tables to put together")
        info: dict[str, Any] = {}
        for table in tables:
            for key, value in table.info.items():
                both = isinstance(value, dict) and isinstance(info.get(key), dict)
                info[key] = {**info[key], **value} if both else value
        parts = [table._data for table in tables]
        return cls(pa.concat_tables(parts, promote_options="default").unify_dictionaries(), info)

    @classmethod
    def declared(cls, name: str) -> Column:
        """What is declared of a column."""
        return Column(*cls.COLUMNS[name])

    @classmethod
    def _kind(cls, name: str) -> str:
        """Kind of a column; those beyond the declared ones are numbers."""
        return cls.COLUMNS[name][0] if name in cls.COLUMNS else "float"

    @classmethod
    def _check(cls, names: Iterable[str]) -> None:
        for name in names:
            further = cls.OPEN is not None and name.startswith(cls.OPEN)
            if name not in cls.COLUMNS and not further:
                raise unknown_name(f"column of a table of {cls.STEM}", name, cls.COLUMNS)

    @classmethod
    def _from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        import pyarrow as pa

        names = dict.fromkeys(name for row in rows for name in row)
        cls._check(names)
        data = {
            name: [_plain(row.get(name), cls.INFINITE) for row in rows]
            for name in {**cls.COLUMNS, **names}
        }
        types = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}
        return pa.table({
            name: encoded(pa.array(values, types[cls._kind(name)]))
            for name, values in data.items()
        })  # fmt: skip

    @classmethod
    def _shaped(cls, arrow: pa.Table) -> pa.Table:
        """Declared columns in order and type; missing ones and NaN null, others left out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        types = {"string": pa.string(), "int": pa.int64(), "float": pa.float64()}
        further = [
            name for name in arrow.column_names
            if name not in cls.COLUMNS and cls.OPEN is not None and name.startswith(cls.OPEN)
        ]  # fmt: skip
        columns = {}
        for name in (*cls.COLUMNS, *further):
            kind = types[cls._kind(name)]
            if name not in arrow.column_names:
                columns[name] = encoded(pa.nulls(arrow.num_rows, kind))
                continue
            values = arrow.column(name)
            if not (pa.types.is_dictionary(values.type) and kind == pa.string()):
                values = values.cast(kind)
            if pa.types.is_floating(kind):
                lost = pc.is_nan(values) if cls.INFINITE else pc.invert(pc.is_finite(values))
                values = pc.if_else(lost, pa.scalar(None, kind), values)
            columns[name] = encoded(values)
        return pa.table(columns)

    def _of(self, data: pa.Table) -> Self:
        """The same kind of table on other rows; nothing is checked again."""
        made = type(self).__new__(type(self))
        made._data, made._info, made._arrays = data, self._info, {}
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"_data": self._data, "_info": self._info, "_arrays": {}}

    # -- reading it ---------------------------------------------------------------------------

    @property
    def info(self) -> dict[str, Any]:
        """What the rows rest on."""
        return dict(self._info)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._data.column_names)

    def __len__(self) -> int:
        return int(self._data.num_rows)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} rows; {', '.join(self.columns)})"

    def __getitem__(self, name: str) -> np.ndarray:
        return self.column(name)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order."""
        names, lists = self.columns, map(as_list, self._data.columns)
        return (dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True))

    def column(self, name: str) -> np.ndarray:
        """One column `[rows]`: float64 with NaN for null, int64 with -1, or object with "".

        The array is kept for the next caller and cannot be written to.
        """
        if name not in self._arrays:
            self._arrays[name] = as_array(self._column(name), self._kind(name))
            self._arrays[name].flags.writeable = False
        return self._arrays[name]

    def unique(self, *names: str) -> list[Any]:
        """Distinct values of one or more columns, by first appearance; nulls left out."""
        seen: dict[Any, None] = {}
        lists = [self._column(name) for name in names]
        if len(lists) == 1:
            return [value for value in lists[0].unique().to_pylist() if value is not None]
        for values in zip(*(one.to_pylist() for one in lists), strict=True):
            seen.update(dict.fromkeys(value for value in values if value is not None))
        return list(seen)

    def where(self, **conditions: Any) -> Self:
        """Rows in which each named column equals the value, or is one of a list of values."""
        import pyarrow.compute as pc

        keep = None
        for name, wanted in conditions.items():
            options = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
            mask = is_one_of(self._column(name), options)
            keep = mask if keep is None else pc.and_(keep, mask)
        return self if keep is None else self._of(self._data.filter(keep))

    def take(self, rows: np.ndarray) -> Self:
        """Some rows, by numbers or by a boolean mask `[rows]`."""
        import pyarrow as pa

        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return self._of(self._data.take(pa.array(chosen)))

    def with_columns(
        self,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        info: Mapping[str, Any] | None = None,
    ) -> Self:
        """The same rows with further columns, or columns replaced; `info` replaces its own keys."""
        data = self._data
        new = type(self).from_columns(columns).to_arrow() if columns else data
        for name in columns:
            place, column = data.schema.get_field_index(name), new.column(name)
            data = data.append_column(name, column) if place < 0 else (
                data.set_column(place, name, column))  # fmt: skip
        made = self._of(data)
        made._arrays = {name: a for name, a in self._arrays.items() if name not in columns}
        made._info = {**self._info, **json.loads(json.dumps(dict(info or {})))}
        return made

    def head(self, count: int = 5) -> Self:
        """The first rows."""
        return self._of(self._data.slice(0, count))

    def _column(self, name: str) -> pa.ChunkedArray:
        place = self._data.schema.get_field_index(name)
        if place < 0:
            raise unknown_name(f"column of a table of {self.STEM}", name, self.columns)
        return self._data.column(place)

    # -- handing it on ------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:
        """The Arrow table; strings are dictionary-encoded."""
        return self._data

    def to_pandas(self) -> pd.DataFrame:
        """A pandas data frame, text as text and `info` as its `attrs`."""
        frame: pd.DataFrame = self._decoded().to_pandas()
        frame.attrs = self.info
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._decoded().__arrow_c_stream__(requested_schema)

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        return self._decoded().__dataframe__(nan_as_null, allow_copy)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able document: schema, info, rows."""
        return {"schema": self.SCHEMA, "info": self.info, "rows": list(self.rows())}

    def _decoded(self) -> pa.Table:
        """Strings as plain strings, which every reader of Arrow and CSV takes."""
        import pyarrow as pa

        fields = [
            (field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
            for field in self._data.schema
        ]
        return self._data.cast(pa.schema(fields))

    @property
    def plot(self) -> Any:
        """Figures of this table, by name: `table.plot.layers()`, `table.plot.heatmap()` ..."""
        return ACCESSORS["plot"](self)

    def _repr_html_(self) -> str:
        return html_table(self.columns, list(self.head(20).rows()), len(self))

    # -- keeping it ---------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write a `.parquet`, `.csv` or `.json` file, whole or not at all, or into a folder."""
        import pyarrow.csv as pa_csv
        import pyarrow.parquet as pq

        path = Path(path)
        path = path if path.suffix else path / f"{self.STEM}.parquet"
        if path.suffix == ".json":
            return write_json(path, self.to_json())
        if path.suffix not in (".parquet", ".csv"):
            raise UsageError(f"'{path}' is neither .parquet, .csv nor .json")
        header = {"repsim": json.dumps({"schema": self.SCHEMA, "info": self._info})}
        with written_aside(path) as aside:
            if path.suffix == ".csv":
                pa_csv.write_csv(self._decoded(), aside)
            else:
                data = self._data.replace_schema_metadata(header)
                pq.write_table(data, aside, compression="zstd", write_page_checksum=True)
        return path

    def export(
        self, folder: str | Path, formats: Sequence[Format] = ("parquet", "csv", "json")
    ) -> list[Path]:
        """Write a file per format into a folder; return the paths."""
        return [self.save(Path(folder) / f"{self.STEM}.{suffix}") for suffix in formats]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote as parquet; InputError if damaged, of another kind or later."""
        path = Path(path)
        path = path / f"{cls.STEM}.parquet" if path.is_dir() else path
        arrow = read_parquet(path, hint=cls.HINT)
        written = str(read_header(arrow).get("schema"))
        if written in cls.UPGRADES:
            arrow = cls.UPGRADES[written](arrow)
        elif written != cls.SCHEMA:
            raise _other_schema(path, written, cls)
        return cls((), read_header(arrow).get("info"))._of(cls._shaped(arrow))


def read_header(arrow: pa.Table) -> dict[str, Any]:
    """What `Table.save` wrote beside the columns: schema and info; empty in files of others."""
    return dict(json.loads((arrow.schema.metadata or {}).get(b"repsim", b"{}")))


def read_parquet(path: str | Path, *, hint: str | None = None) -> pa.Table:
    """Read a parquet file, checksums included."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist", hint=hint) from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is not a readable parquet file: {error}") from error


def _other_schema(path: Path, written: str, kind: type[Table]) -> InputError:
    """Why a stored table cannot be read as this kind."""
    known, _, version = kind.SCHEMA.rpartition("/")
    name, _, other = written.rpartition("/")
    if name == known and other.isdigit() and int(other) > int(version):
        return InputError(
            f"'{path}' was written by a later version of repsim ({written}, known: {kind.SCHEMA})",
            hint="update repsim",
        )
    return InputError(f"'{path}' is not a table of {kind.STEM} (schema {kind.SCHEMA})")


def _plain(value: Any, infinite: bool) -> Any:
    """NaN and numpy scalars as what Arrow and JSON take; infinity only where it is kept."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not infinite)):
        return None
    return value
