"""Models of the hub: what an id names, fetched or looked up in the cache of the hub."""

from __future__ import annotations

from pathlib import Path

from repsim.core.errors import InputError, UsageError
from repsim.models.gguf import PART, SUFFIX, only_one, stem_of
from repsim.models.packages import PACKAGED

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]


def from_hub(name: str, revision: str | None, allow_network: bool) -> tuple[Path, str, str | None]:
    """Folder or GGUF file of "org/name[@revision][:file.gguf]"; id without revision; revision."""
    name, _, file = name.partition(":")
    name, _, stated = name.partition("@")
    if stated and revision and stated != revision:
        raise UsageError(f"model '{name}' is named at revision '{stated}' and at '{revision}'")
    revision = stated or revision
    if file and not file.endswith(SUFFIX):
        raise InputError(
            f"'{file}' of '{name}' is no GGUF file", hint=f"{name}, or {name}:FILE.gguf"
        )
    folder = _snapshot(name, revision, file, allow_network)
    if not file and allow_network and not any(folder.glob("*.safetensors")):
        file = _only_gguf(name, revision)
        folder = _snapshot(name, revision, file, allow_network) if file else folder
    if file and not (folder / file).is_file():
        there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
        raise InputError(
            f"'{name}' holds no file '{file}'"
            + ("" if allow_network else " in the local hub cache"),
            hint=f"GGUF files that are here: {', '.join(there) or 'none'}",
        )
    return folder / file, f"{name}:{file}" if file else name, revision


def short_name(name: str, revision: str | None) -> str:
    """What to call a model of the hub: the last part of its id, or its file, and its revision."""
    name, _, file = name.partition(":")
    short = stem_of(Path(file)) if file else name.rpartition("/")[2]
    return short + (f"@{revision}" if revision else "")


def _snapshot(name: str, revision: str | None, file: str, allow_network: bool) -> Path:
    """Folder in the cache with the files of a model, or with one GGUF file in all its parts."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [PART.sub(rf"\g<stem>-?????-of-\g<count>{SUFFIX}", file)] if file else _FILES
    try:
        return Path(
            snapshot_download(
                name, revision=revision, local_files_only=not allow_network, allow_patterns=wanted
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if allow_network:
            where = "cannot be had from the hub"
            hint = f"{type(error).__name__}: check name, revision and connection"
        else:
            where = "is not in the local hub cache"
            hint = "check the path, or allow a download with allow_network=True (--allow-network)"
        what = f"its revision '{revision}' " if revision else ""
        raise InputError(
            f"model '{name}' is no folder and no packaged model ({', '.join(PACKAGED)}), "
            f"and {what}{where}",
            hint=_in_cache(name) + hint,
        ) from None


def _only_gguf(name: str, revision: str | None) -> str:
    """The GGUF file of a repository that holds one; empty if it holds none."""
    from huggingface_hub import HfApi

    listed = HfApi().list_repo_files(name, revision=revision)
    found = [Path(file) for file in listed if file.endswith(SUFFIX)]
    return only_one(found, f"'{name}'", f"{name}:{found[0]}").as_posix() if found else ""


def _in_cache(name: str) -> str:
    """Says which revisions of a hub id are on this machine; empty if there are none."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return ""
    here = [r for repo in repos if repo.repo_id == name for r in repo.revisions]
    known = sorted({text for r in here for text in (r.refs or {r.commit_hash})})
    return f"here are its revisions {', '.join(known[:8])}; " if known else ""
