"""Tables that somebody else wrote: CSV, plain or compressed, and parquet."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from repsim.core.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Ending of a compressed file -> what opens it.
_PACKED: dict[str, Callable[[Path], IO[bytes] | Any]] = {
    ".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open,
}  # fmt: skip


def read_table_file(path: str | Path) -> pa.Table:
    """Read `.csv`, `.csv.xz`, `.csv.gz`, `.csv.bz2` or `.parquet`."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    path = Path(path)
    packed = path.suffix in _PACKED
    kind = path.with_suffix("").suffix if packed else path.suffix
    if kind not in (".csv", ".parquet") or (packed and kind != ".csv"):
        raise InputError(
            f"'{path}' is neither .csv nor .parquet (.csv may be packed: .xz, .gz, .bz2)"
        )
    try:
        if kind == ".parquet":
            table = pq.read_table(path)
        elif packed:
            with _PACKED[path.suffix](path) as stream:
                table = pa_csv.read_csv(stream)
        else:
            table = pa_csv.read_csv(path)
        names = table.column_names  # which may be no text at all
    except FileNotFoundError:
        raise InputError(f"'{path}' does not exist") from None
    except (pa.ArrowException, ValueError, OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"'{path}' has two columns '{twice}'", hint="rename one of them")
    if not table.num_rows:
        raise InputError(f"'{path}' holds no rows")
    return table
