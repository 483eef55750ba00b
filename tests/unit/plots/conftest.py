"""Synthetic tables that several tests read."""

from __future__ import annotations

import pytest

from repsim.core.similarity_table import COLUMNS, SimilarityTable
from repsim.testing.tables import synthetic_table

ROLES = {
    "mono-en": "monolingual",
    "mono-fi": "monolingual",
    "mixed": "mixed",
    "merged-linear": "merged",
}


@pytest.fixture(scope="session")
def two_encoders():
    """Two models of 12 and 6 layers, six languages, a measure or two of each rung."""
    return synthetic_table()


@pytest.fixture(scope="session")
def four_roles():
    """Four models of equal depth with roles, two languages."""
    return synthetic_table(
        dict.fromkeys(ROLES, 6), roles=ROLES, languages=("eng_Latn", "fin_Latn"), measures=("cka",)
    )


@pytest.fixture
def table_of():
    """A table from rows that state only what matters."""

    def build(rows, measures=None, **info):
        plain = {
            "model_a": "a", "model_b": "b", "language_a": "eng_Latn", "language_b": "eng_Latn",
            "layer_a": 0, "layer_b": 0, "point": "resid", "pairing": "same text", "measure": "cka",
            "params": "{}", "n": 100, "seed": 0, "note": "",
        }  # fmt: skip
        declared = measures or {
            "cka": {"label": "CKA", "rung": "L2", "direction": "similarity", "range": [None, 1.0],
                    "identity_value": 1.0, "symmetric": True},
        }  # fmt: skip
        full = [dict.fromkeys(COLUMNS) | plain | row for row in rows]
        return SimilarityTable(full, {"measures": declared, **info})

    return build
