"""What memory a comparison of dumps of 10 GB takes.

    OMP_NUM_THREADS=1 python tests/benchmarks/dump_memory.py --write

Two dumps of random float32 numbers, no holes, 10 GB together, are compared in a process of its own
whose peak of resident memory is measured (mapped pages and imports included): once states of
tokens, which are pooled while they are read, once long arrays of rows, of which few are held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from similarity_grids import arguments, finish

from repsim.core.files import write_text

#: Name -> shape of a layer, layers of either side, and options of `compare_arrays`.
KINDS = {
    "tokens": ((3_700, 64, 768), 7, {"measures": ["cka", "mutual_knn"], "permutations": 19}),
    "rows": ((100_000, 512), 25, {"measures": ["cka"], "layers": "matched", "permutations": 19}),
}
COMPARE = """
import json, resource, sys
import repsim
sides, options = json.loads(sys.argv[1])
table = repsim.compare_arrays(sides, **options)
table.to_report(sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF)
print(len(table), used.ru_maxrss / 1024, used.ru_utime + used.ru_stime)
"""


def write_dump(folder: Path, shape: Sequence[int], layers: int, seed: int) -> Path:
    """A folder of one file a layer, drawn and written in blocks."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for layer in range(layers):
        with (folder / f"layer_{layer:02d}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in np.array_split(np.arange(shape[0]), 64):
                rng.standard_normal((len(rows), *shape[1:]), np.float32).tofile(file)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if len(shape) == 3:
        lengths = rng.integers(shape[1] // 2, shape[1] + 1, shape[0]).tolist()
        told = {"axes": ["row", "token", "unit"], "lengths": lengths}
        write_text(folder / "manifest.json", json.dumps(told))
    return folder


def measure(kind: str, folder: Path, layers: int | None) -> str:
    """A line of the table."""
    shape, most, options = KINDS[kind]
    layers = layers or most
    sides = {name: str(write_dump(folder / name, shape, layers, seed))
             for seed, name in enumerate("ab")}  # fmt: skip
    size = sum(file.stat().st_size for name in "ab" for file in (folder / name).iterdir())
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, json.dumps([sides, options]), str(folder / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    rows, peak, seconds = map(float, done.stdout.split())
    named = ", ".join(options["measures"])
    return (f"| {kind} | {list(shape)} | {layers} | {size / 1e9:.1f} | {named} | {rows:.0f} | "
            f"**{peak:.0f}** | {seconds:.0f} |")  # fmt: skip


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    parser = arguments(__doc__, "where the dumps are written (11 GB)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--layers", type=int, help="of a side, in place of 10 GB of them")
    given = parser.parse_args()
    lines = ["| dump | a layer | layers a side | both, GB | measures | values | peak MiB | CPU s |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for kind in given.kinds:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            lines.append(measure(kind, Path(name), given.layers))
            sys.stderr.write(f"{lines[-1]}\n")
    finish("", lines, "dump-memory", keep=given.write)


if __name__ == "__main__":
    main()
