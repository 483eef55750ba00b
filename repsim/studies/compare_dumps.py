"""Activations that are there already compared: arrays at hand, or files of other tools."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from repsim.activations.readers import DumpWarning, read_dump
from repsim.core import Activations, InputError, Measure, RunFolder, SimilarityTable, UsageError
from repsim.core.activations import ArraySource
from repsim.core.provenance import environment
from repsim.measures import Statistics, sweep
from repsim.measures.limits import HELD_BYTES
from repsim.measures.plan import Layers
from repsim.studies.compare import DEFAULT_MEASURES, extraction_facts, written_up

#: Bytes of layers that are held where a side lies in files: all of it then stays under 1 GB.
HELD_OF_FILES = 256 << 20


def compare_arrays(
    arrays: Mapping[str, Any],
    measures: Sequence[str | Measure] = ("cka",),
    *,
    names: Sequence[str] | None = None,
    documents: Sequence[str] = (),
    layers: Layers = "all",
    permutations: int = 100,
    level: float = 0.95,
    self_pairs: bool = False,
    seed: int = 0,
    device: str | None = None,
    workers: int = 1,
    memory: int | None = None,
) -> SimilarityTable:
    """Compare activations from anywhere: arrays or dumps in, a table with full statistics out.

    Nothing is invented: language, hook point and partial value are null unless a dump states them.
    One model alone is compared with itself, layer x layer. Dumps are read layer by layer, in
    blocks; where they hold token ids, rows of one tokenizer must hold the same ones.

    Args:
        arrays: Model -> its layers, each `[n, d]` (numpy or torch), or the path of a dump (see
            `repsim.activations.readers.read_dump`), or `Activations`; row i is the same sentence
            (or image, or stimulus) in all of them.
        measures: Names, aliases or measures.
        names: Name of each row; else those that a dump states, else their numbers.
        documents: Document of each row, `[n]`: they are then the unit of nulls and intervals; else
            those that a dump states.
        layers: "all" layer pairs, or those of "matched" depth.
        permutations: Shuffles of the null; 0 for no null and no intervals.
        level: Nominal coverage of the intervals.
        self_pairs: Also each model with itself, layer x layer.
        seed: Seed of shuffles and groups.
        device: Where to compute.
        workers: Processes; 0 for as many as there are cores.
        memory: Bytes of layers that are held; what is beyond is read again whenever it is needed.
            Default: 256 MiB where a side is a dump, 2 GiB for arrays that are at hand.

    Returns:
        The table; `.plot` draws it, `.to_report(folder)` writes it up.

    Raises:
        UsageError: Unknown measures, no model, a manifest that says what is not possible.
        InputError: Arrays that are malformed, not finite, of different numbers of rows or of other
            token ids; a dump that cannot be read.

    Warns:
        DumpWarning: What was assumed of a dump; no row of two dumps holds the same token ids.

    Example:
        >>> import numpy as np, tempfile
        >>> x = np.random.default_rng(0).normal(size=(60, 8))
        >>> file = Path(tempfile.mkdtemp()) / "b.npz"
        >>> np.savez(file, layer_0=2 * x)
        >>> table = compare_arrays({"a": [x, x**2], "b": file}, ["cka"], permutations=19)
        >>> table.grid("a", "b", measure="cka").values.round(3)[0].tolist()
        [1.0]
    """
    sides = [_side(name, own) for name, own in arrays.items()]
    for pair in itertools.combinations(sides, 2):
        _require_same_tokens(*pair)
    points = {point for side in sides for point in side.points}
    sides = [_renamed(side, point=len(points) == 1) for side in sides]
    sides = _one_text(sides, names, tuple(map(str, documents)))
    statistics = Statistics(permutations=permutations, level=level, covariates=(), seed=seed)
    if not permutations:
        statistics = dataclasses.replace(Statistics.off(), seed=seed)
    from_files = any("dump" in side.info for side in sides)
    table = sweep(
        sides, measures, layers=layers, point=points.pop() if len(points) == 1 else "",
        pairings=("same text", "parallel text", "parallel text across models"),
        statistics=statistics, self_pairs=self_pairs or len(sides) == 1, device=device,
        workers=workers, memory=memory or (HELD_OF_FILES if from_files else HELD_BYTES),
    )  # fmt: skip
    facts = extraction_facts([side for side in sides if side.info])
    called = {s.model.name: s.info["layer_names"] for s in sides if "layer_names" in s.info}
    info = {**table.info, "environment": environment()}
    info |= {key: own for key, own in (("extraction", facts), ("layer_names", called)) if own}
    return SimilarityTable(table.to_arrow(), info)


def _side(name: str, own: Any) -> Activations:
    """One side, from whatever holds it, under the name that it is given."""
    if isinstance(own, str | Path):
        return read_dump(own, name)
    if isinstance(own, Activations):
        return dataclasses.replace(own, model=dataclasses.replace(own.model, name=name))
    return Activations.from_arrays(name, list(own))


def _require_same_tokens(a: Activations, b: Activations) -> None:
    """Rows of two dumps hold the same token ids, or their manifests say why not."""
    first, second = (side.info.get("token_ids") for side in (a, b))
    if not first or not second or first == second or len(first) != len(second):
        return
    stated = [[side.info["tokenizer"] for side in (a, b)], [side.language for side in (a, b)]]
    if any(x and y and x != y for x, y in stated):
        return
    names = f"'{a.model.name}' and '{b.model.name}'"
    hint = ("name the tokenizers in both manifests if they differ, else put files into the same "
            "order (files: [...])")  # fmt: skip
    if set(first) & set(second) or all(stated[0]):  # of one tokenizer, in both manifests
        odd = next(i for i, own in enumerate(first) if own != second[i])
        raise InputError(f"{names} hold other token ids, first in sentence {odd}", hint=hint)
    warnings.warn(f"no sentence of {names} has the same token ids in both: other tokenizers, or "
                  f"other text; {hint}", DumpWarning, stacklevel=3)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _AnyPoint:
    """A source whose hook point goes by no name, since the sides call theirs differently."""

    source: ArraySource
    point: str

    def read(self, point: str, layer: int) -> Any:
        """The array of a layer."""
        return self.source.read(self.point, layer)


def _renamed(side: Activations, *, point: bool) -> Activations:
    """A side with one hook point; its name is kept where all sides share it."""
    if len(side.points) > 1:
        raise UsageError(
            f"'{side.model.name}' holds several hook points: {', '.join(side.points)}",
            hint="extract one, or name it in a manifest",
        )
    own = side.points[0]
    if point or not own:
        return side
    return dataclasses.replace(
        side, layers={"": side.layers[own]}, source=_AnyPoint(side.source, own)
    )


def _one_text(
    sides: Sequence[Activations], names: Sequence[str] | None, documents: tuple[str, ...]
) -> list[Activations]:
    """Sides with the names and documents that are given, or that one of them states for all."""
    for what, given in (("names", names), ("documents", documents)):
        for side in sides:
            if given is not None and len(given) and len(given) != len(side):
                rows = f"'{side.model.name}' has {len(side)} rows"
                raise InputError(f"{rows} and {len(given)} {what}")
    stated = next((s.ids for s in sides if s.ids != tuple(map(str, range(len(s))))), None)
    grouped = next((s.documents for s in sides if s.documents), ())
    found = []
    for side in sides:
        unnamed = stated and side.ids == tuple(map(str, range(len(side))))
        ids = tuple(names) if names is not None else stated if unnamed else side.ids
        own = documents or side.documents or grouped
        if not documents and grouped and own != grouped:
            raise InputError(
                f"'{side.model.name}' and another side put rows into different documents",
                hint="documents=[...] for all, or one list in the manifests",
            )
        if len(ids or ()) != len(side) or (own and len(own) != len(side)):
            found.append(side)  # of another number of rows: refused with both numbers
            continue
        found.append(dataclasses.replace(side, ids=tuple(ids or ()), documents=own))
    return found


def run_comparison_of_dumps(
    dumps: Mapping[str, Path],
    out: Path | None = None,
    *,
    force: bool = False,
    say: Callable[[str, str], None] = lambda label, text: None,
    measures: Sequence[str] = DEFAULT_MEASURES,
    layers: str = "auto",
    **options: Any,
) -> SimilarityTable:
    """Compare dumps by `compare_arrays`, whose options these are; write table and report."""
    config = {"dumps": {name: str(path) for name, path in dumps.items()},
              "measures": list(measures), "layers": layers,
              **{key: own for key, own in options.items() if key != "memory"}}  # fmt: skip
    sides: dict[str, Activations] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("always", DumpWarning)
        warnings.showwarning = lambda message, *_: say("note", str(message))
        for name, path in dumps.items():
            sides[name] = own = read_dump(path, name)
            point, numbers = next(iter(own.layers.items()))
            say("read", f"{name}: {len(own)} rows, {len(numbers)} layers of "
                f"'{point or 'unnamed'}' ({own.info['policy']})")  # fmt: skip
            if left := own.info["left_out"]:
                shown = ", ".join(left[:4]) + (" ..." if len(left) > 4 else "")
                say("note", f"{name}: left out {len(left)} other arrays: {shown}")
        run = RunFolder.open(out, kind="compare", config=config, force=force) if out else None
        with run.going() if run else contextlib.nullcontext():
            table = compare_arrays(
                sides, measures, layers=cast("Layers", layers), workers=0, **options
            )
    return written_up(table, run, say)
