"""What the arrays of a dump are: their hook points, layers and axes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from repsim.activations.readers.formats import FORMATS, StoredArray, format_of, stored_arrays
from repsim.activations.readers.manifest import Manifest
from repsim.activations.readers.names import BESIDE, axes_of, is_batch, point_and_layer
from repsim.core.errors import InputError, UsageError, unknown_name


@dataclasses.dataclass(frozen=True)
class Part:
    """One file of a dump that is read as one, or several files of which each is a layer."""

    path: Path
    arrays: Mapping[str, StoredArray]


@dataclasses.dataclass(frozen=True)
class Layer:
    """Where one layer lies in every part: the name of an array, and a place on its layer axis."""

    key: str
    place: int | None
    axes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layers of the hook point that was chosen, and what was assumed of them."""

    point: str
    layers: Mapping[int, Layer]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def by_token(self) -> bool:
        """Whether tokens are still to be pooled."""
        return any("token" in layer.axes for layer in self.layers.values())


def parts_of(path: Path, manifest: Manifest) -> list[Part]:
    """The files of a dump, in the natural order of their names."""
    if not path.is_dir() or path.suffix.lower() == ".zarr":
        return [Part(path, stored_arrays(path))]
    files = sorted((file for file in path.iterdir() if format_of(file)), key=_natural)
    if isinstance(manifest.files, tuple):
        files = [path / name for name in manifest.files]
    if not files:
        raise InputError(
            f"folder '{path}' holds no file of arrays",
            hint=f"known: {', '.join(end for one in FORMATS for end in one.suffixes)}",
        )
    as_layers = manifest.files == "layers"
    if not manifest.files:
        as_layers = all(file.suffix.lower() == ".npy" for file in files)
    if as_layers:
        arrays = {}
        for file in files:
            found = stored_arrays(file)
            if len(found) > 1:
                raise InputError(f"'{file}' holds {len(found)} arrays, where a layer was expected",
                                 hint="files: rows, in the manifest")  # fmt: skip
            arrays[file.stem] = next(iter(found.values()))
        return [Part(path, arrays)]
    return [Part(file, stored_arrays(file)) for file in files]


def layout_of(path: Path, parts: list[Part], manifest: Manifest) -> Layout:
    """Which arrays are layers of which hook point, by names and manifest."""
    first = parts[0].arrays
    beside = {*BESIDE, manifest.mask}
    if isinstance(manifest.lengths, str):
        beside.add(manifest.lengths)
    arrays = {key: one for key, one in first.items() if key not in beside and len(one.shape) > 1}
    if not arrays:
        shapes = {key: list(one.shape) for key, one in first.items()}
        raise InputError(
            f"'{path}' holds no layer: {shapes}", hint="layers are arrays with [rows, units]"
        )
    grouped = _grouped(path, arrays, manifest)
    point = _chosen(path, grouped, manifest.point)
    layers: dict[int, Layer] = {}
    for number, key in grouped[point].items():
        axes = _axes(path, key, first, manifest, several=len(parts) > 1)
        if "layer" in axes:
            count = first[key].shape[axes.index("layer")]
            for place, own in enumerate(_numbers(path, count, manifest, starting=number)):
                layers[own] = Layer(key, place, axes)
        else:
            layers[number] = Layer(key, None, axes)
    used = {layer.key for layer in layers.values()}
    for part in parts[1:]:
        if missing := used - set(part.arrays):
            raise InputError(f"'{part.path}' lacks '{min(missing)}', which '{parts[0].path}' holds")
    notes = _assumed(layers, first, manifest)
    return Layout(point, dict(sorted(layers.items())), tuple(sorted(set(arrays) - used)), notes)


def _assumed(
    layers: Mapping[int, Layer], arrays: Mapping[str, StoredArray], manifest: Manifest
) -> tuple[str, ...]:
    """What a reader must know of axes that nothing states."""
    for layer in layers.values():
        guessed = not manifest.axes and not axes_of(arrays[layer.key].axes)
        if guessed and layer.axes == ("row", "unit") and is_batch(layer.key):
            return (f"'{layer.key}' has no token axis: its rows are taken for sentences; if the "
                    "batch axis was dropped they are tokens of one: axes: [token, unit], in a "
                    "manifest",)  # fmt: skip
    return ()


