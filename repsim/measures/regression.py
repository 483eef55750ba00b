"""Linear predictability: how much of one representation can be read out of the other?"""

from __future__ import annotations

from repsim.core.errors import UsageError
from repsim.core.measure import Rung
from repsim.measures.base import ORTHOGONAL, PERMUTATION, SCALING, TRANSLATION, measure
from repsim.measures.features import Features


@measure(
    name="r2",
    label="Linear R²",
    rung=Rung.L3,
    direction="similarity",
    range=(0.0, 1.0),
    invariances=(TRANSLATION, SCALING, PERMUTATION, ORTHOGONAL),
    min_samples=3,
    definition="Share of the variance of X (first argument) that linear regression on Y explains: "
    "||Q_Y' X||_F^2 / ||X||_F^2, Q_Y an orthonormal basis of Y's columns; centered, "
    "in-sample. Blind to every invertible map of Y, to rotations of X.",
    reference="Kornblith, Norouzi, Lee, Hinton 2019, arXiv:1905.00414, section 4",
    estimator="biased upwards: rank(Y)/(n-1) on independent data, and 1 when n <= d.",
    symmetric=False,
    aliases={"linreg_r2_x_from_y": {}},
    max_width_ratio=0.5,
)
def r2(x: Features, y: Features) -> float:
    """In-sample R² of X regressed on Y."""
    u, s, _ = x.svd
    explained = (y.svd[0].mT @ u) * s
    return float(explained.square().sum() / s.square().sum())


@measure(
    name="gulp",
    label="GULP",
    rung=Rung.L3,
    direction="distance",
    range=(0.0, None),
    invariances=(TRANSLATION, SCALING, PERMUTATION, ORTHOGONAL),
    min_samples=3,
    definition="Squared GULP distance: largest gap between ridge predictions from X and from Y "
    "over all targets; tr over covariances with the inverse (S + ridge I)^-1, arrays "
    "centered and scaled to ||X||_F = sqrt(n). ridge=0 uses the pseudo-inverse on the "
    "rank.",
    reference="Boix-Adserà, Lawrence, Stepaniants, Rigollet 2022, arXiv:2210.06545",
    estimator="grows with the rank at ridge 0; the paper's distance is its square root.",
    aliases={"gulp_sq_lambda0": {"ridge": 0.0}, "gulp_sq_lambda0.01": {"ridge": 0.01}},
)
def gulp(x: Features, y: Features, *, ridge: float = 0.01) -> float:
    """Squared GULP distance."""
    if ridge < 0:
        raise UsageError(f"ridge={ridge} is not possible", hint="use 0 or more")
    sides = []
    for side in (x, y):
        u, s, _ = side.svd
        variance = s.square() / s.square().sum()
        sides.append((u, variance / (variance + ridge)))
    (ux, wx), (uy, wy) = sides
    cross = wx @ (ux.mT @ uy).square() @ wy
    return max(0.0, float(wx @ wx + wy @ wy - 2 * cross))
