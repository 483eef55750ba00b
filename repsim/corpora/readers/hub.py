"""Hugging Face data sets: from the hub, from its cache on this machine, or from a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError, UsageError, optional, unknown_name
from repsim.corpora.languages import choose_languages, parse_language
from repsim.corpora.readers.joined import Record, join_records, record_of
from repsim.corpora.rows import ParallelRows, Request

_TEXT_FIELDS = ("text", "sentence")
# Columns by which FLORES+ says which language a row is in.
_LANGUAGE_FIELDS = ("iso_639_3", "iso_15924")
_FIXED = ("id", "document", "url", "URL")
_LOCATION = re.compile(r"(?P<name>[^#@]+)(?:#(?P<config>[^@]+))?(?:@(?P<revision>.+))?")


@dataclasses.dataclass(frozen=True)
class HubAddress:
    """A data set, one of its configurations, and a revision (branch, tag or commit)."""

    name: str
    config: str | None = None
    revision: str | None = None

    @classmethod
    def parse(cls, location: str) -> HubAddress:
        """Read NAME[#CONFIG][@REVISION]."""
        match = _LOCATION.fullmatch(location.strip())
        if match is None:
            raise UsageError(
                f"'{location}' names no data set", hint="write hub:OWNER/NAME[#CONFIG][@REVISION]"
            )
        return cls(**match.groupdict())

    @property
    def is_local(self) -> bool:
        """Whether it is a folder on this machine."""
        return Path(self.name).is_dir()

    def __str__(self) -> str:
        config = f"#{self.config}" if self.config else ""
        return f"{self.name}{config}" + (f"@{self.revision}" if self.revision else "")


def read_hub(request: Request) -> ParallelRows:
    """Read a data set in one of the shapes that parallel text has on the hub."""
    address = HubAddress.parse(request.location)
    datasets = optional("datasets", "a Hugging Face data set", "repsim-lm[hub]")
    with _network(datasets, allowed=request.allow_network):
        configs = _language_configs(datasets, address, request)
        if configs:
            chosen = choose_languages(request.languages, configs, where=f"'{address}'")
            tables = {
                label: _splits(datasets, dataclasses.replace(address, config=code), request)
                for label, code in chosen.items()
            }
            parts = _parts_per_config(tables, address)
        else:
            loaded = _splits(datasets, address, request)
            tables = {"": loaded}
            parts = {s: _parts_of_one(t, request, address) for s, t in loaded.items()}
    rows = join_records(parts, source=_describe(address, tables))
    if address.revision and not address.is_local and not request.allow_network:
        rows.notes.append(f"read from the cache: whether it is {address.revision} was not checked")
    return rows


@contextlib.contextmanager
def _network(datasets: Any, *, allowed: bool) -> Iterator[None]:
    """Forbid `datasets` and `huggingface_hub` the network while the block runs."""
    import huggingface_hub

    switches: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in switches]
    try:
        if not allowed:
            for module in switches:
                module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switches, before, strict=True):
            module.HF_HUB_OFFLINE = value


@contextlib.contextmanager
def _readable(datasets: Any, address: HubAddress, *, allow_network: bool) -> Iterator[None]:
    """Say what the errors of `datasets` mean."""
    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # No network and no such data set are OSErrors; anything else lies in the data set itself.
        if address.is_local or not isinstance(error, OSError):
            reason = error.__cause__ or error
            raise InputError(f"data set '{address}' cannot be read: {reason}") from error
        if allow_network:
            raise ResourceError(f"data set '{address}' cannot be fetched: {error}") from error
        raise ResourceError(
            f"data set '{address}' is not on this machine, and nothing may be fetched",
            hint="allow it: load_corpus(..., allow_network=True), or --allow-network",
        ) from error


def _is_saved(address: HubAddress) -> bool:
    folder = Path(address.name)
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _language_configs(datasets: Any, address: HubAddress, request: Request) -> list[str]:
    """Configurations that are languages, if the data set is divided so and none was named."""
    if address.config is not None or _is_saved(address):
        return []
    if address.is_local or request.allow_network:
        with _readable(datasets, address, allow_network=request.allow_network):
            names = datasets.get_dataset_config_names(address.name, revision=address.revision)
    else:
        names = _cached_configs(datasets, address)
    codes = [name for name in names if parse_language(name) is not None]
    if len(names) > 1 and not codes:
        raise UsageError(
            f"data set '{address}' has {len(names)} configurations and none is chosen",
            hint=f"write hub:{address.name}#CONFIG; for example {', '.join(sorted(names)[:8])}",
        )
    return codes


