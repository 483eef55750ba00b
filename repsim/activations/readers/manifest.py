"""The manifest of a dump: what the file does not say of itself, in YAML or JSON beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from repsim.core.config import Config, Switch, Whole, load, parse
from repsim.core.errors import InputError

Axis = Literal["row", "token", "layer", "unit"]


class Manifest(Config):
    """What a dump of activations does not say of itself; every field may be left out.

    Attributes:
        model: Name of the model.
        language: Language of the sentences.
        tokenizer: Name of the tokenizer: sides that name others may differ in their token ids.
        point: Hook point to take where the dump holds several ("resid", "attn", "mlp", ...).
        layers: Numbers of the layers, in the order of the layer axis or of the arrays; or array ->
            number. 0 is the embedding, i the output of block i.
        axes: What each axis of an array is: row (sentence), token, layer, unit.
        files: Of a folder: whether its files are "layers", or hold "rows" each; or the names of
            files in the order of their rows. Without it files follow in natural order.
        names: Name of each row, or a text file with one a line.
        documents: Document of each row, or a text file with one a line.
        lengths: Tokens of each row, or the array that holds them. Of `[row, token, unit]` the
            first so many count; of `[token, unit]` they say where sentences end; "full": no pads.
        mask: The array `[row, token]` that is 0 where there is padding.
        special_ids: Token ids that are left out (BOS, EOS), where the file holds `token_ids`.
        skip_first: Whether the first token is to be left out, or has "already" been.
        pooling: How tokens become a row, or became one.

    Example:
        >>> parse(Manifest, {"model": "org/name", "axes": ["layer", "row", "unit"]}).axes
        ('layer', 'row', 'unit')
    """

    model: str = ""
    language: str = ""
    tokenizer: str = ""
    point: str = ""
    layers: tuple[Whole, ...] | Mapping[str, Whole] = ()
    axes: tuple[Axis, ...] = ()
    files: Literal["", "layers", "rows"] | tuple[str, ...] = ""
    names: tuple[str, ...] | str = ()
    documents: tuple[str, ...] | str = ()
    lengths: tuple[Whole, ...] | str = ()
    mask: str = ""
    special_ids: tuple[Whole, ...] = ()
    skip_first: Switch | Literal["already"] = True
    pooling: Literal["mean", "last", "position-weighted", "tokens"] = "mean"


def manifest_of(path: Path, given: Manifest | Mapping[str, Any] | str | Path | None) -> Manifest:
    """The manifest given, or beside a dump (`NAME.yaml`, `manifest.yaml`), or an empty one."""
    if isinstance(given, Manifest):
        return given
    if isinstance(given, Mapping):
        return parse(Manifest, given, "manifest")
    if given is not None:
        return load(Manifest, given, "manifest")
    ends = (".yaml", ".yml", ".json")
    inside = [path / f"manifest{end}" for end in ends]
    beside = [path.with_name(name + end) for name in (path.name, path.stem) for end in ends]
    for place in [*(inside if path.is_dir() else []), *beside]:
        if place.is_file():
            return load(Manifest, place, "manifest")
    return Manifest()


def lines(value: tuple[str, ...] | str, path: Path, what: str) -> tuple[str, ...]:
    """A list of the manifest, or the lines of the text file that it names beside the dump."""
    if not isinstance(value, str):
        return value
    file = (path if path.is_dir() else path.parent) / value
    if not file.is_file():
        raise InputError(
            f"the {what} of '{path}' are to stand in '{file}', which does not exist",
            hint="a list, or a text file beside the dump with one a line",
        )
    return tuple(file.read_text("utf-8").splitlines())
