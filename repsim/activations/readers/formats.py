"""File formats of arrays: each lists the arrays of a file and reads blocks of them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
import pickle  # noqa: TID251  # the error that torch and numpy raise where a file holds objects
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repsim.activations.store import opened
from repsim.core.errors import InputError, unknown_name

Index = tuple[slice | int, ...]


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """One array of a file, read in blocks."""

    shape: tuple[int, ...]  # Its shape
    #: Gives the block at an index of slices and whole numbers, in the file's own type or in float32
    #: where numpy has no such type.
    read: Callable[[Index], np.ndarray]
    axes: tuple[str, ...] = ()  # What the file calls its axes, where it names them


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format: what is added here is read everywhere."""

    name: str  # For messages
    suffixes: tuple[str, ...]  # Ends of file names, in lower case
    arrays: Callable[[Path], dict[str, StoredArray]]  # Lists the arrays of a file, reading none
    library: str = ""  # Package that it needs beyond those that are always there


# -- numpy ---------------------------------------------------------------------------------------


def _npy(path: Path) -> dict[str, StoredArray]:
    with path.open("rb") as file:
        return {"0": _in_file(path, file, 0)}  # as of a single tensor of torch


def _npz(path: Path) -> dict[str, StoredArray]:
    found = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            key = member.filename.removesuffix(".npy")
            if member.compress_type == zipfile.ZIP_STORED:
                # Behind the local header: 30 bytes, the name and an extra field.
                file.seek(member.header_offset + 26)
                name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
                found[key] = _in_file(path, file, member.header_offset + 30 + name + extra, key)
            else:
                with archive.open(member) as inside:
                    shape, _, dtype = _numpy_header(inside, path, key)
                _require_numbers(dtype, path, key)
                found[key] = StoredArray(shape, functools.partial(_unpacked, path, key))
    return found


def _unpacked(path: Path, key: str, index: Index) -> np.ndarray:
    """A block of a compressed array: the whole of it is unpacked each time."""
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])[index]


def _in_file(path: Path, file: Any, start: int, key: str = "") -> StoredArray:
    """The array whose `.npy` header stands at `start` of a file, mapped when it is read."""
    file.seek(start)
    shape, fortran, dtype = _numpy_header(file, path, key)
    _require_numbers(dtype, path, key)
    offset = file.tell()
    order: Literal["C", "F"] = "F" if fortran else "C"
    if offset + dtype.itemsize * math.prod(shape) > path.stat().st_size:
        raise InputError(f"'{path}' is cut off: it holds less than its header states")

    def read(index: Index) -> np.ndarray:
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)[index]
        mapped = np.memmap(path, dtype, "r", offset, shape, order)
        return np.array(mapped[index])

    return StoredArray(shape, read)


