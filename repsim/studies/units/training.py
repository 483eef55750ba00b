"""Unit `pretrain`: one model of a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repsim.core.errors import ResourceError

if TYPE_CHECKING:
    from repsim.studies.engine.workspace import Workspace


def pretrain_unit(
    spec: Mapping[str, Any], needs: Mapping[str, Any], workspace: Workspace
) -> dict[str, Any]:
    """Train one run of a family; its trunk is there already."""
    from repsim.pretraining.config import from_mapping
    from repsim.pretraining.folder import read_provenance

    family, _, run = spec["model"].partition("/")
    how = spec["how"]
    config = from_mapping(how["family"])
    if trunk := how.get("trunk"):
        workspace.fetch(f"models/{trunk}")
    folder = workspace.folder(f"models/{family}")
    workspace.log(f"training {spec['model']}")
    if how.get("processes", 1) > 1:
        _with_torchrun(how, folder, run)
    else:
        from repsim.pretraining import pretrain

        pretrain(config, folder, only=[run], device=how.get("device"))
    provenance = read_provenance(folder / run)
    assert provenance is not None
    for about_files in ("files", "metrics", "sha256"):
        provenance.pop(about_files, None)
    workspace.publish(folder / run, f"models/{spec['model']}")
    return {"model": spec["model"], "arm": spec["arm"], "provenance": provenance}


def _with_torchrun(how: Mapping[str, Any], folder: Any, run: str) -> None:
    """Several processes on one machine train one model together."""
    import subprocess
    import sys

    import yaml

    from repsim.core.files import write_text

    file = write_text(folder / f".{run}.yaml", yaml.safe_dump(dict(how["family"])))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={how['processes']}", "-m", "repsim.pretraining", str(file),
        "-o", str(folder), "--only", run,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResourceError(
            f"training of '{run}' by {how['processes']} processes ended with code "
            f"{done.returncode}: {done.stderr[-2000:]}"
        )