def _cached_configs(datasets: Any, address: HubAddress) -> list[str]:
    """Configurations in the cache; without network `datasets` itself only names 'default'."""
    owner, _, name = address.name.rpartition("/")
    folder = datasets.naming.camelcase_to_snakecase(name)
    root = Path(datasets.config.HF_DATASETS_CACHE) / (f"{owner}___{folder}" if owner else folder)
    return sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _splits(datasets: Any, address: HubAddress, request: Request) -> dict[str, Any]:
    """Split -> data set; only the one that was asked for."""
    with _readable(datasets, address, allow_network=request.allow_network):
        if _is_saved(address):
            loaded = datasets.load_from_disk(address.name)
        elif address.is_local:
            # The library's cache does not notice when files of a local folder change.
            with tempfile.TemporaryDirectory() as cache:
                loaded = datasets.load_dataset(
                    address.name, address.config, cache_dir=cache, keep_in_memory=True
                )
        else:
            loaded = datasets.load_dataset(address.name, address.config, revision=address.revision)
    splits = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    if request.split is None:
        return splits
    if request.split not in splits:
        raise unknown_name(f"split of '{address}'", request.split, splits)
    return {request.split: splits[request.split]}


def _parts_per_config(
    tables: Mapping[str, Mapping[str, Any]], address: HubAddress
) -> dict[str, dict[str, list[Record]]]:
    """Split -> label -> records, from one data set per language."""
    names = list(dict.fromkeys(split for table in tables.values() for split in table))
    parts: dict[str, dict[str, list[Record]]] = {}
    for split in names:
        parts[split] = {}
        for label, table in tables.items():
            if split not in table:
                raise InputError(
                    f"data set '{address}': {label} has no split '{split}'",
                    hint="choose a split that every language has",
                )
            parts[split][label] = _plain_records(table[split], f"data set '{address}', {label}")
    return parts


def _plain_records(table: Any, where: str) -> list[Record]:
    field = next((name for name in _TEXT_FIELDS if name in table.column_names), None)
    if field is None:
        raise InputError(
            f"{where}: no column of text",
            hint=f"expected one of {', '.join(_TEXT_FIELDS)}; has {', '.join(table.column_names)}",
        )
    rows = _rows(table, [field])
    return [record_of(row, f"{where}, row {i}", field) for i, row in enumerate(rows, start=1)]


def _parts_of_one(table: Any, request: Request, address: HubAddress) -> dict[str, list[Record]]:
    """Label -> records, from one data set that holds all languages."""
    where = f"data set '{address}'"
    names = table.column_names
    if all(name in names for name in (*_LANGUAGE_FIELDS, "text", "id")):
        return _long_records(table, request, where)
    if "translation" in names:
        rows = _rows(table, ["translation"])
        wide = [row | (row["translation"] or {}) for row in rows]
        available = list(dict.fromkeys(k for row in rows for k in (row["translation"] or {})))
    else:
        available = [name for name in names if name not in _FIXED and parse_language(name)]
        wide = _rows(table, available)
    if not available:
        raise InputError(
            f"{where} is in no shape that is known for parallel text",
            hint="expected a column 'translation', a column per language, or a configuration per "
            f"language; has {', '.join(names)}",
        )
    languages = choose_languages(request.languages, available, where=where)
    return {
        label: [
            record_of({**row, code: row.get(code)}, f"{where}, row {i}", code)
            for i, row in enumerate(wide, start=1)
        ]
        for label, code in languages.items()
    }


def _long_records(table: Any, request: Request, where: str) -> dict[str, list[Record]]:
    rows = _rows(table, [*_LANGUAGE_FIELDS, "text"])
    codes = [f"{row['iso_639_3']}_{row['iso_15924']}" for row in rows]
    available = list(dict.fromkeys(codes))
    languages = choose_languages(request.languages, available, where=where)
    labels = {code: label for label, code in languages.items()}
    records: dict[str, list[Record]] = {label: [] for label in languages}
    for i, (row, code) in enumerate(zip(rows, codes, strict=True), start=1):
        if code in labels:
            records[labels[code]].append(record_of(row, f"{where}, row {i}"))
    return records


def _rows(table: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the named columns and of those that say what a row is."""
    wanted = [*columns, *(name for name in _FIXED if name in table.column_names)]
    return list(table.select_columns(wanted).to_list())


def _describe(address: HubAddress, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Name, and the licence that the data set states of itself."""
    first = next(iter(next(iter(tables.values())).values()))
    licence = getattr(first.info, "license", "") or "not stated in the data set"
    return f"Hugging Face data set {address}; licence: {licence}"