def _numpy_header(file: Any, path: Path, key: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    versions = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(file)
        if version not in versions:
            raise InputError(f"'{path}' has an unknown version of the .npy format: {version}")
        return versions[version](file)
    except ValueError as error:
        raise InputError(f"'{path}' {key} is no array of numpy: {error}") from None


def _require_numbers(dtype: np.dtype, path: Path, key: str) -> None:
    if dtype.hasobject:
        raise _pickled(path, key)
    if dtype.kind not in "fiub":
        raise InputError(f"'{path}' {key} holds {dtype}, no real numbers".replace("  ", " "))


def _pickled(path: Path, key: str = "") -> InputError:
    where = f"'{path}'" + (f", array '{key}'," if key else "")
    return InputError(
        f"{where} holds pickled objects, which may run code when they are loaded: not read",
        hint="save plain tensors in the tool that made it: safetensors.torch.save_file("
        "{name: tensor.contiguous() ...}, 'dump.safetensors'); of a TransformerLens cache, its "
        "cache_dict",
    )


# -- torch and safetensors -----------------------------------------------------------------------


def _torch(path: Path) -> dict[str, StoredArray]:
    return {key: StoredArray(tuple(tensor.shape), functools.partial(_torch_block, path, key))
            for key, tensor in _tensors(_loaded(path))}  # fmt: skip


def _torch_block(path: Path, key: str, index: Index) -> np.ndarray:
    return _numbers(dict(_tensors(_loaded(path)))[key][index])


def _numbers(tensor: Any) -> np.ndarray:
    """A copy as numpy has it."""
    block = tensor.float() if tensor.is_floating_point() else tensor
    return np.array(block.detach().numpy())


def _loaded(path: Path) -> Any:
    """Tensors of a `.pt` file, mapped; nothing but tensors and plain containers is let in."""
    import torch

    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        raise _pickled(path) from None
    except RuntimeError as error:
        raise InputError(
            f"'{path}' cannot be mapped as a file of torch: {str(error).splitlines()[0]}",
            hint="save it again with torch.save of today, or with safetensors",
        ) from None


def _tensors(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Tensors inside dictionaries, lists and tuples, by the path to them."""
    import torch

    if isinstance(value, torch.Tensor):
        yield key or "0", value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _tensors(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _tensors(inner, f"{key}.{place}" if key else str(place))


def _safetensors(path: Path) -> dict[str, StoredArray]:
    with opened(path) as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return {key: StoredArray(shape, functools.partial(_safetensors_block, path, key))
            for key, shape in shapes.items()}  # fmt: skip


def _safetensors_block(path: Path, key: str, index: Index) -> np.ndarray:
    with opened(path) as file:
        # Whole numbers are taken as slices of one, and dropped afterwards.
        slices = tuple(slice(i, i + 1) if isinstance(i, int) else i for i in index)
        tensor = file.get_slice(key)[slices]
        return _numbers(tensor[tuple(0 if isinstance(i, int) else slice(None) for i in index)])


# -- HDF5, netCDF and zarr -----------------------------------------------------------------------


def _hdf5(path: Path) -> dict[str, StoredArray]:
    import h5py

    found: dict[str, StoredArray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and item.ndim:
            labels = tuple(str(axis.label or "") for axis in item.dims)
            read = functools.partial(_hdf5_block, path, name)
            found[name] = StoredArray(tuple(item.shape), read, labels)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _hdf5_block(path: Path, name: str, index: Index) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
        return np.asarray(file[name][index])


def _xarray(path: Path) -> dict[str, StoredArray]:
    found = {}
    with _dataset(path) as data:
        for name, variable in data.variables.items():
            if variable.dtype.kind in "fiub" and variable.ndim:
                axes, shape = tuple(map(str, variable.dims)), tuple(map(int, variable.shape))
                read = functools.partial(_xarray_block, path, str(name))
                found[str(name)] = StoredArray(shape, read, axes)
    return found


def _xarray_block(path: Path, name: str, index: Index) -> np.ndarray:
    with _dataset(path) as data:
        return np.asarray(data.variables[name][index].values)


def _dataset(path: Path) -> Any:
    import xarray

    # Without `chunks` zarr is read by blocks as well, and dask is not needed.
    return xarray.open_zarr(path, chunks=None, consolidated=None) if path.suffix == ".zarr" else (
        xarray.open_dataset(path)
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("numpy array", (".npy",), _npy),
    Format("numpy archive", (".npz",), _npz),
    Format("torch file", (".pt", ".pth", ".bin"), _torch),
    Format("safetensors", (".safetensors",), _safetensors),
    Format("HDF5", (".h5", ".hdf5", ".he5"), _hdf5, "h5py"),
    Format("netCDF", (".nc",), _xarray, "xarray"),
    Format("zarr", (".zarr",), _xarray, "zarr"),
)


def format_of(path: Path) -> Format | None:
    """The format of a file by the end of its name."""
    return next((one for one in FORMATS if path.suffix.lower() in one.suffixes), None)


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """The arrays of one file, by name, none of them read yet."""
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="a file of arrays, or a folder of them")
    if path.suffix.lower() in (".pkl", ".pickle", ".joblib"):
        raise _pickled(path)
    kind = format_of(path)
    if kind is None:
        known = [suffix for one in FORMATS for suffix in one.suffixes]
        raise unknown_name("format", path.suffix or path.name, known, error=InputError)
    if kind.library:
        _require(kind)
    try:
        found = kind.arrays(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InputError(f"'{path}' cannot be read as {kind.name}: {error}") from error
    if not found:
        raise InputError(f"'{path}' holds no array of numbers")
    return found


def _require(kind: Format) -> None:
    for library in dict.fromkeys((kind.library, "xarray" if kind.name == "zarr" else kind.library)):
        try:
            importlib.import_module(library)
        except ImportError:
            raise InputError(
                f"{kind.name} needs the package '{library}', which is not installed",
                hint=f"pip install {library}",
            ) from None