def _grouped(
    path: Path, arrays: Mapping[str, StoredArray], manifest: Manifest
) -> dict[str, dict[int, str]]:
    """Hook point -> layer -> array. Names that no tool uses count in their order, if alone."""
    if isinstance(manifest.layers, Mapping):
        if missing := [key for key in manifest.layers if key not in arrays]:
            raise unknown_name(f"array of '{path}'", missing[0], arrays)
        return {manifest.point: {number: key for key, number in manifest.layers.items()}}
    found: dict[str, dict[int, str]] = {}
    places = {key: point_and_layer(key) for key in arrays}
    # A point of which two names speak (the input of a block is the output of the one before) is
    # taken from the outputs.
    for key in sorted(places, key=lambda key: key.endswith("_pre")):
        if (place := places[key]) is not None:
            found.setdefault(place[0], {}).setdefault(place[1], key)
    if set(found) == {""}:
        found = {manifest.point: found[""]}
    if not found:
        ordered = dict(enumerate(sorted(arrays, key=lambda key: _natural(Path(key)))))
        single = len(ordered) == 1 and "hidden_states" in arrays
        found = {"resid" if single else manifest.point: ordered}
    if manifest.layers and all(len(arrays[key].shape) < 3 for keys in found.values()
                               for key in keys.values()):  # fmt: skip
        found = {point: dict(zip(_numbers(path, len(keys), manifest, starting=0),
                                 [key for _, key in sorted(keys.items())], strict=True))
                 for point, keys in found.items()}  # fmt: skip
    return found


def _chosen(path: Path, grouped: Mapping[str, object], wanted: str) -> str:
    if wanted and wanted in grouped:
        return wanted
    if wanted:
        raise unknown_name(f"hook point of '{path}'", wanted, grouped)
    if "resid" in grouped or len(grouped) == 1:
        return "resid" if "resid" in grouped else next(iter(grouped))
    raise UsageError(
        f"'{path}' holds several hook points: {', '.join(sorted(grouped))}",
        hint="point: NAME, in the manifest",
    )


def _axes(
    path: Path, key: str, arrays: Mapping[str, StoredArray], manifest: Manifest, *, several: bool
) -> tuple[str, ...]:
    """Axes of an array: by the manifest, by the file, by the tool whose names they are."""
    array = arrays[key]
    axes: tuple[str, ...] = manifest.axes or axes_of(array.axes)
    if not axes and key == "hidden_states" and "token_ids" in arrays:  # vLLM
        axes = ("token", "layer", "unit")[:: 2 if len(array.shape) == 2 else 1]
    if not axes and len(array.shape) == 3 and is_batch(key):
        axes = ("row", "token", "unit")
    if not axes and len(array.shape) == 2:
        # One cache for each file, its batch axis removed: a file is a sentence.
        sentence = several and is_batch(key)
        ragged = bool(manifest.lengths) and manifest.lengths != "full"
        axes = ("token", "unit") if sentence or ragged else ("row", "unit")
    if not axes:
        raise InputError(
            f"'{path}': what are the {len(array.shape)} axes of '{key}', {list(array.shape)}?",
            hint="in a manifest beside it: axes: [row, token, unit], [layer, row, unit], ...",
        )
    if len(axes) != len(array.shape) or "unit" not in axes or len({"row", "token"} & set(axes)) < 1:
        raise InputError(
            f"'{path}': axes {list(axes)} do not fit '{key}', {list(array.shape)}",
            hint="one name for each axis: unit, row or token or both, and layer if there is one",
        )
    return axes


def _numbers(path: Path, count: int, manifest: Manifest, *, starting: int) -> tuple[int, ...]:
    """Numbers of the layers along an axis or in order."""
    if isinstance(manifest.layers, tuple) and manifest.layers:
        if len(manifest.layers) != count or len(set(manifest.layers)) != count:
            raise UsageError(
                f"the manifest of '{path}' numbers {len(manifest.layers)} layers, it holds {count}",
                hint="one number for each, none twice",
            )
        return manifest.layers
    return tuple(range(starting, starting + count))


def _natural(path: Path) -> tuple[tuple[int, int, str], ...]:
    """`part-2` before `part-10`."""
    pieces = re.findall(r"\d+|\D+", path.name)
    return tuple((0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces)
