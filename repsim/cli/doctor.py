"""`repsim doctor`: what this installation can do, and what stands in its way."""

from __future__ import annotations

import importlib.metadata
import shutil

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, size


@click.command()
@opt.as_json
def doctor(as_json: bool) -> None:
    """Check versions, device, cache and name clashes; leaves with 0 if all is well, else 3."""
    findings = [*_versions(), *_device(), _cache(), _name_clash(), *_extras()]
    fine = all(finding["state"] != "problem" for finding in findings)
    print_either(as_json, {"ok": fine, "findings": findings}, findings)
    if not fine:
        raise click.exceptions.Exit(3)


Finding = dict[str, str]


def _versions() -> list[Finding]:
    from repsim.core.provenance import versions

    return [{"what": name, "state": "ok", "detail": v} for name, v in versions().items()]


def _device() -> list[Finding]:
    import torch

    found = [{"what": "cpu", "state": "ok", "detail": f"{torch.get_num_threads()} threads"}]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            detail = f"{properties.name}, {size(properties.total_memory)}"
            found.append({"what": f"cuda:{index}", "state": "ok", "detail": detail})
    else:
        found.append({"what": "cuda", "state": "none", "detail": "no GPU: everything runs on CPU"})
    return found


def _cache() -> Finding:
    from repsim.core.files import cache_folder

    folder = cache_folder()
    used = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    state = "ok" if free > 2e9 else "problem"
    detail = f"{folder}: {size(used)} used, {size(free)} free on the disk"
    return {"what": "cache", "state": state, "detail": detail}


def _name_clash() -> Finding:
    """Other distributions install a package of the same import name."""
    owners = importlib.metadata.packages_distributions().get("repsim", [])
    others = sorted({name for name in owners if name.lower() not in {"repsim-lm", "repsim_lm"}})
    if others:
        detail = f"'{others[0]}' also installs a package named repsim: uninstall one of the two"
        return {"what": "import name", "state": "problem", "detail": detail}
    return {"what": "import name", "state": "ok", "detail": "repsim is this project's"}


def _extras() -> list[Finding]:
    from repsim.core.provenance import version_of

    found = []
    for extra, distribution in (("hub", "datasets"), ("tensorboard", "tensorboard")):
        version = version_of(distribution)
        detail = f"{distribution} {version}" if version else f"needs {distribution}"
        found.append(
            {"what": f"extra {extra}", "state": "ok" if version else "none", "detail": detail}
        )
    return found
