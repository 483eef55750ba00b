"""Which families were verified, with which versions: a file that the contract tests write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repsim.core.errors import InputError
from repsim.core.files import read_json
from repsim.models.arch import ARCHITECTURES

REGISTER = Path(__file__).with_name("verified.json")


def verified_families() -> dict[str, Any]:
    """`versions` of the libraries, and `families`: one dictionary per kind of model."""
    document = read_json(REGISTER)
    if not isinstance(document, dict) or not {"versions", "families"} <= document.keys():
        raise InputError(
            f"'{REGISTER}' is not a register of families",
            hint="write it again: python -m repsim.testing.family_register",
        )
    return document


def family_table() -> list[dict[str, Any]]:
    """The register as rows, with families that other packages add, which it says nothing of."""
    register = verified_families()
    versions = ", ".join(f"{name} {version}" for name, version in register["versions"].items())
    rows = [{**row, "verified with": versions} for row in register["families"]]
    known = {row["family"] for row in rows}
    unknown = "not verified: run repsim.testing.check_arch and check_symmetries on a model"
    for name in ARCHITECTURES:
        if name not in known:
            spec = ARCHITECTURES[name]
            rows += [
                {"family": spec.name, "model_type": model_type, "variant": "", "classes": [],
                 "points": list(spec.points), "verified with": unknown}
                for model_type in spec.model_types
            ]  # fmt: skip
    return rows
