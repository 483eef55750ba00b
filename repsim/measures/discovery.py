"""False discovery rate over a whole table: Benjamini and Hochberg (1995)."""

from __future__ import annotations

import numpy as np

from repsim.core import SimilarityTable

#: What is said of the family that `q_value` is taken over.
FAMILY = (
    "q_value: Benjamini-Hochberg over all tested cells of one measure in this table (layer pairs x "
    "languages x pairs of models x pairings)."
)


def with_q_values(table: SimilarityTable) -> SimilarityTable:
    """The table with `q_value`: each p against all tested cells of the same measure.

    The cells depend on each other; under positive dependence the rate is kept (Benjamini and
    Yekutieli 2001). With B shuffles no p is under 1 / (B + 1), so few true effects among many
    cells need more shuffles to be found.

    Example:
        >>> rows = [{"measure": "cka", "value": 0.5, "p_value": p} for p in (0.01, 0.02, 0.9)]
        >>> with_q_values(SimilarityTable(rows)).column("q_value").round(3).tolist()
        [0.03, 0.03, 0.9]
    """
    import pyarrow as pa
    from scipy.stats import false_discovery_control

    p, measures = table.column("p_value"), table.column("measure")
    q = np.full(len(p), np.nan)
    for measure in set(measures):
        family = (measures == measure) & np.isfinite(p)
        if family.any():
            q[family] = false_discovery_control(p[family])
    arrow, info = table.to_arrow(), table.info
    place = arrow.column_names.index("q_value")
    arrow = arrow.set_column(place, "q_value", pa.array(q, from_pandas=True))
    if np.isfinite(q).any():
        stated = info.get("statistics", {})
        info["statistics"] = {
            **stated, "family": FAMILY,
            "description": f"{stated.get('description', '')} {FAMILY}".strip(),
        }  # fmt: skip
    return SimilarityTable(arrow, info)
