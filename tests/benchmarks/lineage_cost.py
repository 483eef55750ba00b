"""What lineage reads of two checkpoints of 7B parameters.

    OMP_NUM_THREADS=1 python tests/benchmarks/lineage_cost.py --write

Two checkpoints of the shape of a 7B Llama (32 blocks, bfloat16, 13.5 GB each) are laid out as
sparse files: headers, holes, and random values where lineage is going to look (a few megabytes).
Both are of no common origin, so that units are looked for in another order too, the longest way.
What was read is counted as lineage states it, and as pages of both files that are in the page cache
afterwards, with what the system read ahead; before each run they are dropped from it.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from similarity_grids import arguments, finish
from weight_features import WHOLE, drop_from_cache, shapes

from repsim.merging.ancestry import QUICK, check_lineage
from repsim.merging.arrays import narrow
from repsim.merging.checkpoint import Checkpoint
from repsim.merging.lineage import lineage
from repsim.merging.pair_readings import samples_of

DEFAULT = 300.0


def write_sparse(folder: Path) -> None:
    """A checkpoint of holes."""
    folder.mkdir()
    header, end = {}, 0
    for tensor, shape in shapes(WHOLE):
        size = 2 * int(np.prod(shape))
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as handle:
        handle.write(struct.pack("<Q", len(text)) + text)
        handle.truncate(8 + len(text) + end)


def fill(folders: list[Path], megabytes: float) -> None:
    """Random values where lineage looks at a budget."""
    sources = [Checkpoint(folder) for folder in folders]
    rng = np.random.default_rng(0)
    for sample in samples_of(*sources, megabytes):
        for source, folder in zip(sources, folders, strict=True):
            with (folder / "model.safetensors").open("r+b") as handle:
                for band in sample.bands:
                    count = (band.stop - band.start) * sample.columns
                    drawn = 0.02 * rng.standard_normal(count, np.float32)
                    handle.seek(
                        source._places[sample.tensor].start + 2 * band.start * sample.columns
                    )
                    handle.write(narrow(drawn, "BF16")[0].tobytes())


def cached_megabytes(folders: list[Path]) -> float:
    """Pages of the files that are in the page cache."""
    import ctypes

    libc, total = ctypes.CDLL(None, use_errno=True), 0
    for folder in folders:
        with (folder / "model.safetensors").open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
                pages = -(-size // mmap.PAGESIZE)
                held = (ctypes.c_ubyte * pages)()
                start = ctypes.c_char.from_buffer(mapped)
                libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), held)
                total += int((np.frombuffer(held, np.uint8) & 1).sum())
                del start
    return total * mmap.PAGESIZE / 1e6


def main() -> None:
    """Measure, print, and with `--write` keep the table."""
    given = arguments(__doc__, "where checkpoints are written (120 MB)").parse_args()
    lines = ["| who | budget, MB | told | stated, MB | in the page cache, MB | CPU s | wall s |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for who, budget in (("check, merge, predict", QUICK), ("lineage", DEFAULT)):
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folders = [Path(name) / model for model in "ab"]
            for folder in folders:
                write_sparse(folder)
            fill(folders, budget)
            os.sync()
            drop_from_cache(folders)
            before = cached_megabytes(folders)
            wall, cpu = time.perf_counter(), time.process_time()
            if who == "lineage":
                (row,) = lineage(folders, max_megabytes=budget).rows()
                told, stated = str(row["relation"]), f"{row['megabytes']:.0f}"
            else:
                told, stated = check_lineage(folders)[0].level, "–"
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            pages = cached_megabytes(folders) - before
            lines.append(f"| {who} | {budget:g} | {told} | {stated} | {pages:.0f} | {cpu:.1f} | "
                         f"{wall:.1f} |")  # fmt: skip
    size = 2 * sum(int(np.prod(shape)) for _, shape in shapes(WHOLE)) / 1e9
    finish(f"Two checkpoints of {size:.1f} GB; ", lines, "lineage-cost", keep=given.write)


if __name__ == "__main__":
    main()
